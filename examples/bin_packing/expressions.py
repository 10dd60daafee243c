"""Expression trees, and how they read as the source of ``def priority(item, bins)``.

A tree is a nested tuple: the name of an operation followed by its parts. Leaves are ``("item",)``,
``("bins",)`` (the room in each bin that can take the item), ``("left",)`` (the room it would
leave, ``bins - item``) and ``("const", 3)``. Tuples compare, hash and sort by value, which is all
that a deterministic search needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

Tree: TypeAlias = tuple[Any, ...]
Path: TypeAlias = tuple[int, ...]

ITEM: Tree = ("item",)
BINS: Tree = ("bins",)
LEFT: Tree = ("left",)
TRUE: Tree = ("true",)
FALSE: Tree = ("false",)

NUMERIC = frozenset(
    {
        "item",
        "bins",
        "left",
        "const",
        "neg",
        "abs",
        "sqrt",
        "square",
        "add",
        "sub",
        "mul",
        "div",
        "min",
        "max",
    }
)
"""Operations that give a number for each bin; with ``where`` the only ones that may stand at the root."""
CONDITIONS = frozenset({"lt", "and", "or", "true", "false"})

_LINE = 79
"""Columns of a line of source, indent included; a terminal of 80 shows it unbroken."""
_NAMED_SIZE = 4
_OPERATORS = {
    "or": ("|", 1),
    "and": ("&", 2),
    "lt": ("<", 3),
    "add": ("+", 4),
    "sub": ("-", 4),
    "mul": ("*", 5),
}
_CALLS = {"min": "np.minimum", "max": "np.maximum", "abs": "np.abs", "where": "np.where"}
_DIVISION, _SIGN, _POWER, _ATOM = 5, 6, 7, 8


def const(value: float) -> Tree:
    """Return a leaf that stands for a number."""
    return ("const", value)


def parts(tree: Tree) -> tuple[Tree, ...]:
    """Return the operands of a tree, none for a leaf."""
    return () if tree[0] == "const" else tree[1:]


def is_condition(tree: Tree) -> bool:
    """Tell whether the tree gives truth values rather than numbers."""
    return tree[0] in CONDITIONS


def size(tree: Tree) -> int:
    """Count the nodes."""
    return 1 + sum(size(part) for part in parts(tree))


def uses_bins(tree: Tree) -> bool:
    """Tell whether the value differs from bin to bin."""
    return tree in (BINS, LEFT) or any(uses_bins(part) for part in parts(tree))


def walk(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Tree]]:
    """Yield every node with its path from the root, parents first."""
    yield path, tree
    for place, part in enumerate(parts(tree), start=1):
        yield from walk(part, (*path, place))


def replace(tree: Tree, path: Path, new: Tree) -> Tree:
    """Return a copy of the tree with the node at ``path`` exchanged for ``new``."""
    if not path:
        return new
    place = path[0]
    return (*tree[:place], replace(tree[place], path[1:], new), *tree[place + 1 :])


def render(tree: Tree) -> str:
    """Return the source text of a module that defines ``priority(item, bins)``.

    Parts used more than once get names of their own, and so do parts of a line that would be too long.
    Division is protected: ``div`` of a and b reads ``a / (1 + np.abs(b))``, and the absolute value is
    left out where b is never negative.
    """
    return _Writer(tree).module()


class _Writer:
    """Writes one tree as Python, naming what is shared or makes a line too long."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._statements: list[tuple[Tree, str]] = []
        self._names: dict[Tree, str] = {}
        seen = Counter(node for _, node in walk(tree))
        self._to_name = {node for node, times in seen.items() if times > 1 and size(node) >= _NAMED_SIZE}

    def module(self) -> str:
        """Return the text, written again with one more name as long as a line is too long."""
        while True:
            body = self._body()
            splittable = (self._longest_part(tree) for tree, line in body if len(line) > _LINE)
            part = next((part for part in splittable if part is not None), None)
            if part is None:
                lines = [line for _, line in body]
                if any(node == LEFT for _, node in walk(self._tree)):
                    lines.insert(0, "    left = bins - item")
                return "\n".join(("import numpy as np\n\n\ndef priority(item, bins):", *lines, ""))
            self._to_name.add(part)

    def _body(self) -> list[tuple[Tree, str]]:
        """Return each line with the tree it writes."""
        self._statements, self._names = [], {}
        result, _ = self._text(self._tree)
        if not uses_bins(self._tree):
            result = f"np.full(len(bins), {result})"
        lines = [*self._statements, (self._tree, f"return {result}")]
        return [(tree, f"    {line}") for tree, line in lines]

    def _longest_part(self, tree: Tree) -> Tree | None:
        """Return the longest operand that has no name yet, None if there is nothing to take out."""
        unnamed = [part for part in parts(tree) if parts(part) and part not in self._to_name]
        return max(unnamed, key=size, default=None)

    def _text(self, tree: Tree) -> tuple[str, int]:
        """Return the text and how tightly it binds."""
        if tree in self._names:
            return self._names[tree], _ATOM
        text, binding = self._expression(tree)
        if tree in self._to_name and tree != self._tree:
            name = _name(len(self._names))
            self._names[tree] = name
            self._statements.append((tree, f"{name} = {text}"))
            return name, _ATOM
        return text, binding

    def _at_least(self, tree: Tree, needed: int) -> str:
        text, binding = self._text(tree)
        return text if binding >= needed else f"({text})"

    def _expression(self, tree: Tree) -> tuple[str, int]:
        kind: str = tree[0]
        if kind == "const":
            return f"{tree[1]!r}", _ATOM if tree[1] >= 0 else _SIGN
        if kind == "lt" and tree[1][0] == "const":
            return f"{self._at_least(tree[2], 4)} > {self._at_least(tree[1], 4)}", 3
        if kind in _OPERATORS:
            sign, binding = _OPERATORS[kind]
            left = self._at_least(tree[1], 4 if kind in ("lt", "and", "or") else binding)
            right = self._at_least(tree[2], binding if kind == "add" else binding + 1)
            if kind in ("and", "or"):
                left, right = self._operand(tree[1], kind), self._operand(tree[2], kind)
            return f"{left} {sign} {right}", binding
        if kind == "div":
            return f"{self._at_least(tree[1], _DIVISION)} / {self._denominator(tree[2])}", _DIVISION
        if kind == "neg":
            return f"-{self._at_least(tree[1], _SIGN)}", _SIGN
        if kind == "square":
            return f"{self._at_least(tree[1], _ATOM)} ** 2", _POWER
        if kind == "sqrt":
            inside = self._text(tree[1])[0]
            return f"np.sqrt({inside})" if never_negative(tree[1]) else f"np.sqrt(np.abs({inside}))", _ATOM
        if kind in _CALLS:
            return f"{_CALLS[kind]}({', '.join(self._text(part)[0] for part in parts(tree))})", _ATOM
        return kind.capitalize() if kind in ("true", "false") else kind, _ATOM

    def _operand(self, tree: Tree, kind: str) -> str:
        """Return one side of ``&`` or ``|``; comparisons and the other connective need parentheses there."""
        text, binding = self._text(tree)
        return text if binding == _ATOM or tree[0] == kind else f"({text})"

    def _denominator(self, tree: Tree) -> str:
        if tree[0] == "const":
            return f"{1 + abs(tree[1])!r}"
        if never_negative(tree):
            return f"(1 + {self._at_least(tree, 4)})"
        return f"(1 + np.abs({self._text(tree)[0]}))"


def never_negative(tree: Tree) -> bool:
    """Tell whether the value is at least 0 for every item and bin, as far as the shape of the tree shows."""
    kind = tree[0]
    if kind in ("item", "bins", "left", "abs", "sqrt", "square"):
        return True
    if kind == "const":
        return bool(tree[1] >= 0)
    if kind in ("add", "mul", "min"):
        return all(never_negative(part) for part in parts(tree))
    if kind == "max":
        return any(never_negative(part) for part in parts(tree))
    if kind == "div":
        return never_negative(tree[1])
    if kind == "where":
        return never_negative(tree[2]) and never_negative(tree[3])
    return False


def _name(number: int) -> str:
    """Return a, b, c, ... and after z, a1, b1, ..."""
    turn, letter = divmod(number, 26)
    return chr(ord("a") + letter) + (str(turn) if turn else "")
