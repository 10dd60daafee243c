"""What the build of the documentation's site adds to mkdocs: links out of docs, and the check of what is loaded."""

import importlib.util
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "docs/_site"


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"site_{name}", SITE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_a_page_or_a_sheet_loads_from_elsewhere_is_found(tmp_path):
    (tmp_path / "index.html").write_text(
        '<a href="https://example.org">a link</a><script src="own.js"></script>'
        '<script src="//cdn.example.org/x.js"></script><link rel="stylesheet" href="https://fonts.example.org/x">'
    )
    (tmp_path / "x.css").write_text(
        "a { background: url(own.png) } b { src: url('https://example.org/f.woff') }"
    )
    assert loaded("check").foreign(tmp_path) == [
        "index.html: //cdn.example.org/x.js",
        "index.html: https://fonts.example.org/x",
        "x.css: https://example.org/f.woff",
    ]


@pytest.mark.parametrize(
    ("link", "here", "page", "led"),
    [
        ("../README.md#what-it-costs", "docs/design.md", "design.md", "index.md#what-it-costs"),
        ("docs/design.md", "README.md", "index.md", "design.md"),
        ("../CHANGELOG.md", "docs/design.md", "design.md", "project/changelog.md"),
        (
            "docs/architecture.md#words",
            "CONTRIBUTING.md",
            "project/contributing.md",
            "../architecture.md#words",
        ),
        (
            "../../examples/deap_regression.py",
            "docs/guides/deap.md",
            "guides/deap.md",
            "../examples/deap_regression.py.md",
        ),
        ("../examples/erlang/evocell.escript", "docs/erlang.md", "erlang.md", "examples/erlang.md"),
        ("https://example.org/a.md", "docs/design.md", "design.md", "https://example.org/a.md"),
        ("#words", "docs/design.md", "design.md", "#words"),
    ],
)
def test_links_lead_to_the_pages_that_are_made_of_files_elsewhere(link, here, page, led):
    pytest.importorskip("mkdocs")
    assert loaded("pages")._led(link, here, page) == led
