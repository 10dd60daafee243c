"""The page as HTML: one document with its style and script in it, and a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

__all__ = ["LIVE_SCRIPTS", "render", "security_policy"]

_SCRIPTS = ("charts.js", "page.js")
LIVE_SCRIPTS = (*_SCRIPTS, "live.js")
"""Scripts of the page that follows a run."""


def render(data: Mapping[str, object], *, live: bool = False) -> str:
    """Put data into the page.

    What candidates wrote cannot leave the data: no ``<`` or ``&`` of theirs is in the page as such, and the
    page's own script puts it in as text.

    Args:
        data: What is shown, with a ``"title"``.
        live: Whether the page is to ask the server that it came from for more.
    """
    packed = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        packed = packed.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "title": "".join(f"&#{ord(character)};" for character in str(data["title"])),
        "policy": security_policy(live=live),
        "style": _style(),
        "script": _script(live),
        "data": packed,
    }
    head, *rest = _asset("page.html").split("{{")
    # Each place is filled once: what stands in the data is not looked at for further ones.
    pieces = [head]
    for piece in rest:
        name, _, text = piece.partition("}}")
        pieces += [parts[name], text]
    return "".join(pieces)


@cache
def security_policy(*, live: bool = False) -> str:
    """Return the content security policy of the page: its own script and style, nothing from elsewhere."""
    allowed = [
        "default-src 'none'",
        f"script-src '{_hash(_script(live))}'",
        f"style-src '{_hash(_style())}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*allowed, "connect-src 'self'"] if live else allowed)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _script(live: bool) -> str:  # noqa: FBT001 - the key of the cache
    return "".join(_asset(name) for name in (LIVE_SCRIPTS if live else _SCRIPTS))


@cache
def _style() -> str:
    return _asset("page.css")


@cache
def _asset(name: str) -> str:
    return files("evocell.page").joinpath("assets", name).read_text(encoding="utf-8")
