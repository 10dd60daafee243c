"""Client for trio programs: the methods of `AsyncEngine`, served by a remote engine."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import trio
from attrs import asdict, evolve, frozen

from evocell.api.arguments import individual
from evocell.api.async_engine import AsyncEngine
from evocell.api.async_evaluating import AsyncEvaluating
from evocell.api.evaluator import AsyncEvaluators
from evocell.config import Config
from evocell.console.batches import batch_bar, shows_bars, size_of
from evocell.console.progress import console_progress
from evocell.errors import ConfigurationError, EngineClosed, EvocellError, StoreError
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.references import Source
from evocell.models.specs import SandboxSpec
from evocell.pipe import errors
from evocell.pipe.annotations import origin_of
from evocell.pipe.channel import Channel, ReceivedEvent
from evocell.pipe.codec import TypeOptions
from evocell.pipe.errors import ConnectionClosed, MethodNotFound
from evocell.pipe.functions import CALL, CallbackRegistry
from evocell.pipe.handshake import Hello
from evocell.pipe.limits import PipeLimits
from evocell.pipe.machine import HELLO, Machine
from evocell.pipe.methods import Method, engine_methods
from evocell.pipe.serialization import decode, encode
from evocell.wire.frames import Framing
from evocell_runtime.build import BuildProgress

__all__ = ["AsyncClient", "Streams", "connect_tcp", "connect_unix", "spawn_server"]

GRACE_S = 5.0
"""Timeout in seconds for the end of a server started by its client."""

_POLL_S = 0.005
_QUEUED_EVENTS = 1000

if TYPE_CHECKING:
    _Base = AsyncEngine
else:
    _Base = object


@frozen
class Streams:
    """The two streams of a connection to a server."""

    receive: trio.abc.ReceiveStream
    send: trio.abc.SendStream


@asynccontextmanager
async def spawn_server(
    *options: str, command: Sequence[str] | None = None, env: Mapping[str, str] | None = None
) -> AsyncIterator[Streams]:
    """Start ``evocell serve`` as a child process, which ends with the block or with this process.

    Args:
        *options: Options of ``evocell serve``, such as ``"--workers", "2"``.
        command: What to run instead of this interpreter's ``evocell serve``.
        env: Environment variables in addition to this process's, such as ``{"EVOCELL_PROFILE": "realtime"}``.
    """
    process = subprocess.Popen(  # noqa: ASYNC220, S603 - takes a moment; the caller says what to run
        [*(command or (sys.executable, "-m", "evocell", "serve")), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **(env or {})},
        process_group=0,  # Ctrl-C in a terminal is handled by this program
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as sink, process.stdout as source:
        send = trio.lowlevel.FdStream(os.dup(sink.fileno()))
        receive = trio.lowlevel.FdStream(os.dup(source.fileno()))
    try:
        yield Streams(receive, send)
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(send)
            with trio.move_on_after(GRACE_S):
                await _wait(process)
            if process.poll() is None:
                process.kill()
                await _wait(process)
            await trio.aclose_forcefully(receive)


async def _wait(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:  # noqa: ASYNC110 - for a moment, and only at its end
        await trio.sleep(_POLL_S)


@asynccontextmanager
async def connect_unix(path: str | os.PathLike[str]) -> AsyncIterator[Streams]:
    """Connect to a server that listens on a Unix socket.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        stream = await trio.open_unix_socket(os.fspath(path))
    except OSError as error:
        raise ConfigurationError(f"no server listens on {path}: {error.strerror or error}") from error
    async with stream:
        yield Streams(stream, stream)


