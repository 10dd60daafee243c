"""Processes of one call: separate guests, one of which runs at a time.

A guest that may have processes requests one through its mailbox and waits for the answer; its call pauses
as at the end of a slice, and no host code runs on its stack. `evocell.guests.questions` defines the requests.

Time is the virtual clock, which advances with work: each process has its own, as if on a core of its own,
starting at its parent's time. The process with the earliest clock runs next. A process that waits (for the
end of another, for a message, for time to pass) resumes at the virtual time of that event; its timeout fires
when no other process has work before it. So results do not depend on the speed of the machine, and the same
call uses the same fuel, to the unit.

All processes share the call's fuel. A tenth of it is reserved for the first guest. When the others have used
the rest they stop, waits for them with a timeout time out, and waits without one see them killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, field, frozen

from evocell.errors import ProtocolError
from evocell.guests.channels import Channels
from evocell.guests.questions import (
    Answer,
    Fork,
    Kill,
    NewChannel,
    Question,
    Receive,
    Refused,
    Send,
    Size,
    Start,
    Wait,
    encode_answer,
    end_of,
    most_bytes,
    read_question,
)
from evocell.models.limits import Limits
from evocell_guest.values import encode
from evocell_runtime.calls import CallLimits
from evocell_runtime.errors import ImageError
from evocell_runtime.instance import Call, Instance
from evocell_runtime.membrane import COSTS

__all__ = ["MOST_DEPTH", "Family"]

MOST_DEPTH = 4
"""Most levels of nested processes."""

START_FUEL = 20_000_000
"""Fuel charged to the parent for a fresh guest, in proportion to the host's time for it."""

FORK_FUEL = 60_000_000
"""Fuel charged for a copy of a guest."""

QUESTION_FUEL = 100_000
"""Fuel charged for any question, beside the membrane's charge."""

QUANTUM_NS = 20_000_000
"""Most virtual time by which a process may run ahead of another runnable one."""

MOST_ENDED = 1_000
"""Most ended children of one process that have not been waited for."""

_RESERVED = 10
"""The fraction of the fuel reserved for the first guest is one part in this many."""

_FUEL_PER_NS = COSTS["FUEL_PER_NS"]
_KILLED, _SEGFAULT, _TOO_LARGE = -9, -11, -25


@frozen
class _End:
    """How a process ended."""

    at_ns: int
    answer: Answer


@define(eq=False)
class _Member:
    """A live process: its guest, and what it waits for."""

    pid: int
    parent: _Member | None
    depth: int
    domain: int
    instance: Instance
    call: Call
    clock_ns: int
    waits: Question | None = None
    until_ns: int | None = None
    answer: bytes | None = None
    ended: dict[int, _End] = field(factory=dict)
    children: dict[int, _Member] = field(factory=dict)


