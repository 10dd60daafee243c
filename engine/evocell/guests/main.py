"""Entry point of a worker process: `python -m evocell.guests.main`.

It is started by exec, exchanges frames on its former standard input and output, forks guests from one image,
and runs them on its event loop's thread. It ends when its input ends, and the kernel kills it with its parent
process. It holds no durable state.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import define

from evocell.errors import EngineClosed, ImageError, ProtocolError
from evocell.execution.follow_ups import FOLLOW_UP
from evocell.execution.messages import (
    COPYING,
    EXPORT_IMAGE,
    EXPORT_SESSION,
    FORK,
    FREEZE,
    IMPORT_IMAGE,
    IMPORT_SESSION,
    CopyRefused,
    GuestRequest,
    GuestResult,
    ImageRefused,
)
from evocell.execution.payload_cache import BLOB, PayloadCache, packed
from evocell.execution.rpc import Answer, Connection
from evocell.guests.capacity import capacity, own_resources, raise_descriptor_limit
from evocell.guests.follow_ups import FollowUps, compiled_file
from evocell.guests.host import GuestHost
from evocell.guests.images import LoadedImages
from evocell.guests.loop_scheduler import LoopScheduler
from evocell.models.foreign import clean_log, clean_traces
from evocell_runtime.cache import ImageCache
from evocell_runtime.errors import ImageError as RuntimeImageError
from evocell_runtime.image import Image
from evocell_runtime.parent import die_with_parent
from evocell_runtime.untrusted import GuestBytes


class _Service:
    """Answers an engine's requests."""

    def __init__(self, driver: LoopScheduler) -> None:
        self._driver = driver
        self._host: GuestHost | None = None
        self._shelf = PayloadCache()
        self.follow_ups = FollowUps()
        """The compilations that calls follow."""

    def notified(self, method: str, params: dict[str, Any]) -> None:
        """Keep a blob that later requests refer to."""
        if method == BLOB:
            self._shelf.take(params)

    def quick(self, method: str, params: dict[str, Any], answer: Answer) -> Callable[[], object] | None:
        """Accept a request without a session, which needs no task; see `Connection`."""
        host = self._host
        if host is None:
            return None
        if method == FOLLOW_UP:
            return self._follow(host, params, answer)
        if method != "run" or not params["alone"]:
            return None
        request = self._shelf.run(params)
        if not isinstance(request, GuestRequest):
            answer(None, request)
            return bool

        name: int | None = params.get("leads")
        if name is None:
            return host.begin(request, partial(_tell, answer))
        self.follow_ups.lead(name)

        def done(seen: GuestResult | EngineClosed) -> None:
            _tell(answer, seen)
            self.follow_ups.ended(name, seen if isinstance(seen, GuestResult) else None)

        stop = host.begin(request, done)
        if stop is None:
            self.follow_ups.ended(name, None)
        return stop

    def _follow(self, host: GuestHost, params: dict[str, Any], answer: Answer) -> Callable[[], object]:
        """Accept a call behind a compilation; the answer is None where it is not made."""
        found = self._shelf.follow_up(params)
        if found is None:
            answer(None, None)
            return bool
        name, follow_up = found
        state = _Following()

        def begin(answered: GuestBytes | None) -> None:
            found = compiled_file(answered, follow_up.path)
            stop = None
            try:
                if found is not None:
                    stop = host.begin(follow_up.with_code(found), partial(_tell, answer))
            except EngineClosed as closed:
                _tell(answer, closed)
                return
            if stop is None:
                answer(None, None)
            else:
                state.stop = stop

        def leave() -> None:
            self.follow_ups.leave(name)
            answer(None, None)

        state.stop = leave
        self.follow_ups.follow(name, begin)
        return state

    async def handle(self, method: str, params: dict[str, Any]) -> Any:
        """Handle a request."""
        if method == "open":
            self._host = _open(params, self._driver)
            self._shelf = PayloadCache(params["shelf_bytes"])
            return self._host.capacity
        host = self._host
        if method == "ping":
            return 0.0 if host is None else host.stalled_s
        if host is None:
            raise ProtocolError(f"the request {method!r} came before 'open'")
        if method == "run":
            request = self._shelf.run(params)
            return packed(await host.run(request)) if isinstance(request, GuestRequest) else request
        if method in COPYING:
            return await _answer_copying(host, method, params)
        if method == "end_session":
            await host.end_session(params["session"])
            return None
        if method == "release_session":
            return await host.release_session(params["session"])
        if method == "adopt_session":
            return await host.adopt_session(params["session"], params["state"])
        raise ProtocolError(f"there is no request {method!r}")

    async def aclose(self) -> None:
        """Drop every fork."""
        if self._host is not None:
            await self._host.aclose()


