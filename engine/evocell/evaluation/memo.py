"""Memoisation of calls by everything that determines their outcome, and records for replay.

In a reproducible profile, a call in a fork of its own depends only on its `CallIdentity`. Its outcome may
therefore be memoised, if the evaluation asks for it, and a hit requires that the identity is equal. Outcomes
that depend on the machine (a kill by wall clock, a lost worker) or on earlier calls (a session) are never
memoised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeAlias

import trio
from attrs import evolve

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import in_thread_if_large
from evocell.config import Config
from evocell.errors import ConfigurationError, ImageError, ProtocolError, StoreError
from evocell.execution.interface import CallJob, CallReport, Worker
from evocell.models.outcome import Outcome, Raised, Rejected, WorkerLost
from evocell.models.recorded import CallIdentity, EvaluationRecord, MemoInfo, Replay, differing
from evocell.models.security import SecurityProfile
from evocell.sandboxes.code_versions import HARNESS_ROOT, Versions
from evocell.sandboxes.package_images import PackageImages
from evocell.store.observer import Observer
from evocell.store.remembered import Memory, Records
from evocell.wire.outcomes import decode_outcome, encode_outcome, outcome_digest

__all__ = ["MakeCall", "MemoisingCaller"]

MakeCall: TypeAlias = Callable[[CallJob], Awaitable[CallReport]]
"""Makes a call."""


class MemoisingCaller:
    """Makes the calls of evaluations, or returns memoised outcomes.

    Args:
        worker: Runs the calls.
        config: The engine's settings.
        observer: Its store keeps outcomes and records, if it is durable.
    """

    def __init__(self, worker: Worker, config: Config, observer: Observer) -> None:
        self._worker = worker
        self._profile = config.profile
        self._promised = config.profile != "realtime"
        self._memory = Memory(observer.store if observer.durable else None)
        self._records = Records(observer.store) if observer.durable and config.record_evaluations else None
        self._under_way: dict[str, trio.Event] = {}

    async def call(
        self, job: CallJob, make: MakeCall, *, memoise: bool | Literal["tree"], security: str
    ) -> CallReport:
        """Make a call, or return its earlier outcome.

        With ``"tree"`` the call is made of the code's normal form, so that programs with the same syntax tree
        share what comes of it. An outcome that may quote lines is then not theirs: the call is made again,
        and remembered, with the code as it is written.

        Args:
            job: The call.
            make: Makes a call.
            memoise: Whether an earlier outcome may be returned, and this one stored.
            security: The security profile of its code.

        Returns:
            Its report, with `CallReport.memoised` set for an earlier outcome.

        Cancellation: The call is stopped; other tasks that wait for the same call make it themselves.
        """
        normal = job.code.normal
        if self._promised and memoise and normal is not None and normal.digest != job.code.digest:
            report = await self._call(evolve(job, code=normal), make, memoise=True, security=security)
            if not _may_quote_lines(report.outcome):
                return report
        return await self._call(job, make, memoise=bool(memoise), security=security)

    async def _call(self, job: CallJob, make: MakeCall, *, memoise: bool, security: str) -> CallReport:
        if job.session is not None or not (self._promised and (memoise or self._records is not None)):
            return await make(job)
        identity = self.identify(job, security)
        key = identity.key
        if not memoise:
            report = await make(job)
            await self._note(identity, key, job, report)
            return report
        while True:
            known = await self._recall(key)
            if known is not None:
                self._memory.hits += 1
                return CallReport(outcome=known, memoised=True)
            waiting = self._under_way.get(key)
            if waiting is None:
                break
            await waiting.wait()
            if self._memory.get(key) is None:
                break  # the other call was not memoisable, or not finished
        event = self._under_way.setdefault(key, trio.Event())
        try:
            self._memory.misses += 1
            report = await make(job)
            await self._note(identity, key, job, report)
            await self._keep(key, report)
            return report
        finally:
            if self._under_way.get(key) is event:
                del self._under_way[key]
            event.set()

    def identify(self, job: CallJob, security: str) -> CallIdentity:
        """Return the identity of a call: everything its outcome depends on."""
        harness = job.harness
        return CallIdentity(
            image=self._worker.image_digest(job.image),
            image_id=job.image or self._worker.image_id,
            version=job.code.digest,
            code=_hash(job.code.code),
            harness="" if harness is None else harness.digest,
            harness_code="" if harness is None else _hash(harness.code),
            entry=job.entry,
            arguments=_hash(job.payload),
            seed=job.seed,
            limits=job.limits,
            profile=self._profile,
            security_profile=security,
        )

    def info(self) -> MemoInfo:
        """Return statistics of memoisation."""
        return self._memory.info()

    def find(
        self, *, sandbox_id: str | None = None, key: str | None = None, limit: int = 100
    ) -> list[EvaluationRecord]:
        """Return records; see `Records.find`. Blocks.

        Raises:
            ConfigurationError: This engine keeps no records.
        """
        if self._records is None:
            raise ConfigurationError(
                "this engine keeps no records; give it a state_dir, and leave record_evaluations on",
                "state_dir",
            )
        return self._records.find(sandbox_id=sandbox_id, key=key, limit=limit)

    async def replay(self, record: EvaluationRecord, versions: Versions, images: PackageImages) -> Replay:
        """Make a recorded call again and compare.

        Raises:
            StoreError: Its code or its arguments have been removed.
        """
        call = record.call
        payload = None
        if self._records is not None:
            payload = await trio.to_thread.run_sync(self._records.arguments, call.arguments)
        if payload is None or _hash(payload) != call.arguments:
            raise StoreError(
                f"the arguments of record {record.key[:12]} are not kept any more", call.arguments
            )
        code: CompiledVersion | Rejected | None = self._resident(call)
        if code is None:
            tree = await trio.to_thread.run_sync(versions.read, call.version)
            code = await versions.compiled(tree, profile=_profile(call.security_profile), limits=call.limits)
        harness: CompiledVersion | Rejected | None = None
        if call.harness:
            driver = await trio.to_thread.run_sync(versions.read, call.harness)
            harness = await versions.compiled(driver, root=HARNESS_ROOT, trusted=True)
        for made in (code, harness):
            if isinstance(made, Rejected):
                return _other(record, [f"its code is rejected here: {made.error}"], made)
        assert isinstance(code, CompiledVersion)
        assert not isinstance(harness, Rejected)
        image = call.image_id if call.image_id != self._worker.image_id else None
        gone = ""
        try:
            self._worker.image_digest(image)
        except ImageError:
            chosen = await images.choose(code, harness)
            image = chosen.id
            if image != call.image_id:
                gone = f"image {call.image_id} is not here; made with {chosen.name!r}"
        job = CallJob(
            image=image,
            code=code,
            entry=call.entry,
            payload=payload,
            seed=call.seed,
            limits=call.limits,
            harness=harness,
            sandbox_id=record.sandbox_id,
        )
        differences = [gone] if gone else []
        differences += differing(call, self.identify(job, call.security_profile))
        report = await self._worker.call(job)
        outcome = report.outcome
        if outcome.kind != record.kind:
            differences.append(f"it ended as {record.kind!r} and ends as {outcome.kind!r}")
        elif await in_thread_if_large(report.answer_bytes, outcome_digest, outcome) != record.outcome:
            differences.append("its outcome is another")
        if outcome.fuel_used != record.fuel_used:
            differences.append(f"it took {record.fuel_used:,} fuel and takes {outcome.fuel_used:,}")
        return _other(record, differences, outcome)

    def _resident(self, call: CallIdentity) -> CompiledVersion | None:
        """Return the code of a recorded call if it is the code of its image; else None."""
        if call.code != _hash(b""):
            return None
        image = self._worker.find_image(call.image_id)
        code = None if image is None else self._worker.resident_code(image)
        return code if code is not None and code.digest == call.version else None

    async def _recall(self, key: str) -> Outcome | None:
        data = self._memory.get(key)
        if data is None:
            return None
        try:
            return await in_thread_if_large(len(data), decode_outcome, data)
        except ProtocolError:  # damaged on disk
            self._memory.drop(key)
            return None

    async def _keep(self, key: str, report: CallReport) -> None:
        outcome = report.outcome
        data = (
            await in_thread_if_large(report.answer_bytes, encode_outcome, outcome)
            if _lasting(outcome)
            else None
        )
        if data is None:
            self._memory.refused += 1
        else:
            self._memory.put(key, data)

    async def _note(self, identity: CallIdentity, key: str, job: CallJob, report: CallReport) -> None:
        outcome = report.outcome
        if self._records is not None and not isinstance(outcome, WorkerLost):
            self._records.note(
                identity,
                job.payload,
                key=key,
                sandbox_id=job.sandbox_id,
                kind=outcome.kind,
                outcome=await in_thread_if_large(report.answer_bytes, outcome_digest, outcome),
                fuel_used=outcome.fuel_used,
                deterministic=outcome.deterministic,
            )


def _may_quote_lines(outcome: Outcome) -> bool:
    """Whether an outcome may hold lines of the code: a traceback, or warnings."""
    return isinstance(outcome, Raised | Rejected) or bool(outcome.stderr)


def _lasting(outcome: Outcome) -> bool:
    """Return whether an outcome is reproducible."""
    return outcome.deterministic and not isinstance(outcome, WorkerLost)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _profile(name: str) -> SecurityProfile:
    if name == "low":
        return "low"
    return "high" if name == "high" else "medium"


def _other(record: EvaluationRecord, differences: Sequence[str], outcome: Outcome) -> Replay:
    return Replay(
        record=record,
        same=not differences,
        differences=tuple(differences),
        kind=outcome.kind,
        fuel_used=outcome.fuel_used,
    )
