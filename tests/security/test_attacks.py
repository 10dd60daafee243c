"""Attacks by name, each with its exact outcome, and a healthy engine after every one of them.

An attack is a program; what it may come to is one kind of outcome, and for a value or a message what it must be. They
run under the lowest security profile, so that the wall is tried and not the gate before it.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest

import evocell
from evocell.config import Config
from evocell.models import Completed
from evocell_runtime import membrane

LIMITS = evocell.Limits(
    fuel=2_500_000_000, memory_bytes=48 << 20, timeout_s=20.0, output_bytes=64 << 10, payload_bytes=1 << 20,
    payload_items=10_000, scratch_bytes=1 << 20, scratch_files=20, open_files=16,
)  # fmt: skip
TASK = evocell.Evaluation("f", [evocell.Case()], score=lambda case, value: 1.0, limits=LIMITS)
CANARY = "import random, json\ndef f():\n    return [random.random(), json.dumps({'a': [1, 2.5]}), len(str(2 ** 500))]"
CTYPES_FREE = "import sys\nH = sys.modules['_host']\n"
STRIDED = "import numpy as np\ndef poke(offset, size, byte):\n    a = np.zeros(1, dtype='u1')\n    b = np.lib.stride_tricks.as_strided(a[:], (size,), (1,))\n    b[:] = byte\n"
AT = "import numpy as np, os\nclass At: pass\ndef at(address, size):\n    a = At()\n    a.__array_interface__ = {'version': 3, 'typestr': '|u1', 'shape': (size,), 'data': (address, False)}\n    return np.asarray(a)\n"
"""An array over any part of the memory, which is what a flaw in native code would give a variant as well."""

ARENA = (
    AT
    + f"""
def arena():
    print('@' + '@mark', flush=True)
    memory, found = bytes(at(16 << 20, 24 << 20)), -1
    entries = len(os.listdir('/app')) + 2
    while (found := memory.find(b'@' + b'@mark\\n', found + 1)) >= 0:
        start = (16 << 20) + found - {membrane.AT_STDOUT}
        if start > 0 and int.from_bytes(bytes(at(start + 8, 4)), 'little') == entries: return start
