"""Files as programs expect them, and sentences for what a sandbox has not."""

from __future__ import annotations

import pytest

import evocell
from evocell import Case, Evaluation, Limits

SCRATCH = Limits(scratch_bytes=1 << 20)


@pytest.fixture(scope="module")
def engine():
    with evocell.Engine(evocell.Config.load(workers=1, images="base")) as made:
        yield made


def outcome_of(engine, source, *, limits=None, files=None, args=()):
    sandbox = engine.create_sandbox(source={"program.py": source, **(files or {})})
    outcome = engine.run(sandbox, "f", args=args, limits=limits)
    engine.destroy_sandbox(sandbox)
    return outcome


DATA = {"points.csv": "3,4\n", "data/deep/values.json": "[1, 2]", "array.txt": "1 2 3"}
READS = {
    "open": ("open('points.csv').read()", "3,4\n"),
    "a path": ("pathlib.Path('data/deep/values.json').read_text()", "[1, 2]"),
    "with a dot": ("open('./data/../points.csv').read()", "3,4\n"),
    "os": ("os.path.exists('points.csv') and sorted(os.listdir('data'))", ["deep"]),
    "glob": ("glob.glob('**/*.json', recursive=True)", ["data/deep/values.json"]),
    "numpy": ("np.loadtxt('array.txt').tolist()", [1.0, 2.0, 3.0]),
    "beside the program": ("open(os.path.join(os.path.dirname(__file__), 'points.csv')).read()", "3,4\n"),
    "the directory": ("os.getcwd()", "/app"),
}


@pytest.mark.parametrize("limits", [None, SCRATCH], ids=["without scratch", "with scratch"])
@pytest.mark.parametrize(("expression", "right"), READS.values(), ids=READS.keys())
def test_files_beside_the_program_are_found_by_relative_names(engine, expression, right, limits):
    source = f"import glob, os, pathlib\nimport numpy as np\ndef f(): return {expression}"

    assert outcome_of(engine, source, files=DATA, limits=limits).unwrap() == right


@pytest.mark.parametrize("lines", [0, 3000])
def test_the_line_that_raised_is_shown_and_reading_it_takes_no_memory_of_note(engine, lines):
    """It once took 4 MiB of any program that raised, and a guest that grew cannot be used again."""
    source = "# a line of thirty characters..\n" * lines + "def f(): return 1 / 0\n"

    outcome = outcome_of(engine, source)

    assert f"line {lines + 1}, in f\n    def f(): return 1 / 0\nZeroDivisionError" in outcome.traceback
    assert outcome.peak_memory_bytes < 1 << 20


WRITES = {
    "open": "open('out.txt', 'w').write('x')\n    return open('out.txt').read()",
    "append": "open('out.txt', 'a').write('x')\n    return open('out.txt').read()",
    "a path": "pathlib.Path('out').mkdir()\n    pathlib.Path('out/y').write_text('x')\n    return pathlib.Path('out/y').read_text()",
    "numpy": "np.save('a.npy', np.arange(3))\n    return 'x' * (np.load('a.npy').sum() // 3)",
    "renamed": "open('a', 'w').write('x')\n    os.replace('a', 'b')\n    return open('b').read() if not os.path.exists('a') else ''",
    "removed": "open('a', 'w').write('x')\n    os.remove('a')\n    os.mkdir('d')\n    os.rmdir('d')\n    return 'x' if not os.path.exists('a') and not os.path.exists('d') else ''",
    "sqlite": "import sqlite3\n    c = sqlite3.connect(':memory:')\n    return c.execute(\"select 'x'\").fetchone()[0]",
    "temporary": "import tempfile\n    with tempfile.NamedTemporaryFile('w+') as t:\n        t.write('x'); t.seek(0)\n        return t.read()",
}


@pytest.mark.parametrize("body", WRITES.values(), ids=WRITES.keys())
def test_what_is_written_by_a_relative_name_is_kept_in_scratch_space(engine, body):
    source = f"import os, pathlib\nimport numpy as np\ndef f():\n    {body}"

    assert outcome_of(engine, source, limits=SCRATCH).unwrap() == "x"


@pytest.mark.parametrize("name", ["open", "append", "a path", "numpy", "temporary"])
def test_without_scratch_space_writing_says_what_to_ask_for(engine, name):
    source = f"import os, pathlib\nimport numpy as np\ndef f():\n    {WRITES[name]}"

    outcome = outcome_of(engine, source)

    assert outcome.kind == "raised"
    assert "Limits(scratch_bytes=...)" in outcome.error
    assert "/tmp" in outcome.traceback


