"""The way in which graders of generated code run it: a process, a manager's list, guards, an alarm, a kill.

HumanEval, EvalPlus, APPS and LiveCodeBench all do it so; the harness here is written from what they have in
common.
"""

from __future__ import annotations

import evocell
from evocell.integrations.openevolve import sandboxed

HARNESS = """
import contextlib, faulthandler, io, multiprocessing, os, platform, signal, tempfile

class TimedOut(Exception):
    pass

@contextlib.contextmanager
def limited(seconds):
    def ring(number, frame):
        raise TimedOut("Timed out!")
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

class WriteOnly(io.StringIO):
    def read(self, *args): raise OSError
    def readable(self, *args): return False

class redirect_stdin(contextlib._RedirectStream):
    _stream = "stdin"

def guard(memory=None):
    if memory is not None:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        if platform.uname().system != "Darwin":
            resource.setrlimit(resource.RLIMIT_STACK, (memory, memory))
    faulthandler.disable()
    import builtins, shutil, subprocess
    builtins.exit = builtins.quit = None
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("kill", "system", "putenv", "remove", "rmdir", "fork", "killpg", "rename", "unlink", "getcwd", "chdir"):
        setattr(os, name, None)
    shutil.rmtree = shutil.move = shutil.chown = None
    subprocess.Popen = None
    builtins.help = None
    import sys
    for name in ("ipdb", "joblib", "resource", "psutil", "tkinter"):
        sys.modules[name] = None

def unsafe(program, timeout, result):
    with tempfile.TemporaryDirectory() as directory:
        keep = os.getcwd
        os.chdir(directory)
        import shutil
        rmtree, rmdir, chdir, unlink, remove, getcwd = shutil.rmtree, os.rmdir, os.chdir, os.unlink, os.remove, os.getcwd
        guard(1 << 30)
        try:
            with contextlib.redirect_stdout(WriteOnly()), contextlib.redirect_stderr(WriteOnly()), redirect_stdin(WriteOnly()):
                with limited(timeout):
                    exec(program, {})
            result.append("passed")
        except TimedOut:
            result.append("timed out")
        except BaseException as e:
            result.append(f"failed: {type(e).__name__}")
        shutil.rmtree, os.rmdir, os.chdir, os.unlink, os.remove, os.getcwd = rmtree, rmdir, chdir, unlink, remove, getcwd

def check(program, timeout):
    manager = multiprocessing.Manager()
    result = manager.list()
    process = multiprocessing.Process(target=unsafe, args=(program, timeout, result))
    process.start()
    process.join(timeout=timeout + 1)
    if process.is_alive():
        process.kill()
    if not result:
        result.append("timed out")
    return result[0]

def evaluate(path):
    samples = {"good": "assert 1 + 1 == 2", "bad": "assert 1 + 1 == 3, 'no'", "loop": "while True: pass",
      "swallow": "while True:\\n    try:\\n        while True: pass\\n    except Exception: pass", "exit": "import sys; sys.exit(3)", "hard": "import os; os._exit(3)", "input": "input()",
      "stop": "import os; os.kill(1, 9)", "syntax": "def f(:", "deep": "def f(): f()\\nf()"}
    return {"combined_score": 1.0, **{name: check(text, 0.5) for name, text in samples.items()}}
"""


def test_a_grader_judges_its_samples_as_natively(tmp_path, engine):
    (tmp_path / "evaluator.py").write_text(HARNESS)
    (tmp_path / "program.py").write_text("pass\n")
    limits = evocell.Limits(fuel=60 * 10**9, scratch_bytes=1 << 20)
    (function, *_) = sandboxed(tmp_path / "evaluator.py", limits=limits, engine=lambda: engine)
    results = [engine.evaluate_one(tmp_path / "program.py", function.evaluation) for _ in range(2)]
    assert results[0].valid, results[0].feedback()
    assert results[0].fuel_used == results[1].fuel_used
    metrics = results[0].test_results[0].outcome.unwrap()["metrics"]
    assert metrics == {
        "combined_score": 1.0,
        "good": "passed",
        "bad": "failed: AssertionError",
        "loop": "timed out",
        "swallow": "timed out",
        "exit": "failed: SystemExit",
        "hard": "timed out",
        "input": "failed: EOFError",
        "stop": "failed: TypeError",
        "syntax": "failed: SyntaxError",
        "deep": "failed: RecursionError",
    }
