"""The page as HTML: one document with inline style and script, and a policy that permits nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

from attrs import field, frozen

__all__ = ["LIVE_SCRIPTS", "Page", "make_page", "render", "security_policy"]

_SCRIPTS = ("charts.js", "page.js")
LIVE_SCRIPTS = (*_SCRIPTS, "live.js")
"""Scripts of the live page."""


@frozen
class Page:
    """The page of `evocell report`, displayed by notebooks.

    Attributes:
        html: The whole page; it needs no network.
    """

    html: str = field(repr=False)

    def save(self, out: str | Path) -> Path:
        """Write the page to a file, and return its path."""
        path = Path(out)
        path.write_text(self.html, encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        # A frame without the notebook's origin keeps candidates' text apart from the notebook.
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="allow-scripts" '
            'style="width:100%;height:720px;border:0" title="evocell report"></iframe>'
        )


def make_page(data: Mapping[str, object]) -> Page:
    """Return the page of a run, from the data that `evocell.page.search.read_run` returns."""
    return Page(render(data))


def render(data: Mapping[str, object], *, live: bool = False) -> str:
    """Return the page with its data.

    Text of candidates cannot act as HTML: ``<``, ``>`` and ``&`` are escaped in the data, and the page's
    script inserts it as text only.

    Args:
        data: The data, with a ``"title"``.
        live: Whether the page requests updates from the server that it came from.
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
    # Each placeholder is filled once; placeholders within the data are not replaced.
    pieces = [head]
    for piece in rest:
        name, _, text = piece.partition("}}")
        pieces += [parts[name], text]
    return "".join(pieces)


@cache
def security_policy(*, live: bool = False) -> str:
    """Return the content security policy of the page, which permits only its own script and style."""
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
