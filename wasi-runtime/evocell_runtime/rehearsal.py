"""Test calls of a new image, which also find the pages that every call writes to.

A variant may control the image and answer in place of the agent. So the calls run under limits, and the
answer is never decoded, but compared with the expected bytes.
"""

from __future__ import annotations

import marshal
from pathlib import Path

import wasmtime
from attrs import frozen

from evocell_guest.values import encode
from evocell_runtime.body import Body
from evocell_runtime.boot import membrane_pre
from evocell_runtime.cache import MEMBRANE_FILE
from evocell_runtime.calls import CallLimits
from evocell_runtime.errors import ImageError
from evocell_runtime.hot_pages import Run, written_pages
from evocell_runtime.instance import Instance
from evocell_runtime.untrusted import GuestBytes

__all__ = ["RehearsalLimits", "find_hot_pages"]

_ANSWER_BYTES = 1 << 16
_OUTPUT_BYTES = 1 << 12
_OPEN_FILES = 16
_COMPILED = b"\x83" + b"".join(map(encode, ("t", "compiled", "code")))
_COMPLETED = encode({"t": "completed", "v": None})
# First byte of a sequence of bytes -> bytes of the length that follows it.
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}


@frozen(kw_only=True)
class RehearsalLimits:
    """Limits of the two calls. Those of an intact image take 2 million of fuel and 2 ms.

    Attributes:
        fuel: Fuel of each.
        growth_bytes: Most growth of the memory beyond the image's.
        timeout_s: Seconds for which each may hold a thread.
    """

    fuel: int = 2_000_000_000
    growth_bytes: int = 64 << 20
    timeout_s: float = 10.0

    def within(self, *, fuel: int, growth_bytes: int, timeout_s: float) -> RehearsalLimits:
        """Return the minimum with a sandbox's limits, but at least the need of an intact image."""
        return RehearsalLimits(
            fuel=max(_LEAST.fuel, min(self.fuel, fuel)),
            growth_bytes=max(_LEAST.growth_bytes, min(self.growth_bytes, growth_bytes)),
            timeout_s=max(_LEAST.timeout_s, min(self.timeout_s, timeout_s)),
        )


_LEAST = RehearsalLimits(fuel=200_000_000, growth_bytes=8 << 20, timeout_s=2.0)


def find_hot_pages(
    engine: wasmtime.Engine,
    code: wasmtime.Module,
    folder: Path,
    *,
    memory_bytes: int,
    limits: RehearsalLimits | None = None,
) -> tuple[Run, ...]:
    """Run an empty call in a fork of the finished image, and find the pages it wrote to.

    Args:
        engine: The engine that compiled its parts.
        code: The interpreter.
        folder: The image's directory.
        memory_bytes: Size of the image's memory.
        limits: Limits of the calls.

    Raises:
        ImageError: The image does not answer as it must, or not within the limits.
    """
    limits = limits or RehearsalLimits()
    sealed = wasmtime.Module.deserialize_file(engine, str(folder / MEMBRANE_FILE))
    empty = str(folder / "empty")
    directories = (str(folder / "root"), empty, empty, empty)
    pre = membrane_pre(engine, sealed)
    compiled = b""
    pages: tuple[Run, ...] = ()
    for request in (_compile_request, _call_request):
        body = Body(engine, pre, code)
        body.furnish(directories, memory_limit_bytes=memory_bytes + limits.growth_bytes, scratch=False)
        instance = Instance(body)
        try:
            answer = _answer(instance, request(compiled), limits)
            compiled = _compiled_code(answer) if request is _compile_request else b""
            if request is _call_request and answer != _COMPLETED:
                raise _wrong("its answer to a call is not the one that was due")
            pages = written_pages(instance.memory.address, instance.memory.size_bytes)
        finally:
            instance.close()
    return pages


def _answer(instance: Instance, request: bytes, limits: RehearsalLimits) -> GuestBytes:
    """Return the guest's answer to a request; a call that exceeds its time is killed."""
    bounds = CallLimits(
        fuel=limits.fuel,
        response_bytes=_ANSWER_BYTES,
        output_bytes=_OUTPUT_BYTES,
        open_files=_OPEN_FILES,
    )
    try:
        call = instance.start(b"serve()", request, bounds)
    except MemoryError:
        raise _wrong("it has no room for a request") from None
    while not call.poll():
        if call.ran_s >= limits.timeout_s:
            call.abandon()
            raise _wrong(f"it did not answer within {limits.timeout_s:g} s")
    result = call.finish()
    if result.trap == "OUT_OF_FUEL":
        raise _wrong(f"it did not answer within {limits.fuel:,} fuel")
    if not result.returned:
        raise _wrong(f"it ended with {result.trap or result.stop_reason.name} instead of an answer")
    if result.response is None:
        left = result.response_bytes
        raise _wrong(f"its answer has {left:,} bytes; 1 to {_ANSWER_BYTES:,} may come")
    return result.response


def _compiled_code(answer: GuestBytes) -> bytes:
    """Extract the opaque byte code from the answer to a compilation."""
    if answer.startswith(_COMPILED):
        rest = answer.unchecked()[len(_COMPILED) :]
        width = _BYTES.get(rest[0]) if rest else None
        if width is not None:
            size = int.from_bytes(rest[1 : 1 + width], "big")
            code = rest[1 + width : 1 + width + size]
            if len(code) == size:
                return code
    raise _wrong("its answer to a compilation is not one")


def _wrong(what: str) -> ImageError:
    return ImageError(f"the finished image does not answer as it should: {what}")


def _compile_request(_: bytes) -> bytes:
    files = [["rehearsal.py", b"def answer():\n    return None\n"]]
    return encode({"op": "compile", "files": files, "root": "/app", "policy": None, "optimize": -1})


def _call_request(compiled: bytes) -> bytes:
    request = {
        "op": "call",
        "code": compiled,
        "harness": None,
        "entry": "rehearsal:answer",
        "args": encode([[], {}]),
        "seed": 0,
        "payload_bytes": 1 << 20,
        "payload_items": 1 << 10,
        "payload_depth": 64,
    }
    return marshal.dumps(request, 2)  # in the engine's encoding, so that decoding touches the same pages