def test_the_programs_own_files_stay_as_they_are(engine):
    source = "def f(mode):\n    open('points.csv', mode).write('x')"

    for mode in ("w", "a", "r+"):
        outcome = outcome_of(engine, source, files=DATA, limits=SCRATCH, args=(mode,))
        assert (outcome.kind, outcome.type_name) in {("raised", "OSError"), ("raised", "PermissionError")}
    climbing = "def f(): return open('../tmp/x', 'w').write('x')"
    assert outcome_of(engine, climbing, limits=SCRATCH).kind in {"raised", "completed"}


def test_scratch_quota_holds_for_relative_names_too(engine):
    source = "def f():\n    open('out', 'wb').write(bytes(3 << 20))"

    assert outcome_of(engine, source, limits=SCRATCH).kind == "files"


NULL = {
    "written": "with open(os.devnull, 'w') as sink:\n        return sink.write('abc')",
    "printed to": "with open('/dev/null', 'w') as sink, contextlib.redirect_stdout(sink):\n        print('noise')\n    return 3",
    "read": "return len(open(os.devnull).read()) + 3",
    "appended to": "with open(os.devnull, 'ab') as sink:\n        sink.write(b'x' * 300_000)\n    return 3",
    "both": "with open(os.devnull, 'r+') as sink:\n        return sink.write('abc') + len(sink.read())",
    "by descriptor": "fd = os.open(os.devnull, os.O_RDWR)\n    n = os.write(fd, b'abc')\n    n += len(os.read(fd, 5))\n    os.close(fd)\n    return n",
    "for a log": "logging.basicConfig(filename=os.devnull, force=True)\n    logging.error('x')\n    return 3",
    "there": "return 3 if os.path.exists(os.devnull) else 0",
    "again and again": "for _ in range(300):\n        with open(os.devnull, 'w') as sink: sink.write('x')\n    return 3",
}


@pytest.mark.parametrize("limits", [None, SCRATCH], ids=["without scratch", "with scratch"])
@pytest.mark.parametrize("body", NULL.values(), ids=NULL.keys())
def test_dev_null_takes_everything_and_gives_nothing(engine, body, limits):
    source = f"import contextlib, logging, os\ndef f():\n    {body}"

    outcome = outcome_of(engine, source, limits=limits)

    assert outcome.unwrap() == 3
    assert "noise" not in outcome.stdout


def test_a_descriptor_that_was_dev_null_is_an_ordinary_file_after(engine):
    source = (
        "import os\ndef f():\n    a = open(os.devnull, 'w'); a.write('x'); fd = a.fileno(); a.close()\n"
        "    b = open('/tmp/y', 'w')\n    assert b.fileno() == fd\n    b.write('y'); b.close()\n"
        "    return open('/tmp/y').read()"
    )

    assert outcome_of(engine, source, limits=SCRATCH).unwrap() == "y"


BINARY = {
    "by name": "np.arange(3).tofile('a.bin')\n    return np.fromfile('a.bin', dtype=int).tolist()",
    "as text": "np.arange(3).tofile('a.txt', sep=' ')\n    return np.fromfile('a.txt', dtype=int, sep=' ').tolist()",
    "within a file": (
        "with open('a.bin', 'wb') as file:\n        file.write(b'head')\n        np.arange(3).tofile(file)\n"
        "        file.write(b'tail')\n    with open('a.bin', 'rb') as file:\n        assert file.read(4) == b'head'\n"
        "        found = np.fromfile(file, dtype=int, count=3)\n        assert file.read() == b'tail'\n"
        "    return found.tolist()"
    ),
    "from an offset": "np.arange(5).tofile('a.bin')\n    return (np.fromfile('a.bin', dtype=int, offset=2 * np.dtype(int).itemsize) - 2).tolist()",
    "appended": "for n in range(3):\n        with open('a.bin', 'ab') as file: np.array([n]).tofile(file)\n    return np.fromfile('a.bin', dtype=int).tolist()",
}


@pytest.mark.parametrize("body", BINARY.values(), ids=BINARY.keys())
def test_numpy_writes_and_reads_plain_files(engine, body):
    assert outcome_of(engine, f"import numpy as np\ndef f():\n    {body}", limits=SCRATCH).unwrap() == [
        0,
        1,
        2,
    ]


def test_a_descriptor_without_a_name_is_not_duplicated_and_says_so(engine):
    outcome = outcome_of(engine, "import os\ndef f(): return os.dup(1)")

    assert (outcome.type_name, "open it again" in outcome.error) == ("OSError", True)