"""
)
"""Finds the membrane's own room in the guest's memory: by what was printed, and by the count of the last listing."""

ESCAPES = {
    "read the password file": ("def f(): return open('/etc/passwd').read()", "raised", "FileNotFoundError"),
    "read its own process": ("def f(): return open('/proc/self/environ').read()", "raised", "FileNotFoundError"),
    "climb out of scratch space": ("def f(): return open('/tmp/../../../etc/hostname').read()", "raised", "PermissionError"),
    "climb out of its own code": ("import os\ndef f(): return os.listdir('/app/../..')", "raised", "PermissionError"),
    "climb with a null byte": ("def f(): return open('/tmp/a\\0/../../etc/passwd')", "raised", "ValueError"),
    "leave by a symbolic link": ("import os\ndef f(): os.symlink('/etc', '/tmp/etc'); return os.listdir('/tmp/etc')", "raised", "OSError"),
    "leave by a hard link": ("import os\ndef f(): os.link('/app/program.py', '/tmp/x')", "raised", "OSError"),
    "open through a directory's descriptor": ("import os\ndef f():\n    d = os.open('/tmp', os.O_RDONLY)\n    return os.open('../../etc/passwd', os.O_RDONLY, dir_fd=d)", "raised", "PermissionError"),
    "overwrite the library": ("def f(): open('/usr/local/lib/python315.zip', 'wb').write(b'x')", "raised", "OSError"),
    "overwrite its own source": ("def f(): open('/app/program.py', 'w').write('x')", "raised", "OSError"),
    "delete the library": ("import os\ndef f(): os.unlink('/usr/local/lib/python315.zip')", "raised", "PermissionError"),
    "rename its code into scratch space": ("import os\ndef f(): os.rename('/app/program.py', '/tmp/x')", "raised", "PermissionError"),
    "open a socket": ("import _socket\ndef f(): return _socket.socket()", "raised", None),
    "start a process": ("import os\ndef f(): return os.system('id')", "raised", "AttributeError"),
    "fork": ("import os\ndef f(): return os.fork()", "raised", "AttributeError"),
    "exec": ("import os\ndef f(): return os.execv('/bin/sh', ['sh'])", "raised", "AttributeError"),
    "start a thread": ("import threading\ndef f(): threading.Thread(target=print).start()", "raised", "RuntimeError"),
    "send a signal": ("import os\ndef f(): os.kill(1, 9)", "raised", "AttributeError"),
    "read the host's environment": ("import os\ndef f(): return sorted(os.environ)", "completed", ["HOME", "LANG", "MSGPACK_PUREPYTHON", "OPENBLAS_NUM_THREADS", "PATH", "PYTHONDONTWRITEBYTECODE", "TZ"]),
    "read the host's clock": ("import time\ndef f(): return int(time.time()) // 86_400", "completed", 18_262),
    "load a shared library": ("import importlib\ndef f(): return importlib.import_module('cty' + 'pes').CDLL(None)", "raised", "OSError"),
    "write outside of an array": (STRIDED + "def f(): poke(0, 1 << 28, 255)", "crashed", None),
    "read outside of memory": ("import numpy as np\ndef f(): return int(np.lib.stride_tricks.as_strided(np.zeros(1, dtype='u1'), (1 << 30,), (1,))[-1])", "crashed", None),
    "a forged code object": ("def g(): pass\ndef f():\n    g.__code__ = g.__code__.replace(co_code=b'\\x64\\xff' * 40, co_consts=())\n    return g()", "crashed", None),
    "read past the end of memory": (AT + "def f(): return int(at((1 << 32) - 1, 1)[0])", "crashed", "outside its own"),
    "write over the C stack": (AT + "def f():\n    at(15 << 20, 1 << 20)[:] = 0\n    return 1", "crashed", None),
    "write over the type of all numbers": (AT + "def f():\n    at(id(int) + 24, 100)[:] = 1\n    return 1", "crashed", None),
    "a generator whose state points outside": ("import numpy as np\ndef f():\n    g = np.random.MT19937()\n    s = g.state; s['state']['pos'] = 1 << 28; g.state = s\n    return int(g.random_raw())", "crashed", "outside its own"),
    "write over the membrane's cells": (ARENA + f"def f():\n    a = arena()\n    h = open('/tmp/x', 'wb', buffering=0)\n    at(a, {membrane.AT_STDOUT} + 3)[:] = 255\n    h.write(b'x' * 100); h.close()\n    at(a, 4096)[:] = 255\n    os.rename('/tmp/x', '/tmp/y'); print('more')\n    return os.listdir('/tmp'), os.stat('/tmp/y').st_size", "completed", (["y"], 100)),
    "map a host file into memory": ("import numpy as np\ndef f(): return np.memmap('/etc/passwd', dtype='u1')[:4]", "raised", "PermissionError"),
    "attach to another process": ("import sys\ndef f(): sys.remote_exec(1, '/app/program.py')", "raised", "RuntimeError"),
    "change the directory and climb": ("import os\ndef f():\n    os.chdir('/tmp')\n    return open('../etc/passwd').read()", "raised", "PermissionError"),
    "create below a directory that is read-only": ("import os\ndef f(): return os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=os.open('/app', os.O_RDONLY))", "raised", "PermissionError"),
    "unpack a link out of an archive": ("import io, tarfile\ndef f():\n    b = io.BytesIO()\n    with tarfile.open(fileobj=b, mode='w') as t:\n        i = tarfile.TarInfo('l'); i.type = tarfile.SYMTYPE; i.linkname = '/etc'; t.addfile(i)\n    b.seek(0); tarfile.open(fileobj=b).extractall('/tmp', filter='fully_trusted')\n    import os\n    return os.listdir('/tmp')", "completed", []),
    "put a file in the place of an output stream": ("import os\ndef f(): return os.dup2(os.open('/app/program.py', 0), 1)", "raised", "OSError"),
    "an endless stack in a code object": ("def g(): return 1\ndef f():\n    g.__code__ = g.__code__.replace(co_stacksize=1 << 28)\n    return g()", "fuel", None),
}  # fmt: skip

EXHAUSTIONS = {
    "an endless loop": ("def f():\n    while True: pass", "fuel", None),
    "an endless loop that catches everything": ("def f():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass", "fuel", None),
    "an endless loop while it is imported": ("while True: pass\ndef f(): pass", "fuel", None),
    "an endless loop in a destructor": ("class D:\n    def __del__(self):\n        while True: pass\ndef f(): D()", "fuel", None),
    "an endless loop in a value's method": ("class L(list):\n    def __iter__(self):\n        while True: yield 1\ndef f(): return L([1])", "completed", [1]),
    "an endless loop in an exception's text": ("class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(): raise E", "fuel", None),
    "sleep for a century": ("import time\ndef f():\n    for _ in range(100): time.sleep(3.2e7)\n    return 1", "completed", 1),
    "a catastrophic expression": ("import re\ndef f(): return re.match(r'(a+)+$', 'a' * 40 + 'b')", "fuel", None),
    "a huge power": ("def f(): return len(str(7 ** (10 ** 7)))", "fuel", None),
    "a power that never ends": ("def f(): return 7 ** (10 ** 9) % 3", "fuel", None),
    "a bomb of bytes": ("def f(): return len(bytearray(1 << 30))", "memory", None),
    "a bomb of lists": ("def f():\n    l = []\n    while True: l.append([0] * 100_000)", "memory", None),
    "a bomb in a shape": ("import numpy as np\ndef f(): return np.ones((1 << 12, 1 << 12)).sum()", "memory", None),
    "a bomb that is caught, for ever": ("def f():\n    l = []\n    while True:\n        try: l.append(bytearray(1 << 20))\n        except MemoryError: pass", "fuel", None),
    "a zip bomb of its own": ("import zlib\ndef f():\n    d = zlib.compress(bytes(1 << 22))\n    return [zlib.decompress(d) for _ in range(20)]", "memory", None),
    "endless recursion": ("def f(): return f()", "raised", "RecursionError"),
    "recursion beyond the limit": ("import sys\nsys.setrecursionlimit(10 ** 9)\ndef g(n): return g(n + 1)\ndef f(): return g(0)", "memory", None),
    "a deep literal": ("def f(): return eval('[' * 5000 + ']' * 5000)", "raised", "SyntaxError"),
    "a deep source": ("x = " + "(" * 300 + ")" * 300 + "\ndef f(): pass", "syntax", None),
    "a deep list in repr": ("def f():\n    l = []\n    for _ in range(100_000): l = [l]\n    return repr(l)", "raised", "RecursionError"),
    "a flood of output": ("def f():\n    while True: print('x' * 1000)", "output", None),
    "a flood of errors, unbuffered": ("import os\ndef f():\n    while True: os.write(2, b'x' * 60_000)", "output", None),
    "a huge result": ("def f(): return b'x' * (2 << 20)", "payload", None),
    "a result of very many values": ("def f(): return list(map(str, range(20_000)))", "payload", None),
    "a deep result": ("def f():\n    l = []\n    for _ in range(200): l = [l]\n    return l", "payload", None),
    "a result that contains itself": ("def f():\n    l = []\n    l.append(l)\n    return l", "payload", None),
    "a result of colliding keys": ("def f(): return {(i,): 1 for i in range(9_000)}", "payload", None),
    "a shape larger than its data": ("import numpy as np\ndef f(): return np.lib.stride_tricks.as_strided(np.zeros(1), (1 << 20,), (0,))", "payload", None),
    "an exception of a megabyte": ("def f(): raise ValueError('x' * (1 << 20))", "raised", "ValueError"),
    "an exception class of a megabyte": ("def f(): raise type('E' * (1 << 20), (Exception,), {})", "raised", None),
    "a flood of small files": ("def f():\n    for i in range(10_000): open(f'/tmp/{i}', 'w').close()", "files", None),
    "a flood of bytes on disk": ("def f():\n    with open('/tmp/x', 'wb') as h:\n        while True: h.write(bytes(4096))", "files", None),
    "a file of holes": ("def f():\n    with open('/tmp/x', 'wb') as h: h.seek(1 << 29); h.write(b'x')", "files", None),
    "many files of holes": ("import os\ndef f():\n    for i in range(9):\n        with open(f'/tmp/{i}', 'wb') as h: h.truncate(200_000)", "files", None),
    "directories without end": ("import os\ndef f():\n    p = '/tmp'\n    while True: p += '/d'; os.mkdir(p)", "raised", "OSError"),
    "directories moved deeper and deeper": ("import os\ndef f():\n    os.makedirs('/tmp/a/b/c/d/e/f')\n    os.makedirs('/tmp/x/y/z')\n    os.rename('/tmp/a', '/tmp/x/y/z/a')", "raised", "PermissionError"),
    "all descriptors": ("def f(): return [open('/app/program.py') for _ in range(10_000)]", "raised", "OSError"),
    "a listing of everything, for ever": ("import os\ndef f():\n    while True: os.listdir('/')", "fuel", None),
    "all entropy": ("import os\ndef f():\n    while True: os.urandom(1 << 20)", "fuel", None),
    "directories renamed over one another for their quota": ("import os\ndef f():\n    with open('/tmp/x', 'wb') as h: h.write(bytes(1_000_000))\n    for n in range(20):\n        os.mkdir('/tmp/a'); os.mkdir('/tmp/b'); os.rename('/tmp/a', '/tmp/b'); os.rmdir('/tmp/b')\n        with open('/tmp/x', 'ab') as h: h.write(bytes(4096))", "files", None),
    "a file that is gone but open": ("import os\ndef f():\n    with open('/tmp/x', 'wb', buffering=0) as h:\n        os.unlink('/tmp/x')\n        while True: h.write(bytes(4096))", "files", None),
    "files that are replaced while they are open": ("import os\ndef f():\n    kept = []\n    while True:\n        kept.append(open('/tmp/x', 'wb', buffering=0)); kept[-1].write(bytes(65536)); kept[-1].write(bytes(65536))\n        open('/tmp/y', 'wb').close(); os.replace('/tmp/y', '/tmp/x')", "files", None),
    "a write at the end of all numbers": ("import os\ndef f(): os.pwrite(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), b'xx', (1 << 63) - 1)", "raised", "OSError"),
    "a path of more than 4 KiB": ("def f(): open('/tmp/' + 'x' * 4096, 'w')", "raised", "OSError"),
    "a listing of what is removed meanwhile": ("import os\ndef f():\n    for n in range(9): open(f'/tmp/{n}', 'w').close()\n    return [(e.name, os.unlink(e.path))[0] for e in os.scandir('/tmp')]", "completed", list("012345678")),
    "a callback for every line": ("import sys\ndef f():\n    m = sys.monitoring; m.use_tool_id(0, 'x')\n    def line(*a):\n        while True: pass\n    m.register_callback(0, m.events.LINE, line); m.set_events(0, m.events.LINE)\n    return 1", "fuel", None),
    "a collector that reports everything": ("import gc\ndef f():\n    gc.set_debug(gc.DEBUG_LEAK | gc.DEBUG_STATS)\n    gc.set_threshold(1)\n    return [[] for _ in range(10_000)]", "output", None),
    "a hundred million digits": ("import decimal\ndef f():\n    decimal.getcontext().prec = 10 ** 8\n    return str(decimal.Decimal(1) / 3)[:5]", "fuel", None),
    "a text of a gigabyte by its width": ("def f(): return len('%1000000000d' % 1)", "memory", None),
    "a hash of what is nested too deeply": ("def f():\n    t = ()\n    for _ in range(400_000): t = (t,)\n    return hash(t)", "stack", None),
    "an expression without end": ("x = " + "1 + " * 20_000 + "1\ndef f(): return x", "compile", None),
    "entities of entities": ("from xml.etree import ElementTree\ndef f():\n    d = '<!DOCTYPE l [<!ENTITY a \"' + 'x' * 1000 + '\">' + ''.join(f'<!ENTITY a{i} \"' + f'&a{i - 1 if i else str()};' * 10 + '\">' for i in range(9)) + ']><l>&a8;</l>'\n    return ElementTree.fromstring(d)", "raised", "ParseError"),
    "a clock that is wound until it wraps": ("import time\ndef f():\n    for _ in range(700): time.sleep(9e8)\n    return time.monotonic() >= 0", "completed", True),
    "bulk copies": ("def f():\n    b = bytearray(1 << 24)\n    while True: b[:] = bytes(1 << 24)", "fuel", None),
}  # fmt: skip

LIES = {
    "exit as if all were well": ("import os\ndef f(): os._exit(0)", "crashed", "it exited with code 0"),
    "exit by an exception": ("import sys\ndef f(): sys.exit(0)", "raised", "SystemExit"),
    "abort": ("import os\ndef f(): os.abort()", "crashed", None),
    "answer by itself and go on": (CTYPES_FREE + "def f():\n    H.call(b'\\x82\\xa1t\\xa9completed\\xa1v\\xcd\\x03\\xe7')\n    while True: pass", "fuel", None),
    "answer by itself and abort": (CTYPES_FREE + "import os\ndef f():\n    H.call(b'\\x82\\xa1t\\xa9completed\\xa1v\\xcd\\x03\\xe7')\n    os.abort()", "crashed", None),
    "answer by itself, then return": (CTYPES_FREE + "def f():\n    H.call(b'\\x82\\xa1t\\xa9completed\\xa1v\\x01')\n    return 2", "completed", 2),
    "answer with noise instead": ("import sys\ndef f():\n    sys.modules['evocell_guest.agent']._response = b''\n    sys.modules['__main__'].serve = None\n    return 3", "completed", 3),
    "have the agent answer with noise": ("import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    A._COMPLETED = b'\\xc1' * 9\n    return 1", "crashed", None),
    "have the agent claim another answer": ("import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    A._encode_value = lambda *a, **k: b'\\xcd\\x03\\xe7'\n    return 1", "completed", 999),
    "claim the memory limit": ("def f(): raise MemoryError", "memory", None),
    "claim a rejection": ("import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    raise A.LoadError('as if it were missing')", "load", "as if it were missing"),
    "claim a limit that is the host's": (CTYPES_FREE + "A = sys.modules['evocell_guest.agent']\ndef f():\n    A._COMPLETED = b'\\x83\\xa1t\\xa5limit\\xa4kind\\xa4fuel\\xa7message\\xa1'\n    A._encode_value = lambda *a, **k: b'x'\n    return 1", "crashed", None),
    "an answer with more fields": ("import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    A._COMPLETED = b'\\x83\\xa1t\\xa9completed\\xa1x\\x01\\xa1v'\n    return 1", "crashed", None),
    "an array with a lying shape": ("import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    A._encode_value = lambda *a, **k: b'\\xc7\\x0b\\x05\\x93\\xa3<f8\\x91\\xcd\\xff\\xff\\xc4\\x00'\n    return 1", "crashed", None),
    "an announced length without bytes": ("import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    A._encode_value = lambda *a, **k: b'\\xdd\\xff\\xff\\xff\\xff'\n    return 1", "crashed", None),
    "pickles to be loaded": ("import pickle\nclass P:\n    def __reduce__(self): return print, ('owned',)\ndef f(): return pickle.dumps(P())[:1]", "completed", b"\x80"),
    "a class that pretends to be a number": ("class I(int):\n    def __eq__(self, o): return True\n    def __index__(self): return 1 << 60\ndef f(): return I(5)", "completed", 5),
    "answer again after the answer": (CTYPES_FREE + "class S:\n    def write(self, t): pass\n    def flush(self): H.call(b'\\x82\\xa1t\\xa9completed\\xa1v\\xcd\\x03\\xe7')\ndef f():\n    sys.stdout = S()\n    return 1", "completed", 999),
    "exit while the answer is on its way": ("import sys, os\nclass S:\n    def write(self, t): pass\n    def flush(self): os._exit(0)\ndef f():\n    sys.stdout = S()\n    return 1", "crashed", "it exited with code 0"),
    "loop while the answer is on its way": ("import sys\nclass S:\n    def write(self, t): pass\n    def flush(self):\n        while True: pass\ndef f():\n    sys.stdout = S()\n    return 1", "fuel", None),
    "an answer that claims to be longer than memory": (AT + "import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    b = b'\\xc0' * 100\n    def enc(*a, **k):\n        at(id(b) + 8, 4)[:] = (255, 255, 255, 127)\n        return b\n    A._COMPLETED, A._encode_value = b'', enc\n    return 1", "payload", None),
    "a string that holds no characters": ("import numpy as np\ndef f():\n    a = np.zeros(2, dtype='<U1')\n    a.view('u4')[:] = 0xffffffff\n    return a", "crashed", "not a code point"),
    "a truth that is neither": ("import numpy as np\ndef f():\n    a = np.zeros(2, dtype='?')\n    a.view('u1')[:] = 7\n    return a", "crashed", "other than 0 and 1"),
    "a number that has no text": ("def f(): return 10 ** 5_000", "completed", 10**5_000),
    "an array that lies about itself": ("import numpy as np\nclass A(np.ndarray):\n    shape = property(lambda s: (1 << 40,))\n    def tobytes(self): return b'x' * (1 << 20)\n    def tolist(self): raise SystemExit\ndef f(): return [float(x) for x in np.zeros(2).view(A)], type(np.zeros(2).view(A)).__name__", "completed", ([0.0, 0.0], "A")),
    "a sleep written into the membrane's cell": (ARENA + f"def f():\n    at(arena() + {membrane.AT_SLEEP}, 8)[:] = 127\n    return sum(range(100_000))", "completed", 4999950000),
    "terminal codes in an error": ("def f(): raise ValueError('\\x1b[2J\\x1b]0;owned\\x07')", "raised", "ValueError"),
}  # fmt: skip

PATCHES = {
    "built-in functions": "import builtins\ndef f():\n    for n in ('len', 'isinstance', 'type', 'bytes', 'dict', 'getattr', 'print', 'BaseException'): setattr(builtins, n, None)\n    return 1",
    "built-in import": "import builtins\ndef f():\n    builtins.__import__ = lambda *a, **k: 1 / 0\n    return 1",
    "all modules": "import sys\ndef f():\n    sys.modules.clear()\n    return 1",
    "the import system": "import sys\ndef f():\n    sys.meta_path[:] = sys.path[:] = sys.path_hooks[:] = []\n    return 1",
    "json and struct": "import json, struct\ndef f():\n    json.dumps = json.loads = struct.pack = struct.unpack = struct.Struct = None\n    return 1",
    "msgpack": "import msgpack\ndef f():\n    msgpack.packb = msgpack.unpackb = msgpack.ExtType = None\n    return 1",
    "the agent": "import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    for n in list(vars(A)):\n        if not n.startswith('__'): setattr(A, n, None)\n    return 1",
    "the agent's codec": "import sys\nW = sys.modules['evocell_guest.walk']\ndef f():\n    W.Walk.value = lambda *a: b'\\xc1'\n    return [1]",
    "the loader": "import sys\nA = sys.modules['evocell_guest.agent']\ndef f():\n    A.loader.__class__.resolve = A.loader.__class__.install = None\n    return 1",
    "the guard": "import sys\nG = sys.modules['evocell_guest.guard']\ndef f():\n    G.arm = G.hook = None\n    G.trips.clear()\n    return 1",
    "main": "import sys\ndef f():\n    vars(sys.modules['__main__']).clear()\n    return 1",
    "the streams": "import sys\nclass S:\n    def write(self, t): raise SystemExit\n    flush = write\ndef f():\n    sys.stdout = sys.stderr = S()\n    return 1",
    "what the collector holds": "import gc\ndef f():\n    for o in gc.get_objects():\n        if type(o) is dict and '__builtins__' in o and 'f' not in o: o.clear()\n    return 1",
    "random sources": "import random, numpy as np\ndef f():\n    random.seed = random.random = np.random.seed = None\n    return 1",
    "the interpreter's own memory": STRIDED + "def f():\n    poke(0, 4096, 255)\n    return 1",
    "reference counts": AT + "def f():\n    for o in (None, True, (), '', 0, f): at(id(o), 8)[:] = 1\n    return 1",
    "what the allocator keeps": AT + "def f():\n    for x in [bytearray(100) for _ in range(1000)]: at(id(x) - 64, 56)[:] = 255\n    return 1",
    "all of the membrane's room": ARENA + f"def f():\n    at(arena(), {membrane.ARENA_BYTES})[:] = 255\n    return 1",
    "a module of the host's name": "import sys\ndef f():\n    sys.modules['_host'] = sys.modules['evocell_guest'] = None\n    return 1",
}  # fmt: skip


@pytest.fixture
def healthy(engine):
    """The engine; afterwards it must give what it gave before, fuel included."""
    before = engine.evaluate_one(CANARY, TASK).test_results[0].outcome
    assert isinstance(before, Completed)
    yield engine
    after = engine.evaluate_one(CANARY, TASK).test_results[0].outcome
    assert after == before
    assert after.fuel_used == before.fuel_used


def attack(engine, source):
    sandbox = engine.create_sandbox(source=source, limits=LIMITS, security_profile="low")
    try:
        return engine.run(sandbox, "f", isolation="call")
    finally:
        engine.destroy_sandbox(sandbox)


@pytest.mark.parametrize("name", [*ESCAPES, *EXHAUSTIONS, *LIES])
def test_an_attack_ends_as_it_must(healthy, name):
    source, kind, more = {**ESCAPES, **EXHAUSTIONS, **LIES}[name]

    outcome = attack(healthy, source)

    assert outcome.kind == kind, outcome
    if kind == "completed":
        assert outcome.unwrap() == more
    elif kind == "raised" and more is not None:
        assert outcome.type_name == more, outcome
    elif more is not None:
        assert more in outcome.error
    assert outcome.fuel_used <= LIMITS.fuel
    assert outcome.peak_memory_bytes <= LIMITS.memory_bytes
    assert len(outcome.stdout) + len(outcome.stderr) <= LIMITS.output_bytes


@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_interpreter_spoils_only_its_own_score(healthy, name):
    """The patch's own call may end in any way; its neighbour and the next code in its sandbox know nothing of it."""
    neighbour = healthy.create_sandbox(source=CANARY, limits=LIMITS, security_profile="low")
    patched = healthy.create_sandbox(source=PATCHES[name], limits=LIMITS, security_profile="low")
    expected = healthy.run(neighbour, "f")

    first = healthy.run(patched, "f")
    second = healthy.run(patched, "f")
    again = healthy.run(neighbour, "f")
    healthy.hot_reload_source(patched, CANARY)
    fresh = healthy.run(patched, "f")

    for outcome in (first, second):
        assert outcome.kind in {
            "completed",
            "raised",
            "crashed",
            "fuel",
            "memory",
            "security",
            "load",
            "payload",
        }
        assert 0 < outcome.fuel_used <= LIMITS.fuel or outcome.kind == "crashed"
        assert outcome.peak_memory_bytes <= LIMITS.memory_bytes
    assert expected.unwrap() == again.unwrap() == fresh.unwrap()
    assert fresh.fuel_used == expected.fuel_used
    healthy.batch_destroy([neighbour, patched])


