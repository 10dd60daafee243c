"""The security gate on the real image: what each profile refuses while code runs, and whose code that concerns."""

from __future__ import annotations

import pytest

import evocell
from evocell.models import Completed, Rejected

CASES = [evocell.Case()]

AT_RUN_TIME = {
    "frame by a hidden name": "import sys\ndef f(): return getattr(sys, '_get' + 'frame')()",
    "trace": "import sys\ndef f(): return getattr(sys, 'set' + 'trace')(print)",
    "profile": "import sys\ndef f(): return vars(sys)['setpro' + 'file'](print)",
    "objects of the collector": "import gc\ndef f(): return len(getattr(gc, 'get_' + 'objects')())",
    "referrers": "import gc\ndef f(): return len(getattr(gc, 'get_referr' + 'ers')(f))",
    "another audit hook": "import sys\ndef f(): return getattr(sys, 'addaudit' + 'hook')(print)",
    "a code object": "c = (lambda: 0).__code__\ndef f(): return type(c)(0, 0, 0, 0, 3, 3, b'', (), (), (), '', '', '', 1, b'', b'')",
    "changed code": "def g(): pass\ndef f():\n    setattr(g, '__co' + 'de__', f.__code__)",
    "a blocked module by a hidden name": "def f(): return __import__('sub' + 'process')",
    "a blocked module through importlib": "import importlib\ndef f(): return getattr(importlib, 'import_' + 'module')('sub' + 'process')",
    "through exec": "def f(): exec('import sys; sys.' + '_getframe()')",
    "caught": "import sys\ndef f():\n    try: getattr(sys, '_get' + 'frame')()\n    except BaseException: return 1",
    "while it is imported": "import sys\nx = getattr(sys, '_get' + 'frame')()\ndef f(): pass",
    "in a frame's attribute": "def f():\n    try: 1 / 0\n    except Exception as e: return str(getattr(e.__traceback__, 'tb_' + 'frame'))",
}


def outcome_of(engine, source, entry="f", **options):
    task = evocell.Evaluation(entry, CASES, score=lambda case, value: 1.0, **options)
    result = engine.evaluate_one(source, task)
    return result.test_results[0].outcome if result.test_results else result


@pytest.mark.parametrize("source", AT_RUN_TIME.values(), ids=AT_RUN_TIME.keys())
def test_what_the_text_hides_is_refused_when_it_happens(engine, source):
    outcome = outcome_of(engine, source)

    assert isinstance(outcome, Rejected), outcome
    assert outcome.kind == "security"
    assert "'medium' does not allow" in outcome.message
    assert outcome_of(engine, "def f(): return 7").unwrap() == 7


def test_what_the_library_does_by_itself_is_its_own_business(engine):
    source = """
import collections, dataclasses, inspect, logging, warnings, io, enum
@dataclasses.dataclass(frozen=True)
class P: x: int
T = collections.namedtuple('T', 'a b')
class E(enum.Enum): A = 1
def f():
    warnings.warn('hm')
    logging.getLogger('x').warning('hm')
    return [P(1).x, T(1, 2).b, E.A.value, str(inspect.signature(f))]
"""
    assert outcome_of(engine, source).unwrap() == [1, 2, 1, "()"]


def test_a_harness_may_do_what_its_candidate_may_not(engine):
    harness = "import sys, subprocess\ndef drive():\n    import program\n    return [sys._getframe().f_code.co_name, program.g()]"
    task = {"harness": {"driver.py": harness}}

    assert outcome_of(engine, "def g(): return 3", "driver:drive", **task).unwrap() == ["drive", 3]
    refused = outcome_of(
        engine, "import sys\ndef g(): return getattr(sys, '_get' + 'frame')()", "driver:drive", **task
    )
    assert isinstance(refused, Rejected)


def test_each_sandbox_has_its_own_profile(engine):
    source = (
        "import sys\ndef f(): return getattr(sys, '_get' + 'frame')().f_lineno\ndef g(): return eval('1 + 1')"
    )
    with_low = engine.create_sandbox(source=source, security_profile="low")
    with_default = engine.create_sandbox(source=source)
    with_high = engine.create_sandbox(source=source, security_profile="high")

    assert engine.run(with_low, "f").unwrap() == 2
    assert engine.run(with_default, "f").kind == "security"
    assert engine.run(with_default, "g").unwrap() == 2
    assert engine.get_info(with_high).status == "error"
    assert engine.run(with_high, "g").kind == "security"
    reloaded = engine.hot_reload_source(with_high, "def g(): return [].append(1)\ndef f(): return 5")
    assert isinstance(reloaded, Completed)
    assert engine.run(with_high, "f").unwrap() == 5
    engine.batch_destroy([with_low, with_default, with_high])


