"""How long the engine's process stands still while answers arrive that were made to hold it up.

Nothing else runs in a process while a C function holds the interpreter's lock: no call begins or ends, no client
is heard. A thread that wakes every few milliseconds sees how long that was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import evocell
from measures.report import Report, Row

_TARGET_S = 0.05
_BEAT_S = 0.002
_TIMES = 3
_TASK = evocell.Evaluation("f", [evocell.Case()], score=lambda *_: 1.0)
_HEAD = """
import sys, struct
def many(n): return b'\\xdd' + struct.pack('>I', n)
def ext(code, data): return b'\\xc9' + struct.pack('>IB', len(data), code) + data
"""
_FOOT = "\n    sys.modules['evocell_guest.agent']._encode_value = lambda *a, **k: data\n    return 1\n"
# What the guest answers with instead of a value, as an expression.
_FORGED = {
    "a million small numbers": "many(999_000) + b'\\x01' * 999_000",
    "a million empty lists": "many(999_000) + b'\\x90' * 999_000",
    "330,000 maps of one key": "many(330_000) + b'\\x81\\x00\\x00' * 330_000",
    "nested pairs": "many(240_000) + b'\\x92\\x01\\x91\\x02' * 240_000",
    "a map of 490,000 texts": "b'\\xdf' + struct.pack('>I', 490_000) + "
    "b''.join(b'\\xa6%06x\\xc0' % i for i in range(490_000))",
    "a set of 490,000 texts": "ext(3, many(490_000) + b''.join(b'\\xa6%06x' % i for i in range(490_000)))",
    "two million floats": "ext(6, bytes(7_900_000))",
    "15 MB of text": "b'\\xdb' + struct.pack('>I', 15_000_000) + b'\\xc3\\xa9' * 7_500_000",
}
_CHAIN = """
import numpy as np
def chain(K):
    M = 1 << K; m = M - 1; n1 = M // 3 + 2; n2 = n1 * 2 // 5
    first = []; s = 0
    for _ in range(n1): first.append(s); s = (5 * s + 1) & m
    pos = np.full(M, -1, dtype=np.int64); pos[np.array(first)] = np.arange(n1)
    found, base = [], M
    while sum(map(len, found)) < n2:
        h = np.arange(base, base + (1 << 18), dtype=np.int64); base += 1 << 18
        i = h & m; p = h.copy(); ok = pos[i] >= 0
        while (p >> 5).any():
            p >>= 5; i = (i * 5 + p + 1) & m; ok &= pos[i] >= 0
        p >>= 5; i = (i * 5 + p + 1) & m; ok &= (pos[i] >= 0) & (pos[i] < n1 // 3)
        found.append(h[ok])
    keys = first + np.concatenate(found)[:n2].tolist()
    return b'\\xdf' + struct.pack('>I', len(keys)) + b''.join(b'\\xcf' + struct.pack('>Q', k) + b'\\xc0' for k in keys)
"""


def measure(report: Report) -> None:
    """Send answers that take a reader long, and note the longest silence of a thread beside it.

    Args:
        report: Where the rows go.
    """
    forged = {name: _HEAD + f"def f():\n    data = {text}" + _FOOT for name, text in _FORGED.items()}
    forged["keys that collide"] = _HEAD + _CHAIN + "def f():\n    data = chain(18)" + _FOOT
    worst: dict[str, float] = {}
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        engine.evaluate_one("def f(): return 1", _TASK)
        for name, source in forged.items():
            gaps: list[float] = []
            with _heartbeat(gaps):
                for n in range(report.share(_TIMES)):
                    engine.evaluate_one(f"{source}# {n}\n", _TASK)
            worst[name] = max(gaps)
    for name, longest in worst.items():
        report.add(Row(name=f"longest silence: {name}", samples=[longest], target=_TARGET_S))
    report.add(
        Row(name="longest silence: any of these answers", samples=[max(worst.values())], target=_TARGET_S)
    )


@contextmanager
def _heartbeat(gaps: list[float]) -> Iterator[None]:
    """Note how long a thread that sleeps a moment again and again was kept from waking."""
    over = threading.Event()

    def beat() -> None:
        last = time.monotonic()
        while not over.is_set():
            time.sleep(_BEAT_S)
            now = time.monotonic()
            gaps.append(now - last - _BEAT_S)
            last = now

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
