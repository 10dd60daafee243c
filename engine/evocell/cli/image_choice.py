"""Which image a person means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evocell.errors import ImageError

if TYPE_CHECKING:
    from evocell_runtime.cache import ImageManifest

__all__ = ["SHORT_ID", "choose", "newest_first"]

SHORT_ID = 12
"""Characters of an id that are shown."""


def choose(
    wanted: str | None, manifests: Sequence[ImageManifest], names: Mapping[str, str] | None = None
) -> ImageManifest:
    """Find the image a person means.

    Args:
        wanted: A name, an id or the beginning of one; None means the newest.
        manifests: What the cache holds.
        names: Which image goes by which name.

    Raises:
        ImageError: No image begins like this, or several do.
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
