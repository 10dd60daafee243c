"""Freezing a session into an image, in the process that holds it.

A copy is frozen, so the session itself is unchanged. The copy is settled: its loaded code becomes part of the
image, and its objects are exempted from garbage collection. A second copy reports which objects may be made
immortal, so that forks which only read them share their pages; asking the first copy would leave traces in
the image.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import count
from typing import Protocol

import trio
from attrs import evolve

from evocell.errors import ProtocolError
from evocell.execution.messages import CopyRefused, GuestRequest, GuestResult, ImageRefused
from evocell.guests.guest import Fork
from evocell.models.limits import MAX_MEMORY_BYTES, Bounds, Limits
from evocell.wire.values import decode_hostile
from evocell_guest.values import encode
from evocell_runtime.boot import make_immortal
from evocell_runtime.cache import ImageCache
from evocell_runtime.derive import Origin, derive
from evocell_runtime.errors import ImageError
from evocell_runtime.rehearsal import RehearsalLimits
from evocell_runtime.snapshot import freeze
from evocell_runtime.untrusted import GuestBytes

__all__ = ["LEAST_TO_SETTLE", "freeze_copy", "limits_to_settle"]

LEAST_TO_SETTLE = Limits(fuel=5_000_000_000, timeout_s=5.0)
"""Limits of preparing a copy for the freeze, where the sandbox's own are lower."""

_ROOM_BYTES = 32 << 20  # to list the existing objects, beyond the sandbox's own limit
_ADDRESSES_BYTES = 8 << 20  # of two million objects; the image with numpy has 96,000
_LASTING = encode({"op": "lasting"})
_ANSWER: Bounds = {"max_bytes": 1 << 16, "max_items": 32, "max_depth": 8}
_SHOWN_CHARS = 500
_numbers = count(1)


class SessionHost(Protocol):
    """The part of the host that a freeze needs."""

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run one request."""
        ...

    async def fork_session(self, session: str, new: str, limits: Limits | None = None) -> bool:
        """Copy a session's state into a new session."""
        ...

    async def end_session(self, session: str) -> None:
        """Drop a session."""
        ...

    def kept(self, session: str) -> AbstractAsyncContextManager[Fork | None]:
        """Hold a session's fork for the duration of a block."""
        ...


async def freeze_copy(
    host: SessionHost,
    cache: ImageCache,
    request: GuestRequest,
    *,
    name: str,
    replace: bool,
    version: str | None,
) -> str:
    """Freeze a copy of a session into an image; see `Host.freeze_session`."""
    copy = f"freeze-{next(_numbers)}"
    lasting = f"{copy}-lasting"
    try:
        limits = limits_to_settle(request.limits)
        if request.session is not None:
            async with host.kept(request.session) as fork:
                held = 0 if fork is None else fork.limits.memory_bytes
            limits = limits_to_settle(request.limits, held)
            await host.fork_session(request.session, copy, limits)
        request = evolve(request, session=copy, limits=limits)
        _refuse_unsettled(await host.run(request))
        await host.fork_session(copy, lasting)
        seen = await host.run(evolve(request, session=lasting, parts=(_LASTING,), parts_again=(_LASTING,)))
        result = seen.result
        addresses = None if result is None or not result.returned else result.response
        image_id: str | None = None
        async with host.kept(copy) as fork:
            if fork is not None:
                seal = partial(
                    _seal, fork, cache, addresses, request, name=name, replace=replace, version=version
                )
                with trio.CancelScope(shield=True):
                    image_id = await trio.to_thread.run_sync(seal)
        if image_id is None:
            raise CopyRefused("the copy to be frozen is gone")
        return image_id
    finally:
        with trio.CancelScope(shield=True):
            await host.end_session(lasting)
            await host.end_session(copy)


def _seal(
    fork: Fork,
    cache: ImageCache,
    addresses: GuestBytes | None,
    request: GuestRequest,
    *,
    name: str,
    replace: bool,
    version: str | None,
) -> str:
    try:
        guest = fork.wake().instance
        make_immortal(guest.memory, addresses, strict=False)
        snapshot = freeze(guest)
    except (ImageError, OSError) as e:
        raise CopyRefused(str(e)) from e
    try:
        origin = Origin(parent=fork.image.image_id, version=version, app=request.app)
        own = request.limits
        limits = RehearsalLimits().within(
            fuel=own.fuel, growth_bytes=own.memory_bytes, timeout_s=own.timeout_s
        )
        made = derive(fork.image, cache, snapshot, origin, name=name, replace=replace, limits=limits)
    except ImageError as e:
        raise ImageRefused(str(e)) from e
    except OSError as e:
        raise CopyRefused(str(e)) from e
    return made.image_id


def limits_to_settle(own: Limits, held_bytes: int = 0) -> Limits:
    """Return the limits of preparing a copy: those of a call into the sandbox, or a little more.

    Nothing can be written to its scratch space.

    Args:
        own: The sandbox's limits.
        held_bytes: Memory that its fork may already have grown to.
    """
    return evolve(
        own,
        fuel=max(own.fuel, LEAST_TO_SETTLE.fuel),
        memory_bytes=min(max(own.memory_bytes, held_bytes) + _ROOM_BYTES, MAX_MEMORY_BYTES),
        timeout_s=max(own.timeout_s, LEAST_TO_SETTLE.timeout_s),
        payload_bytes=_ADDRESSES_BYTES,
        scratch_bytes=0,
    )


def _refuse_unsettled(seen: GuestResult) -> None:
    """Raise if a copy could not be prepared."""
    if seen.answer is None:
        why = seen.unforked or seen.no_image or seen.lost or "it did not come back from being prepared"
        raise CopyRefused(why)
    try:
        answer = decode_hostile(seen.answer, **_ANSWER)
    except ProtocolError as e:
        raise CopyRefused(f"its answer cannot be read: {e}") from e
    if not isinstance(answer, dict) or answer.get("t") != "settled":
        said = answer.get("message") if isinstance(answer, dict) else None
        told = said[:_SHOWN_CHARS] if isinstance(said, str) else "nothing"
        raise CopyRefused(f"its code raised while it was prepared: {told}")
