"""The part of `AsyncEngine` for calls, state and destruction of sandboxes, and for images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evocell.api.arguments import SandboxRef, file_path, sandbox_id, sandbox_ids
from evocell.api.lifecycle import EngineLifecycle
from evocell.errors import ConfigurationError, SandboxNotFound
from evocell.models.evaluation import check_seed, normalise_entry
from evocell.models.info import ImageInfo, check_image_name
from evocell.models.limits import Limits, check_limits
from evocell.models.outcome import Outcome
from evocell.models.state import SandboxState
from evocell.sandboxes.calls import (
    CallRequest,
    RunIsolation,
    check_deadline,
    encode_arguments,
    run_in_sandbox,
)
from evocell.sandboxes.record import SandboxRecord

__all__ = ["AsyncSandboxes"]


class AsyncSandboxes(EngineLifecycle):
    """The methods of `AsyncEngine` for existing sandboxes, except those that return sandboxes."""

    async def run(
        self,
        sandbox: SandboxRef,
        entry: str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        isolation: RunIsolation = "session",
        deadline_s: float | None = None,
    ) -> Outcome:
        """Call a function of a sandbox.

        Args:
            sandbox: Which one.
            entry: The function, as ``"module:qualname"``; ``"f"`` means ``"program:f"``.
            args: Positional arguments.
            kwargs: Arguments by name.
            seed: Reseeds the guest's random sources before the call.
            limits: Limits of this call; None for the sandbox's own.
            isolation: ``"session"`` keeps the sandbox's state for the next call, and serialises calls;
                ``"call"`` runs in a fork that is discarded, concurrently with others.
            deadline_s: Deadline in seconds, waiting included.

        Returns:
            The outcome. A call that had to be killed leaves the sandbox usable, with a fresh fork.

        Raises:
            SandboxNotFound: The sandbox does not exist, or was destroyed during the call.
            ConfigurationError: An argument is invalid or cannot be encoded.

        Cancellation: The call is stopped; the session it ran in loses its state.
        """
        seconds = check_deadline(deadline_s)
        check_seed(seed, "seed")
        if isolation not in ("session", "call"):
            raise ConfigurationError(f'isolation must be "session" or "call", not {isolation!r}', "isolation")
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            bounds = check_limits(limits) or record.limits
            request = CallRequest(
                entry=normalise_entry(entry),
                payload=encode_arguments(args, kwargs or {}, bounds, ""),
                seed=seed,
                limits=bounds,
                isolation=isolation,
            )
            return await run_in_sandbox(self._worker, record, request, self._observer, deadline_s=seconds)

    async def run_with_timeout(
        self,
        sandbox: SandboxRef,
        entry: str,
        *,
        timeout_s: float,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        isolation: RunIsolation = "session",
        deadline_s: float | None = None,
    ) -> Outcome:
        """Call a function of a sandbox with a limit on its run time.

        Otherwise the same as `run`.

        Args:
            sandbox: Which one.
            entry: As in `run`.
            timeout_s: Limit of the call's own run time in seconds; replaces the ``timeout_s`` of `limits`.
            args: As in `run`.
            kwargs: As in `run`.
            seed: As in `run`.
            limits: As in `run`.
            isolation: As in `run`.
            deadline_s: As in `run`.
        """
        bounds = check_limits(limits) or self._manager.get(sandbox_id(sandbox)).limits
        return await self.run(
            sandbox,
            entry,
            args=args,
            kwargs=kwargs,
            seed=seed,
            limits=bounds.evolve(timeout_s=timeout_s),
            isolation=isolation,
            deadline_s=deadline_s,
        )

    async def get_info(self, sandbox: SandboxRef) -> SandboxState:
        """Return a sandbox's current state.

        Raises:
            SandboxNotFound: The sandbox does not exist.
        """
        with self._request():
            return self._manager.state(self._manager.get(sandbox_id(sandbox)))

    async def list_sandboxes(self, *, population: str | None = None) -> list[SandboxState]:
        """Return the state of every sandbox, oldest first.

        Args:
            population: Only the members of this one.
        """
        with self._request():
            states = self._manager.states()
            return [state for state in states if population is None or state.population == population]

    async def destroy_sandbox(self, sandbox: SandboxRef) -> SandboxState:
        """Destroy a sandbox; calls under way in it are stopped and raise `SandboxNotFound`.

        Returns:
            Its last state, ``stopped``.

        Raises:
            SandboxNotFound: The sandbox does not exist, or is being destroyed already.
        """
        with self._request():
            return await self._manager.destroy(self._manager.get(sandbox_id(sandbox)))

    async def batch_destroy(
        self, sandboxes: Sequence[SandboxRef], *, missing_ok: bool = False
    ) -> list[SandboxState]:
        """Destroy many sandboxes.

        Args:
            sandboxes: The sandboxes; duplicates are allowed.
            missing_ok: Skip those that do not exist.

        Returns:
            Their last states.

        Raises:
            SandboxNotFound: One of them does not exist; nothing has been destroyed.

        Cancellation: They are destroyed all the same.
        """
        records: dict[str, SandboxRecord] = {}
        wanted_ids = sandbox_ids(sandboxes)
        about = {"operation": "destroy", "count": len(wanted_ids)}
        with self._request(), self.telemetry.span("sandbox.batch", about):
            for wanted in wanted_ids:
                try:
                    records[wanted] = self._manager.get(wanted)
                except SandboxNotFound:
                    if not missing_ok:
                        raise
            await self._manager.destroy_all(list(records.values()))
            return [record.state for record in records.values()]

    async def freeze(self, sandbox: SandboxRef, name: str, *, replace: bool = False) -> ImageInfo:
        """Freeze a sandbox's code and state into a named image for later sandboxes and evaluations.

        The image has the sandbox's modules imported and its objects alive. It is stored in the image cache,
        for other and later engines. A sandbox created from it without a source continues with the frozen code
        and state. A sandbox with a source has the frozen modules imported beside its own, which take
        precedence; ``/app`` then holds only its own files. The frozen sandbox is unchanged.

        Args:
            sandbox: The sandbox. A call that runs in its session is waited for.
            name: The image's name: 1 to 100 letters, digits, ``.``, ``_`` and ``-``.
            replace: Whether the name may be taken from another image, which then only has its id.

        Raises:
            SandboxBusy: Its code has open files, or raised while the copy was prepared.
            ImageError: The resulting image does not answer as it should.
            ConfigurationError: The name is invalid or in use, or the sandbox holds no code.
            SandboxNotFound: The sandbox does not exist, or was destroyed meanwhile.

        Cancellation: The image either exists, complete and named, or does not.
        """
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            return await self._copies.freeze(record, check_image_name(name), replace=replace)

    async def export_sandbox(self, sandbox: SandboxRef, path: str | Path) -> Path:
        """Write a sandbox to a new file: its code, and its session's state. The sandbox is unchanged.

        Args:
            sandbox: The sandbox. A call that runs in its session is waited for.
            path: The file; it must not exist. It is created atomically and flushed to disk.

        Returns:
            The file's path.

        Raises:
            SandboxBusy: Its code has files open.
            ConfigurationError: The file exists already, or the sandbox's code was rejected.
            StoreError: The file cannot be written.
            SandboxNotFound: There is no such sandbox, or it was destroyed meanwhile.

        Cancellation: There may be a file, complete, or none.
        """
        with self._request():
            file = file_path(path)
            await self._copies.export(self._manager.get(sandbox_id(sandbox)), file)
            return file

    async def export_image(self, image: str, path: str | Path) -> Path:
        """Write an image to a new file, for `import_image` on another machine or in another cache.

        The file holds the frozen memory and the loaded code's source files, packed and hashed. It holds no
        native code.

        Args:
            image: Name or id of the image.
            path: The file; there must be none yet.

        Returns:
            The file's path.

        Raises:
            ConfigurationError: There is no such image.
            ImageError: It cannot be exported; the message says why.

        Cancellation: There may be a file, complete, or none.
        """
        with self._request():
            found = self._worker.find_image(image)
            if found is None:
                self._manager.find_image(image)  # raises an error that lists the images
                raise ConfigurationError(f"there is no image {image!r}", "image")
            return await self._copies.export_image(found, file_path(path))

    async def import_image(
        self, path: str | Path, name: str | None = None, *, replace: bool = False
    ) -> ImageInfo:
        """Make an image from a file that `export_image` wrote; the file is untrusted.

        Everything in it is validated, and native code is compiled on this machine. Code in its forks is as
        untrusted as the file's author, and as confined as any other guest.

        Args:
            path: The file.
            name: Name of the image; None for its id alone.
            replace: Whether the name may be taken from another image.

        Raises:
            ImageError: The file is not an exported image, is damaged, or was made with another interpreter or
                other layers than any image here; the message says which.

        Cancellation: The image either exists, complete, or does not.
        """
        with self._request():
            return await self._copies.import_image(file_path(path), name, replace=replace)

    async def list_images(self) -> list[ImageInfo]:
        """Return the images in the cache, newest first, once per name."""
        with self._request():
            return self._worker.list_images()
