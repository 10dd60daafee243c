"""Copies of sandboxes: forks of their state, images frozen from it, and exported files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio
from attrs import evolve

from evocell.code.compiler import CompiledVersion
from evocell.errors import ConfigurationError, ImageError, ProtocolError, SandboxBusy
from evocell.execution.interface import FreezeJob, Worker
from evocell.execution.messages import CopyRefused, ImageRefused, SessionCopy
from evocell.models.info import ImageInfo
from evocell.models.limits import Limits
from evocell.sandboxes.archive import ExportedSandbox, read_sandbox, write_sandbox
from evocell.sandboxes.manager import Manager
from evocell.sandboxes.package_images import OWN
from evocell.sandboxes.record import SandboxRecord

__all__ = ["Copies"]

FORKED = "fork"
"""The mutation type of a fork."""


class Copies:
    """Forks, freezes, exports and imports sandboxes.

    Args:
        worker: The worker that holds the sessions.
        manager: The manager of the sandboxes.
    """

    def __init__(self, worker: Worker, manager: Manager) -> None:
        self._worker = worker
        self._manager = manager

    async def fork(self, record: SandboxRecord, new_ids: Sequence[str | None]) -> list[SandboxRecord]:
        """Fork a sandbox: make sandboxes with its code and its session's state.

        Args:
            record: The sandbox to fork.
            new_ids: An id for each fork; None generates one.

        Raises:
            SandboxBusy: Its state cannot be copied.
            SandboxNotFound: It was destroyed meanwhile.
            SandboxExists, CapacityError: They cannot be created; none is.

        Cancellation: No fork remains.
        """
        asked = record.state.config.image if record.image is None else record.image.id
        spec = evolve(record.state.config, image=asked, parent_ids=(record.id,), mutation_type=FORKED)
        with record.in_use():
            await record.loaded.wait()
            specs = [evolve(spec, id=new_id) for new_id in new_ids]
            async with record.lock, self._manager.reserved(specs) as made:
                for one in made:
                    await self._copy(record, one)
                return made

    async def freeze(self, record: SandboxRecord, name: str, *, replace: bool) -> ImageInfo:
        """Freeze a sandbox's code and state into an image; the sandbox is unchanged.

        Args:
            record: The sandbox.
            name: Name of the image.
            replace: Whether the name may be taken from another image.

        Raises:
            SandboxBusy: Its state cannot be copied, or the copy cannot be prepared.
            ImageError: The resulting image does not answer as it should.
            SandboxNotFound: It was destroyed meanwhile.
            ConfigurationError: It holds no code, or the name is another image's.

        Cancellation: The image either exists, complete and named, or does not.
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
                    image=(await record.choose_session_image()).id,
                    limits=record.limits,
                    code=record.code,
                    name=name,
                    replace=replace,
                )
                try:
                    return await self._worker.freeze_session(job)
                except ImageRefused as refusal:
                    raise ImageError(f"sandbox {record.id!r} makes no image: {refusal}") from refusal
                except CopyRefused as refusal:
                    raise SandboxBusy(record.id, str(refusal)) from refusal

    async def export(self, record: SandboxRecord, path: Path) -> None:
        """Write a sandbox to a new file; the sandbox is unchanged.

        Raises:
            SandboxBusy: Its state cannot be copied.
            SandboxNotFound: It was destroyed meanwhile.
            ConfigurationError: Its code was rejected, or the file exists already.
            StoreError: The file cannot be written.

        Cancellation: The file either exists, complete, or does not.
        """
        with record.in_use():
            await record.loaded.wait()
            async with record.lock:
                await self._write(record, path)

    async def take(self, path: Path, new_id: str | None, limits: Limits | None) -> SandboxRecord:
        """Make a sandbox from an untrusted file.

        Args:
            path: The file.
            new_id: The sandbox's id; None for its former one.
            limits: Its limits; None for its former ones.

        Raises:
            ProtocolError: The file is not an exported sandbox, is damaged, or inconsistent.
            ConfigurationError: The file does not exist, or the sandbox's image is not available here.
            SandboxExists, CapacityError: It cannot be created.

        Cancellation: No sandbox remains.
        """
        exported = await trio.to_thread.run_sync(read_sandbox, path)
        chosen = await self._manager.images.find(exported.image_id)
        if chosen is not None and self._worker.image_digest(chosen.id) != exported.snapshot_sha256:
            chosen = None
        spec = evolve(
            exported.spec,
            id=new_id or exported.spec.id,
            image=self._image_of(exported) if chosen is None else None,
            limits=limits or exported.spec.limits,
        )
        async with self._manager.reserved([spec]) as (record,):
            tree = exported.tree
            made = await self._manager.load(record, None if tree is None else dict(tree.files))
            held = isinstance(made, CompiledVersion)
            if not held and (tree is not None or exported.code_in_image or exported.session is not None):
                raise ProtocolError(f"{path} holds code that is refused here: {record.state.error or 'none'}")
            if isinstance(made, CompiledVersion) and exported.session is not None:
                record.session_image = chosen or record.asked_image or OWN
                await self._put_in(record, made, exported, path)
            return record

    async def export_image(self, image: ImageInfo, path: Path) -> Path:
        """Write an image to a new file.

        Raises:
            ImageError: It cannot be exported; the message says why.
        """
        try:
            await self._worker.export_image(image, path)
        except CopyRefused as refusal:
            raise ImageError(str(refusal), str(path)) from refusal
        return path

    async def import_image(self, path: Path, name: str | None, *, replace: bool) -> ImageInfo:
        """Make an image from an untrusted file.

        Raises:
            ImageError: It cannot be used; the message says why.
        """
        try:
            return await self._worker.import_image(path, name=name, replace=replace)
        except CopyRefused as refusal:
            raise ImageError(str(refusal), str(path)) from refusal

    async def migrate(
        self, record: SandboxRecord, path: Path, recreate: Callable[[Path], Awaitable[object]]
    ) -> object:
        """Migrate a sandbox: recreate it elsewhere from a file, and destroy it here.

        Concurrent calls wait, and then raise `SandboxNotFound`. If either engine dies during the migration,
        the sandbox survives in the file, here, or there.

        Args:
            record: The sandbox.
            path: The intermediate file, which is removed at the end.
            recreate: Creates the sandbox elsewhere, and returns when it exists.

        Returns:
            The value of `recreate`.

        Raises:
            SandboxBusy, ConfigurationError, StoreError: As for `export`; nothing has changed.
            Exception: The failure of `recreate`; the sandbox is unchanged.

        Cancellation: It is unchanged here; it may exist there as well.
        """
        await record.loaded.wait()
        async with record.lock:
            record.refuse_stopped()
            await self._write(record, path)
            try:
                made = await recreate(path)
            except BaseException:
                _remove(path)
                raise
            if not record.stopping:
                record.stop()
        await self._manager.take_apart(record)
        _remove(path)
        return made

    async def _write(self, record: SandboxRecord, path: Path) -> None:
        """Write a sandbox whose lock is held."""
        if record.code is None and record.state.error is not None:
            raise ConfigurationError(
                f"sandbox {record.id!r} holds code that was rejected, and nothing to export", "id"
            )
        session = None
        if record.session_live:
            try:
                session = await self._worker.host.export_session(record.session)
            except CopyRefused as refusal:
                raise SandboxBusy(record.id, str(refusal)) from refusal
        image = record.image_id if session is None else (await record.choose_session_image()).id
        write = partial(
            write_sandbox,
            path,
            record.state,
            record.limits,
            image=(image or self._worker.image_id, self._worker.image_digest(image)),
            code=None if record.code is None else record.code.path,
            code_in_image=record.code is not None and not record.code.code,
            session=None if session is None else SessionCopy.of(session),
        )
        await trio.to_thread.run_sync(write)

    def _image_of(self, exported: ExportedSandbox) -> str | None:
        """Return the id of the local image that matches an imported sandbox's; None for the engine's own."""
        known = {image.snapshot_sha256: image for image in self._worker.list_images()}
        found = self._worker.find_image(exported.image_id) or known.get(exported.snapshot_sha256)
        if found is None or found.snapshot_sha256 != exported.snapshot_sha256:
            raise ConfigurationError(
                f"the sandbox starts from the image {exported.image_id!r}, which is not here; export that "
                "one with export_image where the sandbox comes from, and import it here first",
                "image",
            )
        return None if found.id == self._worker.image_id else found.id

    async def _put_in(
        self, record: SandboxRecord, code: CompiledVersion, exported: ExportedSandbox, path: Path
    ) -> None:
        """Import a new sandbox's session."""
        assert exported.session is not None
        async with record.lock:
            record.session_opened = True
            try:
                image = record.image_id if record.session_image is None else record.session_image.id
                state = exported.session.state(image=image, app=code.path, limits=record.limits)
                await self._worker.host.import_session(record.session, state)
            except CopyRefused as refusal:
                raise ProtocolError(f"{path} holds a session that cannot be: {refusal}") from refusal
            record.note_session(live=True)

    async def _copy(self, record: SandboxRecord, made: SandboxRecord) -> None:
        """Copy the code and session of a sandbox into a new one; the sandbox's lock is held."""
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
                    made.session_opened = True  # from here on a session may exist that must be ended
                    try:
                        live = await self._worker.host.fork_session(record.session, made.session)
                    except CopyRefused as refusal:
                        raise SandboxBusy(record.id, str(refusal)) from refusal
                    made.session_image = record.session_image
                    made.note_session(live=live)
                made.refuse_stopped()
                _share_code(record, made)
                if made.code is not None:
                    registered = self._manager.modules.register(made.id, made.code, mutation_type=FORKED)
                    self._manager.kept_versions.keep(registered)
            span.note(status=made.state.status.value, version=made.state.version)


def _share_code(record: SandboxRecord, made: SandboxRecord) -> None:
    """Give a new sandbox the code of another, or its rejection."""
    made.code, made.rejected = record.code, record.rejected
    state = record.state
    made.move(
        state.status,
        f"forked from {record.id!r}",
        error=state.error,
        version=state.version,
        image=record.image_name,
    )
    made.loaded.set()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
