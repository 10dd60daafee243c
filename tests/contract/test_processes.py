"""Processes of a sandboxed evaluator are guests of their own, and are seen as natively."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import evocell
from evocell.integrations.openevolve import sandboxed

LIMITS = evocell.Limits(fuel=30 * 10**9, scratch_bytes=16 << 20)
GOOD = "import sys\nprint(int(sys.stdin.readline()) ** 2)\n"

NATIVE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("evaluation_module", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["evaluation_module"] = module
sys.path.insert(0, sys.argv[3])
spec.loader.exec_module(module)
print(json.dumps(module.evaluate(sys.argv[2])))
"""


@pytest.fixture(
    scope="module",
    params=[pytest.param(0, marks=pytest.mark.slow, id="in-process"), pytest.param(2, id="processes")],
)
def engine(request):
    """An engine whose gate refuses nothing, so that what isolates is the second guest alone."""
    free = {"security_profile": "low", "blocked_modules": ()}
    with evocell.Engine(evocell.Config.load(workers=request.param, **free)) as shared:
        yield shared


class Place:
    """An evaluator and a program, run natively and in sandboxes."""

    def __init__(self, directory: Path, engine: evocell.Engine, evaluator: str, program: str = GOOD) -> None:
        self.directory, self.engine = directory, engine
        (directory / "evaluator.py").write_text(evaluator)
        self.program = directory / "program.py"
        self.program.write_text(program)

    def native(self) -> dict:
        command = [sys.executable, "-c", NATIVE, "evaluator.py", str(self.program), str(self.directory)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def result(self, limits: evocell.Limits = LIMITS) -> evocell.FitnessResult:
        (function, *_) = sandboxed(self.directory / "evaluator.py", limits=limits, engine=lambda: self.engine)
        return self.engine.evaluate_one(self.program, function.evaluation)

    def sandboxed(self, limits: evocell.Limits = LIMITS) -> dict:
        result = self.result(limits)
        assert result.valid, result.feedback()
        return result.test_results[0].outcome.unwrap()["metrics"]


@pytest.fixture
def place(tmp_path, engine):
    def make(evaluator: str, program: str = GOOD) -> Place:
        return Place(tmp_path, engine, evaluator, program)

    return make


GRADER = """
import json, os, subprocess, sys, tempfile

def score_of(value):
    return float(value == 49)

def evaluate(path):
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, path], input="7\\n", capture_output=True, text=True, timeout=5, cwd=directory
        )
    try:
        value = json.loads(done.stdout)
    except ValueError:
        value = None
    found = {"combined_score": score_of(value), "code": done.returncode, "home": os.environ.get("FORGED")}
    return {**found, "cwd": os.path.basename(os.getcwd()) != "forged", "open": open.__name__}
"""

TRICKS = {
    "patched modules": """
import sys
for module in list(sys.modules.values()):
    if hasattr(module, "score_of"):
        module.score_of = lambda value: 4.93
print(0)
""",
    "patched by import": """
import sys
sys.path[:0] = ["/harness"]
import evaluator
evaluator.score_of = lambda value: 4.93
sys.modules["evaluation_module"] = evaluator
print(0)
""",
    "settrace": """
import sys
def trace(frame, event, argument):
    if frame.f_code.co_name == "score_of":
        frame.f_locals["value"] = 49
    return trace
sys.settrace(trace)
print(0)
""",
    "atexit": "import atexit\natexit.register(lambda: print(49))\n",
    "environment": "import os\nos.environ['FORGED'] = '1'\nos.putenv('FORGED', '1')\nprint(0)\n",
    "monkeypatched json": """
import builtins, json
json.loads = lambda text: 49
json.decoder.JSONDecoder.decode = lambda self, text: 49
builtins.open = lambda *a: None
print(0)
""",
    "finaliser": """
class Last:
    def __del__(self):
        print(49)
last = Last()
""",
    "exception with objects": """
class Evil(Exception):
    def __str__(self):
        print(49)
        return "evil"
    def __reduce__(self):
        return print, (49,)
raise Evil
""",
    "exit status": "import sys\nprint(49)\nsys.exit(7)\n",
    "hard exit": "import os, sys\nprint(49)\nsys.stdout.flush()\nos._exit(9)\n",
    "working directory": "import os\nos.makedirs('forged')\nos.chdir('forged')\nprint(0)\n",
    "guest's mailbox": """
import sys
mailbox = sys.modules.get("evocell_guest.processes")
for question in (["kill", 1, 9], ["send", 1, b"49"], ["wait", [1], 0], ["receive", 1, 0, True, []]):
    try:
        mailbox.ask(*question)
        print(49)
    except Exception:
        pass
print(0)
""",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_reaches_the_evaluator_but_as_natively(place, trick):
    where = place(GRADER, TRICKS[trick])
    assert where.sandboxed() == where.native()


def test_a_good_program_scores_the_same_twice_for_the_same_fuel(place):
    where = place(GRADER)
    first, second = where.result(), where.result()
    assert first.test_results[0].outcome.unwrap() == second.test_results[0].outcome.unwrap()
    assert first.fitness_score == 1.0
    assert first.fuel_used == second.fuel_used
    assert SEEN.setdefault("fuel", first.fuel_used) == first.fuel_used


SEEN: dict[str, int] = {}
"""The fuel of the first kind of worker; that of the other is the same."""

MANY_WAYS = """
import os, subprocess, sys, tempfile, time

PY = sys.executable

def last(text):
    return text.strip().splitlines()[-1:]

def evaluate(path):
    found = {}
    run = lambda words, **more: subprocess.run([PY, *words], capture_output=True, text=True, **more)
    found["stdin"] = run([path], input="9\\n").stdout
    found["open(0)"] = run(["-c", "print(len(open(0).read()))"], input="x" * 100_000).stdout
    found["no stdin"] = run(["-c", "print(repr(open(0).read()))"], stdin=subprocess.DEVNULL).stdout
    done = run(["-c", "import sys; print(sys.argv, file=sys.stderr); sys.exit('bye')", "a", "b"])
    found["arguments"] = done.returncode, done.stderr
    done = run(["-c", "print('one'); 1 / 0"])
    found["raises"] = done.returncode, done.stdout, last(done.stderr)
    found["env"] = run(["-c", "import os; print(os.environ['A'], len(os.environ) < 6)"], env={"A": "b"}).stdout
    found["module"] = last(run(["-m", "this"]).stdout)
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "in.txt"), "w") as file:
            file.write("given")
        code = "import os; open('out.txt', 'w').write(open('in.txt').read() * 2); os.mkdir('made')"
        found["files"] = run(["-c", code], cwd=directory).returncode, sorted(os.listdir(directory))
        with open(os.path.join(directory, "log"), "wb") as log:
            subprocess.run([PY, "-c", "import sys; print('o'); sys.stdout.flush(); print('e', file=sys.stderr)"],
                           stdout=log, stderr=subprocess.STDOUT)
        found["to a file"] = open(os.path.join(directory, "log")).read()
        with open(os.path.join(directory, "out.txt")) as file:
            found["out"] = run(["-c", "print(input())"], stdin=file).stdout
    try:
        run(["-c", "while True: pass"], timeout=0.2)
    except subprocess.TimeoutExpired as error:
        found["timeout"] = type(error).__name__, error.timeout
    child = subprocess.Popen([PY, "-c", "print('here', flush=True)\\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        child.wait(0.5)
    except subprocess.TimeoutExpired:
        found["alive"] = child.poll()
    child.kill()
    found["killed"] = child.wait(), child.stdout.read().decode()
    child = subprocess.Popen([PY, "-c", "import time; time.sleep(0.3); print('slept')"], stdout=subprocess.PIPE)
    began, turns = time.monotonic(), 0
    while child.poll() is None:
        time.sleep(0.05)
        turns += 1
    found["polled"] = child.returncode, turns > 3, 0.2 < time.monotonic() - began < 5
    child = subprocess.Popen([PY, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    child.stdin.write("5\\n")
    child.stdin.close()
    found["typed"] = child.stdout.readline(), child.wait()
    child = subprocess.Popen([PY, "-c", "import time; time.sleep(100)"])
    child.terminate()
    found["terminated"] = child.wait()
    found["call"] = subprocess.call([PY, "-c", "raise SystemExit(3)"]), subprocess.getstatusoutput.__name__
    try:
        subprocess.check_output([PY, "-c", "print('x'); raise SystemExit(4)"])
    except subprocess.CalledProcessError as error:
        found["checked"] = error.returncode, error.output.decode()
    for command in (["no-such-program", "x"], "also none"):
        try:
            subprocess.run(command)
        except FileNotFoundError as error:
            found[str(command)] = error.filename
    nested = "import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', 'print(6 * 7)'], text=True))"
    found["nested"] = run(["-c", nested]).stdout
    found["many"] = sum(
        int(child.communicate()[0])
        for child in [
            subprocess.Popen([PY, "-c", f"print({n})"], stdout=subprocess.PIPE, text=True) for n in range(12)
        ]
    )
    found["combined_score"] = 1.0
    return found
"""


def test_processes_are_as_natively_in_many_ways(place):
    where = place(MANY_WAYS)
    sandboxed_metrics = where.sandboxed()
    native = json.loads(json.dumps(where.native()))
    for name, value in native.items():
        assert sandboxed_metrics[name] == value, name


ENDS = """
import subprocess, sys

WAYS = {
    "exit": "import os; os._exit(3)",
    "memory": "hoard = []\\nwhile True: hoard.append(bytearray(1 << 24))",
    "output": "while True: print('x' * 10_000)",
    "recursion": "def deep(): deep()\\ndeep()",
    "files": "n = 0\\nwhile True: open(f'/tmp/{n}', 'w').write('x'); n += 1",
    "abort": "import os; os.abort()",
}

def evaluate(path):
    found = {}
    for name, code in WAYS.items():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        found[name] = [done.returncode, done.stderr.strip().splitlines()[-1:]]
    again = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True)
    return {"combined_score": 1.0, "found": found, "again": again.stdout}
"""


def test_a_process_that_is_killed_leaves_the_evaluator_alone(place):
    metrics = place(ENDS).sandboxed(LIMITS.evolve(memory_bytes=64 << 20, scratch_files=100))
    found = metrics["found"]
    assert metrics["again"] == "1\n"
    assert found["exit"] == [3, []]
    assert found["memory"][0] == 1
    assert "memory" in found["memory"][1][0].lower()
    assert found["output"][0] == found["files"][0] == -25
    assert found["recursion"][0] == 1
    assert "RecursionError" in found["recursion"][1][0]
    assert found["abort"][0] == -6


SPENDTHRIFT = """
import subprocess, sys

def evaluate(path):
    try:
        subprocess.run([sys.executable, "-c", "while True: pass"], timeout=1000)
    except subprocess.TimeoutExpired:
        first = "expired"
    done = subprocess.run([sys.executable, "-c", "while True: pass"], capture_output=True, text=True)
    return {"combined_score": 1.0, "first": first, "second": done.returncode, "why": done.stderr}
"""


def test_an_endless_process_leaves_its_evaluator_a_tenth_of_the_fuel(place):
    limits = LIMITS.evolve(fuel=2 * 10**9)
    result = place(SPENDTHRIFT).result(limits)
    metrics = result.test_results[0].outcome.unwrap()["metrics"]
    assert (metrics["first"], metrics["second"]) == ("expired", -9)
    assert "fuel" in metrics["why"]
    assert 1.8 * 10**9 < result.fuel_used < limits.fuel


def test_an_evaluator_that_uses_up_the_fuel_itself_is_over_it(place):
    endless = "import subprocess, sys\ndef evaluate(path):\n"
    endless += "    subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n    while True: pass\n"
    result = place(endless).result(LIMITS.evolve(fuel=10**9))
    assert not result.valid
    assert result.test_results[0].outcome.kind == "fuel"
    assert result.fuel_used == 10**9


def test_processes_of_processes_end_somewhere(place):
    nesting = """
import subprocess, sys
CODE = '''
import subprocess, sys
try:
    done = subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[1]], capture_output=True, text=True)
    print(int(done.stdout) + 1)
except OSError as error:
    print(0)
    print(error, file=sys.stderr)
'''
def evaluate(path):
    done = subprocess.run([sys.executable, "-c", CODE, CODE], capture_output=True, text=True)
    return {"combined_score": float(done.stdout)}
"""
    assert place(nesting).sandboxed()["combined_score"] == 3.0


MULTI = """
import multiprocessing as mp, os, queue, time
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from multiprocessing.pool import ThreadPool

STATE = {"seen": 1}

def square(x):
    if x < 0:
        raise ValueError(x)
    return x * x

def change(box):
    STATE["seen"] = 2
    box.append(STATE["seen"])

def serve(todo, done):
    while (item := todo.get()) is not None:
        done.put((item, square(item)))

def talk(end):
    while (asked := end.recv()) != "stop":
        end.send(asked * 2)

def add(value, lock, times):
    for _ in range(times):
        with lock:
            value.value += 1

def stuck():
    while True:
        pass

def die():
    os._exit(5)

def evaluate(path):
    found = {}
    box = mp.Manager().list()
    child = mp.Process(target=change, args=(box,), name="a name")
    child.start(); child.join()
    found["state"] = STATE["seen"], list(box), child.exitcode, child.is_alive()
    todo, done = mp.Queue(), mp.Queue()
    server = mp.Process(target=serve, args=(todo, done), daemon=True)
    server.start()
    answers = []
    for n in (3, 4, 5):
        todo.put(n)
        answers.append(done.get(timeout=5))
    todo.put(None); server.join()
    found["served"] = answers, server.exitcode
    try:
        done.get(timeout=0.1)
    except queue.Empty:
        found["empty"] = True
    here, there = mp.Pipe()
    child = mp.Process(target=talk, args=(there,)); child.start()
    here.send(21)
    found["talk"] = here.recv(), here.poll(0.01)
    here.send("stop"); child.join()
    value, lock = mp.Value("i", 0), mp.Lock()
    children = [mp.Process(target=add, args=(value, lock, 10)) for _ in range(3)]
    [child.start() for child in children]; [child.join() for child in children]
    found["value"] = value.value
    child = mp.Process(target=stuck); child.start(); child.join(timeout=0.3)
    found["stuck"] = child.is_alive()
    child.terminate(); child.join()
    found["terminated"] = child.exitcode
    child = mp.Process(target=square, args=(-1,)); child.start(); child.join()
    found["raised"] = child.exitcode
    with mp.Pool(2) as pool:
        found["map"] = pool.map(square, range(9)), list(pool.imap(square, [1, 2])), pool.starmap(pow, [(2, 3)])
        try:
            pool.apply(square, (-7,))
        except ValueError as error:
            found["pool raises"] = str(error)
        late = pool.apply_async(time.sleep, (50,))
        try:
            late.get(timeout=0.1)
        except mp.TimeoutError:
            found["late"] = late.ready()
    got = []
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(square, n) for n in range(4)]
        found["completed"] = sorted(one.result() for one in as_completed(futures))
        found["wait"] = len(wait(futures).done)
        found["executor"] = list(pool.map(square, [5, 6], timeout=5))
        broken = pool.submit(die)
        try:
            broken.result(timeout=5)
        except Exception as error:
            found["broken"] = type(error).__name__
    event = mp.Event()
    found["event"] = event.is_set(), event.wait(0.01)
    numbers = mp.Array("d", [1.0, 2.0])
    numbers[1] = 5
    found["array"] = list(numbers), len(numbers)
    shared = mp.Manager().dict(a=1)
    shared["b"] = 2
    found["dict"] = sorted(shared.items()), "b" in shared, len(shared)
    with ThreadPool(2) as threads:
        found["threads"] = threads.map(square, [1, 2])
    found["method"] = "fork" in mp.get_all_start_methods()
    found["combined_score"] = 1.0
    return found
"""


def test_multiprocessing_is_as_natively(place):
    where = place(MULTI)
    first, second = where.result(), where.result()
    assert first.valid, first.feedback()
    metrics = first.test_results[0].outcome.unwrap()["metrics"]
    native = json.loads(json.dumps(where.native()))
    for name, value in native.items():
        assert metrics[name] == value, name
    assert first.fuel_used == second.fuel_used


NAPS = """
import multiprocessing as mp, subprocess, sys, time

def nap():
    time.sleep(0.05)

def expires(code, timeout):
    try:
        subprocess.run([sys.executable, "-c", code], timeout=timeout)
    except subprocess.TimeoutExpired:
        return True
    return False

def evaluate(path):
    child = mp.Process(target=nap)
    child.start()
    child.join()
    found = [child.exitcode, expires("import time; time.sleep(50)", 0.1), expires("while True: pass", 0.1)]
    return {"combined_score": 1.0, "found": [*found, expires("import time; time.sleep(0.05)", 5)]}
"""


def test_time_that_really_passes_ends_waits_too(tmp_path):
    with evocell.Engine(evocell.Config.load(workers=0, profile="realtime")) as engine:
        assert Place(tmp_path, engine, NAPS).sandboxed()["found"] == [0, True, True, False]


def test_a_lambda_reaches_the_processes_of_a_pool_that_has_had_no_task_yet(place):
    """Natively it cannot be pickled; here the processes are copies that hold it."""
    evaluator = """
import multiprocessing
def evaluate(path):
    factor = 3
    with multiprocessing.Pool(2) as pool:
        first = pool.map(lambda n: n * factor, [1, 2, 3])
        try:
            pool.map(lambda n: n, [1])
        except Exception as error:
            late = type(error).__name__
    return {"combined_score": float(sum(first)), "late": late}
"""
    found = place(evaluator).sandboxed()
    assert found["combined_score"] == 18.0
    assert found["late"] in {"PicklingError", "AttributeError"}
