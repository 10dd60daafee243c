"""A guest in this process: the real agent, and a stand-in for the host's mailbox."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from evocell_guest import agent
from evocell_guest.decoding import decode
from evocell_guest.values import encode


class Guest:
    """Drives the agent as the host does: one mailbox, one request, one response."""

    def __init__(self, folder: Path) -> None:
        self.root = str(folder / "app")
        self.harness_root = str(folder / "harness")
        self._request = b""
        self._response = b""
        self._serve = agent.server(self._mailbox)

    def _mailbox(self, data: bytes) -> bytes:
        if data:
            self._response = data
            return b""
        return self._request

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._request, self._response = encode(request), b""
        self._serve()
        answer = decode(self._response)
        assert isinstance(answer, dict)
        return answer

    def compile(self, files: str | dict[str, Any], *, root: str | None = None, **options: Any):
        tree = {"program.py": files} if isinstance(files, str) else files
        root = root or self.root
        pairs = []
        for path, content in sorted(tree.items()):
            data = content.encode() if isinstance(content, str) else content
            target = Path(root) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            pairs.append([path, data])
        return self.ask(
            {"op": "compile", "files": pairs, "policy": None, "optimize": -1, "root": root, **options}
        )

    def call(
        self, entry: str, *args: Any, code: bytes | None = None, harness: bytes | None = None, **options: Any
    ):
        request = {
            "op": "call",
            "code": code,
            "harness": harness,
            "entry": entry,
            "args": encode([list(args), options.pop("kwargs", {})]),
            "seed": 0,
            "payload_bytes": 1 << 20,
            "payload_items": 10_000,
            "payload_depth": 64,
        }
        return self.ask(request | options)

    def run(self, source: str | dict[str, Any], entry: str = "program:f", *args: Any, **options: Any):
        """Compile, load and call, as a throw-away fork would."""
        agent.loader.forget()
        return self.call(entry, *args, code=self.compile(source)["code"], **options)


@pytest.fixture
def guest(tmp_path):
    recursion_limit, random_state, modules = sys.getrecursionlimit(), random.getstate(), set(sys.modules)
    yield Guest(tmp_path)
    agent.loader.forget()
    for name in set(sys.modules) - modules:
        if name.startswith(("program", "pkg", "driver")):
            del sys.modules[name]
    agent.adopt((), ())
    random.setstate(random_state)
    sys.setrecursionlimit(recursion_limit)
