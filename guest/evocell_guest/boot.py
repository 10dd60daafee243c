"""Boot of the guest, once before the freeze into an image; it is not charged to any call."""

from __future__ import annotations

import gc
import importlib
import io
import marshal
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from . import agent, gaps, guard, imports, integers, processes
from .decoding import decode
from .immortal import lasting_objects
from .packing import pack
from .reseed import DEFAULT_SEED, prepare
from .values import encode

_ENTRY = "_reactor"
"""The module of the interpreter that runs what the host gives it."""
_SERVE = "serve()"
"""What the host gives it for every call."""

# Enough for the interpreter to specialise the agent's byte code; the image keeps the specialised form.
_REHEARSALS = 24
_REHEARSAL = b"""
import sys
class Trouble(Exception): pass
def answer(x, y=2):
    print(x)
    return {"x": x, "list": [1, 2.5, None, "text"], "tuple": (y, True)}
def trouble(x):
    raise Trouble(x)
"""
_REHEARSAL_POLICY = {
    "profile": "rehearsal",
    "enforce": True,
    "blocked": ["_host"],
    "allowed": None,
    "names": ["sys.settrace"],
    "attributes": ["f_globals"],
    "builtins": [],
    "events": {"import": None, "sys.settrace": None},
}


class WarmUpError(RuntimeError):
    """A module of the warm set cannot be imported in the guest.

    Attributes:
        module: Its name.
    """

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(module, reason)
        self.module = module
        self.reason = reason

    def __str__(self) -> str:
        return f"the module {self.module!r} of the warm set cannot be imported in the guest: {self.reason}"


def boot(warm: Iterable[str], call: Callable[[bytes], bytes] | None = None) -> None:
    """Prepare the interpreter for the freeze and bind ``serve`` in ``__main__``.

    Args:
        warm: Modules to import, so that no fork has to.
        call: The host's mailbox; None for that of the guest's own ``_host`` module.

    Raises:
        WarmUpError: A module of the warm set cannot be imported.
    """
    if call is None:
        import _host

        call = _host.call
    integers.install()
    gaps.fill()
    names = tuple(warm)
    for name in names:
        _warm_up(name)
    sys.argv[:] = ["evocell"]
    sys.dont_write_bytecode = True
    _hide_agent()
    guard.install()
    imports.install(call, agent.loader)
    rehearse()
    sys.stdout, sys.stderr = _line_buffered(sys.stdout), _line_buffered(sys.stderr)
    agent.adopt((sys.stdout, sys.stderr), names)
    serve = agent.server(call)
    vars(sys.modules["__main__"])["serve"] = serve
    _serve_uncompiled(serve)
    processes.adopt(call)
    prepare(DEFAULT_SEED)
    gc.collect()
    gc.freeze()
    _tell_lasting_objects(call)


def _serve_uncompiled(serve: Callable[[], None]) -> None:
    """Have the interpreter's entry call `serve` where it is given the text that does so.

    The entry parses, compiles and registers whatever text it is given, which was two fifths of a trivial
    call. All other text it treats as ever.
    """
    entry: Any = sys.modules.get(_ENTRY)
    if entry is None:  # no guest, as in the agent's own tests
        return
    run_text = entry._run_turn  # noqa: SLF001 - what the one interpreter whose checksum is accepted calls

    def run_turn(text: str, name: str) -> None:
        if text == _SERVE:
            serve()
        else:
            run_text(text, name)

    entry._run_turn = run_turn  # noqa: SLF001


def _tell_lasting_objects(call: Callable[[bytes], bytes]) -> None:
    """Send the host the objects to make immortal. The agent holds the message until its next response."""
    agent.hold(lasting_objects())
    call(agent.held())


def rehearse() -> None:
    """Run the agent's usual paths until the interpreter has specialised them, then reset it."""
    request = {
        "op": "compile",
        "files": [["rehearsal.py", _REHEARSAL]],
        "policy": _REHEARSAL_POLICY,
        "optimize": -1,
    }
    compiled = decode(agent.handle(encode(request)))["code"]
    harness = pack("/harness", {})
    limits = {"payload_bytes": 1 << 20, "payload_items": 1000, "payload_depth": 64}
    stdout, sys.stdout = sys.stdout, io.StringIO()
    try:
        for turn in range(_REHEARSALS):
            for entry in ("answer", "trouble", "missing"):
                call = {
                    "op": "call",
                    "code": compiled if entry == "answer" else None,
                    "harness": harness if entry == "answer" else None,
                    "entry": f"rehearsal:{entry}",
                    "args": encode([[turn], {}]),
                    "seed": turn,
                    **limits,
                }
                agent.handle(marshal.dumps(call, 2))
            agent.loader.forget()
    finally:
        sys.stdout = stdout


def _warm_up(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        raise WarmUpError(name, f"{type(error).__name__}: {error}") from error


def _line_buffered(stream: Any) -> Any:
    """Make a stream line-buffered, and tolerant of any character."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return stream


def _hide_agent() -> None:
    """Remove the agent's directories from `sys.path`: a variant does not need them."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - no pathlib in the image
    sys.path[:] = [entry for entry in sys.path if entry and os.path.normpath(entry) != here]
    for finder_path in list(sys.path_importer_cache):
        if finder_path == here or finder_path.startswith(here + "/"):
            del sys.path_importer_cache[finder_path]
