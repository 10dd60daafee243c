"""Directory of built images, and the checks before any of its code is run.

It holds native code, so it must belong to this user and be inaccessible to others. Files are written
under a temporary name and renamed, never changed in place and removed only by unlinking: truncating
a mapped file kills the process that maps it.

    <root>/code/<key>/      interpreter.cwasm and its record
    <root>/images/<id>/     membrane.cwasm, imports.json, root/ (the guest's /), empty/, manifest.json
    <root>/names/<name>     the id of the image with a name
    <root>/lock             held while an image is built
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
from attrs import asdict, field, frozen

from evocell_runtime.errors import ImageError
from evocell_runtime.private import make_below, make_private
from evocell_runtime.spec import ImageSpec

CODE_FILE, CODE_RECORD = "interpreter.cwasm", "record.json"
"""The compiled interpreter's file and the file that describes it."""

MEMBRANE_FILE, IMPORTS_FILE = "membrane.cwasm", "imports.json"
"""An image's compiled membrane, and the list of its interpreter's imports."""

MANIFEST = "manifest.json"
_MANIFEST_BYTES = 1 << 20
_CWASM_HEADER = b"\x7fELF"
_LOCK_POLL_S = 0.1
_BUILD = ".build-"
_DRAFT, _DRAFT_REST_S = ".draft-", 600
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_ID = re.compile(r"[0-9a-f]{32}\Z")


@frozen(kw_only=True)
class FileRecord:
    """One file of an image: its size in bytes and its SHA-256, taken when it was built."""

    size: int
    sha256: str


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _pairs(rows: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(offset), int(size)) for offset, size in rows)


@frozen(kw_only=True)
class ImageManifest:
    """Manifest of a built image.

    Attributes:
        image_id: Its id: hash over all inputs.
        code_key: Key of the compiled interpreter, which other images may share.
        created: Time of the build, ISO 8601 in UTC.
        wasmtime: The wasmtime release that compiled it.
        python: The guest's Python version.
        warm: Modules imported before the freeze.
        layers: Names of the layers on the guest's path.
        memory_bytes: Size of the guest's memory at the start of a fork.
        code_bytes: Size of the compiled interpreter.
        snapshot_bytes: Size of the memory's used part in the image.
        snapshot_sha256: Hash of the snapshot itself: memory and globals.
        build_s: Duration of the build, in seconds.
        cpu: The instruction sets it was compiled for.
        hot_pages: Offset and size in bytes of the runs of memory that every call writes to.
        files: Files of the image, by path relative to its directory.
        parent: For an image frozen from a sandbox, the image of the sandbox.
        version: For such an image, the digest of the code loaded in it; its files are in ``app/``.
        portable: Whether its code canonicalises NaNs, the same on every processor.
        patches: Names of the patches applied to the pinned interpreter.
    """

    image_id: str
    code_key: str
    created: str
    wasmtime: str
    python: str
    warm: tuple[str, ...] = field(converter=_names)
    layers: tuple[str, ...] = field(converter=_names)
    memory_bytes: int
    code_bytes: int
    snapshot_bytes: int
    snapshot_sha256: str
    build_s: float
    cpu: str
    hot_pages: tuple[tuple[int, int], ...] = field(converter=_pairs)
    files: Mapping[str, FileRecord]
    parent: str | None = None
    version: str | None = None
    portable: bool = False
    patches: tuple[str, ...] = field(default=(), converter=_names)


def default_cache_dir() -> Path:
    """Return `EVOCELL_CACHE_DIR`, or the user's cache directory for evocell."""
    given = os.environ.get("EVOCELL_CACHE_DIR")
    return Path(given) if given else Path(platformdirs.user_cache_dir("evocell", appauthor=False))


