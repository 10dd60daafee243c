"""`evocell image build | list | show | verify | export | import | remove`: the cache of images."""

from __future__ import annotations

import argparse
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from evocell.cli.screen import open_screen, say, say_json
from evocell.config import Config
from evocell.console.progress import console_progress
from evocell.errors import ImageError

if TYPE_CHECKING:
    # The runtime loads wasmtime, which `--help` does not need.
    from evocell.guests.images import LoadedImages
    from evocell_runtime.cache import ImageCache, ImageManifest
    from evocell_runtime.spec import ImageSpec

__all__ = ["SHORT_ID", "choose", "newest_first", "run_export", "run_import"]

SHORT_ID = 12
"""Characters of an id in tables."""


def add_image_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `image` and its sub-commands to the parser."""
    image = commands.add_parser(
        "image",
        help="build, list, show, verify, export, import and remove sandbox images",
        description="An image is an interpreter frozen after its imports; every sandbox is a fork of one.",
    )
    actions = image.add_subparsers(title="actions", metavar="ACTION", required=True)

    build = _action(actions, "build", "build the image now rather than on first use")
    build.add_argument(
        "--warm",
        action="append",
        metavar="MODULE",
        help="import MODULE before the freeze; repeat for more (default: the configuration's)",
    )
    build.add_argument(
        "--layer",
        action="append",
        metavar="ZIP",
        type=Path,
        help="put a zip of pure-Python packages on the guest's path; repeat for more",
    )
    build.add_argument(
        "--with",
        action="append",
        metavar="PACKAGE",
        dest="packages",
        help="build the image for code that imports PACKAGE, such as scipy; repeat for more",
    )
    build.add_argument(
        "--all", action="store_true", help="build the images for all heavy packages, beside the engine's own"
    )
    build.set_defaults(run=run_build)

    listing = _action(actions, "list", "list the images in the cache")
    listing.add_argument("--json", action="store_true", help="print JSON instead of a table")
    listing.set_defaults(run=run_list)

    show = _action(actions, "show", "show everything known about one image")
    _image_argument(show, optional=True)
    show.add_argument("--json", action="store_true", help="print JSON instead of lines")
    show.set_defaults(run=run_show)

    verify = _action(actions, "verify", "check an image's files against the hashes taken at its build")
    _image_argument(verify, optional=True)
    verify.set_defaults(run=run_verify)

    export = _action(actions, "export", "write one image to a file, for another machine or cache")
    export.add_argument("image", metavar="IMAGE", help="an image's name, id or the beginning of one")
    export.add_argument("file", metavar="FILE", help="the file to write; there must be none yet")
    export.set_defaults(run=run_export)

    importing = _action(actions, "import", "make an image from an exported file, checked and sealed anew")
    importing.add_argument("file", metavar="FILE", help="the file")
    importing.add_argument("--name", metavar="NAME", help="what the image will go by")
    importing.add_argument("--replace", action="store_true", help="take the name from another image")
    importing.set_defaults(run=run_import)

    remove = _action(actions, "remove", "remove one image, or all")
    _image_argument(remove, optional=True)
    remove.add_argument("--all", action="store_true", help="remove every image")
    remove.set_defaults(run=run_remove)


def run_build(args: argparse.Namespace) -> int:
    """Build the images that are asked for, unless the cache has them: the configuration's, if none is."""
    from evocell_runtime.build import build_image
    from evocell_runtime.warm import BASE, warm_modules

    config = Config.load()
    cache = open_cache(args.cache_dir, config)
    names = images_to_build(args.packages or (), everything=args.all)
    if args.warm is not None and names != [BASE]:
        raise ImageError("--warm makes an image of its own; leave out --with and --all")
    for name in names:
        warm = args.warm if name == BASE else warm_modules(name)
        with console_progress() as progress:
            manifest = build_image(configured_spec(config, warm=warm, layers=args.layer), cache, progress)
        say(manifest.image_id if names == [BASE] else f"{manifest.image_id}  {name}")
    return 0


