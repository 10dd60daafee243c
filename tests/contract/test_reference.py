"""The programs of the tutorial and of the reference run, and print what stands behind their prints."""

import ast
import re
from pathlib import Path

import pytest

import evocell

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "reference").glob("*.md"))]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^ *(?:print\(.*)?\)  # (.*)$", re.MULTILINE)


def programs(page):
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=lambda page: page.stem)
def test_programs_print_what_stands_behind_their_prints(page, capsys, monkeypatch):
    monkeypatch.setenv("EVOCELL_WORKERS", "1")
    names = {"__name__": page.stem}
    for program in programs(page):
        exec(compile(program, page.name, "exec"), names)
        printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
        assert printed == _SHOWN.findall(program)


def used_names(page):
    nodes = [node for program in programs(page) for node in ast.walk(ast.parse(program))]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)} | {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def shown_names(text):
    return re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)


PARTS = ("dask_worker", "descent", "evaluator_files", "kept_files")
"""Modules that other integrations are made of, and that no user imports."""

REFERENCE = {page: page.read_text(encoding="utf-8") for page in PAGES[1:]}


def test_every_public_name_is_in_the_reference_with_a_program_that_uses_it():
    shown, used = set(), set()
    for page, text in REFERENCE.items():
        shown |= set(shown_names(text))
        used |= used_names(page)
    assert {f"evocell.{name}" for name in evocell.__all__} - shown == set()
    assert set(evocell.__all__) - used == set()


def test_every_public_name_of_the_integrations_is_in_the_reference_with_a_program():
    page = DOCS / "reference/integrations.md"
    text = REFERENCE[page]
    shown = {name.rpartition(".")[2] for name in shown_names(text)}
    used = used_names(page)
    places = Path(evocell.__file__).parent / "integrations"
    for module in sorted(places.glob("[a-z]*.py")):
        if module.stem in PARTS:
            continue
        (names,) = [
            ast.literal_eval(node.value)
            for node in ast.parse(module.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ]
        for name in names:
            if name == "main":
                continue  # behind `python -m`
            assert name in used, (module.stem, name)
            assert name in shown or name.isupper(), (module.stem, name)
