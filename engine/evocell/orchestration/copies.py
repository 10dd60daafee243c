"""Copies of what sandboxes hold: forks of their state, and images made of it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from evocell.errors import ConfigurationError, SandboxBusy
from evocell.execution.run import CopyRefused
from evocell.execution.worker import FreezeJob, Worker
from evocell.models.images import ImageInfo
from evocell.orchestration.manager import Manager
from evocell.orchestration.records import SandboxRecord

__all__ = ["Copies"]

FORKED = "fork"
"""The mutation type of a fork."""


class Copies:
    """Forks sandboxes and freezes them.

    Args:
        worker: Where their sessions live.
        manager: Where they are kept.
    """

    def __init__(self, worker: Worker, manager: Manager) -> None:
        self._worker = worker
        self._manager = manager

    async def fork(self, record: SandboxRecord, new_ids: Sequence[str | None]) -> list[SandboxRecord]:
        """Make sandboxes that hold what another one holds: its code, and its session's state.

        Args:
            record: The other one.
            new_ids: An id for each; None has one made.

        Raises:
            SandboxBusy: Its state cannot be copied.
            SandboxNotFound: It was destroyed meanwhile.
            SandboxExists, CapacityError: They cannot be created; none of them is.

        Cancellation: None of them remains.
        """
        spec = evolve(
            record.state.config, image=record.image_id, parent_ids=(record.id,), mutation_type=FORKED
        )
        with record.in_use():
            await record.loaded.wait()
            specs = [evolve(spec, id=new_id) for new_id in new_ids]
            async with record.lock, self._manager.reserved(specs) as made:
                for one in made:
                    await self._copy(record, one)
                return made

    async def freeze(self, record: SandboxRecord, name: str, *, replace: bool) -> ImageInfo:
        """Make an image of what a sandbox holds, which stays as it is.

        Args:
            record: The sandbox.
            name: What the image will go by.
            replace: Whether the name may be taken from another image.

        Raises:
            SandboxBusy: Its state cannot be copied, or the image cannot be made of it.
            SandboxNotFound: It was destroyed meanwhile.
            ConfigurationError: It holds no code, or the name is another image's.

        Cancellation: There may be an image, complete and with its name, or none.
        """
        with record.in_use():
            await record.loaded.wait()
            async with record.lock:
                if record.code is None:
                    raise ConfigurationError(f"sandbox {record.id!r} holds no code to freeze", "id")
                taken = self._worker.find_image(name)
                if taken is not None and taken.name == name and not replace:
                    raise ConfigurationError(
                        f"there is an image named {name!r} already; choose another or give replace=True",
                        "name",
                    )
                job = FreezeJob(
                    session=record.session if record.session_live else None,
                    image=record.image_id,
                    code=record.code,
                    reload=record.reload_pending,
                    name=name,
                    replace=replace,
                )
                try:
                    return await self._worker.freeze_session(job)
                except CopyRefused as refusal:
                    raise SandboxBusy(record.id, str(refusal)) from refusal

    async def _copy(self, record: SandboxRecord, made: SandboxRecord) -> None:
        """Give a new sandbox what another one holds, whose lock is held."""
        about = {
            "sandbox_id": made.id,
            "generation": made.state.generation,
            "population": made.state.population,
            "mutation_type": FORKED,
            "parent_ids": made.state.parent_ids,
        }
        with self._manager.telemetry.span("sandbox.create", about) as span:
            async with made.lock:
                if record.session_live:
                    made.session_opened = True  # from here on there may be a session to end
                    try:
                        live = await self._worker.fork_session(record.session, made.session)
                    except CopyRefused as refusal:
                        raise SandboxBusy(record.id, str(refusal)) from refusal
                    made.note_session(live=live)
                    made.reload_pending = live and record.reload_pending
                made.refuse_stopped()
                _share_code(record, made)
            span.note(status=made.state.status.value, version=made.state.version)


def _share_code(record: SandboxRecord, made: SandboxRecord) -> None:
    """Have a new sandbox hold the code of another one, or be in error for the same reason."""
    made.code, made.rejected = record.code, record.rejected
    state = record.state
    made.move(state.status, f"forked from {record.id!r}", error=state.error, version=state.version)
    made.loaded.set()
