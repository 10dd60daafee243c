"""A live guest: a store with its membrane and interpreter, and its calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from evocell_runtime import membrane
from evocell_runtime.body import Body
from evocell_runtime.calls import CallLimits, CallResult, claimed_bytes, clock_ns, read_result
from evocell_runtime.errors import ImageError
from evocell_runtime.hot_pages import Run, populate, written_pages
from evocell_runtime.metering import SLICE_FUEL
from evocell_runtime.native import PAGE_BYTES, AsyncCall, RawFunction, RawMemory
from evocell_runtime.untrusted import GuestBytes

__all__ = ["SLICE_FUEL", "Call", "Instance"]

IN_TURN = 27_524_508
"""Address of the interpreter's flag that is set while `turn` runs, and refuses nested calls.

Source: `reactor_turn` of the pinned interpreter.
"""

_SCRATCH = ("scratch_used", "scratch_entries")

_OWN_FUEL = 20_000_000
"""Fuel for delivering a request: two allocations in the guest, whose heap may be corrupted."""


class Retire(Protocol):
    """Takes over the body of a closed guest."""

    def __call__(self, body: Body, *, sound: bool) -> None:
        """Take the body; `sound` tells whether all calls in it returned."""
        ...


class Instance:
    """A guest: its body and its calls. Not thread-safe.

    Args:
        body: Its body, furnished.
        hot: Pages that the first call will write to.
        retire: Takes over the body when the guest is closed; None frees it.
    """

    def __init__(
        self,
        body: Body,
        *,
        hot: tuple[Run, ...] = (),
        retire: Retire | None = None,
    ) -> None:
        self._held: Body | None = body
        self._hot = hot
        self._retire = retire
        self._call: Call | None = None
        self.sound = True

    # ------------------------------------------------------------------ life

    def close(self) -> None:
        """Free all resources; idempotent. A call in flight is killed first."""
        if self._call is not None:
            self._call.abandon()
        sound, self.sound = self.sound, False
        body, self._held = self._held, None
        if body is None:
            return
        if self._retire is None:
            body.close()
        else:
            self._retire(body, sound=sound)

    @property
    def _body(self) -> Body:
        if self._held is None:
            msg = "the instance is closed"
            raise RuntimeError(msg)
        return self._held

    @property
    def memory(self) -> RawMemory:
        """Its memory."""
        return self._body.memory

    def initialize(self) -> None:
        """Run the interpreter's `_initialize`, once, on freshly filled memory.

        Raises:
            ImageError: It trapped.
        """
        body = self._body
        self._short(body.initializer(), fuel=1 << 50)
        arena = self._short(body.alloc, membrane.ARENA_BYTES)
        if not arena:
            msg = "the interpreter could not allocate the membrane's room in its memory"
            raise ImageError(msg)
        body.memory.clear(arena, membrane.ARENA_BYTES)
        body.write("arena", arena)

    def state(self) -> Mapping[str, int]:
        """Return the membrane's saved globals by name."""
        return self._body.state()

    def restore_state(self, state: Mapping[str, int]) -> None:
        """Set the membrane's saved globals to those from `state`."""
        self._body.restore_state(state)

    def scratch_state(self) -> Mapping[str, int]:
        """Return the membrane's accounting of `/tmp`, for another guest with the same directory."""
        return {name: self._body.read(name) for name in _SCRATCH}

    def set_scratch_state(self, state: Mapping[str, int]) -> None:
        """Set the accounting to that from `scratch_state` of another guest."""
        self._body.restore_state(state)

    def grow_to(self, size_bytes: int) -> None:
        """Grow the memory, as the guest itself would.

        Raises:
            ImageError: It is larger already, or exceeds its limit.
        """
        missing = size_bytes - self.memory.size_bytes
        if missing < 0 or missing % PAGE_BYTES or not self.memory.grow(missing // PAGE_BYTES):
            msg = f"the guest's memory cannot grow from {self.memory.size_bytes} to {size_bytes} bytes"
            raise ImageError(msg)

    @property
    def at_rest(self) -> bool:
        """Whether no call is in flight and none was killed, so that its memory is its whole state."""
        return self.sound and self._call is None

    @property
    def open_files(self) -> int:
        """Number of the guest's open files."""
        return self._body.read("open_files")

    def become(self, other: Instance) -> None:
        """Make this fresh fork a copy of a guest whose call is waiting for an answer.

        As with a POSIX `fork`, its memory is a copy of the other's; the frames of the call in progress stay
        on its stack and never return. It has no open files.

        Raises:
            ImageError: The other is not waiting, or the kernel does not report its written pages, or this
                one's memory cannot grow to the other's size.
        """
        if other._call is None or not other._body.read("question_len"):
            msg = "a guest in the middle of a call can be copied only while it waits for an answer"
            raise ImageError(msg)
        if other.memory.read(IN_TURN, 1) != b"\1":
            msg = f"the byte at {IN_TURN} does not say that the interpreter is busy: it is another one"
            raise ImageError(msg)
        runs = written_pages(other.memory.address, other.memory.size_bytes)
        if not runs:
            msg = "/proc/self/pagemap does not tell which pages a guest wrote to, so it cannot be copied"
            raise ImageError(msg)
        self.grow_to(other.memory.size_bytes)
        for run in runs:
            self.memory.copy(other.memory, run.offset, run.size)
        self._hot = ()
        self.memory.write(IN_TURN, b"\0")
        self.restore_state({**other.state(), "open_files": 0})
        self._body.set_stack(other._body.stack)
        self._retire = None  # the interpreter's stack will not return to its start

    # ------------------------------------------------------------------ calls

    def start(
        self,
        program: bytes,
        request: bytes,
        limits: CallLimits,
        *,
        seed: int = 0,
        realtime: bool = False,
        stdin: bytes = b"",
        may_ask: bool = False,
    ) -> Call:
        """Begin a call: run `program` as Python source in `__main__`, with `request` in its mailbox.

        Args:
            program: UTF-8 source text; keep it short, since it is compiled every time.
            request: The value of the first empty `_host.call` in the guest.
            limits: Limits of the call.
            seed: Seed of all random sources in the guest, modulo 2**64.
            realtime: Real clock and entropy, and sleeps that take time.
            stdin: The guest's standard input.
            may_ask: Whether the driver of the call answers questions; see `Call.question`.

        Returns:
            The call; run it with `poll`, end it with `finish` or `abandon`.

        Raises:
            RuntimeError: A call is in flight, or an earlier one was killed.
            MemoryError: The guest has no room for the request.
            ImageError: Delivering the request trapped: the guest had corrupted its heap.
        """
        if not self.at_rest:
            msg = "the instance has a call in flight, was killed or is closed; close it and fork another"
            raise RuntimeError(msg)
        if self._hot:
            populate(self.memory.address, self._hot)
            self._hot = ()
        body, fuel = self._body, limits.metered_fuel
        source = self._put(program)
        mail = self._put(request)
        typed = self._put(stdin) if stdin else 0
        self._short(
            body.begin,
            seed & 0xFFFFFFFFFFFFFFFF,
            int(realtime),
            limits.output_bytes,
            limits.open_files,
            limits.scratch_bytes,
            limits.scratch_files,
            limits.scratch_file_bytes,
            limits.scratch_depth,
            mail,
            len(request),
            fuel,
        )
        if typed:
            body.write("stdin", typed)
            body.write("stdin_len", len(stdin))
        if may_ask:
            body.write("may_ask", 1)
        body.set_fuel(fuel, pausing=True)
        self._call = Call(self, AsyncCall(body.context, body.turn, source, len(program)), limits)
        return self._call

    def _put(self, data: bytes) -> int:
        """Copy bytes into a new block of the guest's heap, which the guest will free."""
        at = self._short(self._body.alloc, max(1, len(data)))
        if not at:
            msg = f"the guest has no room for {len(data)} bytes"
            raise MemoryError(msg)
        try:
            self.memory.write(at, data)
        except IndexError as e:
            self.sound = False
            msg = "the guest's allocator returned an address outside its memory"
            raise ImageError(msg) from e
        return at

    def _short(self, function: RawFunction, *values: int, fuel: int = _OWN_FUEL) -> int:
        """Run one of the interpreter's exported helper functions to its end."""
        body = self._body
        body.set_fuel(fuel, pausing=False)
        call = AsyncCall(body.context, function, *values)
        try:
            call.run_short()
        finally:
            trap, message = call.close()
        if trap is not None:
            self.sound = False
            msg = f"the guest trapped ({trap}) outside a call: {message}"
            raise ImageError(msg)
        return call.result if function.nresults else 0

    def _finish(self, call: AsyncCall, limits: CallLimits, *, ended: bool, ran_s: float) -> CallResult:
        status = call.result if ended else None
        trap, message = call.close()
        self.sound = status is not None and trap is None
        self._call = None
        return read_result(self._body, limits, status=status, trap=trap, message=message, ran_s=ran_s)

    def sleeping_ns(self) -> int:
        """Return the guest's requested sleep in nanoseconds, or 0. Realtime profile only."""
        arena = self._body.read("arena")
        raw = claimed_bytes(self._body, arena + membrane.AT_SLEEP, 8) or bytes(8)
        return int.from_bytes(raw, "little")

    def wake(self, left_ns: int = 0) -> None:
        """Resume a sleeping guest at its next slice.

        Args:
            left_ns: Remaining sleep in nanoseconds; if not 0 it keeps sleeping.
        """
        arena = self._body.read("arena")
        self.memory.write(arena + membrane.AT_SLEEP, left_ns.to_bytes(8, "little"))


class Call:
    """A call in flight. The owner polls it, then finishes or abandons it."""

    __slots__ = ("_call", "_clock", "_ended", "_instance", "_limits", "_result", "ran_s", "slices")

    def __init__(
        self,
        instance: Instance,
        call: AsyncCall,
        limits: CallLimits,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._instance = instance
        self._call: AsyncCall | None = call
        self._limits = limits
        self._clock = clock
        self._ended = False
        self._result: CallResult | None = None
        self.ran_s = 0.0
        """Time for which the guest has held the thread so far, in seconds."""
        self.slices = 0
        """Slices of fuel run so far."""

    @property
    def instance(self) -> Instance:
        """The instance the call runs in."""
        return self._instance

    def poll(self) -> bool:
        """Run one slice, with the interpreter lock released.

        Returns:
            Whether the call has ended.
        """
        if self._call is None or self._ended:
            return True
        begun = self._clock()
        self._ended = self._call.poll()
        self.ran_s += self._clock() - begun
        self.slices += 1
        return self._ended

    @property
    def memory_bytes(self) -> int:
        """The guest's memory now, in bytes."""
        return self._instance.memory.size_bytes

    @property
    def paused(self) -> bool:
        """Whether the code has paused since the last access.

        It pauses at the end of a slice of fuel, in a sleep, and when waiting for an answer. Unlike other
        returns of `poll`, these points depend only on its fuel.
        """
        body = self._instance._body  # noqa: SLF001
        if not body.read("pausing"):
            return False
        body.write("pausing", 0)
        return True

    def question(self, most_bytes: int) -> GuestBytes | None:
        """Return the guest's pending question; None if there is none, empty if it is outside its memory.

        Args:
            most_bytes: Returns None for a longer one.
        """
        body = self._instance._body  # noqa: SLF001
        size = body.read("question_len")
        if not 0 < size <= most_bytes:
            return None
        raw = claimed_bytes(body, body.read("question"), size)
        return GuestBytes(raw or b"")

    @property
    def question_bytes(self) -> int:
        """Length of the guest's pending question; 0 if there is none."""
        return self._instance._body.read("question_len")  # noqa: SLF001

    def announce(self, size: int) -> None:
        """Announce the length of the answer, for which the guest makes room."""
        body = self._instance._body  # noqa: SLF001
        body.write("answer_len", size)
        body.write("question_len", 0)

    def deliver(self, data: bytes) -> bool:
        """Deliver the announced answer.

        Returns:
            Whether the guest had room for it; otherwise poll it, and try again.

        Raises:
            IndexError: The room is outside its memory: it has corrupted its heap.
        """
        body = self._instance._body  # noqa: SLF001
        at = body.read("answer")
        if not at:
            return False
        body.write("answer", 0)
        self._instance.memory.write(at, data)
        return True

    @property
    def fuel(self) -> int:
        """Remaining fuel of the call; negative if it ran out."""
        return self._instance._body.fuel  # noqa: SLF001

    def refuel(self, fuel: int, clock_ns: int, pause_at: int) -> None:
        """Set the remaining fuel and the virtual clock of a paused call.

        Args:
            fuel: The fuel, below 2**63.
            clock_ns: Nanoseconds since the clock's start.
            pause_at: Remaining fuel at which the call pauses next, if not earlier.
        """
        body = self._instance._body  # noqa: SLF001
        body.set_fuel(fuel, pausing=True)
        body.write("clock_ns", clock_ns)
        body.write("clock_fuel", max(0, fuel))
        body.pause_at(max(pause_at, fuel - SLICE_FUEL))

    @property
    def clock_ns(self) -> int:
        """Virtual clock of a paused call, in nanoseconds since its start."""
        return clock_ns(self._instance._body)  # noqa: SLF001

    def advance_clock(self, duration_ns: int) -> None:
        """Advance the virtual clock of a paused call."""
        body = self._instance._body  # noqa: SLF001
        body.write("clock_ns", body.read("clock_ns") + duration_ns)

    def exhaust(self) -> None:
        """Exhaust the fuel of a running slice, from another thread: it ends at its next charge.

        The code may write the counter at the same moment, and then continues: repeat it until `poll` has
        returned.
        """
        self._instance._body.set_fuel(-1, pausing=False)  # noqa: SLF001

    def finish(self) -> CallResult:
        """End the call and return its result. A call that has not ended is killed."""
        if self._result is None:
            call, self._call = self._call, None
            if call is None:
                msg = "the call was abandoned"
                raise RuntimeError(msg)
            self._result = self._instance._finish(  # noqa: SLF001
                call, self._limits, ended=self._ended, ran_s=self.ran_s
            )
        return self._result

    def abandon(self) -> None:
        """Kill the call without a result; idempotent."""
        call, self._call = self._call, None
        if call is not None:
            call.close()
            self._instance.sound = False
            self._instance._call = None  # noqa: SLF001
