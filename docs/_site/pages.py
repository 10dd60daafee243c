"""Pages of the site that are not in ``docs/``: README, changelog, contributing, security, and the examples.

A hook of mkdocs. Links are written as they work in the repository; those that lead out of ``docs/`` are led
to the pages made here.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

_PROJECT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "LICENSE": "project/license.md",
    "Dockerfile": "project/dockerfile.md",
}
_LANGUAGES = {".py": "python", ".js": "javascript", ".rb": "ruby", ".escript": "erlang", ".json": "json"}
_LEFT_OUT = {"package-lock.json", "__init__.py"}
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_MARKERS = re.compile(r"^<!-- \w+: (?:begin|end) -->\n", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files elsewhere in the repository."""
    for source, place in _PROJECT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        body = text if source.endswith(".md") else f"# {source}\n\n```text\n{text}```\n"
        files.append(File.generated(config, place, content=body))
    listing = ["# Examples", "", "`just examples` runs them all.", ""]
    for entry in _examples():
        files.append(File.generated(config, f"examples/{entry.name}.md", content=_example_page(entry)))
        listing.append(f"- [{entry.name}]({entry.name})")
    files.append(File.generated(config, "examples/index.md", content="\n".join(listing) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of ``docs/`` to the pages made of what they lead to."""
    del config
    if page.file.src_uri == "decisions/README.md":
        markdown += _list_of_decisions(files)
    here = _in_repository(page.file.src_uri)
    parts = _BLOCK.split(_MARKERS.sub("", markdown))
    return "".join(
        part
        if part.startswith("```")
        else _LINK.sub(lambda found: found[1] + _led(found[2], here, page.file.src_uri) + found[3], part)
        for part in parts
    )


def _led(link: str, here: str, page: str) -> str:
    """Return a link as the site has it.

    Args:
        link: As it stands in the file.
        here: The file, relative to the repository.
        page: The page made of it, relative to ``docs/``.
    """
    path, hash_, anchor = link.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    place = _page_of(target)
    if place is None:
        return link
    relative: str = posixpath.relpath(place, posixpath.dirname(page) or ".")
    return relative + hash_ + anchor


def _page_of(target: str) -> str | None:
    """Return the page, relative to ``docs/``, of a file or directory of the repository."""
    if target in _PROJECT:
        return _PROJECT[target]
    top, _, rest = target.partition("/")
    if top == "docs" and rest:
        return rest
    if top == "examples":
        return f"examples/{rest.partition('/')[0]}.md" if rest else "examples/index.md"
    return None


def _in_repository(page: str) -> str:
    for source, place in _PROJECT.items():
        if place == page:
            return source
    match = re.fullmatch(r"examples/(.+)\.md", page)
    if match and (ROOT / "examples" / match[1]).is_dir():
        return f"examples/{match[1]}/README.md"
    return page if match else f"docs/{page}"


def _list_of_decisions(files: Files) -> str:
    """Return the part of the decisions' page that leads to each of them."""
    lines = []
    for file in sorted(files.documentation_pages(), key=lambda one: one.src_uri):
        if re.fullmatch(r"decisions/\d{4}-.*\.md", file.src_uri):
            title = file.content_string.partition("\n")[0].removeprefix("# ")
            lines.append(f"- [{title}]({posixpath.basename(file.src_uri)})")
    return "\n## All of them\n\n" + "\n".join(lines) + "\n"


def _examples() -> list[Path]:
    return sorted(one for one in (ROOT / "examples").iterdir() if not one.name.startswith(("_", ".")))


def _example_page(entry: Path) -> str:
    """Return the text of an example's page: what its README says, and its files."""
    if entry.is_file():
        return f"# {entry.name}\n\n{_listing(entry)}"
    readme = entry / "README.md"
    parts = [readme.read_text(encoding="utf-8") if readme.exists() else f"# {entry.name}\n"]
    parts += [
        f"## {file.name}\n\n{_listing(file)}"
        for file in sorted(entry.iterdir())
        if file.suffix in _LANGUAGES and file.name not in _LEFT_OUT
    ]
    return "\n".join(parts)


def _listing(file: Path) -> str:
    language = _LANGUAGES.get(file.suffix, "text")
    return f"```{language}\n{file.read_text(encoding='utf-8')}```\n"
