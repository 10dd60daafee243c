"""Refuse a built site that would load anything from the network; run as `check.py build/site`."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_FOREIGN = re.compile(r"\s*(?:https?:)?//")
_CSS = re.compile(r"(?:url\(|@import\s+)[\s\"']*((?:https?:)?//[^\"')\s]+)")


class _Loads(HTMLParser):
    """Collects what a page would load from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(_LOADED.get(tag, "")) or ""
        if _FOREIGN.match(address):
            self.foreign.append(address)


def foreign(site: Path) -> list[str]:
    """Return what the pages and style sheets of a site load from elsewhere, a line for each."""
    found = []
    for page in sorted(site.rglob("*.html")):
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(site)}: {address}" for address in loads.foreign]
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        found += [f"{sheet.relative_to(site)}: {address}" for address in _CSS.findall(text)]
    return found


def main() -> int:
    """Check the site in the directory that is named."""
    site = Path(sys.argv[1])
    if not (site / "index.html").exists():
        print(f"{site} holds no site; build it first", file=sys.stderr)
        return 2
    found = foreign(site)
    for line in found:
        print(f"loaded from the network: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
