"""The engine as trio programs use it: forks of sandboxes, and images made of them."""

from __future__ import annotations

import inspect
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import trio

from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.lifecycle import EngineLifecycle
from evocell.api.options import SandboxRef, check_count, sandbox_id
from evocell.errors import ConfigurationError
from evocell.models.info import ImageInfo, check_image_name
from evocell.models.limits import Limits

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
            ImageError: The image made of it does not answer as it should.
            ConfigurationError: The name cannot be used or is taken, or the sandbox holds no code.
            SandboxNotFound: There is none, or it was destroyed meanwhile.

        Cancellation: There may be an image, complete and with its name, or none.
        """
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            return await self._copies.freeze(record, check_image_name(name), replace=replace)

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
                self._manager.find_image(image)  # says which there are
                raise ConfigurationError(f"there is no image {image!r}", "image")
            return await self._copies.export_image(found, _file(path))

    async def import_image(
        self, path: str | Path, name: str | None = None, *, replace: bool = False
    ) -> ImageInfo:
        """Make an image from a file that `export_image` wrote, or someone who claims so.

        Everything in it is checked, and sealed anew on this machine. What runs in its forks is as
        untrusted as whoever the file comes from, and as confined as any other guest.

        Args:
            path: The file.
            name: What the image will go by; None for its id alone.
            replace: Whether the name may be taken from another image.

        Raises:
            ImageError: The file is no exported image, is damaged, or was made with another interpreter or
                other layers than any image here; the message says which.

        Cancellation: There may be an image, complete, or none.
        """
        with self._request():
            return await self._copies.import_image(_file(path), name, replace=replace)

    async def export_sandbox(self, sandbox: SandboxRef, path: str | Path) -> Path:
        """Write a sandbox to a new file: its code, and what its session holds. It stays as it is.

        Args:
            sandbox: The sandbox. A call that runs in its session is waited for.
            path: The file; there must be none yet. It appears complete, and is on disk then.

        Returns:
            The file's path.

        Raises:
            SandboxBusy: Its code has files open.
            ConfigurationError: There is a file already, or the sandbox holds rejected code.
            StoreError: The file cannot be written.
            SandboxNotFound: There is no such sandbox, or it was destroyed meanwhile.

        Cancellation: There may be a file, complete, or none.
        """
        with self._request():
            file = _file(path)
            await self._copies.export(self._manager.get(sandbox_id(sandbox)), file)
            return file

    async def import_sandbox(
        self, path: str | Path, new_id: str | None = None, *, limits: Limits | None = None
    ) -> AsyncSandbox:
        """Make a sandbox from a file that `export_sandbox` wrote, or someone who claims so.

        Its session goes on where it was. The code is compiled anew here; byte code and native code are
        never taken from the file.

        Args:
            path: The file.
            new_id: The sandbox's id; None for the one it had.
            limits: Its limits; None for those it had, which the file's author chose.

        Raises:
            ProtocolError: The file is no exported sandbox, is damaged, or holds what cannot be.
            ConfigurationError: There is no such file, or the image that the sandbox starts from is not here.
            SandboxExists: The id is taken.
            CapacityError: There would be too many sandboxes.

        Cancellation: There is no sandbox.
        """
        with self._request():
            record = await self._copies.take(_file(path), new_id, limits)
            return AsyncSandbox(cast("AsyncEngine", self), record.id)

    async def migrate_sandbox(
        self,
        sandbox: SandboxRef,
        target: object,
        *,
        new_id: str | None = None,
        path: str | Path | None = None,
    ) -> object:
        """Move a sandbox to another engine: write it to a file, recreate it there, destroy it here.

        Calls that come meanwhile wait, and raise `SandboxNotFound` once it is gone. Whichever engine's
        process dies on the way, nothing is lost: before the sandbox is destroyed here, it is there, and until
        all is over it is in the file as well, from which `import_sandbox` makes it again.

        Args:
            sandbox: The sandbox.
            target: An `AsyncEngine` of this loop, an `Engine` (whose work is waited for in a thread), or a
                function of the file's path, async or not, that has some other engine import it and returns
                when that is done.
            new_id: Its id there; None for the one it has.
            path: The file, which is removed at the end; None makes one in the temporary directory.

        Returns:
            The sandbox as the target's `import_sandbox` returned it, or what the function returned.

        Raises:
            SandboxBusy: Its code has files open; nothing has changed.
            Exception: What the target raised; the sandbox is here as before.

        Cancellation: It is here as before; it may be there as well.
        """
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            name = f"evocell-{uuid.uuid4().hex}.sandbox"
            file = _file(Path(tempfile.gettempdir()) / name if path is None else path)
            return await self._copies.migrate(record, file, recreation(target, new_id))

    async def list_images(self) -> list[ImageInfo]:
        """Return the images in the cache, the newest first; one with several names comes once for each."""
        with self._request():
            return self._worker.list_images()


def recreation(target: object, new_id: str | None) -> Callable[[Path], Awaitable[object]]:
    """What has a target import a sandbox from a file.

    Args:
        target: An engine of either kind, or a function.
        new_id: The sandbox's id there; None for the one it has.

    Raises:
        ConfigurationError: It is neither.
    """
    function: Any = target
    if isinstance(target, AsyncImages):
        return partial(_import_there, target, new_id)
    if (method := getattr(target, "import_sandbox", None)) is not None:
        function = partial(_call_import, method, new_id)
    elif not callable(target):
        raise ConfigurationError(
            f"target must be an engine or a function, not {type(target).__name__}", "target"
        )
    if inspect.iscoroutinefunction(function):
        return cast("Callable[[Path], Awaitable[object]]", function)
    return partial(trio.to_thread.run_sync, function)


async def _import_there(target: AsyncImages, new_id: str | None, path: Path) -> object:
    return await target.import_sandbox(path, new_id)


def _call_import(method: Callable[..., object], new_id: str | None, path: Path) -> object:
    return method(path, new_id)


def _file(path: object) -> Path:
    """A file's path, whatever the working directory is later."""
    if not isinstance(path, str | Path) or not str(path):
        raise ConfigurationError(f"path must be the path of a file, not {path!r}", "path")
    return Path(path).expanduser().absolute()
