"""A session frozen into an image, in the process that holds it.

What is frozen is a copy: the session goes on as if nothing had been. The copy is told to settle: what it
has loaded becomes a part of the image, and its objects are put out of the collector's reach. A second copy
tells which objects may be made immortal, so that forks which merely look at them share their pages; asking
the first would leave its traces in the image.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import count
from typing import Protocol

import trio
from attrs import evolve

from evocell.errors import ProtocolError
from evocell.execution.guest_job import Fork
from evocell.execution.run import CopyRefused, Run, Sighting
from evocell.models.limits import Limits
from evocell.wire.values import decode_hostile
from evocell_guest.values import encode
from evocell_runtime.boot import make_immortal
from evocell_runtime.cache import ImageCache
from evocell_runtime.derive import Origin, derive
from evocell_runtime.errors import ImageError
from evocell_runtime.snapshot import freeze

__all__ = ["SETTLE_LIMITS", "freeze_copy"]

SETTLE_LIMITS = Limits(
    fuel=400_000_000_000, memory_bytes=1 << 30, timeout_s=120.0, payload_bytes=128 << 20, payload_depth=8
)
"""What preparing a copy for the freeze may take."""

_LASTING = encode({"op": "lasting"})
_ANSWER_BYTES = 1 << 16
_ANSWER_ITEMS = 32
_ANSWER_DEPTH = 8
_numbers = count(1)


class SessionHost(Protocol):
    """The host of guests, as far as a freeze needs it."""

    async def run(self, run: Run) -> Sighting:
        """Run one request."""
        ...

    async def fork_session(self, session: str, new: str, limits: Limits | None = None) -> bool:
        """Copy what a session holds into a new one."""
        ...

    async def end_session(self, session: str) -> None:
        """Drop a session."""
        ...

    def kept(self, session: str) -> AbstractAsyncContextManager[Fork | None]:
        """Hold a session's fork."""
        ...


async def freeze_copy(
    host: SessionHost, cache: ImageCache, run: Run, *, name: str, replace: bool, version: str | None
) -> str:
    """Seal a copy of what a session holds; see `Host.freeze_session`."""
    copy = f"freeze-{next(_numbers)}"
    lasting = f"{copy}-lasting"
    request = evolve(run, session=copy, limits=SETTLE_LIMITS)
    try:
        if run.session is not None:
            await host.fork_session(run.session, copy, SETTLE_LIMITS)
        _refuse_unsettled(await host.run(request))
        await host.fork_session(copy, lasting)
        seen = await host.run(evolve(request, session=lasting, parts=(_LASTING,), parts_again=(_LASTING,)))
        result = seen.result
        addresses = b"" if result is None or not result.returned else (result.response or b"")
        image_id: str | None = None
        async with host.kept(copy) as fork:
            if fork is not None:
                seal = partial(
                    _seal, fork, cache, addresses, run, name=name, replace=replace, version=version
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
    addresses: bytes,
    run: Run,
    *,
    name: str,
    replace: bool,
    version: str | None,
) -> str:
    try:
        guest = fork.roused().instance
        make_immortal(guest.memory, addresses, strict=False)
        snapshot = freeze(guest)
        origin = Origin(parent=fork.image.image_id, version=version, app=run.app)
        return derive(fork.image, cache, snapshot, origin, name=name, replace=replace).image_id
    except (ImageError, OSError) as e:
        raise CopyRefused(str(e)) from e


def _refuse_unsettled(seen: Sighting) -> None:
    """Raise if a copy could not be prepared."""
    result = seen.result
    if result is None or not result.returned or seen.timed_out or result.response is None:
        why = seen.unforked or seen.no_image or seen.lost or "it did not come back from being prepared"
        raise CopyRefused(why)
    try:
        answer = decode_hostile(
            result.response, max_bytes=_ANSWER_BYTES, max_items=_ANSWER_ITEMS, max_depth=_ANSWER_DEPTH
        )
    except ProtocolError as e:
        raise CopyRefused(f"its answer cannot be read: {e}") from e
    if not isinstance(answer, dict) or answer.get("t") != "settled":
        said = answer.get("message", "nothing") if isinstance(answer, dict) else "nothing"
        raise CopyRefused(f"its code raised while it was prepared: {str(said)[:500]}")
