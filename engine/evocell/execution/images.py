"""The image an engine forks from, as its configuration asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

from evocell.config import Config
from evocell.errors import ImageError
from evocell_runtime.build import BuildProgress, build_image
from evocell_runtime.cache import ImageCache, ImageManifest
from evocell_runtime.errors import ImageError as RuntimeImageError
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec

T = TypeVar("T")
Progress = Callable[[BuildProgress], None]


async def load_image(config: Config, progress: Progress | None) -> Image:
    """Load the image into this process, building it first if there is none yet.

    Raises:
        ImageError: It could not be found, built or trusted.

    Cancellation: A build is killed; what it left is swept up by the next.
    """
    return await _in_thread(open_image, config, progress)


async def ensure_image(config: Config, progress: Progress | None) -> ImageManifest:
    """Have the image in the cache, building it if there is none yet, and load nothing.

    Raises:
        ImageError: It could not be found, built or trusted.

    Cancellation: A build is killed; what it left is swept up by the next.
    """
    return await _in_thread(build_image, config, progress)


async def _in_thread(
    make: Callable[[ImageSpec, ImageCache, Progress], T], config: Config, progress: Progress | None
) -> T:
    def report(step: BuildProgress) -> None:
        trio.from_thread.check_cancelled()
        if progress is not None:
            progress(step)

    spec = ImageSpec(warm=config.warm, layers=config.layers)
    try:
        return await trio.to_thread.run_sync(make, spec, ImageCache(config.cache_path()), report)
    except RuntimeImageError as e:
        raise ImageError(str(e)) from e
