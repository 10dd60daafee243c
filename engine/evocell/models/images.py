"""What is known of an image that sandboxes start from."""

from __future__ import annotations

import re

from attrs import frozen

from evocell.errors import ConfigurationError

__all__ = ["ImageInfo", "check_image_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_ID = re.compile(r"[0-9a-f]{32}\Z")


@frozen(kw_only=True)
class ImageInfo:
    """An image: an interpreter with its modules imported, and for one made by `freeze` what a sandbox held.

    Attributes:
        id: Hash over everything that went into it.
        name: The name it was asked for by; None if that was its id.
        parent_id: For an image made by `freeze`, the one its sandbox had started from.
        version: For such an image, the digest of the code that is loaded in it.
        created_at: When it was built or frozen, ISO 8601 in UTC.
        memory_bytes: Size of a guest's memory at its start, shared until written to.
        snapshot_bytes: How much of that is used, as it lies on disk.
        snapshot_sha256: Hash of the memory and the guest's state.
        python: The guest's Python version.
    """

    id: str
    name: str | None = None
    parent_id: str | None = None
    version: str | None = None
    created_at: str
    memory_bytes: int
    snapshot_bytes: int
    snapshot_sha256: str
    python: str


def check_image_name(name: object) -> str:
    """Return a name that an image can go by.

    Raises:
        ConfigurationError: It cannot be one.
    """
    if not isinstance(name, str) or not _NAME.match(name) or _ID.match(name):
        raise ConfigurationError(
            f"an image cannot be named {name!r:.120}; use 1 to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit",
            "name",
        )
    return name
