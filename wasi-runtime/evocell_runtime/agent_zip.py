"""The zip from which the guest imports its agent: `evocell_guest`, and the pure-Python part of msgpack."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

GUEST_PATH = "evocell/agent.zip"
"""Its path, relative to the guest's `/`."""

_MSGPACK = ("__init__.py", "exceptions.py", "ext.py", "fallback.py")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@cache
def build() -> bytes:
    """Return the zip's bytes, which are reproducible from the installed sources."""
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
