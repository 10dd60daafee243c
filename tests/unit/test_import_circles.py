"""No circle of imports, counting those for type checkers only and those inside functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = [
    ROOT / "engine" / "evocell",
    ROOT / "guest" / "evocell_guest",
    ROOT / "wasi-runtime" / "evocell_runtime",
]
ALLOWED: set[frozenset[str]] = set()
"""Circles that there are still; each of them whole."""


def modules(packages) -> dict[str, Path]:
    found = {}
    for package in packages:
        for path in package.rglob("*.py"):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(name: str, path: Path) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it; of ``from a import b``, ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
            start = above[: len(above) - node.level + 1] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    def module_of(dotted: str) -> str:
        while dotted and dotted not in known:
            dotted = dotted.rpartition(".")[0]
        return dotted

    return {
        name: {module_of(dotted) for dotted in imported_names(name, path)} - {"", name}
        for name, path in known.items()
    }


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """The strongly connected components of more than one module, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[frozenset[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        path.append(module)
        for other in sorted(graph[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in path:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            start = path.index(module)
            component = frozenset(path[start:])
            del path[start:]
            if len(component) > 1:
                found.append(component)

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return found


def test_a_circle_is_found_wherever_its_imports_are(tmp_path):
    package = tmp_path / "pkg"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.b import thing\n"
    )
    (package / "b.py").write_text("def late():\n    from .sub import deep\n")
    (package / "sub" / "__init__.py").write_text("")
    (package / "sub" / "deep.py").write_text("from .. import a\n")
    (package / "c.py").write_text("import pkg.a\n")
    assert circles(imports(modules([package]))) == [frozenset({"pkg.a", "pkg.b", "pkg.sub.deep"})]


def test_no_modules_import_each_other():
    graph = imports(modules(PACKAGES))
    assert len(graph) > 100
    found = set(circles(graph))
    assert found - ALLOWED == set(), [sorted(circle) for circle in found - ALLOWED]
    assert ALLOWED - found == set(), "no circle any more: take it off the list"