@pytest.mark.parametrize(
    "hidden",
    [
        "(lambda: 0).__class__.__name__ and b['op' + 'en']('/app/program.py')",
        "b['ev' + 'al']('1 + 1')",
        "b['ex' + 'ec']('x = 1')",
        "b['comp' + 'ile']('1', 'x', 'eval')",
        "b['__imp' + 'ort__']('glob')",
    ],
)
def test_high_refuses_hidden_ways_too(engine, hidden):
    # numpy's own namespace leads to the built-ins without any name that the tree could show.
    source = (
        f"import numpy.linalg as m\ndef f():\n    b = vars(m)['__buil' + 'tins__']\n    return str({hidden})"
    )
    sandbox = engine.create_sandbox(source=source, security_profile="high")

    outcome = engine.run(sandbox, "f")

    assert (outcome.kind, "'high' does not allow" in (outcome.error or "")) == ("security", True), outcome
    engine.destroy_sandbox(sandbox)


def test_without_enforcement_nothing_is_refused():
    config = evocell.Config.load(workers=0, enforcement_enabled=False, security_profile="high")
    with evocell.Engine(config) as engine:
        assert outcome_of(engine, "import os, sys\ndef f(): return sys._getframe().f_lineno").unwrap() == 2


@pytest.mark.parametrize("profile", ["low", "medium", "high"])
def test_blocked_modules_are_blocked_under_every_profile_and_only_they_are(profile):
    config = evocell.Config.load(workers=0, blocked_modules=["html.parser"], security_profile=profile)
    with evocell.Engine(config) as engine:
        assert outcome_of(engine, "import html.parser\ndef f(): return 1").reason == "security"
        hidden = outcome_of(engine, "def f(): return __builtins__['__import__']('html.' + 'parser')")
        assert (hidden.reason if profile == "high" else hidden.kind) == "security"
        assert outcome_of(engine, "import html\ndef f(): return 1").unwrap() == 1


def test_nothing_of_a_policy_stays_for_the_next_code_in_the_sandbox(engine):
    strict = engine.create_sandbox(source="def f(): return 1")
    assert engine.run(strict, "f").unwrap() == 1
    for _ in range(2):
        assert engine.run(strict, "f").unwrap() == 1
    engine.hot_reload_source(
        strict, "import sys\ndef f(): return getattr(sys, '_get' + 'frame')()", keep_state=True
    )
    assert engine.run(strict, "f").kind == "security"
    engine.hot_reload_source(strict, "def f(): return 2", keep_state=True)
    assert engine.run(strict, "f").unwrap() == 2
    engine.destroy_sandbox(strict)


GUARDED = {
    "at the top": "try:\n    import multiprocessing\n    n = multiprocessing.cpu_count()\nexcept ImportError:\n    n = 1\ndef f(): return n",
    "in the function": "def f():\n    try: import socket\n    except Exception: return 1",
    "by a hidden name": "def f():\n    try: __import__('sub' + 'process')\n    except ImportError: return 1",
    "a submodule": "try:\n    from multiprocessing.pool import Pool\nexcept ModuleNotFoundError:\n    Pool = None\nexcept ImportError:\n    Pool = 1\ndef f(): return Pool",
    "suppressed": "import contextlib\nx = 1\nwith contextlib.suppress(ImportError):\n    import ctypes\n    x = 2\ndef f(): return x",
    "never reached": "def g():\n    import socket\n    return socket\ndef f(): return 1",
    "under the main guard": "def f(): return 1\nif __name__ == '__main__':\n    import subprocess",
}


@pytest.mark.parametrize("source", GUARDED.values(), ids=GUARDED.keys())
@pytest.mark.parametrize("profile", ["low", "medium"])
def test_a_program_goes_on_without_a_module_it_can_do_without(engine, source, profile):
    sandbox = engine.create_sandbox(source=source, security_profile=profile)

    assert engine.run(sandbox, "f").unwrap() == 1
    engine.destroy_sandbox(sandbox)


def test_a_module_of_the_program_that_is_never_imported_does_no_harm(engine):
    files = {"program.py": "def f(): return 1", "server.py": "import socket"}

    assert outcome_of(engine, files).unwrap() == 1
    refused = outcome_of(engine, {**files, "program.py": "def f():\n    import server"})
    assert (refused.kind, "no network" in refused.message) == ("security", True)


def test_an_import_that_is_reached_and_not_guarded_is_refused_with_its_reason(engine):
    refused = outcome_of(engine, "def f():\n    import multiprocessing")

    assert isinstance(refused, Rejected)
    assert refused.kind == "security"
    for part in ("'medium' does not allow", "'multiprocessing'", "no processes", "except ImportError"):
        assert part in refused.message


@pytest.mark.parametrize(
    "source",
    [
        "class M: pass\ndef f():\n    m = M()\n    m.f_code = 7\n    return m.f_code",
        "class M:\n    def __init__(self): self.tb_frame = 7\ndef f(): return M().tb_frame",
        "class M:\n    gi_frame = 7\ndef f(): return getattr(M(), 'gi_frame')",
        "import dataclasses, sys\n@dataclasses.dataclass\nclass M:\n    f_locals: int = 7\ndef f(): return M().f_locals",
    ],
)
def test_attributes_of_ones_own_classes_have_the_names_one_likes(engine, source):
    assert outcome_of(engine, source).unwrap() == 7
