"""The other side of a connection, for tests."""

import trio

from evocell.errors import ConfigurationError


class Handler:
    """Waits, echoes or fails, and remembers what was cancelled."""

    def __init__(self):
        self.gate = trio.Event()
        self.cancelled = 0

    async def __call__(self, method, params):
        if method == "wait":
            try:
                await self.gate.wait()
            except trio.Cancelled:
                self.cancelled += 1
                raise
        if method == "fail":
            raise ConfigurationError("it cannot be", "x")
        return params.get("value")
