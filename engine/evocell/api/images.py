"""The engine as most programs use it: forks of sandboxes, and images made of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from evocell.api.async_images import AsyncImages
from evocell.api.options import SandboxRef
from evocell.api.portal import Portal
from evocell.api.sandbox import Sandbox
from evocell.models.info import ImageInfo
from evocell.models.limits import Limits

__all__ = ["Images"]


class Images:
    """The part of `Engine` that copies what sandboxes hold; see there."""

    _thread: Portal
    _engine: AsyncImages

    def fork_sandbox(self, sandbox: SandboxRef, new_id: str | None = None) -> Sandbox:
        """Make a sandbox that holds what another one holds; see `AsyncEngine.fork_sandbox`."""
        return Sandbox(self._thread, self._thread.call(partial(self._engine.fork_sandbox, sandbox, new_id)))

    def batch_fork(self, sandbox: SandboxRef, count: int) -> list[Sandbox]:
        """Fork a sandbox many times; see `AsyncEngine.batch_fork`."""
        twins = self._thread.call(partial(self._engine.batch_fork, sandbox, count))
        return [Sandbox(self._thread, twin) for twin in twins]

    def freeze(self, sandbox: SandboxRef, name: str, *, replace: bool = False) -> ImageInfo:
        """Make a named image of what a sandbox holds; see `AsyncEngine.freeze`."""
        return self._thread.call(partial(self._engine.freeze, sandbox, name, replace=replace))

    def export_image(self, image: str, path: str | Path) -> Path:
        """Write an image to a new file; see `AsyncEngine.export_image`."""
        return self._thread.call(partial(self._engine.export_image, image, path))

    def import_image(self, path: str | Path, name: str | None = None, *, replace: bool = False) -> ImageInfo:
        """Make an image from a file; see `AsyncEngine.import_image`."""
        return self._thread.call(partial(self._engine.import_image, path, name, replace=replace))

    def export_sandbox(self, sandbox: SandboxRef, path: str | Path) -> Path:
        """Write a sandbox to a new file; see `AsyncEngine.export_sandbox`."""
        return self._thread.call(partial(self._engine.export_sandbox, sandbox, path))

    def import_sandbox(
        self, path: str | Path, new_id: str | None = None, *, limits: Limits | None = None
    ) -> Sandbox:
        """Make a sandbox from a file; see `AsyncEngine.import_sandbox`."""
        twin = self._thread.call(partial(self._engine.import_sandbox, path, new_id, limits=limits))
        return Sandbox(self._thread, twin)

    def migrate_sandbox(
        self,
        sandbox: SandboxRef,
        target: object,
        *,
        new_id: str | None = None,
        path: str | Path | None = None,
    ) -> object:
        """Move a sandbox to another engine; see `AsyncEngine.migrate_sandbox`."""
        return self._thread.call(
            partial(self._engine.migrate_sandbox, sandbox, target, new_id=new_id, path=path)
        )

    def list_images(self) -> list[ImageInfo]:
        """Return the images in the cache, the newest first; see `AsyncEngine.list_images`."""
        return self._thread.call(self._engine.list_images)