@asynccontextmanager
async def connect_tcp(host: str, port: int) -> AsyncIterator[Streams]:
    """Connect to a server that listens on a TCP port.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise ConfigurationError(f"no server listens on {host}:{port}: {error}") from error
    async with stream:
        yield Streams(stream, stream)


class AsyncClient(_Base):
    """An engine at the other end of a pipe, with the methods of `AsyncEngine`.

    Made by `spawn`, `unix` and `tcp`, which are async context managers; leaving one ends the session and its
    sandboxes, unless it is detached. Exceptions of the remote methods are raised here.

    Attributes:
        session: Name and key of the session, and the number of its last event at the handshake.
        limits: The server's limits on this client.
        server: The server's name and version.
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.session: dict[str, Any] = {}
        self.limits: dict[str, Any] = {}
        self.server = ""
        self._image: Mapping[str, Any] = {}
        self._image_failure: EvocellError | None = None
        self._image_known = trio.Event()
        self._functions = CallbackRegistry(self)
        self._streams: dict[int, trio.MemorySendChannel[Any]] = {}
        self._progress: Callable[..., None] | None = None
        self._events_dropped = 0
        self._event_sink: trio.MemorySendChannel[ReceivedEvent] | None = None
        self._build_progress: Callable[[BuildProgress], None] | None = None
        self._channel: Channel

    @classmethod
    def spawn(
        cls,
        *options: str,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        progress: Callable[..., None] | None = None,
        framing: Framing = "stream",
    ) -> Any:
        """Start a server for this client alone; see `spawn_server`.

        Args:
            *options: Options of ``evocell serve``.
            command: What to run instead of this interpreter's ``evocell serve``.
            env: Environment variables in addition to this process's.
            progress: Called with each step of an image build; None shows it on standard error.
            framing: How messages follow one another.
        """
        if framing != "stream":
            options = (*options, "--framing", framing)
        streams = spawn_server(*options, command=command, env=env)
        return cls.over(streams, Hello(types=_OURS), progress=progress, framing=framing)

    @classmethod
    def unix(cls, path: str | os.PathLike[str], **options: Any) -> Any:
        """Connect to a server on a Unix socket; the options are `over`'s and `Hello`'s."""
        return cls._connected(connect_unix(path), options)

    @classmethod
    def tcp(cls, host: str, port: int, *, token: str | Path, **options: Any) -> Any:
        """Connect to a server on a TCP port; the options are `over`'s and `Hello`'s.

        Args:
            host: The server's host: this machine, or a forwarder to it.
            port: The server's port.
            token: The server's token, or the path of the file that holds it.
            **options: Of `over` and `Hello`.
        """
        if isinstance(token, Path):
            token = token.read_text(encoding="utf-8").strip()
        return cls._connected(connect_tcp(host, port), {**options, "token": token})

    @classmethod
    def _connected(cls, streams: Any, options: Mapping[str, Any]) -> Any:
        own = {name: options[name] for name in ("progress", "framing") if name in options}
        rest = {name: value for name, value in options.items() if name not in own}
        return cls.over(streams, Hello(**{"types": _OURS, **rest}), **own)

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        streams: Any,
        hello: Hello,
        *,
        progress: Callable[..., None] | None = None,
        framing: Framing = "stream",
    ) -> AsyncIterator[AsyncClient]:
        """Connect to a server over any pair of streams, until the end of the block.

        Args:
            streams: An async context manager that returns `Streams`.
            hello: The first message.
            progress: Called with each step of an image build; None shows it on standard error.
            framing: How messages follow one another.

        Raises:
            EvocellError: The server's error answer to the hello; `ImageError` if it has no image.
            ConnectionClosed: There was no answer.
        """
        client = cls()
        client._progress = progress
        async with streams as opened:
            machine = Machine("client", PipeLimits(), framing=framing)
            client._channel = Channel(opened.receive, opened.send, machine, client._asked, told=client._told)
            failure: BaseException | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client._serve)
                try:
                    with console_progress() if progress is None else nullcontext(progress) as shown:
                        client._build_progress = shown
                        await client._greet(hello)
                    yield client
                except BaseException as error:  # noqa: BLE001 - raised below, without the nursery's wrapping
                    failure = error
                client._channel.close(ConnectionClosed("the client closed the connection"))
            if failure is not None:
                raise failure

    @property
    def image_id(self) -> str:
        """Content hash of the image that every sandbox starts from."""
        return str(self._image["image_id"])

    @property
    def slots(self) -> int:
        """Number of concurrent calls; further ones wait."""
        return int(self._image["slots"])

    @property
    def shows_batches(self) -> bool:
        """Whether a batch without a progress function is shown: where it can, if the client has none too."""
        return self._progress is None and shows_bars()

    async def ping(self) -> None:
        """Check that the server responds.

        Raises:
            ConnectionClosed: It does not.
        """
        await self._channel.request("ping", {})

    async def describe(self) -> dict[str, Any]:
        """Return the server's description of the protocol."""
        described: dict[str, Any] = await self._channel.request("describe", {})
        return described

    async def shutdown(self) -> None:
        """End the session, even a detached one; all its sandboxes are destroyed when this returns."""
        await self._channel.request("shutdown", {})

    async def aclose(self) -> None:
        """Close the connection; idempotent."""
        self._channel.close(ConnectionClosed("the client closed the connection"))

    @asynccontextmanager
    async def events(
        self, prefix: str = "", *, after: int | None = None
    ) -> AsyncIterator[trio.MemoryReceiveChannel[ReceivedEvent]]:
        """Subscribe to the session's events.

        Use it as ``async with client.events() as events: async for event in events: ...``.

        Args:
            prefix: Only events under this name, as in `Telemetry.attach`.
            after: Number of the last known event; None for new ones only.
        """
        sink, source = trio.open_memory_channel[ReceivedEvent](_QUEUED_EVENTS)
        self._event_sink = sink
        async with source:
            await self._channel.request("subscribe", {"prefix": prefix, "after": after})
            try:
                yield source
            finally:
                self._event_sink = None
                with trio.CancelScope(shield=True), suppress(EvocellError):
                    await self._channel.request("unsubscribe", {})

    async def open_stream(
        self, evaluation: Evaluation, *, population: str | None = None, generation: int = 0
    ) -> Callable[[Source | SandboxSpec], Awaitable[FitnessResult]]:
        """Return a function equivalent to `evaluate_one`; see `AsyncEngine.open_stream`."""

        async def evaluate(source: Source | SandboxSpec) -> FitnessResult:
            new = individual(source, population=population, generation=generation)
            if new.spec.id is not None:
                raise ConfigurationError("the pipe gives out the ids of what it evaluates in passing", "id")
            return await self.evaluate_one(
                new.source,
                evaluation,
                population=new.spec.population,
                generation=new.spec.generation,
                parents=new.spec.parent_ids,
            )

        return evaluate

    # These are built on the other methods, on the client as on the engine.
    as_completed = AsyncEvaluating.as_completed
    evaluator = AsyncEvaluators.evaluator

    @property
    def fitness(self) -> Any:
        """The fitness of individuals; its methods are those of `FitnessRecorder`, to be awaited."""
        return _RemotePart(self, "fitness")

    @property
    def lineage(self) -> Any:
        """The lineage of individuals; its methods are those of `LineageTracker`, to be awaited."""
        return _RemotePart(self, "lineage")

    def part(self, name: str, wait: Callable[[Callable[[], Awaitable[Any]]], Any]) -> Any:
        """Return ``fitness`` or ``lineage`` for blocking programs, with a function that waits for answers."""
        return _RemotePart(self, name, wait)

    async def _serve(self) -> None:
        why = await self._channel.serve()
        self._image_failure = self._image_failure or ConnectionClosed(str(why))
        self._image_known.set()

    async def _greet(self, hello: Hello) -> None:
        said = {name: value for name, value in asdict(hello).items() if value is not None}
        said["client"] = hello.client or f"evocell-python pid {os.getpid()}"
        answer = await self._channel.request(HELLO, said)
        self.session, self.limits, self.server = answer["session"], answer["limits"], answer["server"]
        if answer["image"]["ready"]:
            self._image = answer["image"]
        else:
            await self._image_known.wait()
            if self._image_failure is not None:
                raise self._image_failure

    async def _asked(self, msgid: int, method: str, params: Mapping[str, Any]) -> Any:  # noqa: ARG002
        if method != CALL:
            raise MethodNotFound(f"a client answers {CALL!r}, not {method!r}", method)
        return await self._functions.asked(params)

    def _told(self, method: str, params: Mapping[str, Any]) -> None:
        if method == CALL:
            self._functions.told(params)
        elif method == "event" and self._event_sink is not None:
            self._take_event(ReceivedEvent(**params))
        elif method == "image.progress" and self._build_progress is not None:
            self._build_progress(BuildProgress(**params))
        elif method == "image.ready":
            self._image = params
            self._image_known.set()
        elif method == "image.failed":
            self._image_failure = errors.from_wire(params)
            self._image_known.set()
        elif method == "closing":
            self._image_failure = errors.from_wire(params)

    def _take_event(self, event: ReceivedEvent) -> None:
        """Queue an event for its reader; when the queue is full the event is dropped, and counted."""
        assert self._event_sink is not None
        try:
            self._event_sink.send_nowait(evolve(event, dropped=event.dropped + self._events_dropped))
        except (trio.WouldBlock, trio.BrokenResourceError):
            self._events_dropped += 1 + event.dropped
        else:
            self._events_dropped = 0

    async def _call(self, method: Method, arguments: Mapping[str, Any]) -> Any:
        shown = _BATCHES.get(method.name)
        if shown is None or arguments.get("progress") is not None or not self.shows_batches:
            return await self.exchange(method, arguments)
        what, items = shown
        with batch_bar(what, size_of(arguments[items])) as bar:
            return await self.exchange(method, {**arguments, "progress": bar.report})

    async def exchange(self, method: Method, arguments: Mapping[str, Any]) -> Any:
        """Call a method at the other end, and decode its result."""
        with self._functions.request() as names:
            params = {
                name: encode(value, method.arguments[name].hint, names, role=name)
                for name, value in arguments.items()
            }
            try:
                answer = await self._channel.request(method.name, params)
            except ConnectionClosed as error:
                raise EngineClosed(f"the engine behind the pipe is gone: {error}") from error
            except StoreError as error:
                one = get_args(method.result)[0] if origin_of(method.result) is list else method.result
                found = [decode(item, one | None, method.name, names) for item in error.results]
                raise error.with_results(found) from None
            return decode(answer, method.result, method.name, names)