WORDS = """
def f(words):
    import numpy as np
    from numpy.lib.stride_tricks import as_strided
    start = np.zeros(1, dtype='u1')
    at = start.__array_interface__['data'][0]
    class At: __array_interface__ = {'version': 3, 'typestr': '|u1', 'shape': (at - 4096,), 'data': (4096, False)}
    memory = bytes(np.asarray(At()))
    return [memory.count(bytes(b ^ 90 for b in word)) for word in words]
"""


def test_no_word_of_the_host_lies_in_a_guests_memory(healthy, tmp_path):
    """The words come veiled, so that the question does not put them there; the last one is there."""
    words = [
        str(tmp_path),
        str(Path.cwd()),
        tempfile.gettempdir() + "/evocell-",
        "PYTEST_CURRENT_TEST",
    ]
    veiled = [bytes(b ^ 90 for b in word.encode()) for word in [*words, "MSGPACK_PUREPYTHON"]]
    sandbox = healthy.create_sandbox(source=WORDS, limits=LIMITS, security_profile="low")

    *found, known = healthy.run(sandbox, "f", args=(veiled,)).unwrap()

    healthy.destroy_sandbox(sandbox)
    assert found == [0] * len(words)
    assert known


def test_a_sleep_written_into_the_cell_in_realtime_counts_towards_the_time_limit():
    source = ARENA + f"def f():\n    at(arena() + {membrane.AT_SLEEP}, 8)[:] = 127\n    while True: pass"
    with evocell.Engine(Config.load(workers=0, profile="realtime")) as engine:
        sandbox = engine.create_sandbox(
            source=source, limits=LIMITS.evolve(timeout_s=0.5), security_profile="low"
        )
        outcome = engine.run(sandbox, "f", isolation="call")

    assert (outcome.kind, outcome.deterministic) == ("timeout", False)


def test_the_threat_model_counts_what_is_here():
    here = Path(__file__)
    page = " ".join((here.parents[2] / "docs" / "threat-model.md").read_text().split())
    counts = [len(group) for group in (ESCAPES, EXHAUSTIONS, LIES, PATCHES)]
    answers = Counter(decision.answer for decision in membrane.TABLE)
    bundles = re.findall(r"^def test_", here.with_name("test_hostile_bundles.py").read_text(), re.MULTILINE)

    def stated(pattern):
        return [int(number) for number in re.search(pattern.replace("#", r"(\d+)"), page).groups()]

    attacks = (
        r"# named programs in `test_attacks.py` \(# escapes, # exhaustions, # lies to the host, # patched"
    )
    assert stated(attacks) == [sum(counts), *counts]
    assert stated("# WASI functions and the mailbox") == [len(membrane.TABLE) - 1]
    decided = "# it answers without the host, # it passes on .*? # it refuses"
    assert stated(decided) == [answers[kind] for kind in ("membrane", "bounded", "refused")]
    assert stated("# kinds of hostile bundles") <= [len(bundles)]
