"""Loaded images, from which guests are forked."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import wasmtime

from evocell_runtime.body import Body
from evocell_runtime.boot import membrane_pre
from evocell_runtime.cache import CODE_FILE, MEMBRANE_FILE, ImageCache, ImageManifest
from evocell_runtime.errors import ImageError
from evocell_runtime.hot_pages import Run
from evocell_runtime.instance import Instance
from evocell_runtime.native import RawMemory, new_engine
from evocell_runtime.recycling import Spares
from evocell_runtime.spec import ImageSpec

if TYPE_CHECKING:
    from evocell_runtime.build import Progress


class Image:
    """An interpreter frozen after its imports, mapped and linked. Safe to fork from any thread.

    Args:
        cache: The image cache.
        manifest: Its manifest.

    Raises:
        ImageError: It is damaged, or was not compiled for this machine.
    """

    def __init__(self, cache: ImageCache, manifest: ImageManifest) -> None:
        problems = cache.check(manifest)
        if problems:
            raise ImageError(problems[0])
        folder = cache.image_dir(manifest.image_id)
        self.manifest = manifest
        self._root, self._empty = str(folder / "root"), str(folder / "empty")
        self._engine = _engine(portable=manifest.portable)
        try:
            self._code = _code(self._engine, cache.code_dir(manifest.code_key) / CODE_FILE)
            sealed = wasmtime.Module.deserialize_file(self._engine, str(folder / MEMBRANE_FILE))
        except wasmtime.WasmtimeError as e:
            msg = f"the image {manifest.image_id} cannot be loaded: {e}"
            raise ImageError(msg) from e
        self._membrane = membrane_pre(self._engine, sealed)
        self._reference: Body | None = None
        self.spares = Spares(self._reference_body)
        """Bodies of ended forks, for reuse."""
        self._hot = tuple(Run(offset, size) for offset, size in manifest.hot_pages)

    @property
    def image_id(self) -> str:
        """The image's id: a hash over all inputs."""
        return self.manifest.image_id

    @property
    def engine(self) -> wasmtime.Engine:
        """The engine that compiled its parts."""
        return self._engine

    @property
    def code(self) -> wasmtime.Module:
        """The compiled interpreter."""
        return self._code

    @property
    def memory_bytes(self) -> int:
        """Size of a fork's memory at its start."""
        return self.manifest.memory_bytes

    def reference(self) -> RawMemory:
        """Return the frozen memory, that of a fork which is never called."""
        return self._reference_body().memory

    def _reference_body(self) -> Body:
        with _lock:
            if self._reference is None:
                self._reference = Body(self._engine, self._membrane, self._code)
            return self._reference

    def close(self) -> None:
        """Free the reference fork and the spare bodies; idempotent.

        The image itself is freed with its last fork.
        """
        self.spares.close()
        with _lock:
            reference, self._reference = self._reference, None
        if reference is not None:
            reference.close()

    def fork(
        self,
        *,
        app: Path | None = None,
        harness: Path | None = None,
        scratch: Path | None = None,
        growth_bytes: int = 128 << 20,
    ) -> Instance:
        """Fork a guest in the state of the image; its pages are copied on write.

        Args:
            app: Host directory to mount read-only at `/app`.
            harness: Host directory to mount read-only at `/harness`.
            scratch: Host directory to mount at `/tmp`, writable within a call's quota.
            growth_bytes: Most growth of its memory beyond the image's.

        Raises:
            ImageError: The process lacks resources for another guest (memory, mappings, descriptors).
        """
        directories = (
            self._root,
            self._empty if app is None else str(app),
            self._empty if harness is None else str(harness),
            self._empty if scratch is None else str(scratch),
        )
        try:
            reused = self.spares.take(ran_code=app is not None)
            body = reused or Body(self._engine, self._membrane, self._code)
            try:
                body.furnish(
                    directories,
                    memory_limit_bytes=self.memory_bytes + growth_bytes,
                    scratch=scratch is not None,
                )
            except BaseException:
                self.spares.give(body, ran_code=app is not None, sound=True)
                raise
        except wasmtime.WasmtimeError as e:
            msg = f"the image cannot be forked: {str(e).splitlines()[0]}"
            raise ImageError(msg) from e
        retire = partial(self.spares.give, ran_code=app is not None)
        return Instance(body, hot=() if reused else self._hot, retire=retire)


def open_image(spec: ImageSpec, cache: ImageCache, progress: Progress | None = None) -> Image:
    """Load the specified image, building it first if need be. Blocks.

    An image that passes the checks but does not load is rebuilt once.

    Raises:
        ImageError: It can be neither loaded nor built.
    """
    # A worker process loads images and never builds one, so it starts without the builder's modules.
    from evocell_runtime.build import build_image  # noqa: PLC0415

    manifest = build_image(spec, cache, progress)
    try:
        return Image(cache, manifest)
    except ImageError:
        return Image(cache, build_image(spec, cache, progress, force=True))


_lock = threading.Lock()
_shared: dict[str, object] = {}


def _engine(*, portable: bool) -> wasmtime.Engine:
    """Return the process's engine, or the one for portable images."""
    name = "portable engine" if portable else "engine"
    with _lock:
        engine = _shared.setdefault(name, None) or new_engine(portable=portable)
        _shared[name] = engine
        assert isinstance(engine, wasmtime.Engine)
        return engine


def _code(engine: wasmtime.Engine, path: Path) -> wasmtime.Module:
    """Return a compiled interpreter, which is mapped once per process."""
    key = f"{path}:{path.stat().st_ino}"
    with _lock:
        module = _shared.get(key)
        if not isinstance(module, wasmtime.Module):
            module = _shared[key] = wasmtime.Module.deserialize_file(engine, str(path))
        return module
