"""A server whose image is not ready until a test says so, and raw clients that send what they like."""

from contextlib import asynccontextmanager

import msgpack
import pytest
import trio
import trio.testing
from attrs import evolve

from evocell.config import Config
from evocell.pipe.limits import PipeLimits
from evocell.pipe.server import open_server
from evocell_runtime.build import BuildProgress

QUICK = PipeLimits(
    hello_s=0.2, stall_s=0.2, max_in_flight=4, max_asking=2, max_unsent_bytes=64 << 10, detach_s=0.2
)


class Raw:
    """A client without any client library."""

    def __init__(self, stream):
        self.stream = stream
        self._unpacker = msgpack.Unpacker(strict_map_key=False)

    async def send(self, *message):
        await self.stream.send_all(msgpack.packb(list(message)))

    async def get(self):
        """The next message; None at the end of the stream."""
        with trio.fail_after(10):
            while True:
                for message in self._unpacker:
                    return message
                data = await self.stream.receive_some(65536)
                if not data:
                    return None
                self._unpacker.feed(data)

    async def ask(self, method, msgid=7, **params):
        await self.send(0, msgid, method, [params])
        return await self.get()

    async def hello(self, **params):
        answer = await self.ask("hello", 0, protocol=1, **params)
        assert answer[:3] == [1, 0, None], answer
        return answer[3]


class Gate:
    """Opens no worker; reports progress, fails, or waits, as a test wants."""

    def __init__(self):
        self.fail = None
        self.step = trio.Event()

    @asynccontextmanager
    async def __call__(self, config, snapshots, *, progress=None):
        await self.step.wait()
        progress(BuildProgress("compile", 2, 7, 0.25, 12.0, 36.0))
        await trio.testing.wait_all_tasks_blocked()
        if self.fail is not None:
            raise self.fail
        await trio.sleep_forever()
        yield


@pytest.fixture
async def gate():
    return Gate()


@pytest.fixture
async def server(gate):
    async with open_server(Config(), limits=QUICK, max_clients=3, open_worker=gate) as made:
        yield made


@pytest.fixture
async def connect(server, nursery):
    """Connects raw clients; their pairs are of memory, with a bound as a pipe has one."""

    async def connecting(**options):
        here, there = trio.testing.memory_stream_pair()

        async def serve():
            async with there:
                await server.serve(there, there, **options)

        nursery.start_soon(serve)
        return Raw(here)

    return connecting


@pytest.fixture
async def patient(gate, nursery):
    """Connects raw clients to a server that waits for a hello as long as it takes."""
    limits = evolve(QUICK, hello_s=10_000, max_waiting=4)
    async with open_server(Config(), limits=limits, max_clients=2, open_worker=gate) as server:

        async def connecting():
            here, there = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve, there, there)
            await trio.testing.wait_all_tasks_blocked()
            return Raw(here)

        yield connecting