_BATCHES = {
    "batch_create": ("creating", "specs"),
    "batch_evaluate": ("evaluating", "sandboxes"),
    "evaluate": ("evaluating", "sources"),
    "evaluate_stages": ("evaluating in stages", "sources"),
}
"""Methods with a progress bar: the activity, and the argument whose items are counted."""

_OURS = TypeOptions(tuples="ext", arrays="ext")


def _remote(method: Method) -> Callable[..., Awaitable[Any]]:
    """Derive the client's method from the engine's, with its signature and docstring."""
    original = getattr(AsyncEngine, method.name)
    signature = inspect.signature(original)

    @wraps(original)
    async def call(self: AsyncClient, *args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(self, *args, **kwargs).arguments)
        given.pop("self")
        return await self._call(method, given)

    return call


class _RemotePart:
    """The methods of an attribute of the engine, such as ``fitness``, at the other end of a pipe.

    Args:
        client: The client.
        name: The attribute.
        wait: Waits for an answer; None returns awaitables.
    """

    def __init__(
        self,
        client: AsyncClient,
        name: str,
        wait: Callable[[Callable[[], Awaitable[Any]]], Any] | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._wait = wait

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = engine_methods().get(f"{self._name}.{name}")
        if method is None:
            raise AttributeError(f"the pipe does not offer {self._name}.{name}", name=name, obj=self)
        names = list(method.arguments)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(names, args, strict=False)) | kwargs
            if len(args) > len(names) or given.keys() - set(names):
                raise TypeError(
                    f"{method.name} takes {', '.join(names)}, and got {args!r:.60} {kwargs!r:.60}"
                )
            ask = partial(self._client.exchange, method, given)
            return ask() if self._wait is None else self._wait(ask)

        return call

    def __dir__(self) -> list[str]:
        offered = (one.partition(".") for one in engine_methods())
        return [name for part, _, name in offered if part == self._name and name]


for _method in engine_methods().values():
    if _method.name not in vars(AsyncClient) and not _method.blocks:
        setattr(AsyncClient, _method.name, _remote(_method))