LACKS = {
    "a thread": ("import threading\n    threading.Thread(target=print).start()", "no threads"),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\n    list(ThreadPoolExecutor(2).map(abs, [1]))",
        "no threads",
    ),
    "a thread of asyncio": ("import asyncio\n    asyncio.run(asyncio.to_thread(print))", "no threads"),
    "a pool of processes": (
        "from concurrent.futures import ProcessPoolExecutor\n    ProcessPoolExecutor(2)",
        "no processes",
    ),
    "scipy's workers": (
        "from scipy.optimize import differential_evolution as d\n    d(lambda x: x[0], [(0, 1)], workers=-1)",
        "workers=1",
    ),
    "fork": ("import os\n    os.fork()", "no processes"),
    "a shell": ("import os\n    os.system('ls')", "no processes"),
    "urllib": ("from urllib.request import urlopen\n    urlopen('http://example.com')", "no network"),
    "http": (
        "import http.client\n    http.client.HTTPConnection('example.com').request('GET', '/')",
        "no network",
    ),
    "an alarm": ("import signal\n    signal.alarm(1)", "no signals"),
    "a typed line": ("input()", "as an argument"),
    "a connection of asyncio": (
        "import asyncio\n    asyncio.run(asyncio.open_connection('example.com', 80))",
        "no network",
    ),
    "a process of asyncio": (
        "import asyncio\n    asyncio.run(asyncio.create_subprocess_exec('ls'))",
        "no processes",
    ),
    "a pipe from a shell": ("import os\n    os.popen('ls')", "no processes"),
    "a mapped file": ("import mmap\n    mmap.mmap(-1, 10)", "numpy.load"),
    "the machine's load": ("import os\n    os.getloadavg()", "does not tell of the machine"),
    "a disk": ("import os\n    os.statvfs('/')", "does not tell of the machine"),
    "a disk's room": ("import shutil\n    shutil.disk_usage('/')", "scratch_bytes"),
    "a user": ("import getpass\n    getpass.getuser()", "LOGNAME"),
    "who is logged in": ("import os\n    os.getlogin()", "no users"),
    "a terminal": ("import os\n    os.get_terminal_size()", "no terminal"),
    "a named pipe": ("import os\n    os.mkfifo('/tmp/a')", "plain files"),
    "a link": ("import os\n    os.symlink('a', 'b')", "plain files"),
    "a module of the system": ("import fcntl", "not built into"),
    "a package": ("import torch", "Config(layers=...)"),
}

COUNTS = {
    "cores": "len(os.sched_getaffinity(0)) == os.cpu_count()",
    "the parent": "os.getppid() != os.getpid()",
    "time used": "abs(os.times().user - time.process_time()) < 1",
    "the thread's clock": "time.get_clock_info('thread_time').monotonic",
    "two ends of a selector": "[selectors.SelectSelector().select(0), selectors.PollSelector().select(0)] == [[], []]",
    "a selector of stdin": "reading(selectors.PollSelector())[0].fd == reading(selectors.SelectSelector())[0].fd == 0",
}


@pytest.mark.parametrize(("body", "words"), LACKS.values(), ids=LACKS.keys())
def test_what_a_sandbox_lacks_is_said_with_what_to_do(engine, body, words):
    outcome = outcome_of(engine, f"def f():\n    {body}", limits=Limits(memory_bytes=512 << 20))

    assert outcome.kind == "raised", outcome
    assert words in outcome.error
    assert words in outcome.traceback.splitlines()[-1]


def test_an_error_that_a_program_makes_itself_is_left_alone(engine):
    for body in ("raise AttributeError('system')", "raise OSError(2, 'mine')", "raise RuntimeError('mine')"):
        outcome = outcome_of(engine, f"def f():\n    {body}")
        assert "(" not in outcome.message


ASYNC = {
    "sleeps": "async def main():\n        await asyncio.sleep(3)\n        return 7",
    "gathers": "async def one(n):\n        await asyncio.sleep(1 / (n + 1))\n        return n\n    async def main(): return sum(await asyncio.gather(*map(one, range(4)))) + 1",
    "times out": "async def main():\n        try: await asyncio.wait_for(asyncio.sleep(60), 1)\n        except TimeoutError: return 7",
    "queues": "async def main():\n        q = asyncio.Queue()\n        async with asyncio.TaskGroup() as group:\n            group.create_task(q.put(7))\n            return await q.get()",
}


@pytest.mark.parametrize("body", ASYNC.values(), ids=ASYNC.keys())
def test_asyncio_runs_what_needs_no_socket(engine, body):
    source = f"import asyncio\ndef f():\n    {body}\n    return asyncio.run(main()) + 0 * asyncio.run(main())"

    assert outcome_of(engine, source).unwrap() == 7


def test_thread_time_is_the_time_of_the_only_thread(engine):
    source = "import time\ndef f(): return time.thread_time() > 0 and time.thread_time_ns() > 0"

    assert outcome_of(engine, source).unwrap() is True


