"""Detection of a file's imports that may not be executed when it is run."""

from __future__ import annotations

import ast

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MAYBE = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Match, ast.IfExp, ast.BoolOp)
_IMPORTING = (ast.Import, ast.ImportFrom, ast.Call)
_CATCHING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def uncertain_imports(tree: ast.AST) -> set[int]:
    """Return the ids of the nodes that may not be reached, or whose failure is caught.

    These are in functions, under conditions and in loops, in a ``try`` that catches `ImportError` or a base
    class, in its handlers, and in ``with suppress(ImportError)``.
    """
    found: set[int] = set()
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    while pending:
        node, late = pending.pop()
        if late and isinstance(node, _IMPORTING):
            found.add(id(node))
        if isinstance(node, ast.Try | ast.TryStar):
            caught = any(_catches(handler.type) for handler in node.handlers)
            pending += [(child, late or caught) for child in node.body]
            pending += [(child, True) for child in (*node.handlers, *node.orelse)]
            pending += [(child, late) for child in node.finalbody]
        elif isinstance(node, ast.With | ast.AsyncWith):
            within = late or any(_suppresses(item.context_expr) for item in node.items)
            pending += [(item, late) for item in node.items]
            pending += [(child, within) for child in node.body]
        else:
            inner = late or isinstance(node, (*_FUNCTIONS, *_MAYBE))
            pending += [(child, inner) for child in ast.iter_child_nodes(node)]
    return found


def _catches(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(_last_name(one) in _CATCHING for one in kinds)


def _suppresses(expression: ast.expr) -> bool:
    return (
        isinstance(expression, ast.Call)
        and _last_name(expression.func) == "suppress"
        and any(_catches(argument) for argument in expression.args)
    )


def _last_name(expression: ast.expr) -> str:
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
