"""The failure table: what each way to fail looks like, and that it is nobody else's business."""

import pytest

from evocell import Case, Config, Engine, Evaluation, Limits

FUEL = 2_000_000_000
LIMITS = Limits(fuel=FUEL)
HEALTHY = "def fail(): return 'fine'"
COUNTER = "n = 0\ndef bump():\n    global n\n    n += 1\n    return n"

# name: source, kind, whether a fresh fork replaces the session, what the outcome must hold
FAILURES = {
    "syntax": ("def fail(:", "syntax", False, {"line": 1, "path": "program.py"}),
    "blocked import": ("import socket\ndef fail(): pass", "security", False, {"line": 1}),
    "no such entry": ("def other(): pass", "load", False, {}),
    "exception": (
        "def fail():\n    raise ValueError('no')",
        "raised",
        False,
        {"type_name": "ValueError", "message": "no"},
    ),
    "exception at import": ("1 / 0", "raised", False, {"type_name": "ZeroDivisionError"}),
    "system exit": ("def fail(): raise SystemExit(3)", "raised", False, {"type_name": "SystemExit"}),
    "endless loop": ("def fail():\n    while True: pass", "fuel", True, {"limit": FUEL, "reached": FUEL}),
    "endless recursion": ("def fail(): return fail()", "raised", False, {"type_name": "RecursionError"}),
    "memory bomb": (
        "def fail():\n    hoard = []\n    while True: hoard.append(bytearray(1 << 20))",
        "memory",
        True,
        {},
    ),
    "output flood": ("def fail():\n    while True: print('x' * 1000)", "output", True, {"limit": 1 << 20}),
    "huge result": ("def fail(): return b'x' * (32 << 20)", "payload", False, {}),
    "deep result": (
        "def fail():\n    nest = []\n    for _ in range(100): nest = [nest]\n    return nest",
        "payload",
        False,
        {},
    ),
    "unencodable result": (
        "def fail(): return {'a': [1, (i for i in ())]}",
        "raised",
        False,
        {"type_name": "UnencodableResult"},
    ),
    "exit of the process": ("import os\ndef fail(): os._exit(3)", "crashed", True, {"exit_code": 3}),
    "abort": ("import os\ndef fail(): os.abort()", "crashed", True, {}),
}


@pytest.fixture(params=FAILURES.values(), ids=FAILURES.keys())
def failure(request):
    return request.param


def test_the_outcome_is_exact_and_everybody_goes_on(engine, failure):
    source, kind, replaced, attributes = failure
    neighbour = engine.create_sandbox(source=COUNTER)
    with neighbour, engine.create_sandbox(source=source, limits=LIMITS) as sandbox:
        assert neighbour.run("bump").unwrap() == 1
        outcome = sandbox.run("fail")
        assert outcome.kind == kind, outcome
        assert not outcome.ok
        assert outcome.error
        assert outcome.deterministic
        for name, value in attributes.items():
            assert getattr(outcome, name) == value
        state = sandbox.get_info()
        assert state.restart_count == int(replaced)
        assert state.status.value == ("error" if kind in {"syntax", "security"} else "running")

        assert neighbour.run("bump").unwrap() == 2
        assert sandbox.run("fail").kind == kind
        assert sandbox.run("fail", isolation="call") == sandbox.run("fail", isolation="call")
        assert sandbox.hot_reload_source(HEALTHY).ok
        assert sandbox.run("fail").unwrap() == "fine"


def test_a_failed_individual_is_an_invalid_result_among_valid_ones(engine, failure):
    source, kind, _, _ = failure
    task = Evaluation("fail", [Case(expected="fine")], limits=LIMITS)
    first, bad, last = engine.evaluate([HEALTHY, source, HEALTHY], task)
    assert (bad.valid, bad.fitness_score, bad.reason) == (False, 0.0, kind)
    assert bad.error
    assert first.valid
    assert last.valid
    assert first.fitness_score == last.fitness_score == 1.0
    assert first.fuel_used == last.fuel_used


def test_a_traceback_has_the_variants_own_lines_only(engine):
    source = "def helper(x):\n    return 1 / x\n\ndef fail():\n    return helper(0)\n"
    with engine.create_sandbox(source=source) as sandbox:
        text = sandbox.run("fail").traceback
    assert "return 1 / x" in text
    assert "return helper(0)" in text
    assert "/app/program.py" in text
    assert "agent" not in text


def test_the_outside_is_not_there(engine, monkeypatch):
    monkeypatch.setenv("EVOTEST_SECRET", "token")
    source = "import os\ndef environment(): return dict(os.environ)\ndef read(path): return open(path).read()"
    with engine.create_sandbox(source=source) as sandbox:
        environment = sandbox.run("environment").unwrap()
        assert not {"EVOTEST_SECRET", "USER", "PWD"} & set(environment)
        assert environment["HOME"] == "/tmp"
        assert sandbox.run("read", args=("/etc/passwd",)).type_name == "FileNotFoundError"


def test_sleep_returns_at_once_under_the_virtual_clock(engine):
    source = (
        "import time\ndef nap():\n    start = time.monotonic()\n    time.sleep(3600)\n"
        "    return time.monotonic() - start"
    )
    with engine.create_sandbox(source=source) as sandbox:
        assert 3600 <= sandbox.run("nap").unwrap() < 3601


def test_sleep_is_cut_at_the_deadline_under_the_real_clock():
    with Engine(Config.load(profile="realtime")) as engine:
        sandbox = engine.create_sandbox(source="import time\ndef nap(s): time.sleep(s)\n" + COUNTER)
        outcome = sandbox.run_with_timeout("nap", args=(3600,), timeout_s=0.1)
        assert (outcome.kind, outcome.deterministic) == ("timeout", False)
        assert sandbox.run("nap", args=(0.001,)).ok
        assert sandbox.run("bump").unwrap() == 1


def test_a_loop_is_cut_by_wall_clock(engine):
    source = "def spin():\n    while True: pass\n" + COUNTER
    with engine.create_sandbox(source=source) as sandbox:
        timed_out = sandbox.run_with_timeout("spin", timeout_s=0.1)
        assert (timed_out.kind, timed_out.limit, timed_out.deterministic) == ("timeout", 0.1, False)
        overdue = sandbox.run("spin", deadline_s=0.1)
        assert (overdue.kind, overdue.limit, overdue.deterministic) == ("timeout", 0.1, False)
        assert sandbox.get_info().restart_count == 2
        assert sandbox.run("bump").unwrap() == 1