class ImageCache:
    """Built images under one directory.

    Args:
        root: The directory; made with mode 0700 when first written to.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (default_cache_dir() if root is None else Path(root)).absolute()

    # ------------------------------------------------------------------ reading

    def images(self) -> list[ImageManifest]:
        """Return every complete image, newest first."""
        found = [self.get(path.name) for path in sorted((self.root / "images").glob("*/"))]
        return sorted((m for m in found if m is not None), key=lambda m: m.created, reverse=True)

    def get(self, spec_or_id: ImageSpec | str) -> ImageManifest | None:
        """Find the image of a specification, or by name, id or unambiguous prefix of an id.

        Returns:
            Its manifest; None if it does not exist or its manifest cannot be read.
        """
        if isinstance(spec_or_id, ImageSpec):
            return self._read(self.image_dir(spec_or_id.image_id()))
        if (named := self.id_of(spec_or_id)) is not None:
            return self._read(self.image_dir(named))
        if not spec_or_id or not all(c in "0123456789abcdef" for c in spec_or_id):
            return None
        matches = list((self.root / "images").glob(f"{spec_or_id}*/"))
        return self._read(matches[0]) if len(matches) == 1 else None

    def names(self) -> dict[str, str]:
        """Return the ids of images by name."""
        found = {path.name: self.id_of(path.name) for path in sorted((self.root / "names").glob("*"))}
        return {name: image_id for name, image_id in found.items() if image_id is not None}

    def id_of(self, name: str) -> str | None:
        """Return the id of the image with a name; None if there is none."""
        if not _NAME.match(name):
            return None
        try:
            with (self.root / "names" / name).open("rb") as stream:
                image_id = stream.read(64).decode("ascii", "replace").strip()
        except OSError:
            return None
        return image_id if _ID.match(image_id) else None

    def image_dir(self, image_id: str) -> Path:
        """Return the directory of an image, which may not exist."""
        return self.root / "images" / image_id

    def code_dir(self, code_key: str) -> Path:
        """Return the directory of a compiled interpreter, which may not exist."""
        return self.root / "code" / code_key

    def size_bytes(self, image_id: str) -> int:
        """Return the disk space of an image, including the whole compiled interpreter; 0 if unknown."""
        manifest = self.get(image_id)
        return 0 if manifest is None else sum(record.size for record in manifest.files.values())

    # ------------------------------------------------------------------ trust

    def check(self, manifest: ImageManifest) -> list[str]:
        """Check an image before a load: owner, mode, presence, size and header. Cheap.

        Returns:
            A sentence for each fault; empty if the image may be loaded.
        """
        problems = self._place_problems()
        for name, record in manifest.files.items():
            path = self._file(manifest, name)
            try:
                info = path.lstat()
            except OSError:
                problems.append(f"{path} is missing")
                continue
            if not stat.S_ISREG(info.st_mode):
                problems.append(f"{path} is not a regular file")
            elif info.st_uid != os.getuid():
                problems.append(f"{path} belongs to another user")
            elif info.st_mode & 0o022:
                problems.append(f"{path} can be written by others")
            elif info.st_size != record.size:
                problems.append(f"{path} has {info.st_size} bytes, not the {record.size} it was built with")
            elif name.endswith(".cwasm") and not _starts_with(path, _CWASM_HEADER):
                problems.append(f"{path} does not begin as compiled code does")
        return problems

    def verify(self, image_id: str) -> list[str]:
        """Check an image like `check`, and every file's hash. Reads some 400 MB.

        Returns:
            A sentence for each fault; empty if the image is intact.
        """
        manifest = self.get(image_id)
        if manifest is None:
            return [f"there is no image {image_id} in {self.root}"]
        problems = self.check(manifest)
        if problems:
            return problems
        for name, record in manifest.files.items():
            path = self._file(manifest, name)
            if file_sha256(path) != record.sha256:
                problems.append(f"{path} has other contents than when it was built")
        return problems

    def _place_problems(self) -> list[str]:
        try:
            info = self.root.stat()
        except OSError:
            return [f"{self.root} does not exist"]
        if info.st_uid != os.getuid():
            return [f"{self.root} belongs to another user; set EVOCELL_CACHE_DIR to a directory of your own"]
        if info.st_mode & 0o077:
            return [f"{self.root} is open to others; run: chmod 700 {self.root}"]
        return []

    # ------------------------------------------------------------------ writing

    def prepare(self) -> None:
        """Create the directory, or refuse an unsafe one.

        Raises:
            ImageError: It cannot be created, belongs to another user or is accessible to others.
        """
        try:
            problem = make_private(self.root)
            for name in () if problem else ("code", "images", "names"):
                if name != "names" or (self.root / name).exists():
                    problem = problem or make_private(self.root / name)
        except OSError as e:
            msg = f"the image cache {self.root} cannot be made: {e.strerror}; set EVOCELL_CACHE_DIR elsewhere"
            raise ImageError(msg) from e
        problems = self._place_problems()
        if problems or problem:
            raise ImageError(problems[0] if problems else str(problem))

    def set_name(self, name: str, image_id: str) -> None:
        """Assign a name to an image, taking it from any other image.

        Raises:
            ImageError: The name is invalid.
            OSError: It cannot be written.
        """
        if not _NAME.match(name) or _ID.match(name):
            msg = (
                f"an image cannot be named {name[:120]!r}; use 1 to 100 letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
            raise ImageError(msg)
        descriptor, made = tempfile.mkstemp(prefix=".new-", dir=self.root)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(image_id)
        make_below(self.root / "names")
        Path(made).replace(self.root / "names" / name)

    def remove(self, image_id: str) -> None:
        """Remove an image with its names, and its compiled interpreter if no other image uses it; idempotent.

        Raises:
            ImageError: It could not be removed.
        """
        manifest = self.get(image_id)
        target = self.image_dir(manifest.image_id if manifest else image_id)
        try:
            for name, named in self.names().items():
                if named == target.name:
                    (self.root / "names" / name).unlink(missing_ok=True)
            self._discard(target)
            (self.root / f"lock-{target.name}").unlink(missing_ok=True)
            used = {m.code_key for m in self.images()}
            for folder in (self.root / "code").glob("*/"):
                if folder.name not in used and manifest is not None and folder.name == manifest.code_key:
                    self._discard(folder)
        except OSError as e:
            msg = f"the image {image_id} cannot be removed: {e.strerror}"
            raise ImageError(msg) from e

    def _discard(self, folder: Path) -> None:
        """Remove a directory, renaming it first so that it is never seen half removed."""
        if not folder.exists():
            return
        doomed = Path(tempfile.mkdtemp(prefix=".removed-", dir=self.root)) / folder.name
        folder.rename(doomed)
        shutil.rmtree(doomed.parent)

    @contextmanager
    def new_directory(self, target: Path, *, image_id: str | None = None) -> Iterator[Path]:
        """Yield a private directory that becomes `target` if the block succeeds, and is removed otherwise.

        Args:
            target: What it becomes.
            image_id: The image whose lock is held; None if it is the build lock.
        """
        prefix = ".new-" if image_id is None else f"{_BUILD}{image_id}-"
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=self.root))
        try:
            yield made
            self._discard(target)
            made.rename(target)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Yield a private directory for making an image without the build lock.

        It is removed at the end, unless it was installed. No sweep removes it while it is in use.
        """
        made = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.root))
        held = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # a file system without locks; swept only when old
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
            os.close(held)

    def install(self, draft: Path, target: Path) -> None:
        """Move a draft to `target`. Call it while holding the build lock."""
        self._discard(target)
        draft.rename(target)

    @contextmanager
    def lock(
        self, waiting: Callable[[float], None] | None = None, *, image_id: str | None = None
    ) -> Iterator[None]:
        """Hold the build lock: one compilation at a time. A process that dies lets go of it.

        Args:
            waiting: Called periodically with the seconds waited so far, while another process holds it.
            image_id: Hold the lock for builds of this image instead, which others do not wait for.
        """
        name = "lock" if image_id is None else f"lock-{image_id}"
        descriptor = os.open(self.root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        begun = time.monotonic()
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if waiting is not None:
                        waiting(time.monotonic() - begun)
                    time.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove the remains of killed builds. Call it while holding a build lock."""
        for left in [*self.root.glob(".new-*"), *self.root.glob(".removed-*")]:
            shutil.rmtree(left, ignore_errors=True)
            with suppress(OSError):
                left.unlink()
        for draft in self.root.glob(f"{_DRAFT}*"):
            if _is_left_over(draft):
                shutil.rmtree(draft, ignore_errors=True)

    def sweep_build(self, image_id: str) -> None:
        """Remove what killed builds of an image left behind. Call it while holding the lock of that image."""
        for left in self.root.glob(f"{_BUILD}{image_id}-*"):
            shutil.rmtree(left, ignore_errors=True)

    # ------------------------------------------------------------------ manifests

    def write_manifest(self, folder: Path, manifest: ImageManifest) -> None:
        """Write an image's manifest, last of all its files."""
        (folder / MANIFEST).write_text(
            json.dumps(asdict(manifest), indent=1, sort_keys=True), encoding="utf-8"
        )

    def _read(self, folder: Path) -> ImageManifest | None:
        path = folder / MANIFEST
        try:
            with path.open("rb") as stream:
                raw = json.loads(stream.read(_MANIFEST_BYTES))
            raw["files"] = {name: FileRecord(**record) for name, record in raw["files"].items()}
            manifest = ImageManifest(**raw)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return manifest if manifest.image_id == folder.name else None

    def _file(self, manifest: ImageManifest, name: str) -> Path:
        folder = self.code_dir(manifest.code_key) if name == "interpreter.cwasm" else None
        return (folder or self.image_dir(manifest.image_id)) / name


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_of(path: Path) -> FileRecord:
    """Return the current size and hash of a file."""
    return FileRecord(size=path.stat().st_size, sha256=file_sha256(path))


def _is_left_over(draft: Path) -> bool:
    """Return whether the owner of a draft has died, which releases its lock."""
    try:
        held = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # A new draft may not have been locked yet.
        if time.time() - os.fstat(held).st_ctime < _DRAFT_REST_S:
            return False
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(held)


def _starts_with(path: Path, header: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(header)) == header
