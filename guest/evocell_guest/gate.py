"""Static part of the security gate: imports, calls and names in a file's syntax tree.

It runs in the compile fork, before any code of a variant. It is policy, not isolation: names computed at run
time are not seen here, and isolation is the membrane's task. The policy itself comes from the host with the
request.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from . import reasons
from .reach import uncertain_imports

_IMPORTERS = frozenset({"__import__", "import_module"})
_IMPORT = "import"
_READERS = frozenset({"getattr", "hasattr", "setattr", "delattr", "attrgetter"})
_IMPORTING = frozenset({ast.Import, ast.ImportFrom, ast.Call})
_NODE = ast.AST
# All that holds statements.
_BLOCK = (ast.stmt, ast.excepthandler, ast.match_case)
_LEAVES = frozenset({int, str, type(None), ast.Load, ast.Store, ast.Del})
_MAX_FINDINGS = 64
# Keywords by which the standard library's `code.replace` is recognised.
_CODE_KEYWORDS = "co_"
_AGENT = frozenset({"_host", "evocell_guest"})
_ENTRY_MODULE = "program"
BLOCKED_MARK = "%"
"""Prefix of the names of blocked imports; no module has such a name."""

# Attributes that only frames have; in code without access to frames they are the program's own.
_OF_FRAMES = frozenset({"f_back", "f_builtins", "f_code", "f_globals", "f_locals"})
_WAYS_TO_FRAMES = frozenset({"ag_frame", "cr_frame", "gi_frame", "tb_frame"})
# Modules that give access to frames; `sys` is checked at run time.
_MODULES_WITH_FRAMES = frozenset({"asyncio", "bdb", "inspect", "logging", "pdb", "threading", "traceback"})

Finding = tuple[str, int | None, int | None]
"""A finding: sentence, line and column, from 1."""


class Look(NamedTuple):
    """Result of the gate for a file.

    Attributes:
        imports: Sorted top-level names of its imports.
        found: Violations of the policy: imports first, each in the order of the tree.
        left: Violating imports that may never be reached, or are guarded: they raise `ImportError` at run
            time and do not refuse the file.
        blocked: The nodes of those, each with the imported name.
    """

    imports: list[str]
    found: list[Finding]
    left: list[Finding]
    blocked: list[tuple[ast.AST, str]]


class Gate:
    """A policy, prepared for checking syntax trees.

    Args:
        policy: ``blocked``: modules that must not be imported, submodules included. ``allowed``: None, or the
            allowed modules. ``names``: dotted names that must not be reached through an import.
            ``attributes``: attributes that must not be named. ``builtins``: built-in names that must not be
            used. ``profile``: its name in messages.
    """

    def __init__(self, policy: Mapping[str, Any]) -> None:
        self.blocked = frozenset(policy["blocked"])
        self.allowed = None if policy["allowed"] is None else frozenset(policy["allowed"])
        self.names = frozenset(policy["names"])
        self.attributes = frozenset(policy["attributes"])
        self.builtins = frozenset(policy["builtins"])
        self.profile = policy["profile"]
        self._attributes = self.attributes
        self._looks_at_names = bool(self.names or self.attributes or self.builtins)
        last = {name.rpartition(".")[2] for name in self.names}
        # None: a name such as "os.*" is not made of words.
        self._watched: frozenset[str] | None = None
        if "*" not in last and "" not in last:
            self._watched = frozenset({"__code__"}.union(last, self.attributes, self.builtins, _READERS))

    def passes(self, words: frozenset[str]) -> bool:
        """Return whether a file with these words, see `words_of`, imports nothing and violates nothing."""
        return _IMPORT not in words and words.isdisjoint(_IMPORTERS) and self._names_nothing(words)

    def _names_nothing(self, words: frozenset[str] | None) -> bool:
        """Return whether a file with these words names nothing that the policy speaks of, but by imports."""
        if not self._looks_at_names:
            return True
        if words is None or self._watched is None or not words.isdisjoint(self._watched):
            return False
        return "replace" not in words or not any(word.startswith(_CODE_KEYWORDS) for word in words)

    def look(
        self,
        tree: ast.AST,
        module: str = _ENTRY_MODULE,
        own: frozenset[str] = frozenset(),
        words: frozenset[str] | None = None,
    ) -> Look:
        """Check a file.

        Args:
            tree: Its tree.
            module: The name under which it is imported. Of several modules only the entry's is sure to be.
            own: Names of the version's own modules, which it may import unless they are blocked.
            words: The words of its text, see `words_of`; they save work and change nothing.
        """
        imports: set[str] = set()
        found: list[Finding] = []
        left: list[Finding] = []
        blocked: list[tuple[ast.AST, str]] = []
        uncertain: set[int] | None = None
        for node in _importing(tree, words):
            for name in _imported(node):
                imports.add(name.partition(".")[0])
                what = self._import(name, own)
                if not what:
                    continue
                if uncertain is None:
                    uncertain = uncertain_imports(tree)
                late = id(node) in uncertain or (len(own) > 1 and module != _ENTRY_MODULE)
                if late and name.partition(".")[0] not in _AGENT:
                    left.append(_at(node, f"{what}; it raises ImportError if it is reached"))
                    blocked.append((node, name))
                else:
                    found.append(_at(node, what))
        if not self._names_nothing(words):
            nodes = _walk(tree)
            scope = _Names(nodes)
            self._attributes = self.attributes - _own_attributes(nodes, self.attributes, imports)
            for node in nodes:
                what = self._named(node, scope)
                if what:
                    found.append(_at(node, what))
        return Look(sorted(imports), found[:_MAX_FINDINGS], left[:_MAX_FINDINGS], blocked)

    def _import(self, name: str, own: frozenset[str]) -> str:
        culprit = prefix_in(name, self.blocked)
        if culprit:
            why = reasons.of_module(culprit)
            return f"import of {name!r} is blocked: {culprit!r} is among the blocked modules: {why}"
        if self.allowed is None or name.partition(".")[0] in own:
            return ""
        if not prefix_in(name, self.allowed):
            why = reasons.of_module(name, listed=False)
            return (
                f"import of {name!r} is blocked: it is not among the modules that {self._who} allows: {why}"
            )
        return ""

    def _named(self, node: ast.AST, scope: _Names) -> str:
        kind = type(node)
        if kind is ast.Attribute:
            return self._attribute(node, scope)  # type: ignore[arg-type]
        if kind is ast.Name:
            name: str = node.id  # type: ignore[attr-defined]
            if name in self.builtins and name not in scope.bound:
                return self._refuse(name)
        elif kind is ast.ImportFrom:
            for name in _imported(node):
                if name in self.names:
                    return self._refuse(name)
        elif kind is ast.Call:
            return self._call(node, scope)  # type: ignore[arg-type]
        return ""

    def _attribute(self, node: ast.Attribute, scope: _Names) -> str:
        if node.attr in self._attributes:
            return self._refuse_attribute(node.attr)
        dotted = scope.dotted(node)
        if dotted in self.names:
            return self._refuse(dotted)
        if node.attr == "__code__" and type(node.ctx) is not ast.Load and self.attributes:
            return f"{self._who} does not allow replacing code objects: {reasons.of_name('__code__')}"
        return ""

    def _call(self, node: ast.Call, scope: _Names) -> str:
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
        if name == "replace" and any((word.arg or "").startswith(_CODE_KEYWORDS) for word in node.keywords):
            return f"{self._who} does not allow changed code objects: {reasons.of_name('__code__')}"
        if name in _READERS:
            for argument in node.args:
                text = argument.value if isinstance(argument, ast.Constant) else None
                if not isinstance(text, str):
                    continue
                of = scope.dotted(node.args[0])
                if text in self._attributes:
                    return self._refuse_attribute(text)
                if of and f"{of}.{text}" in self.names:
                    return self._refuse(f"{of}.{text}")
        return ""

    def _refuse(self, name: str) -> str:
        return f"{self._who} does not allow {name!r}: {reasons.of_name(name)}"

    def _refuse_attribute(self, name: str) -> str:
        own = "" if name[:2] == "__" else "; an attribute of a class of your own may have any other name"
        return f"{self._who} does not allow the attribute {name!r}: {reasons.of_name(name)}{own}"

    @property
    def _who(self) -> str:
        return f"the security profile {self.profile!r}"


class _Names:
    """Resolution of a file's names: imported modules, or its own definitions."""

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
        """Return the dotted name that an expression refers to, through the file's imports; may be empty."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._modules:
            return ""
        parts.append(self._modules[node.id])
        return ".".join(reversed(parts))


def _own_attributes(nodes: Iterable[ast.AST], attributes: frozenset[str], imports: set[str]) -> set[str]:
    """Return the attributes that are a file's own: it assigns them, or has no access to frames."""
    own: set[str] = set()
    named: set[str] = set()
    for node in nodes:
        kind = type(node)
        if kind is ast.Attribute:
            named.add(node.attr)  # type: ignore[attr-defined]
            if type(node.ctx) is ast.Store:  # type: ignore[attr-defined]
                own.add(node.attr)  # type: ignore[attr-defined]
        elif kind is ast.keyword:
            own.add(node.arg or "")  # type: ignore[attr-defined]
        elif kind is ast.ClassDef:
            own.update(_class_names(node))  # type: ignore[arg-type]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
            own.update(str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant))
    own = {name for name in own & attributes if name[:2] != "__"}
    if not (imports & _MODULES_WITH_FRAMES) and not ((named & _WAYS_TO_FRAMES) - own):
        own |= _OF_FRAMES
    return own


