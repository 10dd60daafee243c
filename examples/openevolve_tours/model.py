"""A language model for the example: it knows a few programs by heart and says one after the other.

It speaks as much of the OpenAI protocol as OpenEvolve asks for, on the loopback interface.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NEAREST = """
def tour(towns):
    left, order = set(range(1, len(towns))), [0]
    while left:
        x, y = towns[order[-1]]
        nearest = min(left, key=lambda i: (towns[i][0] - x) ** 2 + (towns[i][1] - y) ** 2)
        left.remove(nearest)
        order.append(nearest)
    return order
"""

TWO_OPT = f"""
import math
{NEAREST.replace("def tour", "def nearest")}

def tour(towns):
    order, n, better = nearest(towns), len(towns), True
    def way(i, j):
        return math.dist(towns[order[i % n]], towns[order[j % n]])
    while better:
        better = False
        for i in range(n - 1):
            for j in range(i + 2, n if i else n - 1):
                if way(i, j) + way(i + 1, j + 1) < way(i, i + 1) + way(j, j + 1) - 1e-12:
                    order[i + 1 : j + 1] = reversed(order[i + 1 : j + 1])
                    better = True
    return order
"""

ENDLESS_LOOP = """
def tour(towns):
    while True:
        pass
"""

MEMORY_BOMB = """
def tour(towns):
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))
"""

ENVIRON_READER = """
import os

def tour(towns):
    raise RuntimeError("found: " + " ".join(f"{name}={value}" for name, value in os.environ.items()))
"""

PROGRAMS = {
    "an endless loop": ENDLESS_LOOP,
    "nearest neighbour": NEAREST,
    "a memory bomb": MEMORY_BOMB,
    "a reader of os.environ": ENVIRON_READER,
    "nearest neighbour and 2-opt": TWO_OPT,
}


@contextmanager
def serving() -> Iterator[str]:
    """Serve the model while the block runs; gives the base address for OpenEvolve's configuration."""
    programs = itertools.cycle(PROGRAMS.values())
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                text = f"```python\n# EVOLVE-BLOCK-START\n{next(programs).strip()}\n# EVOLVE-BLOCK-END\n```"
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "parrot",
                "choices": [choice],
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Say nothing: requests are no news."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
