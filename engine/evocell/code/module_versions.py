"""History of module versions of each sandbox.

A version is not a copy: it refers to a tree in the snapshot store, where shared files are stored once. The
manager holds references to the trees of the versions that it keeps, and releases the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from attrs import define, field

from evocell.code.compiler import CompiledVersion
from evocell.code.references import TreeReferences
from evocell.errors import ConfigurationError
from evocell.models.versions import ModuleVersion

__all__ = ["ROLLBACK", "ModuleVersionManager", "module_files"]

ROLLBACK = "rollback"
"""The mutation type of a version with the files of an earlier one."""

_INIT = "__init__.py"
_SHOWN_NAMES = 20


@define(eq=False)
class _Module:
    """A module of a sandbox: the retained versions, oldest first, and the loaded one."""

    kept: list[ModuleVersion] = field(factory=list)
    current: ModuleVersion | None = None


@define(eq=False)
class _Sandbox:
    digest: str = ""
    modules: dict[str, _Module] = field(factory=dict)


class ModuleVersionManager:
    """Numbers the versions of each module of each sandbox, and keeps the latest of them.

    Args:
        trees: The references to the trees of retained versions, under the user ``"sandbox:ID"``.
        keep: Number of versions retained per module, always including the loaded one.
    """

    def __init__(self, trees: TreeReferences, *, keep: int) -> None:
        self._trees = trees
        self._keep = keep
        self._sandboxes: dict[str, _Sandbox] = {}

    def register(
        self, sandbox_id: str, code: CompiledVersion, *, mutation_type: str
    ) -> tuple[ModuleVersion, ...]:
        """Record that a sandbox has loaded a tree: each changed module gets a new version.

        Args:
            sandbox_id: The sandbox.
            code: The loaded code.
            mutation_type: The kind of mutation that made it.

        Returns:
            The new versions.
        """
        sandbox = self._sandboxes.setdefault(sandbox_id, _Sandbox())
        user = _user(sandbox_id)
        self._trees.hold(user, code.digest)
        if sandbox.digest:
            self._trees.release(user, sandbox.digest)
        sandbox.digest = code.digest
        present = module_files(code.files)
        for name, module in sandbox.modules.items():
            if name not in present:
                module.current = None
        made = []
        for name, files in present.items():
            module = sandbox.modules.setdefault(name, _Module())
            checksum = _checksum(files, code.files)
            if module.current is not None and module.current.checksum == checksum:
                continue
            restores = _same(module, checksum) if mutation_type == ROLLBACK else None
            imports = {one for path in files for one in code.file_imports.get(path, ())}
            latest = module.current or (module.kept[-1] if module.kept else None)
            version = ModuleVersion(
                sandbox_id=sandbox_id,
                module=name,
                number=module.kept[-1].number + 1 if module.kept else 1,
                checksum=checksum,
                digest=code.digest,
                files=files,
                dependencies=tuple(sorted(imports)),
                parent_version=None if latest is None else latest.number,
                restores=restores,
                mutation_type=mutation_type,
            )
            self._keep_version(module, version)
            made.append(version)
        return tuple(made)

    def forget(self, sandbox_id: str) -> None:
        """Remove a sandbox and release its trees; no effect on an unknown one."""
        self._sandboxes.pop(sandbox_id, None)
        self._trees.release(_user(sandbox_id))

    def modules(self, sandbox_id: str) -> tuple[str, ...]:
        """Return the sorted names of a sandbox's loaded modules."""
        modules = self._modules(sandbox_id)
        return tuple(sorted(name for name, module in modules.items() if module.current is not None))

    def current(self, sandbox_id: str, module: str) -> ModuleVersion:
        """Return the loaded version of a module.

        Raises:
            ConfigurationError: The sandbox has no such module; the message names the existing ones.
        """
        known = self._modules(sandbox_id).get(module)
        if known is None or known.current is None:
            raise self._no_module(sandbox_id, module)
        return known.current

    def history(self, sandbox_id: str, module: str) -> tuple[ModuleVersion, ...]:
        """Return the retained versions of a module, oldest first, also of a removed module.

        Raises:
            ConfigurationError: The sandbox never had such a module.
        """
        known = self._modules(sandbox_id).get(module)
        if known is None:
            raise self._no_module(sandbox_id, module)
        return tuple(known.kept)

    def get(self, sandbox_id: str, module: str, number: int) -> ModuleVersion:
        """Return a version by its number.

        Raises:
            ConfigurationError: It does not exist, or is not kept any more; the message names those that are.
        """
        kept = self.history(sandbox_id, module)
        for version in kept:
            if version.number == number and not isinstance(number, bool):
                return version
        numbers = ", ".join(str(version.number) for version in kept)
        raise ConfigurationError(
            f"sandbox {sandbox_id!r} has no version {number!r} of module {module!r}; it keeps {numbers} "
            "(max_module_versions says how many)",
            "version",
        )

    def _keep_version(self, module: _Module, version: ModuleVersion) -> None:
        module.kept.append(version)
        module.current = version
        user = _user(version.sandbox_id)
        self._trees.hold(user, version.digest)
        while len(module.kept) > self._keep:
            self._trees.release(user, module.kept.pop(0).digest)

    def _modules(self, sandbox_id: str) -> dict[str, _Module]:
        sandbox = self._sandboxes.get(sandbox_id)
        return {} if sandbox is None else sandbox.modules

    def _no_module(self, sandbox_id: str, module: str) -> ConfigurationError:
        names = self.modules(sandbox_id)
        shown = ", ".join(names[:_SHOWN_NAMES]) or "no module at all"
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        return ConfigurationError(
            f"sandbox {sandbox_id!r} holds no module {module!r}; it has {shown}{more}", "module"
        )


def module_files(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Group the files of a tree by module.

    Args:
        paths: Paths of all files.

    Returns:
        The sorted files of each importable module: the one file of a plain module, and for a package all
        files below its directory, so that a file may belong to several modules.
    """
    every = sorted(paths)
    packages = {path[: -len(_INIT) - 1] for path in every if path.endswith("/" + _INIT)}
    found: dict[str, list[str]] = {}
    for path in every:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in packages and all(map(str.isidentifier, parts[:depth])):
                found.setdefault(".".join(parts[:depth]), []).append(path)
        if path.endswith(".py") and parts[-1] != _INIT and path[:-3] not in packages:
            parts[-1] = parts[-1][:-3]
            if all(map(str.isidentifier, parts)):
                found.setdefault(".".join(parts), []).append(path)
    return {name: tuple(files) for name, files in found.items()}


def _same(module: _Module, checksum: str) -> int | None:
    """Return the number of the first retained version with a checksum."""
    return next((version.number for version in module.kept if version.checksum == checksum), None)


def _checksum(files: Iterable[str], digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{path}\0{digests[path]}\n" for path in files).encode()).hexdigest()


def _user(sandbox_id: str) -> str:
    return f"sandbox:{sandbox_id}"
