"""Derivation of images from guests: a guest's memory, frozen into an image.

Native code is always compiled locally: a snapshot is only memory and numbers, whatever its origin.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

import wasmtime
from attrs import evolve, frozen

from evocell_runtime.cache import CODE_FILE, IMPORTS_FILE, MEMBRANE_FILE, ImageCache, ImageManifest, record_of
from evocell_runtime.errors import ImageError
from evocell_runtime.image import Image
from evocell_runtime.native import PAGE_BYTES
from evocell_runtime.rehearsal import RehearsalLimits, find_hot_pages
from evocell_runtime.rewrite import FunctionImport
from evocell_runtime.snapshot import Snapshot, membrane_module
from evocell_runtime.spec import derived_id

APP_DIRECTORY = "app"
"""Directory of the loaded code's files, relative to such an image."""


@frozen(kw_only=True)
class Origin:
    """The origin of a snapshot.

    Attributes:
        parent: Id of the image that the guest was forked from.
        version: Digest of the code loaded in it; None if there is none.
        app: Directory with that code's files.
    """

    parent: str
    version: str | None = None
    app: Path | None = None


def derive(
    base: Image,
    cache: ImageCache,
    snapshot: Snapshot,
    origin: Origin,
    *,
    name: str | None = None,
    replace: bool = False,
    limits: RehearsalLimits | None = None,
) -> ImageManifest:
    """Make an image from a snapshot. Blocks for about half a second for 40 MB.

    The image's id depends on its content: parent, code and snapshot. An existing one is reused. If this
    process is killed, a later build removes the remains.

    Args:
        base: An image with the same interpreter and the same files at the guest's `/`.
        cache: The image cache.
        snapshot: Memory and globals.
        origin: Their origin.
        name: Its name; None for its id alone.
        replace: Whether the name may be taken from another image.
        limits: Limits of the calls that test it.

    Raises:
        ImageError: The snapshot is not of this interpreter, or does not answer; or the name is in use.
    """
    cache.prepare()
    image_id = derived_id(base.manifest.code_key, origin.parent, origin.version, snapshot.sha256)
    _refuse_taken(cache, name, image_id, replace=replace)
    manifest = _sound(cache, image_id)
    if manifest is not None:
        if name is not None:
            with cache.lock():
                _refuse_taken(cache, name, image_id, replace=replace)
                cache.set_name(name, image_id)
        return manifest
    # The image's own code runs here, so the build lock is not held.
    with cache.draft() as folder:
        made = _seal(base, cache, snapshot, origin, image_id=image_id, folder=folder, limits=limits)
        with cache.lock():
            _refuse_taken(cache, name, image_id, replace=replace)
            manifest = _sound(cache, image_id)
            if manifest is None:
                cache.install(folder, cache.image_dir(image_id))
                manifest = made
            if name is not None:
                cache.set_name(name, image_id)
    return manifest


def _sound(cache: ImageCache, image_id: str) -> ImageManifest | None:
    manifest = cache.get(image_id)
    return None if manifest is None or cache.check(manifest) else manifest


def _refuse_taken(cache: ImageCache, name: str | None, image_id: str, *, replace: bool) -> None:
    if name is not None and not replace and cache.id_of(name) not in (None, image_id):
        msg = f"there is an image named {name!r} already; choose another name, or replace it"
        raise ImageError(msg)


def _seal(
    base: Image,
    cache: ImageCache,
    snapshot: Snapshot,
    origin: Origin,
    *,
    image_id: str,
    folder: Path,
    limits: RehearsalLimits | None,
) -> ImageManifest:
    """Make an image in a directory, and test it."""
    begun = time.monotonic()
    parent = base.manifest
    source = cache.image_dir(parent.image_id)
    shutil.copytree(source / "root", folder / "root", copy_function=_link)
    (folder / "empty").mkdir(mode=0o700)
    _copy_app(origin.app, folder / APP_DIRECTORY)
    shutil.copyfile(source / IMPORTS_FILE, folder / IMPORTS_FILE)
    imports = read_imports(folder / IMPORTS_FILE)
    try:
        module = wasmtime.Module(base.engine, membrane_module(imports, snapshot))
        (folder / MEMBRANE_FILE).write_bytes(module.serialize())
        module.close()
        hot = find_hot_pages(
            base.engine,
            base.code,
            folder,
            memory_bytes=snapshot.pages * PAGE_BYTES,
            limits=limits,
        )
    except wasmtime.WasmtimeError as e:
        msg = f"the snapshot cannot be sealed: {str(e).splitlines()[0]}"
        raise ImageError(msg) from e
    own = [folder / MEMBRANE_FILE, folder / IMPORTS_FILE, *(folder / APP_DIRECTORY).rglob("*")]
    files = {str(path.relative_to(folder)): record_of(path) for path in own if path.is_file()}
    shared = {name: known for name, known in parent.files.items() if name.startswith("root/")}
    manifest = evolve(
        parent,
        image_id=image_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wasmtime=installed_version("wasmtime"),
        memory_bytes=snapshot.pages * PAGE_BYTES,
        snapshot_bytes=len(snapshot.data),
        snapshot_sha256=snapshot.sha256,
        build_s=round(time.monotonic() - begun, 1),
        hot_pages=tuple((run.offset, run.size) for run in hot),
        files={CODE_FILE: parent.files[CODE_FILE], **shared, **files},
        parent=origin.parent,
        version=origin.version,
    )
    cache.write_manifest(folder, manifest)
    return manifest


def read_imports(path: Path) -> tuple[FunctionImport, ...]:
    """Return the interpreter's imports, as stored in its image."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        FunctionImport(row["module"], row["name"], tuple(row["params"]), tuple(row["results"]))
        for row in rows
    )


def _link(source: str, target: str) -> str:
    """Hard-link an immutable file, or copy it if linking is impossible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _copy_app(app: Path | None, target: Path) -> None:
    if app is None:
        target.mkdir(mode=0o700)
    else:
        shutil.copytree(app, target, copy_function=shutil.copyfile)