@define(eq=False)
class _Following:
    """Cancels a call that waits for its compilation, or runs."""

    stop: Callable[[], object] = bool

    def __call__(self) -> object:
        return self.stop()


def _tell(answer: Answer, seen: GuestResult | EngineClosed) -> None:
    """Answer a request with its result, or with its cancellation."""
    if isinstance(seen, GuestResult):
        answer(None, packed(seen))
    else:
        answer({"code": "cancelled", "message": str(seen)}, None)


async def _answer_copying(host: GuestHost, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Handle a copying request; a refusal is a regular answer."""
    try:
        if method == FORK:
            return {"done": await host.fork_session(params["session"], params["new"])}
        if method == FREEZE:
            request = GuestRequest.from_wire(params["run"], _not_here)
            name, replace, version = params["name"], params["replace"], params["version"]
            return {"done": await host.freeze_session(request, name=name, replace=replace, version=version)}
        if method == EXPORT_SESSION:
            return {"done": await host.export_session(params["session"])}
        if method == IMPORT_SESSION:
            await host.import_session(params["session"], params["state"])
            return {"done": None}
        if method == EXPORT_IMAGE:
            return {"done": await host.export_image(params["image"], Path(params["path"]))}
        if method == IMPORT_IMAGE:
            path, name, replace = Path(params["path"]), params["name"], params["replace"]
            return {"done": await host.import_image(path, name=name, replace=replace)}
    except CopyRefused as refusal:
        return {"refused": str(refusal), "image": isinstance(refusal, ImageRefused)}
    raise ProtocolError(f"there is no request {method!r}")


def _not_here(name: str) -> bytes:
    raise ProtocolError(f"a request about a copy refers to {name}, which it should hold")


def _open(params: dict[str, Any], driver: LoopScheduler) -> GuestHost:
    cache = ImageCache(Path(params["cache"]))
    manifest = cache.get(params["image_id"])
    if manifest is None:
        raise ImageError(f"there is no image {params['image_id']} in {cache.root}")
    try:
        image = Image(cache, manifest)
    except RuntimeImageError as e:
        raise ImageError(str(e)) from e
    raise_descriptor_limit()
    room = capacity(own_resources(params["memory_bytes"]))
    return GuestHost(LoadedImages(image, cache), driver, realtime=params["realtime"], capacity=room)


async def _serve(source: int, sink: int) -> None:
    driver = LoopScheduler()
    service = _Service(driver)
    async with trio.lowlevel.FdStream(source) as receive, trio.lowlevel.FdStream(sink) as send:
        connection = Connection(receive, send, service.handle, notified=service.notified, quick=service.quick)
        driver.on_pause = connection.release
        waiting = select.poll()
        waiting.register(source, select.POLLIN)
        driver.expects_job = lambda: service.follow_ups.expected
        driver.has_input = lambda: bool(waiting.poll(0))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(driver.serve)
                await connection.serve()
                nursery.cancel_scope.cancel()
        finally:
            await service.aclose()


def main() -> int:
    """Serve until the input ends."""
    die_with_parent()
    clean_traces()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Frames get descriptors of their own, so that no other output can mix with them.
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    with clean_log():
        trio.run(_serve, source, sink)
    return 0


if __name__ == "__main__":
    sys.exit(main())
