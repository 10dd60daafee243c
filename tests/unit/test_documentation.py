"""Pages lead where they say, and show commands and programs that there are."""

import argparse
import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from evocell.cli.main import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for page in sorted(ROOT.glob(pattern))
    if "node_modules" not in page.parts
]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_META = re.compile(r"\.\.\.|[A-Z]{3}|\||…")


def named(page):
    return page.relative_to(ROOT).as_posix()


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def blocks(*languages):
    return [
        pytest.param(body, id=f"{named(page)}-{place}")
        for page in PAGES
        for place, (language, body) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")))
        if language in languages
    ]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_within_the_project_leads_somewhere(page):
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


SOURCES = (
    "engine/evocell",
    "wasi-runtime",
    "wasi-runtime/evocell_runtime",
    "guest",
    "guest/evocell_guest",
    "",
)


def test_the_files_that_the_architecture_names_are_there():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|md)|(?:\w+/)+)`", text))
    assert len(files) > 60
    assert [
        file
        for file in sorted(files)
        if "NAME" not in file and not any((ROOT / place / file).exists() for place in SOURCES)
    ] == []


@pytest.mark.parametrize("body", blocks("python"))
def test_every_python_block_is_python(body):
    compile(body, "block", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


def commands():
    """Every `evocell ...` in a page that is a whole command rather than a pattern for some."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"`(evocell [^`\n]+)`", text)
        for language, body in _BLOCK.findall(text):
            if language in ("sh", "text"):
                shown += re.findall(r"^(?:\$ |.*\bdo )?(evocell [^#|\n]+)", body, re.MULTILINE)
        for command in shown:
            found.setdefault(command.partition("`")[0].strip(), page)
    return [pytest.param(command, id=f"{named(page)}: {command}") for command, page in sorted(found.items())]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one_of_ours(command):
    parser = build_parser()
    words = shlex.split(command)[1:]
    while words and (choices := _commands_of(parser)) and words[0] in choices:
        parser = choices[words.pop(0)]
    options = {option for action in parser._actions for option in action.option_strings}
    assert not (_commands_of(parser) and words and words[0][0] != "-" and not _META.search(words[0])), words
    assert {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)} <= options


def _commands_of(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def entries():
    """The rows of the threat model's table of where foreign bytes enter."""
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    section = text.split("## Where foreign bytes enter", 1)[1].split("\n## ", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line
    ]
    return [pytest.param(row, id=row[0]) for row in rows[2:] if not row[0].startswith("**")]


@pytest.mark.parametrize("row", entries())
def test_every_place_where_foreign_bytes_enter_has_its_function_and_its_test(row):
    what, reader, length, shape, tests = row
    module, _, path = re.fullmatch(r"`([\w.]+):([\w.]+)`", reader).string.strip("`").partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert callable(found)
    assert what
    assert length
    assert shape
    named_tests = re.findall(r"`([^`]+)`", tests)
    assert named_tests
    for test in named_tests:
        assert "def test_" in (ROOT / test).read_text(encoding="utf-8")


def test_the_table_of_where_foreign_bytes_enter_is_whole():
    """What decodes hostile bytes is called in the modules that the table names, and in no others."""
    callers = {
        ".".join(path.relative_to(ROOT / "engine").with_suffix("").parts)
        for path in (ROOT / "engine").rglob("*.py")
        if re.search(r"\b(decode_hostile|decode_response)\(", path.read_text(encoding="utf-8"))
    }
    named_modules = {row.values[0][1].strip("`").partition(":")[0] for row in entries()}
    assert callers - {"evocell.wire.values"} <= named_modules