def images_to_build(packages: Sequence[str], *, everything: bool = False) -> list[str]:
    """Name the images that code with some imports runs in; the engine's own if there are none.

    Args:
        packages: Packages that the code imports, all of it together.
        everything: Whether it is to be every image there is.

    Raises:
        ImageError: A package is none of the heavy ones.
    """
    from evocell_runtime.warm import BASE, HEAVY_PACKAGES, PACKAGE_IMAGES, image_for

    unknown = [package for package in packages if package not in HEAVY_PACKAGES]
    if unknown:
        raise ImageError(
            f"there is no image with {unknown[0]!r}, but with {', '.join(sorted(HEAVY_PACKAGES))}. "
            "Others are named in the setting warm, or with --warm"
        )
    if everything:
        return [BASE, *PACKAGE_IMAGES]
    return [image_for(packages)]


def run_list(args: argparse.Namespace) -> int:
    """Print the images in the cache, newest first."""
    cache = open_cache(args.cache_dir, Config.load())
    manifests = newest_first(cache.images())
    if args.json:
        say_json([facts(manifest, cache) for manifest in manifests], indent=2)
        return 0
    if not manifests:
        say("no images; `evocell image build` makes one, and so does the first use")
        return 0
    table = Table(show_edge=False)
    names = names_of(cache)
    for heading in ("image", "name", "created", "python", "wasmtime", "warm", "layers", "on disk"):
        table.add_column(heading, no_wrap=heading in ("image", "name", "on disk"))
    for manifest in manifests:
        table.add_row(
            manifest.image_id[:SHORT_ID],
            ", ".join([*names.get(manifest.image_id, ()), *filter(None, [package_image(manifest)])]),
            manifest.created,
            manifest.python,
            manifest.wasmtime,
            str(len(manifest.warm)),
            str(len(manifest.layers)),
            megabytes(cache.size_bytes(manifest.image_id)),
        )
    open_screen().print(table)
    interpreters = {manifest.code_key: manifest.code_bytes for manifest in manifests}
    own = sum(cache.size_bytes(manifest.image_id) - manifest.code_bytes for manifest in manifests)
    together, code = megabytes(own + sum(interpreters.values())), megabytes(max(interpreters.values()))
    say(f"{together} together; images of the same interpreter share its code, {code}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one image's manifest."""
    cache = open_cache(args.cache_dir, Config.load())
    known = facts(choose(args.image, cache.images(), cache.names()), cache)
    if args.json:
        say_json(known, indent=2)
        return 0
    width = max(map(len, known))
    for name, value in known.items():
        text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        say(f"{name:<{width}}  {text}")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Check one image or all; the exit code is 1 if any is damaged."""
    cache = open_cache(args.cache_dir, Config.load())
    manifests = cache.images()
    chosen = newest_first(manifests) if args.image is None else [choose(args.image, manifests, cache.names())]
    if not chosen:
        say("no images to verify")
    damaged = 0
    for manifest in chosen:
        problems = cache.verify(manifest.image_id)
        damaged += bool(problems)
        for problem in problems or ["sound"]:
            say(f"{manifest.image_id[:SHORT_ID]}: {problem}")
    return 1 if damaged else 0


def run_remove(args: argparse.Namespace) -> int:
    """Remove one image or all; running sandboxes keep their mappings."""
    if args.all == (args.image is not None):
        raise ImageError("name one image to remove, or give --all")
    cache = open_cache(args.cache_dir, Config.load())
    kept = cache.images()
    for manifest in kept.copy() if args.all else [choose(args.image, kept, cache.names())]:
        kept.remove(manifest)
        freed = megabytes(freed_bytes(manifest, kept, cache))
        cache.remove(manifest.image_id)
        say(f"{manifest.image_id[:SHORT_ID]}: removed, {freed} freed")
    return 0


def open_cache(directory: Path | None, config: Config) -> ImageCache:
    """Open the image cache of a command.

    Args:
        directory: The value of `--cache-dir`, which overrides the configuration.
        config: The configuration.
    """
    from evocell_runtime.cache import ImageCache

    return ImageCache(directory or config.cache_path())


def configured_spec(
    config: Config,
    *,
    warm: Sequence[str] | None = None,
    layers: Sequence[Path] | None = None,
) -> ImageSpec:
    """Describe the image an engine with this configuration would fork from.

    Args:
        config: The default warm set and layers.
        warm: Modules to import before the freeze, in place of the configuration's.
        layers: Zip files for the guest's path, in place of the configuration's.
    """
    from evocell_runtime.spec import ImageSpec

    return ImageSpec(
        warm=tuple(warm if warm is not None else config.warm),
        layers=tuple(Path(layer) for layer in (layers if layers is not None else config.layers)),
        portable=config.profile == "portable",
    )


def package_image(manifest: ImageManifest) -> str:
    """Say which heavy packages an image is for, as ``"with scipy"``; nothing for any other."""
    from evocell_runtime.warm import PACKAGE_IMAGES, warm_modules

    for name in PACKAGE_IMAGES if manifest.parent is None else ():
        if manifest.warm == warm_modules(name):
            return f"with {name}"
    return ""


def names_of(cache: ImageCache) -> dict[str, list[str]]:
    """Return the names of each image, by its id."""
    names: dict[str, list[str]] = {}
    for name, image_id in cache.names().items():
        names.setdefault(image_id, []).append(name)
    return names


def facts(manifest: ImageManifest, cache: ImageCache) -> dict[str, object]:
    """Collect the facts of `show` about an image, in the order of display.

    Args:
        manifest: The image.
        cache: Its cache, for the space it takes.
    """
    return {
        "image_id": manifest.image_id,
        "names": names_of(cache).get(manifest.image_id, []),
        "parent": manifest.parent or "none",
        "version": manifest.version or "none",
        "created": manifest.created,
        "python": manifest.python,
        "wasmtime": manifest.wasmtime,
        "cpu": manifest.cpu,
        "code_key": manifest.code_key,
        "warm": list(manifest.warm),
        "layers": [str(layer) for layer in manifest.layers],
        "memory_bytes": manifest.memory_bytes,
        "code_bytes": manifest.code_bytes,
        "snapshot_bytes": manifest.snapshot_bytes,
        "snapshot_sha256": manifest.snapshot_sha256,
        "hot_pages": sum(size for _, size in manifest.hot_pages) // mmap.PAGESIZE,
        "build_s": manifest.build_s,
        "disk_bytes": cache.size_bytes(manifest.image_id),
    }


def freed_bytes(manifest: ImageManifest, others: Sequence[ImageManifest], cache: ImageCache) -> int:
    """Compute the space freed by removing an image; a shared compiled interpreter stays.

    Args:
        manifest: The image to remove.
        others: The images that stay.
        cache: Its cache, for the space it takes, interpreter included.
    """
    shared = any(other.code_key == manifest.code_key for other in others)
    return cache.size_bytes(manifest.image_id) - (manifest.code_bytes if shared else 0)


def megabytes(size_bytes: int) -> str:
    """Render a size on disk in MB (10^6 bytes)."""
    return f"{size_bytes / 1e6:.0f} MB"


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    action.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="the image cache (default: the configuration's, else the user's cache directory)",
    )
    return action


def _image_argument(action: argparse.ArgumentParser, *, optional: bool) -> None:
    action.add_argument(
        "image",
        nargs="?" if optional else None,
        metavar="IMAGE",
        help="an image's name, id or the beginning of one",
    )


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
    """Import an image from a file that `evocell image export` wrote; the file is not trusted."""
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


def choose(
    wanted: str | None, manifests: Sequence[ImageManifest], names: Mapping[str, str] | None = None
) -> ImageManifest:
    """Find an image by name, id or prefix of an id.

    Args:
        wanted: A name, an id or a prefix of one; None means the newest.
        manifests: The images in the cache.
        names: Ids by name.

    Raises:
        ImageError: No image matches, or several do.
    """
    if not manifests:
        raise ImageError("the cache holds no image; `evocell image build` makes one")
    if wanted is None:
        return newest_first(manifests)[0]
    named = (names or {}).get(wanted)
    found = [manifest for manifest in manifests if manifest.image_id.startswith(named or wanted)]
    if not found:
        ids = ", ".join([*(names or {}), *(manifest.image_id[:SHORT_ID] for manifest in manifests)])
        raise ImageError(f"no image is named {wanted!r}, and no id begins so; there are {ids}")
    if len(found) > 1:
        ids = ", ".join(manifest.image_id for manifest in found)
        raise ImageError(f"{wanted!r} is the beginning of more than one id; give more of it: {ids}")
    return found[0]


def newest_first(manifests: Sequence[ImageManifest]) -> list[ImageManifest]:
    """Sort images by their build time, newest first."""
    return sorted(manifests, key=lambda manifest: (manifest.created, manifest.image_id), reverse=True)
