"""Programs nobody would want to run: a grammar of hostile statements, and honest programs that were mutated."""

from __future__ import annotations

import textwrap

from hypothesis import strategies as st

PREAMBLE = """
import builtins, collections, copy, functools, gc, itertools, json, math, os, pickle, random, re, struct, sys, time, types
import numpy as np
"""

numbers = st.one_of(
    st.integers(-3, 40),
    st.sampled_from(
        [0, -1, 255, 256, 4096, 65_535, 65_536, 1 << 20, 1 << 24, 1 << 28, (1 << 31) - 1, 1 << 31]
    ),
    st.sampled_from([(1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 10**30]),
)
small = st.integers(0, 3000)
names = st.sampled_from(
    [
        "len",
        "print",
        "isinstance",
        "type",
        "getattr",
        "dict",
        "bytes",
        "memoryview",
        "BaseException",
        "__import__",
        "int",
    ]
)
paths = st.sampled_from(
    [
        "/",
        "/tmp/a",
        "/tmp/a/b",
        "/app/program.py",
        "/etc/passwd",
        "/proc/self/maps",
        "..",
        "../..",
        "/tmp/../etc",
        "",
        "\\0",
    ]
)
values = st.sampled_from(
    [
        "None",
        "[]",
        "float('nan')",
        "b'x' * 70000",
        "'\\ud800'",
        "object()",
        "lambda *a, **k: None",
        "10 ** 5000",
        "np.zeros(3)",
        "range(10 ** 18)",
        "type('T', (), {'__eq__': lambda *a: 1 / 0, '__hash__': lambda s: 1})()",
        "type('M', (type,), {'__repr__': lambda s: 1})('C', (), {})()",
        "functools.partial(print)",
        "(x for x in itertools.count())",
        "np.array([object()])",
        "{float('nan'): 1}",
        "memoryview(bytearray(10))",
    ]
)


def forms(*templates: str, **holes: st.SearchStrategy[object]) -> st.SearchStrategy[str]:
    """Templates with their holes filled."""
    filled = st.fixed_dictionaries(holes)
    return st.builds(lambda text, given: text.format(**given), st.sampled_from(templates), filled)


allocating = forms(
    "x = bytearray({n})",
    "x = [0] * {n}",
    "x = 'x' * {n}",
    "x = 1 << {n}",
    "x = np.zeros({n}, dtype='u1'); x[:] = 1",
    "x = np.ones(({k}, {k})) @ np.ones(({k}, {k}))",
    "x = {{i: [i] * 10 for i in range({n})}}",
    "x = list(range({n}))",
    "x = os.urandom({n})",
    "x = str(10 ** {k})",
    "x = collections.deque(itertools.repeat(b'', {n}))",
    "held.append(bytearray({k} << 10))",
    n=numbers,
    k=small,
)
endless = forms(
    "while True: pass",
    "while True: held.append(held)",
    "while True: time.sleep({n})",
    "for _ in itertools.repeat(0): pass",
    "sum(itertools.count())",
    "re.match(r'(a+)+$', 'a' * {k} + 'b')",
    "sorted(range({k}), key=lambda i: time.sleep(1))",
    "any(False for _ in iter(int, 1))",
    "np.fft.fft(np.ones({k})).sum(); x = [np.linalg.svd(np.ones((9, 9))) for _ in range({k})]",
    "math.factorial({k} * 20)",
    n=numbers,
    k=small,
)
recursing = forms(
    "f(*args)",
    "sys.setrecursionlimit({n}); f(*args)",
    "x = []\nfor _ in range({k} * 50): x = [x]\nrepr(x)",
    "x = []\nfor _ in range({k} * 50): x = [x]\njson.dumps(x)",
    "x = []\nfor _ in range({k} * 50): x = [x]\ncopy.deepcopy(x)",
    "x = []\nfor _ in range({k} * 50): x = [x]\npickle.dumps(x)",
    "x = []\nx.append(x)\nx == x",
    "compile('(' * {k}, 'x', 'eval')",
    "compile('-' * {k} + '1', 'x', 'eval')",
    "eval('[' * {k} + ']' * {k})",
    "re.compile('(' * {k} + ')' * {k})",
    "class A:\n    def __getattr__(self, n): return getattr(self, n + 'x')\nA().y",
    "def g(): yield from g()\nlist(g())",
    "json.loads('[' * {k} * 100)",
    n=numbers,
    k=small,
)
calling_the_host = forms(
    "open({p!r}).read()",
    "open({p!r}, 'wb').write(b'x' * {k} * 1000)",
    "os.listdir({p!r})",
    "os.mkdir({p!r})",
    "[os.mkdir('/tmp/' + 'd/' * i) for i in range({k})]",
    "[open('/tmp/f%d' % i, 'w') for i in range({k})]",
    "h = open('/tmp/s', 'wb'); h.seek({n}); h.write(b'x')",
    "h = open('/tmp/s', 'wb'); h.truncate({n})",
    "os.rename({p!r}, '/tmp/moved')",
    "os.unlink({p!r})",
    "os.symlink({p!r}, '/tmp/link')",
    "os.link({p!r}, '/tmp/link')",
    "os.stat({p!r})",
    "os.write({k} % 12, b'x' * {k})",
    "os.read({k} % 12, {n})",
    "os.close({k} % 12)",
    "os.lseek({k} % 12, {n}, 0)",
    "os.pwrite({k} % 12, b'x', {n})",
    "os.dup(1)",
    "os._exit({k} % 300)",
    "os.abort()",
    "os.kill(0, 9)",
    "os.fork()",
    "os.environ.clear()",
    "os.system('true')",
    "print('x' * {n})",
    "sys.stdout.write('\\ud800' * {k})",
    "sys.stderr.buffer.raw.write(b'\\xff' * {k})",
    "time.sleep({n})",
    "import socket; socket.socket()",
    "import threading; threading.Thread(target=print).start()",
    "import asyncio; asyncio.run(asyncio.sleep({k}))",
    "import select; select.select([], [], [], {k})",
    "import signal; signal.alarm({k})",
    "import mmap; mmap.mmap(-1, {n})",
    p=paths,
    n=numbers,
    k=small,
)
patching = forms(
    "builtins.{a} = {v}",
    "del builtins.{a}",
    "sys.modules.clear()",
    "sys.meta_path.clear(); sys.path_importer_cache.clear()",
    "json.dumps = json.loads = {v}",
    "struct.pack = struct.Struct = {v}",
    "sys.stdout = {v}",
    "sys.stderr = {v}",
    "sys.excepthook = sys.unraisablehook = {v}",
    "sys.modules['evocell_guest.agent'].handle = {v}",
    "sys.modules['evocell_guest.agent']._COMPLETED = {v}",
    "sys.modules['evocell_guest.agent'].loader.finished = {v}",
    "sys.modules['evocell_guest.values'].encode = {v}",
    "sys.modules['evocell_guest.guard'].trips.clear()",
    "sys.modules['__main__'].serve = {v}",
    "sys.modules['__main__'].__dict__.clear()",
    "sys.modules['_host'].call(bytes({k}))",
    "sys.modules['_host'].call(os.urandom({k}))",
    "sys.modules['_host'].call(b'')",
    "gc.disable(); gc.set_threshold(1)",
    "gc.freeze(); gc.unfreeze(); gc.collect()",
    "[o.clear() for o in gc.get_objects() if type(o) is dict and len(o) > {k} % 50]",
    "random.seed = np.random.seed = {v}",
    "sys.setswitchinterval(1e-9)",
    "sys.settrace(lambda *a: 1 / 0)",
    "sys.addaudithook(lambda *a: 1 / 0)",
    "type.__call__ = {v}",
    "f.__code__ = (lambda: 0).__code__",
    "f.__code__ = f.__code__.replace(co_code=os.urandom({k} % 64 * 2), co_stacksize={k} % 9)",
    "types.FunctionType((lambda: 0).__code__.replace(co_consts=(), co_code=bytes([{k} % 256, 0] * 8)), {{}})()",
    "np.lib.stride_tricks.as_strided(np.zeros(1, dtype='u1'), ({n},), (1,))[:] = {k} % 256",
    "np.lib.stride_tricks.as_strided(np.zeros(1), ({k},), (-{k} * 8,))[:] = 1e300",
    "np.frombuffer(bytes(64), dtype='u8').view().__array_interface__",
    "x = np.zeros(8); x.__setstate__((1, (1 << 20,), np.dtype('f8'), False, b'x'))",
    "np.ndarray.__setstate__(np.zeros(2), (1, ({k},), np.dtype('O'), False, [1] * {k}))",
    "pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.')",
    "import ctypes; ctypes.string_at({n})",
    a=names,
    v=values,
    n=numbers,
    k=small,
)
raising = forms(
    "raise {e}",
    "raise type('E', (BaseException,), {{'__str__': lambda s: 'x' * (1 << 22)}})()",
    "raise type('E', (Exception,), {{'__str__': lambda s: s, '__repr__': lambda s: 1 / 0}})()",
    "raise type('E' * 100000, (Exception,), {{}})('x' * 100000)",
    "raise BaseExceptionGroup('g', [ValueError(i) for i in range(2000)])",
    "e = ValueError()\nfor _ in range({k}): e = type(e)(e).with_traceback(None)\nraise e",
    "try: 1 / 0\nexcept Exception as e: e.__cause__ = e.__context__ = e; raise",
    "sys.exit({v})",
    e=st.sampled_from(
        [
            "SystemExit(3)",
            "KeyboardInterrupt",
            "GeneratorExit",
            "MemoryError",
            "RecursionError",
            "StopIteration",
        ]
    ),
    v=values,
    k=small,
)
returning = forms(
    "return {v}",
    "return [{v}] * {k}",
    "return {{i: {v} for i in range({k})}}",
    "return {{(i,) * 9 for i in range({k} * 10)}}",
    "return np.zeros({k} * 1000)",
    "return bytes({n})",
    "return held",
    "x = []\nfor _ in range({k}): x = [x]\nreturn x",
    "x = {{}}\nx[1] = x\nreturn x",
    "return type('L', (list,), {{'__iter__': lambda s: itertools.count()}})([1])",
    "return type('I', (int,), {{'__index__': lambda s: 1 / 0}})({k})",
    "return np.float64('nan'), struct.unpack('<d', struct.pack('<Q', 0x7ff8dead << 32))",
    "return globals()",
    v=values,
    n=numbers,
    k=small,
)
statement = st.one_of(
    allocating, endless, recursing, calling_the_host, patching, patching, raising, returning
)


def indent(text: str) -> str:
    """The text one level further in."""
    return textwrap.indent(text, "    ")


wrapped = st.recursive(
    statement,
    lambda inner: st.one_of(
        st.builds(lambda s: f"try:\n{indent(s)}\nexcept BaseException: pass", inner),
        st.builds(lambda s: f"try:\n{indent(s)}\nfinally: return 1", inner),
        st.builds(lambda s: f"for _ in range(50):\n{indent(s)}", inner),
        st.builds(
            lambda s: f"class D:\n    def __del__(self):\n{indent(indent(s))}\nD()",
            inner.filter(lambda s: "return" not in s),
        ),
        st.builds(lambda a, b: f"{a}\n{b}", inner, inner),
    ),
    max_leaves=5,
)


@st.composite
def hostile(draw: st.DrawFn) -> str:
    """A program made of hostile statements, in its function or while it is imported."""
    body = draw(wrapped)
    at_import = draw(st.sampled_from([False, False, False, True])) and "return" not in body
    before = body if at_import else ""
    inside = "return 1" if at_import else body
    return f"{PREAMBLE}held = []\n{before}\ndef f(*args):\n{indent(inside)}\n"


HONEST = (
    "def f(n=200):\n    sieve = [True] * (n + 1)\n    for i in range(2, n):\n        if sieve[i]:\n            for j in range(i * i, n + 1, i):\n                sieve[j] = False\n    return [i for i in range(2, n) if sieve[i]]\n",
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\ndef f():\n    return fib(15)\n",
    "import heapq\ndef f():\n    graph = {i: [(i * 7 % 50, 3), (i * 3 % 50, 5)] for i in range(50)}\n    best = {0: 0}\n    queue = [(0, 0)]\n    while queue:\n        cost, node = heapq.heappop(queue)\n        for other, weight in graph[node]:\n            if cost + weight < best.get(other, 1 << 30):\n                best[other] = cost + weight\n                heapq.heappush(queue, (best[other], other))\n    return best\n",
    "import numpy as np\ndef f():\n    rng = np.random.default_rng(3)\n    x = rng.normal(size=(40, 3))\n    y = x @ np.array([1.0, -2.0, 0.5])\n    w = np.linalg.lstsq(x, y, rcond=None)[0]\n    return w.round(6)\n",
    "import re, json\ndef f():\n    text = ' '.join(f'k{i}={i * i};' for i in range(100))\n    found = dict(re.findall(r'(k\\d+)=(\\d+);', text))\n    return json.loads(json.dumps(found, sort_keys=True))\n",
    "class Node:\n    def __init__(self, key):\n        self.key, self.left, self.right = key, None, None\n    def insert(self, key):\n        side = 'left' if key < self.key else 'right'\n        child = getattr(self, side)\n        if child is None:\n            setattr(self, side, Node(key))\n        else:\n            child.insert(key)\n    def walk(self):\n        if self.left: yield from self.left.walk()\n        yield self.key\n        if self.right: yield from self.right.walk()\ndef f():\n    root = Node(50)\n    for i in range(100):\n        root.insert(i * 37 % 101)\n    return list(root.walk())\n",
    "import random\ndef f():\n    random.seed(5)\n    best = [random.random() for _ in range(20)]\n    for _ in range(200):\n        child = [x + random.gauss(0, 0.1) for x in best]\n        if sum(x * x for x in child) < sum(x * x for x in best):\n            best = child\n    return sum(x * x for x in best)\n",
    "import itertools\ndef f():\n    items = [(w, w * 3 % 17 + 1) for w in range(1, 16)]\n    best = 0\n    for chosen in itertools.product((0, 1), repeat=10):\n        weight = sum(w for (w, v), c in zip(items, chosen) if c)\n        if weight <= 30:\n            best = max(best, sum(v for (w, v), c in zip(items, chosen) if c))\n    return best\n",
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """An honest program with lines lost, doubled, moved, or hostile ones put in, and numbers and characters changed."""
    lines = draw(st.sampled_from(HONEST)).splitlines()
    for _ in range(draw(st.integers(1, 4))):
        if not lines:
            break
        at = draw(st.integers(0, len(lines) - 1))
        change = draw(
            st.sampled_from(["drop", "double", "swap", "insert", "insert", "number", "character", "cut"])
        )
        if change == "drop":
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif change == "insert":
            margin = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
            lines[at:at] = textwrap.indent(draw(statement), margin).splitlines()
        elif change == "number":
            digits = [i for i, char in enumerate(lines[at]) if char.isdigit()]
            if digits:
                i = digits[draw(st.integers(0, len(digits) - 1))]
                lines[at] = lines[at][:i] + str(draw(numbers)) + lines[at][i + 1 :]
        elif change == "character":
            i = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:i] + draw(st.characters()) + lines[at][i + 1 :]
        else:
            lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
    return f"{PREAMBLE}held = []\nargs = ()\n" + "\n".join(lines) + "\n"


programs = st.one_of(hostile(), hostile(), mutated())
