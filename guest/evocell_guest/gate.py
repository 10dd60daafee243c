"""The security gate's look at the syntax tree: what a file imports, calls and names.

It runs in the compile fork, before anything of a variant does. It is policy and no wall: a name that is put
together at run time is not seen here, and the wall is the membrane. The policy itself is the host's; it comes
with the request.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_IMPORTERS = frozenset({"__import__", "import_module"})
_READERS = frozenset({"getattr", "hasattr", "setattr", "delattr", "attrgetter"})
_IMPORTING = frozenset({ast.Import, ast.ImportFrom, ast.Call})
_NODE = ast.AST
_LEAVES = frozenset({int, str, type(None), ast.Load, ast.Store, ast.Del})
_MAX_FINDINGS = 64
# What makes the standard library's `code.replace` recognisable.
_CODE_KEYWORDS = "co_"

Finding = tuple[str, int | None, int | None]
"""What is wrong, in a sentence; its line and column, from 1."""


class Gate:
    """A policy, ready to be held against syntax trees.

    Args:
        policy: ``blocked``: modules that must not be imported, submodules included. ``allowed``: None, or the
            only modules that may be. ``names``: dotted names that must not be reached through an import.
            ``attributes``: attributes that must not be named. ``builtins``: built-in names that must not be
            used. ``profile``: what to call it in a sentence.
        own: Names of the version's own modules, which it may import unless they are blocked.
    """

    def __init__(self, policy: Mapping[str, Any], own: Iterable[str]) -> None:
        self.blocked = frozenset(policy["blocked"])
        self.allowed = None if policy["allowed"] is None else frozenset(policy["allowed"])
        self.names = frozenset(policy["names"])
        self.attributes = frozenset(policy["attributes"])
        self.builtins = frozenset(policy["builtins"])
        self.profile = policy["profile"]
        self._own = frozenset(own)
        self._looks_at_names = bool(self.names or self.attributes or self.builtins)

    def look(self, tree: ast.AST) -> tuple[list[str], list[Finding]]:
        """Look at a file.

        Returns:
            The top-level names of what it imports, sorted; and what is against the policy: imports first,
            each in the order of the tree.
        """
        imports: set[str] = set()
        found: list[Finding] = []
        nodes = _walk(tree)
        for node in nodes:
            if type(node) not in _IMPORTING:
                continue
            for name in _imported(node):
                imports.add(name.partition(".")[0])
                what = self._import(name)
                if what:
                    found.append(_at(node, what))
        if self._looks_at_names:
            scope = _Names(nodes)
            for node in nodes:
                what = self._named(node, scope)
                if what:
                    found.append(_at(node, what))
        return sorted(imports), found[:_MAX_FINDINGS]

    def _import(self, name: str) -> str:
        culprit = prefix_in(name, self.blocked)
        if culprit:
            return f"import of {name!r} is blocked: {culprit!r} is among the blocked modules"
        if self.allowed is None or name.partition(".")[0] in self._own:
            return ""
        if not prefix_in(name, self.allowed):
            return f"import of {name!r} is blocked: it is not among the modules that {self._who} allows"
        return ""

    def _named(self, node: ast.AST, scope: _Names) -> str:
        kind = type(node)
        if kind is ast.Attribute:
            return self._attribute(node, scope)  # type: ignore[arg-type]
        if kind is ast.Name:
            name: str = node.id  # type: ignore[attr-defined]
            if name in self.builtins and name not in scope.bound:
                return f"{self._who} does not allow {name!r}"
        elif kind is ast.ImportFrom:
            for name in _imported(node):
                if name in self.names:
                    return f"{self._who} does not allow {name!r}"
        elif kind is ast.Call:
            return self._call(node, scope)  # type: ignore[arg-type]
        return ""

    def _attribute(self, node: ast.Attribute, scope: _Names) -> str:
        if node.attr in self.attributes:
            return f"{self._who} does not allow the attribute {node.attr!r}"
        dotted = scope.dotted(node)
        if dotted in self.names:
            return f"{self._who} does not allow {dotted!r}"
        if node.attr == "__code__" and type(node.ctx) is not ast.Load and self.attributes:
            return f"{self._who} does not allow replacing code objects"
        return ""

    def _call(self, node: ast.Call, scope: _Names) -> str:
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
        if name == "replace" and any((word.arg or "").startswith(_CODE_KEYWORDS) for word in node.keywords):
            return f"{self._who} does not allow changed code objects"
        if name in _READERS:
            for argument in node.args:
                text = argument.value if isinstance(argument, ast.Constant) else None
                if not isinstance(text, str):
                    continue
                of = scope.dotted(node.args[0])
                if text in self.attributes or (of and f"{of}.{text}" in self.names):
                    return f"{self._who} does not allow the attribute {text!r}"
        return ""

    @property
    def _who(self) -> str:
        return f"the security profile {self.profile!r}"


class _Names:
    """What the names of a file stand for: modules it imported, or things of its own."""

    def __init__(self, nodes: Iterable[ast.AST]) -> None:
        self.bound: set[str] = set()
        self._modules: dict[str, str] = {}
        for node in nodes:
            kind = type(node)
            if kind is ast.Import:
                for alias in node.names:  # type: ignore[attr-defined]
                    top = alias.name.partition(".")[0]
                    self._modules[alias.asname or top] = alias.name if alias.asname else top
            elif kind is ast.ImportFrom:
                module = node.module  # type: ignore[attr-defined]
                for alias in node.names:  # type: ignore[attr-defined]
                    self._modules[alias.asname or alias.name] = f"{module}.{alias.name}"
            elif kind is ast.Name:
                if type(node.ctx) is not ast.Load:  # type: ignore[attr-defined]
                    self.bound.add(node.id)  # type: ignore[attr-defined]
            elif kind is ast.arg:
                self.bound.add(node.arg)  # type: ignore[attr-defined]
            elif kind in {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef}:
                self.bound.add(node.name)  # type: ignore[attr-defined]
        self.bound |= self._modules.keys()

    def dotted(self, node: ast.AST) -> str:
        """The dotted name that an expression stands for, through the file's imports; empty if none."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._modules:
            return ""
        parts.append(self._modules[node.id])
        return ".".join(reversed(parts))


def _walk(tree: ast.AST) -> list[ast.AST]:
    """All nodes, as `ast.walk` has them but for contexts and operators, in a quarter of the time."""
    nodes = [tree]
    add = nodes.append
    for node in nodes:  # which grows meanwhile
        for value in node.__dict__.values():
            kind = type(value)
            if kind is list:
                for item in value:
                    if isinstance(item, _NODE):
                        add(item)
            elif kind not in _LEAVES and isinstance(value, _NODE):
                add(value)
    return nodes


def prefix_in(name: str, names: frozenset[str]) -> str:
    """The name, or the package around it, that is among some names; empty if none is."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def _at(node: ast.AST, what: str) -> Finding:
    return what, getattr(node, "lineno", None), getattr(node, "col_offset", -1) + 1


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        if node.level == 0 and node.module:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
    elif isinstance(node, ast.Call) and node.args:
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
        first = node.args[0]
        constant = first.value if isinstance(first, ast.Constant) else None
        # A relative name cannot be told from here.
        if name in _IMPORTERS and isinstance(constant, str) and constant and constant[0] != ".":
            yield constant