def _class_names(node: ast.ClassDef) -> Iterator[str]:
    """Return the names of a class's members: methods, fields, slots."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name
        elif isinstance(statement, ast.AnnAssign | ast.Assign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            yield from names
            if "__slots__" in names and statement.value is not None:
                for part in ast.walk(statement.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def _walk(tree: ast.AST) -> list[ast.AST]:
    """Return all nodes except contexts and operators, in a quarter of the time of `ast.walk`."""
    nodes = [tree]
    add = nodes.append
    for node in nodes:  # which grows during the loop
        for value in node.__dict__.values():
            kind = type(value)
            if kind is list:
                for item in value:
                    if isinstance(item, _NODE):
                        add(item)
            elif kind not in _LEAVES and isinstance(value, _NODE):
                add(value)
    return nodes


def _importing(tree: ast.AST, words: frozenset[str] | None) -> Iterable[ast.AST]:
    """Return the nodes that may import, in the order of `_walk`.

    Args:
        tree: The tree.
        words: The words of its text; None if they are not known.
    """
    if words is None or not words.isdisjoint(_IMPORTERS):
        return [node for node in _walk(tree) if type(node) in _IMPORTING]
    return [node for node in _statements(tree) if type(node) in _IMPORTING] if _IMPORT in words else ()


def _statements(tree: ast.AST) -> list[ast.AST]:
    """Return all statements and what holds some, in the order of `_walk`; most nodes are expressions."""
    nodes = [tree]
    add = nodes.append
    for node in nodes:  # which grows during the loop
        for value in node.__dict__.values():
            if type(value) is list:
                for item in value:
                    if isinstance(item, _BLOCK):
                        add(item)
    return nodes


def mark_blocked(blocked: Iterable[tuple[ast.AST, str]]) -> None:
    """Rename blocked imports, so that they are refused even if the module is loaded already."""
    for node, name in blocked:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == name:
                    alias.name = BLOCKED_MARK + name
        elif isinstance(node, ast.ImportFrom):
            node.module = BLOCKED_MARK + (node.module or "").removeprefix(BLOCKED_MARK)
        elif isinstance(node, ast.Call):
            node.args[0] = ast.copy_location(ast.Constant(BLOCKED_MARK + name), node.args[0])


def prefix_in(name: str, names: Collection[str]) -> str:
    """Return the name, or an enclosing package, that is among the given names; may be empty."""
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
        # A relative name cannot be resolved here.
        if name in _IMPORTERS and isinstance(constant, str) and constant and constant[0] != ".":
            yield constant
