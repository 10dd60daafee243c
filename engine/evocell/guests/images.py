"""Loaded images, the catalogue of cached images, and building the configured one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import trio

from evocell.errors import ImageError
from evocell.models.info import ImageInfo
from evocell_runtime.cache import ImageCache, ImageManifest
from evocell_runtime.errors import ImageError as RuntimeImageError
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec

if TYPE_CHECKING:  # worker processes never build images, and start faster without these
    from evocell.config import Config
    from evocell_runtime.build import BuildProgress

    Progress = Callable[[BuildProgress], None]

T = TypeVar("T")

KEPT_IMAGES = 64
"""Most images that a process keeps mapped; the least recently used is dropped first."""


class LoadedImages:
    """The images that a process forks from: its own, and others, loaded from the same cache on demand.

    Args:
        own: The image of requests that name none.
        cache: The cache of the others.
    """

    def __init__(self, own: Image, cache: ImageCache) -> None:
        self.own = own
        self.cache = cache
        self._others: OrderedDict[str, Image] = OrderedDict()
        self._loading = threading.Lock()

    def holds(self, image_id: str | None) -> bool:
        """Return whether an image is loaded."""
        return image_id in (None, self.own.image_id) or image_id in self._others

    def get(self, image_id: str | None) -> Image:
        """Return an image, loading it if need be. From any thread.

        Raises:
            evocell_runtime.errors.ImageError: The image does not exist, or is damaged.
        """
        if image_id is None or image_id == self.own.image_id:
            return self.own
        with self._loading:
            image = self._others.get(image_id)
            if image is None:
                manifest = self.cache.get(image_id)
                if manifest is None:
                    raise RuntimeImageError(f"there is no image {image_id} in {self.cache.root} any more")
                image = self._others[image_id] = Image(self.cache, manifest)
            self._others.move_to_end(image_id)
            if len(self._others) > KEPT_IMAGES:
                self._others.popitem(last=False)[1].close()
            return image

    def close(self) -> None:
        """Drop all images; live forks keep theirs. Idempotent."""
        with self._loading:
            others = list(self._others.values())
            self._others.clear()
        for image in (self.own, *others):
            image.close()


class ImageCatalogue:
    """Lookup of images in the cache, without loading any.

    Args:
        own: The engine's own image.
        cache: The cache of all images.
    """

    def __init__(self, own: ImageManifest, cache: ImageCache) -> None:
        self.own = own
        self.cache = cache
        self._known: dict[str, ImageManifest] = {own.image_id: own}

    def find(self, wanted: str) -> ImageInfo | None:
        """Return the image with a name, an id or an unambiguous prefix of an id; None if there is none."""
        image_id = self.cache.id_of(wanted)
        manifest = self._known.get(image_id or wanted)
        if manifest is None or not self.cache.image_dir(manifest.image_id).is_dir():
            manifest = self.cache.get(wanted)
        if manifest is None:
            return None
        self._known[manifest.image_id] = manifest
        return describe_image(manifest, None if image_id is None else wanted)

    def manifest(self, image_id: str | None) -> ImageManifest:
        """Return the manifest of a found image, or of the engine's own for None.

        Raises:
            ImageError: It is no longer in the cache.
        """
        if image_id is None:
            return self.own
        manifest = self._known.get(image_id) or self.cache.get(image_id)
        if manifest is None:
            raise ImageError(f"there is no image {image_id} in {self.cache.root} any more")
        self._known[image_id] = manifest
        return manifest

    def known(self) -> list[ImageInfo]:
        """Return every image in the cache, newest first, once per name."""
        names: dict[str, list[str | None]] = {}
        for name, image_id in self.cache.names().items():
            names.setdefault(image_id, []).append(name)
        return [
            describe_image(manifest, name)
            for manifest in self.cache.images()
            for name in names.get(manifest.image_id, [None])
        ]


def describe_image(manifest: ImageManifest, name: str | None) -> ImageInfo:
    """Describe an image."""
    return ImageInfo(
        id=manifest.image_id,
        name=name,
        parent_id=manifest.parent,
        version=manifest.version,
        created_at=manifest.created,
        memory_bytes=manifest.memory_bytes,
        snapshot_bytes=manifest.snapshot_bytes,
        snapshot_sha256=manifest.snapshot_sha256,
        python=manifest.python,
    )


def spec_of(config: Config) -> ImageSpec:
    """Return what the image of a configuration is made from."""
    return ImageSpec(warm=config.warm, layers=config.layers, portable=config.profile == "portable")


async def load_image(config: Config, progress: Progress | None) -> Image:
    """Load the image into this process, building it first if need be.

    Raises:
        ImageError: It could not be found, built or trusted.

    Cancellation: A build is killed; what it left is swept up by the next.
    """
    return await _in_thread(open_image, config, progress)


async def ensure_image(config: Config, progress: Progress | None) -> ImageManifest:
    """Ensure that the image is in the cache, building it if need be, without loading it.

    Raises:
        ImageError: It could not be found, built or trusted.

    Cancellation: A build is killed; what it left is swept up by the next.
    """
    from evocell_runtime.build import build_image  # noqa: PLC0415 - as above

    return await _in_thread(build_image, config, progress)


async def _in_thread(
    make: Callable[[ImageSpec, ImageCache, Progress], T], config: Config, progress: Progress | None
) -> T:
    def report(step: BuildProgress) -> None:
        trio.from_thread.check_cancelled()
        if progress is not None:
            progress(step)

    try:
        return await trio.to_thread.run_sync(make, spec_of(config), ImageCache(config.cache_path()), report)
    except RuntimeImageError as e:
        raise ImageError(str(e)) from e
