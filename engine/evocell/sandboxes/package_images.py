"""Images with heavy packages imported: chosen by what code imports, and built when code first asks for one.

The choice depends on the code alone: the imports that the compiler saw in its files, wherever they stand, and
the closed list in `evocell_runtime.warm`. So the same code takes the same fuel, whatever ran before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import trio
from attrs import evolve, frozen

from evocell.code.compiler import CompiledVersion
from evocell.config import Config
from evocell.errors import ImageError
from evocell.guests.images import ensure_image, spec_of
from evocell_runtime.build import BuildProgress
from evocell_runtime.warm import BASE, DEFAULT_WARM, PACKAGE_IMAGES, image_for, warm_modules

__all__ = ["OWN", "ChosenImage", "PackageImages", "Showing"]

Showing: TypeAlias = Callable[[], AbstractContextManager[Callable[[BuildProgress], None]]]
"""Opens a display for the steps of a build."""


@frozen
class ChosenImage:
    """The image that a call runs in.

    Attributes:
        id: Its id; None for the engine's own.
        name: What results call it: the name or id that was asked for, ``"base"``, or a name of the list.
    """

    id: str | None = None
    name: str = BASE


OWN = ChosenImage()
"""The engine's own image."""


class PackageImages:
    """The images of one engine that code asks for by importing heavy packages.

    Args:
        config: Its settings: whether images are chosen, and what they are made of.
        showing: Opens a display for the steps of a build.
    """

    def __init__(self, config: Config, showing: Showing) -> None:
        self._config = config
        self._showing = showing
        self._chooses = config.images == "imports" and config.warm == DEFAULT_WARM
        self._ready: dict[str, ChosenImage] = {BASE: OWN}
        self._building = trio.Lock()

    def name(self, *codes: CompiledVersion | None) -> str:
        """Name the image for code that runs together, such as a program and its harness."""
        return self.name_for([name for code in codes if code is not None for name in code.packages])

    def name_for(self, packages: Collection[str]) -> str:
        """Name the image for code that imports some packages."""
        return image_for(packages) if packages and self._chooses else BASE

    async def choose(
        self,
        *codes: CompiledVersion | None,
        meanwhile: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> ChosenImage:
        """Return the image for code that runs together, and build it first if it is not there yet.

        Args:
            *codes: The code.
            meanwhile: Entered for as long as there is something to wait for.

        Raises:
            ImageError: It cannot be built.

        Cancellation: A build is killed; the next who asks for it starts anew.
        """
        return await self.have(self.name(*codes), meanwhile=meanwhile)

    async def have(
        self, name: str, *, meanwhile: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> ChosenImage:
        """Return an image of the list, as `choose` does."""
        found = self._ready.get(name)
        if found is None:
            with meanwhile():
                found = await self._made(name)
        return found

    async def find(self, image_id: str) -> ChosenImage | None:
        """Return the image of the list that has this id here, built if need be; None if none has.

        Raises:
            ImageError: It cannot be built.
        """
        if not self._chooses:
            return None
        for name in PACKAGE_IMAGES:
            if await trio.to_thread.run_sync(spec_of(self._settings(name)).image_id) == image_id:
                return await self._made(name)
        return None

    async def _made(self, name: str) -> ChosenImage:
        async with self._building:
            found = self._ready.get(name)
            if found is None:
                try:
                    with self._showing() as progress:
                        manifest = await ensure_image(self._settings(name), progress)
                except ImageError as error:
                    raise ImageError(
                        f"the image {name!r}, for code that imports {_either(name)}, cannot be had: "
                        f'{error.message}. With images="base" in the Config all code runs in the '
                        "engine's own image"
                    ) from error
                found = self._ready[name] = ChosenImage(manifest.image_id, name)
            return found

    def _settings(self, name: str) -> Config:
        return evolve(self._config, warm=warm_modules(name))


def _either(name: str) -> str:
    return " or ".join(sorted(PACKAGE_IMAGES[name][0]))
