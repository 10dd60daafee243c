"""Export and import of images as files, in the process that holds the guests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evocell.code.paths import MAX_TOTAL_BYTES
from evocell.code.sources import FileTree
from evocell.errors import EvocellError, ProtocolError
from evocell.execution.archive import Archive, pack_tree, read_archive, tree_of, unpack_tree, write_archive
from evocell.execution.messages import CopyRefused
from evocell.guests.images import LoadedImages
from evocell.guests.scratch import OwnedDirectory
from evocell_runtime.cache import ImageCache, ImageManifest
from evocell_runtime.derive import APP_DIRECTORY, Origin, derive
from evocell_runtime.errors import ImageError
from evocell_runtime.portable import (
    MAX_SNAPSHOT_BYTES,
    base_for,
    check_names,
    checked_snapshot,
    root_files,
    snapshot_abi,
    snapshot_of,
    with_empty_scratch,
)
from evocell_runtime.private import make_below

__all__ = ["export_image", "import_image"]

KIND = "image"
_SNAPSHOT, _TREE = "snapshot", "tree"
_TREE_BYTES = MAX_TOTAL_BYTES + (8 << 20)
_MAX_ROOT_FILES = 1000
_SHOWN_CHARS = 200


def export_image(images: LoadedImages, image_id: str | None, path: Path) -> str:
    """Write an image's snapshot, and the code loaded in it, to a new file. Blocks.

    Returns:
        The file's path.

    Raises:
        CopyRefused: It cannot be done; the message says why.
    """
    try:
        image = images.get(image_id)
        manifest = image.manifest
        snapshot = snapshot_of(image)
        sections = {_SNAPSHOT: snapshot.data}
        if manifest.version is not None:
            app = images.cache.image_dir(manifest.image_id) / APP_DIRECTORY
            sections[_TREE] = pack_tree(tree_of(app))
        facts = {
            "abi": snapshot_abi(),
            "parent": manifest.parent or manifest.image_id,
            "version": manifest.version,
            "python": manifest.python,
            "layers": list(manifest.layers),
            "root": root_files(manifest),
            "pages": snapshot.pages,
            "offset": snapshot.offset,
            "state": dict(snapshot.state),
            "snapshot_sha256": snapshot.sha256,
        }
        write_archive(path, Archive(KIND, facts, sections))
    except (EvocellError, ImageError, OSError) as error:
        raise CopyRefused(str(error)) from error
    return str(path)


def import_image(images: LoadedImages, path: Path, *, name: str | None, replace: bool) -> str:
    """Make an image of this machine from the snapshot in a file. Blocks.

    Args:
        images: The available images; one of them must have the same files at its `/`.
        path: The file, which is untrusted.
        name: Name of the image; None for its id alone.
        replace: Whether the name may be taken from another image.

    Returns:
        The image's id.

    Raises:
        CopyRefused: The file is not an exported image, or cannot be used here; the message says why.
    """
    bounds = {_SNAPSHOT: MAX_SNAPSHOT_BYTES, _TREE: _TREE_BYTES}
    try:
        parcel = read_archive(path, KIND, bounds)
        facts = parcel.facts
        base = _base(images.cache, facts)
        version = _text_or_none(facts, "version")
        tree = None if version is None else unpack_tree(parcel.sections.get(_TREE, b"\x90"), _TREE_BYTES)
        if tree is not None and tree.digest != version:
            raise ProtocolError("its code is not what it says")
        parent = _text(facts, "parent")
        check_names(parent=parent, version=version)
        snapshot = checked_snapshot(
            pages=_number(facts, "pages"),
            offset=_number(facts, "offset"),
            data=parcel.sections.get(_SNAPSHOT, b""),
            state=_numbers(facts, "state"),
        )
        if snapshot.sha256 != _text(facts, "snapshot_sha256"):
            raise ProtocolError("its snapshot is not what it says")
        snapshot = with_empty_scratch(snapshot)
        with OwnedDirectory() as folder:
            origin = Origin(parent=parent, version=version, app=_laid_out(tree, folder / "tree"))
            image = images.get(base.image_id)
            return derive(image, images.cache, snapshot, origin, name=name, replace=replace).image_id
    except (EvocellError, ImageError, OSError) as error:
        raise CopyRefused(str(error)) from error


def _base(cache: ImageCache, facts: Mapping[str, Any]) -> ImageManifest:
    """Return the local image that is compatible with the snapshot's interpreter."""
    if _text(facts, "abi") != snapshot_abi():
        raise ProtocolError("it was made with another interpreter, or another version of evocell")
    root = facts.get("root")
    if not isinstance(root, dict) or not 0 < len(root) <= _MAX_ROOT_FILES:
        raise ProtocolError("it does not say which files its interpreter has")
    if not all(isinstance(text, str) for pair in root.items() for text in pair):
        raise ProtocolError("it does not say which files its interpreter has")
    base = base_for(cache, root)
    if base is None:
        layers = facts.get("layers")
        names = [name for name in layers if isinstance(name, str)] if isinstance(layers, list) else []
        shown = ", ".join(names)[:_SHOWN_CHARS] or "none"
        raise ProtocolError(
            "no image here has the files that its interpreter has (standard library, agent and layers, "
            f"of which it has {shown}); build one with the same version of evocell and the same layers"
        )
    return base


def _laid_out(tree: FileTree | None, folder: Path) -> Path | None:
    """Write a tree, whose paths have been validated, into a directory."""
    if tree is None:
        return None
    for path, content in tree.files:
        target = folder / path
        make_below(target.parent)
        target.write_bytes(content)
    return folder


def _text(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"it does not say its {key}")
    return value


def _text_or_none(facts: Mapping[str, Any], key: str) -> str | None:
    return None if facts.get(key) is None else _text(facts, key)


def _number(facts: Mapping[str, Any], key: str) -> int:
    value = facts.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(f"it does not say its {key[:_SHOWN_CHARS]}")
    return value


def _numbers(facts: Mapping[str, Any], key: str) -> dict[str, int]:
    value = facts.get(key)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ProtocolError(f"it does not say its {key}")
    return {name: _number(value, name) for name in value}
