"""Execution of one request in a guest, from fork to result, on the scheduler's threads."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve

from evocell.guests.deadline_watch import DeadlineWatch
from evocell.models.limits import Limits
from evocell.wire.values import ENVELOPE_BYTES
from evocell_runtime.calls import CallLimits, CallResult
from evocell_runtime.errors import ImageError as RuntimeImageError
from evocell_runtime.hibernation import Hibernated, copy, hibernate, wake
from evocell_runtime.image import Image
from evocell_runtime.instance import Call, Instance

if TYPE_CHECKING:
    from evocell.guests.family import Family

PROGRAM = b"serve()"
"""Source that each call runs in the guest's `__main__`; the boot defined `serve` there."""


class Fork:
    """A guest and its scratch directory. Closed by its owner, in any thread.

    While idle it may be hibernated: it then holds no store, mapping or descriptor.

    Args:
        image: The image to fork.
        app: Directory at `/app`.
        harness: Directory at `/harness`, or None.
        limits: Bounds for the fork's whole life: memory, scratch space.
        make_scratch: Makes the directory at `/tmp`, if the limits allow any space.
        asleep: Its hibernated state, if it comes from another process.
    """

    def __init__(
        self,
        image: Image,
        *,
        app: Path | None,
        harness: Path | None,
        limits: Limits,
        make_scratch: Callable[[], Path],
        asleep: Hibernated | None = None,
    ) -> None:
        self.image = image
        self._app, self._harness, self._limits = app, harness, limits
        self._make_scratch = make_scratch
        self.scratch = make_scratch() if limits.scratch_bytes else None
        self._hibernated = asleep
        self._instance: Instance | None = None
        if asleep is None:
            try:
                self._instance = self._new_instance()
            except BaseException:
                self._remove_scratch()
                raise

    @property
    def limits(self) -> Limits:
        """The limits it was made with."""
        return self._limits

    @property
    def instance(self) -> Instance:
        """The resident guest; it must not be hibernated."""
        assert self._instance is not None
        return self._instance

    @property
    def hibernated_bytes(self) -> int | None:
        """Bytes it takes while hibernated; None while resident."""
        return None if self._hibernated is None else self._hibernated.held_bytes

    def sibling(self) -> Instance:
        """Create a fresh guest with the same directories, for a child process. Close it before this fork.

        Raises:
            ImageError: There is no room for it.
        """
        return self._new_instance()

    def hibernate(self) -> None:
        """Keep only the guest's difference from its image. It must be idle; idempotent.

        Raises:
            ImageError: It has files open, or the kernel does not report its written pages; it is unchanged.
        """
        if self._hibernated is None:
            self._hibernated = self.snapshot()
            self.instance.close()
            self._instance = None

    def snapshot(self) -> Hibernated:
        """Return the guest's difference from its image; it is unchanged. It must be idle.

        Raises:
            ImageError: As for `hibernate`.
        """
        return self._hibernated or hibernate(self.instance, self.image.reference())

    def wake(self) -> Fork:
        """Restore the guest from hibernation if need be; returns the fork itself.

        Raises:
            ImageError: There is no room for another guest; it stays hibernated.
        """
        if self._hibernated is not None:
            instance = self._new_instance()
            try:
                wake(instance, self._hibernated, self.image.reference())
            except BaseException:
                instance.close()
                raise
            self._instance, self._hibernated = instance, None
        return self

    def with_app(self, app: Path | None) -> Fork:
        """Mount another directory at `/app`, waking the guest if need be; returns the fork itself.

        Mounts belong to a guest's instance, so the guest moves into a new instance. A guest with open files
        cannot move, and keeps its directory.

        Raises:
            ImageError: As for `wake`.
        """
        if app == self._app:
            return self.wake()
        former, self._app = self._app, app
        if self._hibernated is not None:
            return self.wake()
        try:
            fresh = self._new_instance()
        except BaseException:
            self._app = former
            raise
        try:
            copy(self.instance, fresh)
        except RuntimeImageError:
            fresh.close()
            self._app = former
            return self
        self.instance.close()
        self._instance = fresh
        return self

    def release(self) -> dict[str, Any]:
        """Return its state as plain data, for another process to adopt. It must be hibernated.

        Ownership, also of its scratch directory, passes to that process: do not use or close this object.
        """
        assert self._hibernated is not None
        return {
            "guest": self._hibernated.to_plain(),
            "image": self.image.image_id,
            "app": None if self._app is None else str(self._app),
            "harness": None if self._harness is None else str(self._harness),
            "scratch": None if self.scratch is None else str(self.scratch),
            "limits": asdict(self._limits),
        }

    @classmethod
    def adopt(cls, image: Image, plain: Mapping[str, Any], take_scratch: Callable[[Path], Path]) -> Fork:
        """Adopt a hibernated fork that another process with the same image released.

        Args:
            image: The image.
            plain: The data that `release` returned there.
            take_scratch: Takes over a directory of that process.

        Raises:
            OSError: The scratch directory cannot be taken over.
        """
        app, harness, scratch = plain["app"], plain["harness"], plain["scratch"]
        return cls(
            image,
            app=None if app is None else Path(app),
            harness=None if harness is None else Path(harness),
            limits=Limits(**plain["limits"]),
            make_scratch=partial(take_scratch, Path(scratch or "")),
            asleep=Hibernated.from_plain(plain["guest"]),
        )

    def copy(self, limits: Limits | None = None) -> Fork:
        """Return a copy of the fork; this one is unchanged. It must be idle.

        Args:
            limits: Bounds of the copy; None for this one's.

        Raises:
            ImageError: It has files open, or there is no room for another guest.
            OSError: There is no room for another scratch directory.
        """
        made = Fork(
            self.image,
            app=self._app,
            harness=self._harness,
            limits=limits or self._limits,
            make_scratch=self._make_scratch,
            asleep=self._hibernated,
        )
        try:
            if self._hibernated is None:
                copy(self.instance, made.instance)
            if self.scratch is not None and made.scratch is not None:
                shutil.copytree(self.scratch, made.scratch, dirs_exist_ok=True)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Free the guest and its scratch directory; idempotent."""
        if self._instance is not None:
            self._instance.close()
        self._hibernated = None
        self._remove_scratch()

    def _new_instance(self) -> Instance:
        return self.image.fork(
            app=self._app,
            harness=self._harness,
            scratch=self.scratch,
            growth_bytes=self._limits.memory_bytes,
        )

    def _remove_scratch(self) -> None:
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


class GuestJob:
    """A request, run in a fork of its own or in a session's.

    Exactly one of `result`, `unforked` and `undelivered` is set when `done` is called, unless the
    job was cancelled.

    Args:
        make_fork: Makes the fork, or returns the session's.
        request: The request for the agent.
        limits: The call's limits.
        seed: The call's seed.
        realtime: The profile.
        keep: Whether a usable fork outlives the job. A fork that is not kept is closed here.
        done: Called on the scheduler's thread when the job has ended.
        watch: Ends the call at its deadline where it does not pause.
        child_parts: A child process's request, up to its arguments; None if processes are not allowed.
        clock: Time in seconds.
    """

    def __init__(
        self,
        make_fork: Callable[[], Fork],
        request: bytes,
        limits: Limits,
        *,
        seed: int,
        realtime: bool,
        keep: bool,
        done: Callable[[], None],
        watch: DeadlineWatch,
        child_parts: Sequence[bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_fork = make_fork
        self._request = request
        self._limits = limits
        self._seed = seed
        self._realtime = realtime
        self._keep = keep
        self._done = done
        self._watch = watch
        self._child_parts = child_parts
        self._clock = clock
        self._call: Call | None = None
        self._family: Family | None = None
        self._cancelled = False
        self._slept_s = 0.0
        self._hibernated: tuple[float, float] | None = None
        self.fork: Fork | None = None
        """The fork the job ran in, if it is kept and still usable."""
        self.result: CallResult | None = None
        """The host's observations of the call."""
        self.timed_out = False
        """Whether the host killed the call at its deadline."""
        self.unforked: BaseException | None = None
        """Why there was no fork: a failure of the engine, not of the variant."""
        self.undelivered: BaseException | None = None
        """Why the request did not reach the guest: an earlier call had corrupted or filled its heap."""

    def cancel(self) -> None:
        """Kill the call at its next slice. From any thread; idempotent."""
        self._cancelled = True

    def begin(self) -> bool:
        """Fork, deliver the request, start."""
        if self._cancelled:
            return True
        try:
            self.fork = self._make_fork()
        except Exception as e:  # noqa: BLE001 - a thread that dies takes all that waits for it along
            self.unforked = e
            return True
        try:
            limits = CallLimits(
                fuel=self._limits.fuel,
                response_bytes=self._limits.payload_bytes + ENVELOPE_BYTES,
                output_bytes=self._limits.output_bytes,
                open_files=self._limits.open_files,
                scratch_bytes=self._limits.scratch_bytes,
                scratch_files=self._limits.scratch_files,
                scratch_file_bytes=self._limits.scratch_file_bytes,
                scratch_depth=self._limits.scratch_depth,
            )
            may_ask = self._child_parts is not None
            self._call = self.fork.instance.start(
                PROGRAM, self._request, limits, seed=self._seed, realtime=self._realtime, may_ask=may_ask
            )
            if may_ask:
                self._family = self._new_family(self.fork, self._call, limits)
        except (RuntimeImageError, MemoryError) as e:
            self.undelivered = e
            return True
        return False

    def step(self) -> bool:
        """Run a slice; return whether the call has ended, was cancelled or is past its deadline."""
        call = self._call if self._family is None else self._family.current
        if call is None or self._cancelled:
            return True
        if self._hibernated is not None:
            return self._wake(call)
        ended, self.timed_out = self._watch.poll(call, self._left_s(call))
        if self.timed_out or (ended and self._family is None):
            return True
        if not ended and self._left_s(call) <= 0:
            self.timed_out = True
            return True
        if self._realtime and not ended and (duration := call.instance.sleeping_ns()):
            now = self._clock()
            idle_s = math.inf if self._family is None else self._family.idle_s()
            self._hibernated = (now, now + min(duration / 1e9, self._left_s(call), idle_s))
            return False
        return self._family is not None and self._family.polled(ended=ended)

    def _left_s(self, call: Call) -> float:
        """Return the call's remaining time in seconds, its processes included."""
        ran_s = call.ran_s if self._family is None else self._family.ran_s
        return self._limits.timeout_s - ran_s - self._slept_s

    def _new_family(self, fork: Fork, call: Call, limits: CallLimits) -> Family:
        # Imported late: few calls have processes, and the worker starts faster without it.
        from evocell.guests.family import Family  # noqa: PLC0415
        from evocell.guests.questions import child_request  # noqa: PLC0415

        return Family(
            fork.instance,
            call,
            self._limits,
            make=fork.sibling,
            program=PROGRAM,
            request=partial(child_request, self._child_parts or ()),
            call_limits=limits,
            seed=self._seed,
            realtime=self._realtime,
        )

    def _wake(self, call: Call) -> bool:
        """Count the sleep and resume the guest; return whether the call is past its deadline."""
        assert self._hibernated is not None
        began, _ = self._hibernated
        self._hibernated = None
        slept_s = self._clock() - began
        self._slept_s += slept_s
        if self._left_s(call) <= 0:
            self.timed_out = True
            return True
        if self._family is None:
            call.instance.wake()
            return False
        slept_ns = int(slept_s * 1e9)
        return self._family.slept(slept_ns, max(0, call.instance.sleeping_ns() - slept_ns))

    def wake_at(self) -> float | None:
        """Return when a sleeping guest resumes; at once if it was cancelled."""
        if self._hibernated is None or self._cancelled:
            return None
        return self._hibernated[1]

    def end(self, *, frees_later: bool = False) -> Callable[[], object] | None:
        """Read the result, free what is not kept, notify the waiting task; see `Job`."""
        try:
            if self._family is not None:
                self._family.settle()
                self.unforked = self._family.trouble
            if self._call is not None:
                if self._cancelled or self.unforked is not None:
                    self._call.abandon()
                else:
                    self.result = self._seen(self._call)
        finally:
            fork = self.fork
            if fork is not None and self._keep and fork.instance.sound and self._call is not None:
                fork = None
            else:
                self.fork = None
            if fork is not None and not frees_later:
                fork.close()
            self._done()
        return None if fork is None or not frees_later else fork.close

    def _seen(self, call: Call) -> CallResult:
        """Return the observations of the call, its processes included."""
        result = call.finish()
        family = self._family
        if family is not None:
            result = evolve(
                result,
                ran_s=family.ran_s,
                memory_bytes=max(result.memory_bytes, family.peak_bytes),
                trap="OUT_OF_FUEL" if family.exhausted and not self.timed_out else result.trap,
            )
        return evolve(result, ran_s=result.ran_s + self._slept_s) if self._slept_s else result