@pytest.mark.parametrize("expression", COUNTS.values(), ids=COUNTS.keys())
def test_the_system_tells_of_itself_as_natively(engine, expression):
    source = (
        "import os, selectors, time\n"
        "def reading(selector):\n    key = selector.register(0, selectors.EVENT_READ)\n    selector.select(0)\n"
        f"    return [selector.unregister(0)]\ndef f(): return {expression}"
    )

    assert outcome_of(engine, source).unwrap() is True


UNENCODABLE = {
    "strings of numpy": ("np.array(['a', 'bb'], dtype=np.dtypes.StringDType())", "astype('U')"),
    "dates": ("np.array(['2020-01-01'], dtype='M8[D]')", "astype(str)"),
    "time spans": ("np.array([1], dtype='m8[s]')", "astype('i8')"),
    "objects": ("np.array([1, 'a', None], dtype=object)", "tolist()"),
    "records": ("np.zeros(2, dtype=[('a', 'i4')])", "array.dtype.names"),
    "long doubles": ("np.zeros(2, np.longdouble)", "astype(float)"),
    "many dimensions": ("np.zeros((1,) * 33)", "at most 32"),
    "one date": ("np.datetime64('2020-01-01')", "str(value)"),
    "one date in nanoseconds": ("np.datetime64(1, 'ns')", "str(value)"),
    "a span in nanoseconds": ("np.timedelta64(1, 'ns')", "astype('i8')"),
    "one long double": ("np.longdouble(1)", "float(value)"),
    "a dataclass": ("Point(1)", "dataclasses.asdict(value)"),
    "an iterator": ("itertools.permutations([1])", "list(value)"),
    "an endless iterator": ("itertools.count()", "itertools.islice(value, n)"),
    "a broken text": ("'\\ud800'", "ascii(value)"),
    "broken texts in an array": ("np.array(['a', 'b\\udfff'])", "ascii(text)"),
    "a very long integer": ("1 << (1 << 20)", "to_bytes"),
    "a table": ("pd.DataFrame({'a': [1]})", "to_dict"),
    "a column": ("pd.Series([1])", "tolist()"),
    "a generator": ("(x for x in [1])", "list(value)"),
    "a range": ("range(3)", "list(value)"),
    "a view of keys": ("{1: 2}.keys()", "list(value)"),
    "a Decimal": ("decimal.Decimal(1)", "float(value)"),
    "a Fraction": ("fractions.Fraction(1, 2)", "str(value)"),
    "a date and time": ("datetime.datetime(2020, 1, 1)", "isoformat()"),
    "an enum's member": ("enum.Enum('E', 'A').A", "value.value"),
    "a path": ("pathlib.Path('x')", "str(value)"),
    "a released view": ("released()", "cannot be read"),
    "an object": ("object()", "return None, bool, int"),
    "a list that lies": ("Lying([1])", None),
}


@pytest.fixture(scope="module")
def returning(engine):
    """A sandbox whose function returns one of the values, alone or within others."""
    source = (
        "import dataclasses, datetime, decimal, enum, fractions, itertools, pathlib\nimport numpy as np, pandas as pd\n"
        "def released():\n    view = memoryview(b'abc')\n    view.release()\n    return view\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "class Lying(list):\n    def __len__(s): raise ValueError\n    def __iter__(s): raise ValueError\n"
        "def f(text, within):\n    value = eval(text)\n    return [1, {'k': value}] if within else value\n"
    )
    return engine.create_sandbox(source=source, limits=Limits(memory_bytes=512 << 20))


@pytest.mark.parametrize("within", [False, True], ids=["alone", "within others"])
@pytest.mark.parametrize(("expression", "hint"), UNENCODABLE.values(), ids=UNENCODABLE.keys())
def test_a_result_that_cannot_travel_says_where_it_is_and_what_to_return(
    engine, returning, expression, hint, within
):
    outcome = engine.run(returning, "f", args=(expression, within))

    if hint is None:
        assert outcome.ok
        return
    assert outcome.type_name == "UnencodableResult", outcome
    assert hint in outcome.message
    assert outcome.message.startswith("result[1]['k'] is " if within else "result is ")


def test_equal_takes_a_list_a_tuple_and_an_array_of_the_same_numbers_for_equal(engine):
    source = "import numpy as np\ndef f(kind): return {'list': [1, 2], 'tuple': (1, 2), 'array': np.array([1, 2])}[kind]"
    for score in ("equal", "close"):
        for expected in ([1, 2], (1, 2)):
            cases = [Case((kind,), expected=expected) for kind in ("list", "tuple", "array")]
            assert engine.evaluate([source], Evaluation("f", cases, score))[0].fitness_score == 1.0
            wrong = [Case((kind,), expected=[1, 3]) for kind in ("list", "tuple", "array")]
            assert engine.evaluate([source], Evaluation("f", wrong, score))[0].fitness_score == 0.0