class Family:
    """A call and its processes. Not safe to use from two threads at once.

    Args:
        instance: The guest of the call.
        call: The call, begun.
        limits: Its limits; each process has those of memory, output, files and payload for itself.
        make: Makes a fresh guest with the same directories.
        program: The program that runs in each guest.
        request: Makes a fresh process's request from the parent's question.
        seed: The call's.
        realtime: The profile.
    """

    def __init__(
        self,
        instance: Instance,
        call: Call,
        limits: Limits,
        *,
        make: Callable[[], Instance],
        program: bytes,
        request: Callable[[bytes], bytes],
        call_limits: CallLimits,
        seed: int,
        realtime: bool,
    ) -> None:
        self._limits, self._call_limits = limits, call_limits
        self._make, self._program, self._request = make, program, request
        self._seed, self._realtime = seed, realtime
        self._root = self._current = _Member(1, None, 0, 1, instance, call, call.clock_ns)
        self._alive: dict[int, _Member] = {1: self._root}
        self._last_pid = 1
        self._channels = Channels(limits.payload_bytes)
        self._kept_bytes = 0
        self._left = call.fuel
        self._reserve = call.fuel // _RESERVED
        self._bound_ns: int | None = None
        self._others_ran_s = 0.0
        self.exhausted = False
        """Whether all fuel is used up."""
        self.peak_bytes = 0
        """Peak memory of the processes that have ended, in bytes; 0 if none has."""
        self.trouble: BaseException | None = None
        """Why a process could not be created, if the guests are not to blame."""

    @property
    def current(self) -> Call:
        """The call that is to be polled next."""
        return self._current.call

    @property
    def ran_s(self) -> float:
        """Time all of them have held a thread, in seconds."""
        return self._others_ran_s + sum(one.call.ran_s for one in self._alive.values())

    def polled(self, *, ended: bool) -> bool:
        """Handle the state of the polled call, and choose which process runs next.

        Args:
            ended: Whether the polled call has ended.

        Returns:
            Whether all is over.
        """
        member = self._current
        paused = member.call.paused
        if ended:
            if member is self._root:
                return True
            self._save(member)
            self._bury(member)
        elif member.answer is not None:
            return self._hand_over(member)
        elif not paused:
            return False
        else:
            self._save(member)
            if member.call.question_bytes:
                self._hear(member)
            elif not self._is_due(member):
                self._resume(member)
                return self.exhausted
        if self.trouble is not None:
            return True
        return self._go_on()

    def idle_s(self) -> float:
        """Return how long the polled call may sleep before another process is to run, in seconds."""
        if self._bound_ns is None:
            return math.inf
        return max(0, self._bound_ns - self._current.call.clock_ns) / 1e9

    def slept(self, duration_ns: int, left_ns: int) -> bool:
        """Advance the clock of the polled call after a sleep in the realtime profile.

        Args:
            duration_ns: How long it slept.
            left_ns: How long it has left to sleep; another process runs meanwhile.

        Returns:
            Whether all is over.
        """
        member = self._current
        member.call.advance_clock(duration_ns)
        member.call.instance.wake(left_ns)
        if not left_ns:
            return False
        self._save(member)
        return self._go_on()

    def settle(self) -> None:
        """End all processes, and set the first guest's fuel counter to the remaining fuel."""
        for member in list(self._root.children.values()):
            self._bury(member, _KILLED)
        if self._current is not self._root:
            self._root.call.refuel(max(-1, self._left), self._root.clock_ns, 0)
            self._current = self._root

    # ------------------------------------------------------------------ turns

    def _save(self, member: _Member) -> None:
        """Save the shared state from a paused member."""
        self._left = member.call.fuel
        member.clock_ns = member.call.clock_ns
        self._scratch = member.instance.scratch_state()
        self.exhausted = self._left < 0

    def _resume(self, member: _Member) -> None:
        """Switch to a member."""
        self.exhausted = self.exhausted or self._left < 0
        if self.exhausted:
            return
        lowest = 0 if member is self._root else self._reserve
        if self._bound_ns is not None:
            lowest = max(lowest, self._left - (self._bound_ns - member.clock_ns) * _FUEL_PER_NS)
        member.instance.set_scratch_state(self._scratch)
        member.call.refuel(self._left, member.clock_ns, lowest)
        self._current = member

    def _is_due(self, member: _Member) -> bool:
        """Return whether a runnable member must yield to another."""
        if member is not self._root and self._left <= self._reserve:
            return True
        return self._bound_ns is not None and member.clock_ns >= self._bound_ns

    def _hand_over(self, member: _Member) -> bool:
        """Deliver a member's answer, once it has room for it."""
        assert member.answer is not None
        try:
            if member.call.deliver(member.answer):
                member.answer = None
        except IndexError:  # it has corrupted its heap
            if member is self._root:
                return True
            self._save(member)
            self._bury(member, _SEGFAULT)
            return self._go_on()
        return False

    def _go_on(self) -> bool:
        """Find the next process to run, and fire timeouts that are due before."""
        while not self.exhausted:
            runner = self._first_runner()
            waiter = self._first_deadline()
            first_ns = None if waiter is None else waiter.until_ns
            if waiter and first_ns is not None and (runner is None or first_ns <= runner.clock_ns):
                self._wake(waiter, None, first_ns)
            elif runner is not None:
                bounds = [] if first_ns is None else [first_ns]
                bounds += [
                    other.clock_ns + QUANTUM_NS
                    for other in self._alive.values()
                    if other is not runner and self._may_run(other)
                ]
                self._bound_ns = min(bounds, default=None)
                self._resume(runner)
                break
            else:
                self._break_standstill()
            self.exhausted = self._left < 0
        return self.exhausted or self.trouble is not None

    def _may_run(self, member: _Member) -> bool:
        return member.waits is None and (member is self._root or self._left > self._reserve)

    def _first_runner(self) -> _Member | None:
        able = [one for one in self._alive.values() if self._may_run(one)]
        return min(able, key=lambda one: (one.clock_ns, one.pid), default=None)

    def _first_deadline(self) -> _Member | None:
        waiting = [one for one in self._alive.values() if one.waits is not None and one.until_ns is not None]
        return min(waiting, key=lambda one: (one.until_ns or 0, one.pid), default=None)

    def _break_standstill(self) -> None:
        """Resolve a standstill: no fuel is left, or every process waits for another."""
        starved = [one for one in self._alive.values() if one.waits is None]
        if starved:
            for member in starved:
                if member.pid in self._alive:
                    self._bury(member, _KILLED, "the fuel that the call had for processes was used up")
            return
        waiter = min(self._alive.values(), key=lambda one: one.pid)
        busy = isinstance(waiter.waits, Start | Fork)
        self._wake(waiter, Refused("busy" if busy else "deadlock"), waiter.clock_ns)

    def _wake(self, member: _Member, answer: Answer | Refused | bytes | int | None, at_ns: int) -> None:
        """Answer a waiting member."""
        member.waits = member.until_ns = None
        member.clock_ns = max(member.clock_ns, at_ns)
        self._answer(member, answer)

    def _answer(self, member: _Member, answer: Answer | Refused | bytes | int | None, cost: int = 0) -> None:
        self._charge(member, QUESTION_FUEL + cost)
        member.answer = encode_answer(answer)
        member.call.announce(len(member.answer))

    def _charge(self, member: _Member, fuel: int) -> None:
        self._left -= fuel
        member.clock_ns += fuel // _FUEL_PER_NS

    # ------------------------------------------------------------------ questions

    def _hear(self, member: _Member) -> None:
        """Handle a member's question, or record that the member waits."""
        try:
            question = read_question(member.call.question(most_bytes(self._limits)), self._limits)
        except (MemoryError, ProtocolError) as error:
            self._answer(member, Refused("malformed", str(error)))
            return
        match question:
            case Start() | Fork():
                self._start(member, question)
            case Wait():
                self._await(member, question, question.wait_ns)
                self._try_wait(member)
            case Kill():
                self._hear_kill(member, question)
            case NewChannel():
                self._answer(member, self._channels.open(member.domain))
            case Send():
                self._send(member, question)
            case Receive():
                self._await(member, question, question.wait_ns)
                self._try_receive(member)
            case Size():
                self._answer(member, self._channels.size(member.domain, question.channel))

    @staticmethod
    def _await(member: _Member, question: Question, wait_ns: int | None) -> None:
        member.waits = question
        member.until_ns = None if wait_ns is None else member.clock_ns + wait_ns

    def _start(self, member: _Member, question: Start | Fork) -> None:
        """Start a process, or make its parent wait until there is room for it."""
        if member.depth >= MOST_DEPTH:
            self._answer(member, Refused("depth", f"processes start processes {MOST_DEPTH} deep at the most"))
            return
        if len(member.ended) >= MOST_ENDED:
            self._answer(
                member, Refused("busy", f"{MOST_ENDED:,} processes have ended and are not waited for")
            )
            return
        if len(self._alive) > self._limits.processes:
            member.waits = question
            return
        member.waits = None
        cost = START_FUEL if isinstance(question, Start) else FORK_FUEL
        self._charge(member, cost)
        pid = self._last_pid = self._last_pid + 1
        try:
            instance = self._make()
        except Exception as error:  # noqa: BLE001 - the engine's trouble, told by the job
            self.trouble = error
            return
        try:
            call = self._begin(instance, member, question, pid)
        except (ImageError, MemoryError) as error:
            instance.close()
            member.ended[pid] = _End(member.clock_ns, Answer(pid, _KILLED, b"", b"", b"", str(error)))
        else:
            forks = isinstance(question, Fork)
            child = _Member(
                pid,
                member,
                member.depth + 1,
                member.domain if forks else pid,
                instance,
                call,
                member.clock_ns,
            )
            member.children[pid] = self._alive[pid] = child
        self._answer(member, pid)

    def _begin(self, instance: Instance, member: _Member, question: Start | Fork, pid: int) -> Call:
        if isinstance(question, Fork):
            instance.become(member.instance)
        return instance.start(
            self._program,
            encode({"op": "task", "pid": pid})
            if isinstance(question, Fork)
            else self._request(question.payload),
            self._call_limits,
            seed=self._seed + pid,
            realtime=self._realtime,
            stdin=question.stdin,
            may_ask=True,
        )

    def _try_wait(self, member: _Member) -> None:
        """Resume a member if one of the processes it waits for has ended in time."""
        question = member.waits
        assert isinstance(question, Wait)
        unknown = [pid for pid in question.pids if pid not in member.ended and pid not in member.children]
        if unknown:
            self._wake(member, Refused("stranger", f"{unknown[0]} is no process of this one"), 0)
            return
        ends = [(member.ended[pid].at_ns, pid) for pid in question.pids if pid in member.ended]
        if ends and (member.until_ns is None or min(ends)[0] <= member.until_ns):
            end = member.ended.pop(min(ends)[1])
            self._kept_bytes -= end.answer.size
            self._wake(member, end.answer, end.at_ns)

    def _hear_kill(self, member: _Member, question: Kill) -> None:
        child = member.children.get(question.pid)
        if child is None and question.pid not in member.ended:
            self._answer(member, Refused("stranger", f"{question.pid} is no process of this one"))
            return
        if child is not None:
            child.clock_ns = max(child.clock_ns, member.clock_ns)
            self._bury(child, -question.signal)
        self._answer(member, 0)

    def _send(self, member: _Member, question: Send) -> None:
        refused = self._channels.send(member.domain, question, member.clock_ns)
        if refused is not None:
            self._answer(member, refused)
            return
        self._answer(member, 0)
        for other in sorted(self._alive.values(), key=lambda one: one.pid):
            if isinstance(other.waits, Receive):
                self._try_receive(other)

    def _try_receive(self, member: _Member) -> None:
        question = member.waits
        assert isinstance(question, Receive)
        found = self._channels.receive(member.domain, question, member.until_ns)
        if isinstance(found, Refused):
            self._wake(member, found, 0)
        elif found is not None:
            self._wake(member, found.data if question.takes else True, found.sent_ns)
        elif gone := [pid for pid in question.watched if pid not in member.children]:
            ended = member.ended.get(gone[0])
            self._wake(member, Refused("ended", str(gone[0])), 0 if ended is None else ended.at_ns)

    # ------------------------------------------------------------------ ends

    def _bury(self, member: _Member, code: int | None = None, said: str = "") -> None:
        """Remove a process, report its end to its parent, and free its guest."""
        for child in list(member.children.values()):
            self._bury(child, _KILLED)
        self._others_ran_s += member.call.ran_s
        result = member.call.finish()
        member.instance.close()
        self.peak_bytes = max(self.peak_bytes, result.memory_bytes)
        del self._alive[member.pid]
        data = b""
        if code is None:
            code, data, said = end_of(result, self._limits)
        parent = member.parent
        assert parent is not None
        parent.children.pop(member.pid, None)
        answer = Answer(member.pid, code, data, result.stdout.unchecked(), result.stderr.unchecked(), said)
        if self._kept_bytes + answer.size > self._limits.payload_bytes + 2 * self._limits.output_bytes:
            said = "what processes wrote that nobody has waited for is more than is kept"
            answer = Answer(member.pid, _TOO_LARGE, b"", b"", b"", said)
        self._kept_bytes += answer.size
        for one in member.ended.values():
            self._kept_bytes -= one.answer.size
        parent.ended[member.pid] = _End(member.clock_ns, answer)
        if isinstance(parent.waits, Wait):
            self._try_wait(parent)
        elif isinstance(parent.waits, Receive):
            self._try_receive(parent)
        for other in sorted(self._alive.values(), key=lambda one: one.pid):
            if isinstance(other.waits, Start | Fork) and len(self._alive) <= self._limits.processes:
                other.clock_ns = max(other.clock_ns, member.clock_ns)
                self._start(other, other.waits)
