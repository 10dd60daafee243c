"""The ModuleTransformer: a version's modules under other names, so that two versions fit into one guest.

Every module of the version gets a prefix to its top-level name, and its code is changed so that it finds
the others under theirs. Only the syntax tree changes, never a line number, and what a program sees of its
own name is the original one. What cannot be followed in the tree is refused, by name and place.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Any

_NAME = "__name__"
# Functions that take the name of a module as their first argument; those that import must be followed.
_IMPORTERS = frozenset({"__import__", "import_module"})
_FINDERS = frozenset({"files", "get_data", "find_spec", "find_loader"})
_RUNNERS = frozenset({"exec", "compile"})
_REFUSED_MODULES = frozenset({"runpy", "zipimport", "modulefinder"})


class CannotPrefix(Exception):
    """Something in a module cannot be followed.

    Attributes:
        what: What it is, in a sentence.
        line: Its line, from 1.
        column: Its column, from 1.
    """

    def __init__(self, what: str, node: ast.AST) -> None:
        super().__init__(what)
        self.what = f"the module cannot be loaded beside another version of it: {what}"
        self.line: int | None = getattr(node, "lineno", None)
        self.column: int | None = getattr(node, "col_offset", -1) + 1


def prefix_module(tree: ast.Module, name: str, prefix: str, own: Collection[str], root: str) -> ast.Module:
    """Change a module so that it works under a name with a prefix, beside modules that have it too.

    Imports of the version's modules in all their forms, relative ones included, names given as constants to
    ``import_module``, ``importlib.resources.files`` and the like, ``sys.modules[__name__]``, and paths below
    the version's own packages are followed; ``__name__`` reads as it did.

    Args:
        tree: The module; it is changed.
        name: Its own dotted name.
        prefix: What the names of the version's modules begin with.
        own: Top-level names of the version's modules.
        root: Directory at which the guest sees the files.

    Returns:
        The tree.

    Raises:
        CannotPrefix: Something in it cannot be followed.
    """
    changed: ast.Module = _Prefixer(name, prefix, frozenset(own), root).visit(tree)
    return ast.fix_missing_locations(changed)


class _Prefixer(ast.NodeTransformer):
    def __init__(self, name: str, prefix: str, own: frozenset[str], root: str) -> None:
        self._name = name
        self._prefix = prefix
        self._own = own
        self._root = root + "/"

    def visit_Import(self, node: ast.Import) -> Any:
        """Import under the new name what is bound to the old one."""
        before: list[ast.stmt] = []
        for alias in node.names:
            self._refuse_module(alias.name, node)
            top, _, rest = alias.name.partition(".")
            if top not in self._own:
                continue
            if alias.asname is None:
                # `import pkg.sub` binds pkg, and has sub imported before.
                if rest:
                    before.append(self._imported(alias.name, node))
                alias.name, alias.asname = self._prefix + top, top
            else:
                alias.name = self._prefix + alias.name
        return [*before, node] if before else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        """A relative import is relative to the new name already."""
        module = node.module or ""
        if node.level == 0:
            self._refuse_module(module, node)
            if module == "sys" and any(alias.name == "modules" for alias in node.names):
                raise CannotPrefix("it takes sys.modules, which has its modules under other names", node)
            if module.partition(".")[0] in self._own:
                node.module = self._prefix + module
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        """Follow names of modules that are given as arguments."""
        called = node.func
        name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
        if isinstance(called, ast.Name) and name in _RUNNERS:
            raise CannotPrefix(f"it runs text with {name}, whose imports cannot be seen", node)
        if name in _IMPORTERS | _FINDERS and node.args:
            node.args = [self._module_argument(node, one) for one in node.args]
            for keyword in node.keywords:
                if keyword.arg in {"package", "anchor", "name"}:
                    keyword.value = self._module_argument(node, keyword.value)
            if name in _IMPORTERS and not _is_known(node.args[0]):
                raise CannotPrefix(f"it calls {name} with a name that is known only when it runs", node)
        elif name == "get" and isinstance(called, ast.Attribute) and _is_sys_modules(called.value):
            node.args = [self._key(node, one) for one in node.args[:1]] + node.args[1:]
            node.args[1:] = [self.visit(one) for one in node.args[1:]]
            return node
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        """Follow ``sys.modules["name"]``."""
        if not _is_sys_modules(node.value):
            return self.generic_visit(node)
        node.slice = self._key(node, node.slice)
        return node

    def visit_Compare(self, node: ast.Compare) -> Any:
        """Follow ``"name" in sys.modules``."""
        for number, (operator, right) in enumerate(zip(node.ops, node.comparators, strict=True)):
            if isinstance(operator, ast.In | ast.NotIn) and _is_sys_modules(right) and number == 0:
                node.left = self._key(node, node.left)
                return node
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        """Any other use of ``sys.modules`` cannot be followed."""
        if _is_sys_modules(node):
            raise CannotPrefix("it uses sys.modules, which has its modules under other names", node)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Any:
        """A module sees the name that it had."""
        if node.id == _NAME and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(self._name), node)
        return node

    def visit_Constant(self, node: ast.Constant) -> Any:
        """Paths below the version's own packages."""
        value = node.value
        if isinstance(value, str) and value.startswith(self._root):
            rest = value[len(self._root) :]
            if rest.partition("/")[0].removesuffix(".py") in self._own:
                return ast.copy_location(ast.Constant(self._root + self._prefix + rest), node)
        return node

    def _module_argument(self, call: ast.Call, argument: ast.expr) -> ast.expr:
        """The name of a module, which is to be the real one."""
        if isinstance(argument, ast.Name) and argument.id == _NAME:
            return self._real_name(argument)
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            if argument.value.partition(".")[0] in self._own:
                return ast.copy_location(ast.Constant(self._prefix + argument.value), argument)
            self._refuse_module(argument.value, call)
        return argument

    def _key(self, node: ast.AST, key: ast.expr) -> ast.expr:
        if isinstance(key, ast.Name) and key.id == _NAME:
            return self._real_name(key)
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            if key.value.partition(".")[0] in self._own:
                return ast.copy_location(ast.Constant(self._prefix + key.value), key)
            return key
        if isinstance(key, ast.Attribute) and key.attr == "__module__":  # of a class: the real one
            return key
        raise CannotPrefix("it looks into sys.modules for a name that is known only when it runs", node)

    def _real_name(self, node: ast.expr) -> ast.expr:
        spec = ast.Name("__spec__", ast.Load())
        return ast.copy_location(ast.Attribute(spec, "name", ast.Load()), node)

    def _imported(self, name: str, node: ast.Import) -> ast.stmt:
        """A statement that imports a module and binds nothing."""
        call = ast.Call(ast.Name("__import__", ast.Load()), [ast.Constant(self._prefix + name)], [])
        return ast.copy_location(ast.Expr(call), node)

    def _refuse_module(self, name: str, node: ast.AST) -> None:
        if name in _REFUSED_MODULES and name.partition(".")[0] not in self._own:
            raise CannotPrefix(f"it imports {name}, which runs modules by their names", node)


def _is_sys_modules(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "modules"
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
    )


def _is_known(argument: ast.expr) -> bool:
    if isinstance(argument, ast.Constant):
        return True
    # __spec__.name, __package__: the module's own.
    return isinstance(argument, ast.Attribute | ast.Name) and ast.unparse(argument) in {
        "__spec__.name",
        "__spec__.parent",
        "__package__",
    }
