"""Renaming of a version's modules by a prefix, so that two versions fit into one guest.

Every module of the version gets a prefix to its top-level name, and its code is changed to import the others
by their prefixed names. Only the syntax tree changes, never a line number, and a program sees its original
name. Uses that cannot be renamed in the tree are refused, by name and position.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import Any

_NAME = "__name__"
# Functions that take a module's name as first argument; names for those that import must be constant.
_IMPORTERS = frozenset({"__import__", "import_module"})
_FINDERS = frozenset({"files", "get_data", "find_spec", "find_loader"})
_RUNNERS = frozenset({"exec", "compile"})
_REFUSED_MODULES = frozenset({"runpy", "zipimport", "modulefinder"})


class CannotPrefix(Exception):
    """A use in a module cannot be renamed.

    Attributes:
        what: The use, in a sentence.
        line: Its line, from 1.
        column: Its column, from 1.
    """

    def __init__(self, what: str, node: ast.AST) -> None:
        super().__init__(what)
        self.what = f"the module cannot be loaded beside another version of it: {what}"
        self.line: int | None = getattr(node, "lineno", None)
        self.column: int | None = getattr(node, "col_offset", -1) + 1


def prefix_module(tree: ast.Module, name: str, prefix: str, own: Collection[str], root: str) -> ast.Module:
    """Change a module so that it works under a prefixed name, with other prefixed modules.

    Imports of the version's modules in all their forms, relative ones included, names given as constants to
    ``import_module``, ``importlib.resources.files`` and the like, ``sys.modules[__name__]``, and paths below
    the version's own packages are renamed; ``__name__`` has its original value.

    Args:
        tree: The module; it is changed.
        name: Its own dotted name.
        prefix: The prefix of the names of the version's modules.
        own: Top-level names of the version's modules.
        root: Directory at which the guest sees the files.

    Returns:
        The tree.

    Raises:
        CannotPrefix: A use in it cannot be renamed.
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
        """Import by the new name and bind the old one."""
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
        """Rename an absolute import; a relative one already refers to the new name."""
        module = node.module or ""
        if node.level == 0:
            self._refuse_module(module, node)
            if module == "sys" and any(alias.name == "modules" for alias in node.names):
                raise CannotPrefix("it takes sys.modules, which has its modules under other names", node)
            if module.partition(".")[0] in self._own:
                node.module = self._prefix + module
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        """Rename modules given as arguments."""
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
        """Rename ``sys.modules["name"]``."""
        if not _is_sys_modules(node.value):
            return self.generic_visit(node)
        node.slice = self._key(node, node.slice)
        return node

    def visit_Compare(self, node: ast.Compare) -> Any:
        """Rename ``"name" in sys.modules``."""
        for number, (operator, right) in enumerate(zip(node.ops, node.comparators, strict=True)):
            if isinstance(operator, ast.In | ast.NotIn) and _is_sys_modules(right) and number == 0:
                node.left = self._key(node, node.left)
                return node
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        """Refuse any other use of ``sys.modules``."""
        if _is_sys_modules(node):
            raise CannotPrefix("it uses sys.modules, which has its modules under other names", node)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Any:
        """Keep the original ``__name__`` of a module."""
        if node.id == _NAME and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(self._name), node)
        return node

    def visit_Constant(self, node: ast.Constant) -> Any:
        """Rename paths below the version's own packages."""
        value = node.value
        if isinstance(value, str) and value.startswith(self._root):
            rest = value[len(self._root) :]
            if rest.partition("/")[0].removesuffix(".py") in self._own:
                return ast.copy_location(ast.Constant(self._root + self._prefix + rest), node)
        return node

    def _module_argument(self, call: ast.Call, argument: ast.expr) -> ast.expr:
        """Return the renamed module name of an argument."""
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
        """Return a statement that imports a module and binds nothing."""
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
