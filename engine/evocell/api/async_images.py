"""The engine as trio programs use it: forks of sandboxes, and images made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import SandboxRef, check_count, sandbox_id
from evocell.models.images import ImageInfo

if TYPE_CHECKING:
    from evocell.api.async_engine import AsyncEngine

__all__ = ["AsyncImages"]


class AsyncImages(EngineLifecycle):
    """The part of `AsyncEngine` that copies what sandboxes hold; see there."""

    async def fork_sandbox(self, sandbox: SandboxRef, new_id: str | None = None) -> AsyncSandbox:
        """Make a sandbox that holds what another one holds at this moment: its code and its session's state.

        The two share nothing that either could change: modules, objects, random state and scratch files
        are copies. The new one joins the population and generation of the other one, its parent, with the
        mutation type ``"fork"``, and lives in the same worker.

        Args:
            sandbox: The other one. A call that runs in its session is waited for.
            new_id: Id of the new one; None has one made.

        Raises:
            SandboxBusy: Its code has files open, or the worker has no room for the copy.
            SandboxNotFound: There is none, or it was destroyed meanwhile.
            SandboxExists: The new id is taken.
            CapacityError: There would be too many sandboxes.

        Cancellation: There is no new sandbox.
        """
        with self._request():
            made = await self._copies.fork(self._manager.get(sandbox_id(sandbox)), [new_id])
            return AsyncSandbox(cast("AsyncEngine", self), made[0].id)

    async def batch_fork(self, sandbox: SandboxRef, count: int) -> list[AsyncSandbox]:
        """Fork a sandbox many times, all of the same state, as `fork_sandbox` does once.

        Args:
            sandbox: The sandbox.
            count: How many forks, from 1.

        Raises:
            ConfigurationError: The count is none.

        Cancellation: None of them remains.
        """
        engine = cast("AsyncEngine", self)
        n_forks = check_count(count, "count")
        with self._request():
            made = await self._copies.fork(self._manager.get(sandbox_id(sandbox)), [None] * n_forks)
            return [AsyncSandbox(engine, record.id) for record in made]

    async def freeze(self, sandbox: SandboxRef, name: str, *, replace: bool = False) -> ImageInfo:
        """Make a named image of what a sandbox holds; later sandboxes and evaluations start from it.

        The image has the sandbox's modules imported and its objects alive. It lies in the image cache, where
        other engines and later ones find it. A sandbox that is created from it without a source goes on with
        the frozen code and state. One with a source finds the frozen modules imported beside its own, which
        go before them; ``/app`` then holds its own files alone. The sandbox that is frozen stays as it is.

        Args:
            sandbox: The sandbox. A call that runs in its session is waited for.
            name: What the image will go by: 1 to 100 letters, digits, ``.``, ``_`` and ``-``.
            replace: Whether the name may be taken from another image, which then has its id only.

        Raises:
            SandboxBusy: Its code has files open, or raised while the copy was prepared.
            ConfigurationError: The name cannot be used or is taken, or the sandbox holds no code.
            SandboxNotFound: There is none, or it was destroyed meanwhile.

        Cancellation: There may be an image, complete and with its name, or none.
        """
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            return await self._copies.freeze(record, name, replace=replace)

    async def list_images(self) -> list[ImageInfo]:
        """Return the images in the cache, the newest first; one with several names comes once for each."""
        with self._request():
            return self._worker.list_images()
