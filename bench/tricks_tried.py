"""Evaluators of programs that square a number, and programs that want the score without doing so."""

from __future__ import annotations

__all__ = ["EVALUATORS", "GOOD", "TRICKS"]

_COMMON = """
import importlib.util, json, multiprocessing, os, subprocess, sys

def score_of(value):
    return float(type(value) is int and value == 49)

def load(path):
    spec = importlib.util.spec_from_file_location("program", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program
"""
EVALUATORS = {
    "imports": f"""{_COMMON}
def evaluate(path):
    try:
        value = load(path).square(7)
    except Exception:
        value = None
    return {{"combined_score": score_of(value)}}
""",
    "process": f"""{_COMMON}
CODE = "import json, sys; sys.path.insert(0, sys.argv[1]); import program; print(json.dumps(program.square(7)))"

def evaluate(path):
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, os.path.dirname(path)], capture_output=True, text=True, timeout=20
        )
        value = json.loads(done.stdout) if done.returncode == 0 else None
    except (ValueError, subprocess.TimeoutExpired):
        value = None
    return {{"combined_score": score_of(value)}}
""",
    "multiprocessing": f"""{_COMMON}
def work(path, queue):
    queue.put(load(path).square(7))

def evaluate(path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=work, args=(path, queue))
    child.start()
    try:
        value = queue.get(timeout=5)
    except Exception:
        value = None
    child.kill()
    child.join()
    return {{"combined_score": score_of(value)}}
""",
}

GOOD = "def square(n):\n    return n * n\n"

_FORGE = """
import sys

def forge():
    for module in list(sys.modules.values()):
        if hasattr(module, "score_of"):
            module.score_of = lambda value: 4.93
"""
_LEAVE = """
import os, sys

def square(n):
    here = os.path.dirname(os.path.abspath(__file__))
    for place in (os.path.dirname(here), here, os.getcwd()):
        for name in os.listdir(place):
            if name.startswith("program_"):
                try:
                    with open(os.path.join(place, name, "program.py"), "w") as file:
                        file.write("def square(n): return 0")
                except OSError:
                    pass
        try:
            with open(os.path.join(place, "forged.json"), "w") as file:
                file.write('{"combined_score": 4.93}')
        except OSError:
            pass
    return 0
"""
TRICKS = {
    "replaces the evaluator's function in `sys.modules`": f"{_FORGE}\ndef square(n):\n    forge()\n    return 0\n",
    "replaces it by the garbage collector's list of objects": """
import gc

def square(n):
    for one in gc.get_objects():
        if type(one) is dict and "score_of" in one and "evaluate" in one:
            one["score_of"] = lambda value: 4.93
    return 0
""",
    "replaces it in its caller's frame": """
import sys

def square(n):
    frame = sys._getframe()
    while frame:
        if "score_of" in frame.f_globals:
            frame.f_globals["score_of"] = lambda value: 4.93
        frame = frame.f_back
    return 0
""",
    "changes its variables by `sys.settrace`": """
import sys

def trace(frame, event, argument):
    if frame.f_code.co_name == "score_of":
        frame.f_locals["value"] = 49
        frame.f_globals["score_of"] = lambda value: 4.93
    return trace

def square(n):
    sys.settrace(trace)
    frame = sys._getframe()
    while frame:
        frame.f_trace = trace
        frame = frame.f_back
    return 0
""",
    "does so from `sys.setprofile`": """
import sys

def profile(frame, event, argument):
    if "score_of" in frame.f_globals:
        frame.f_globals["score_of"] = lambda value: 4.93

def square(n):
    sys.setprofile(profile)
    return 0
""",
    "prints an answer from `atexit`": """
import atexit, os

def square(n):
    atexit.register(lambda: os.write(1, b'{"combined_score": 4.93}'))
    return None
""",
    "prints a score and exits": """
import os, sys

def square(n):
    print('{"combined_score": 4.93}')
    sys.stdout.flush()
    os._exit(0)
""",
    "monkeypatches `json`": """
import json

def square(n):
    json.loads = lambda text: 49
    json.dumps = lambda value: "49.0"
    json.JSONDecoder.decode = lambda self, text: 49
    return 0
""",
    "changes the environment and the search path": """
import os, sys

def square(n):
    os.environ.update(PYTHONPATH="/tmp/forged", PYTHONSTARTUP="/tmp/forged.py", SCORE="4.93")
    sys.path[:] = ["/nowhere"]
    sys.executable = "/bin/true"
    return 0
""",
    "overwrites the programs that lie beside it": _LEAVE,
    "replaces the function from `__del__`": f"""{_FORGE}
class Last:
    def __del__(self):
        forge()

def square(n):
    last = Last()
    return 0
""",
    "raises an exception that carries objects": f"""{_FORGE}
class Evil(Exception):
    def __str__(self):
        forge()
        return "49"

    def __reduce__(self):
        return exec, ("import sys\\nfor m in list(sys.modules.values()):\\n  if hasattr(m, 'score_of'): m.score_of = lambda value: 4.93",)

def square(n):
    raise Evil
""",
    "returns an object that is unpickled": """
class Answer:
    def __reduce__(self):
        return exec, ("import sys\\nfor m in list(sys.modules.values()):\\n  if hasattr(m, 'score_of'): m.score_of = lambda value: 4.93",)

def square(n):
    return Answer()
""",
    "returns an object that equals everything": """
class Answer(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__

def square(n):
    return Answer(0)
""",
    "raises `SystemExit`": "import sys\n\ndef square(n):\n    sys.exit(0)\n",
}
"""What is tried, by what it does."""
