"""The zip from which the guest imports its agent: our package, and msgpack's pure-Python half."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

GUEST_PATH = "evocell/agent.zip"
"""Where it lies, relative to the guest's `/`."""

_MSGPACK = ("__init__.py", "exceptions.py", "ext.py", "fallback.py")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@cache
def build() -> bytes:
    """The zip's bytes; the same for the same installed sources."""
    members = {f"msgpack/{name}": files("msgpack").joinpath(name).read_bytes() for name in _MSGPACK}
    members.update(_sources(files("evocell_guest"), "evocell_guest"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(members):
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), members[path])
    return buffer.getvalue()


def _sources(folder: Traversable, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for item in folder.iterdir():
        path = f"{prefix}/{item.name}"
        if item.is_dir() and item.name != "__pycache__":
            found.update(_sources(item, path))
        elif item.name.endswith(".py"):
            found[path] = item.read_bytes()
    return found
