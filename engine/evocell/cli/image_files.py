"""`evocell image export | import`: images as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from evocell.cli.image_choice import choose, newest_first
from evocell.cli.screen import say
from evocell.config import Config
from evocell.errors import ImageError

if TYPE_CHECKING:
    # The runtime loads wasmtime, which `--help` does not need.
    from evocell.guests.images import LoadedImages
    from evocell_runtime.cache import ImageCache

__all__ = ["run_export", "run_import"]


def run_export(args: argparse.Namespace) -> int:
    """Write one image's snapshot to a file, with no native code in it."""
    from evocell.execution.messages import CopyRefused
    from evocell.guests.image_files import export_image
    from evocell_runtime.cache import ImageCache

    cache = ImageCache(args.cache_dir or Config.load().cache_path())
    manifest = choose(args.image, cache.images(), cache.names())
    path = Path(args.file)
    try:
        export_image(_shelf(cache, manifest.image_id), None, path.absolute())
    except CopyRefused as refusal:
        raise ImageError(str(refusal), str(path)) from refusal
    say(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    return 0


def run_import(args: argparse.Namespace) -> int:
    """Seal an image from a file that `evocell image export` wrote, or someone who claims so."""
    from evocell.execution.messages import CopyRefused
    from evocell.guests.image_files import import_image
    from evocell_runtime.cache import ImageCache

    cache = ImageCache(args.cache_dir or Config.load().cache_path())
    manifests = newest_first(cache.images())
    if not manifests:
        raise ImageError("an import needs an image built on this machine; run `evocell image build` first")
    path = Path(args.file).absolute()
    try:
        shelf = _shelf(cache, manifests[0].image_id)
        image_id = import_image(shelf, path, name=args.name, replace=args.replace)
    except CopyRefused as refusal:
        raise ImageError(str(refusal), str(path)) from refusal
    say(f"{image_id}")
    return 0


def _shelf(cache: ImageCache, image_id: str) -> LoadedImages:
    from evocell.guests.images import LoadedImages
    from evocell_runtime.errors import ImageError as RuntimeImageError
    from evocell_runtime.image import Image

    manifest = cache.get(image_id)
    if manifest is None:
        raise ImageError(f"there is no image {image_id} in {cache.root} any more")
    try:
        return LoadedImages(Image(cache, manifest), cache)
    except RuntimeImageError as e:
        raise ImageError(str(e)) from e
