"""Compilation of version trees: the request to a guest, its answer, and the cached form.

The guest compiles with its own interpreter, in a fork that runs no variant code; the execution layer
transports the request and the answer. Files are compiled and cached one by one, so that only the
changed files of a version are compiled. This module does no I/O, and byte code is opaque to the host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from attrs import field, frozen

from evocell.code.references import TreeLease
from evocell.code.snapshots import VersionSnapshot
from evocell.code.sources import FileTree
from evocell.errors import ProtocolError
from evocell.models.limits import Limits
from evocell.models.outcome import Rejected, RejectedKind
from evocell.models.security import SecurityPolicy
from evocell.wire.values import decode_hostile
from evocell_guest.packing import pack_files
from evocell_guest.values import encode
from evocell_runtime.warm import HEAVY_PACKAGES

#: Version of the compiled form; changes whenever the same input may give other bytes.
CODE_FORMAT = 3
_MAX_IMPORTS = 10_000
_MAX_MARKS = 100_000
_MAX_FINDINGS = 64
_MAX_NAME_CHARS = 500
_MAX_TEXT_CHARS = 4_096
_MAX_UNIT_BYTES = 256 << 20

FUEL_PER_NS = 10
"""Fuel per nanosecond of the virtual clock."""

COMPILE_FUEL = 100_000_000_000
"""Most fuel of a compilation."""
_LEAST_FUEL = 5_000_000_000
# Estimated and maximal fuel of compiling a byte of Python. Source: the modules of this project take
# 7,000 fuel, the gate included; bare statements of four characters 100,000; and a call with 5,000
# keywords, which the compiler compares with one another, more than 150,000.
_FUEL_PER_BYTE = 20_000
_MOST_FUEL_PER_BYTE = 1_000_000


@frozen
class CompiledUnit:
    """One compiled file.

    Attributes:
        path: Its path in its tree.
        code: Byte code that only a guest of the same image can read.
        imports: Top-level modules that it imports, sorted.
        marks: Checksums of the statements that bind its names, for a reload in place.
        findings: Violations of a security policy that only reports, in sentences.
    """

    path: str
    code: bytes = field(repr=False)
    imports: tuple[str, ...] = ()
    marks: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    findings: tuple[str, ...] = ()


@frozen
class CompiledVersion:
    """A compiled version, ready to be loaded: its files, and the byte code of its modules.

    Attributes:
        digest: Digest of the file tree.
        path: Directory of the snapshot, to be mounted at the root that it was compiled for.
        code: Byte code that only a guest of the same image can read.
        imports: Top-level modules that its files import, sorted.
        packages: Those of them that decide in which image it runs, sorted: none that is its own, or that its
            policy refuses.
        findings: Violations of a security policy that only reports, in sentences.
        files: Digest of each file's content, by path.
        file_imports: Top-level modules that each Python file imports, by path.
        units: Its compiled files, if it was just compiled.
        normal: The same program as its syntax tree has it, where calls are memoised by that.
        lease: Keeps the snapshot on disk as long as this object exists.
    """

    digest: str
    path: Path
    code: bytes = field(repr=False)
    imports: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    files: Mapping[str, str] = field(factory=dict, eq=False, repr=False)
    file_imports: Mapping[str, tuple[str, ...]] = field(factory=dict, eq=False, repr=False)
    units: tuple[CompiledUnit, ...] = field(default=(), eq=False, repr=False)
    normal: CompiledVersion | None = field(default=None, eq=False, repr=False)
    lease: TreeLease | None = field(default=None, eq=False, repr=False)

    def leased(self, lease: TreeLease) -> CompiledVersion:
        """Return the version with a lease."""
        return self._with(self.units, lease)

    def without_units(self) -> CompiledVersion:
        """Return the version without its compiled files."""
        return self._with((), self.lease)

    def _with(self, units: tuple[CompiledUnit, ...], lease: TreeLease | None) -> CompiledVersion:
        # Not by `evolve`, which takes three times as long: every evaluation does it.
        return CompiledVersion(
            self.digest,
            self.path,
            self.code,
            self.imports,
            self.packages,
            self.findings,
            self.files,
            self.file_imports,
            units,
            self.normal,
            lease,
        )


def code_key(
    image_id: str,
    digest: str,
    root: str,
    policy: SecurityPolicy | None,
    *,
    path: str = "",
    own: Iterable[str] = (),
    prefix: str = "",
) -> str:
    """Return the cache key of byte code: a hash of everything that it depends on.

    Args:
        image_id: The image whose interpreter compiled it.
        digest: Digest of the file tree, or of the file's content.
        root: Where the tree is mounted.
        policy: The security policy of its files; None for trusted code.
        path: Path of the file; empty for the tree.
        own: The tree's own modules, which matter if the policy has a list of allowed modules, or names are
            prefixed.
        prefix: That prefix.
    """
    allows = policy.digest if policy is not None else ""
    names = sorted(own) if prefix or (policy is not None and policy.allowed is not None) else ()
    parts = [str(CODE_FORMAT), image_id, digest, root, path, allows, prefix, *names]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compile_fuel(tree: FileTree) -> int:
    """Return the fuel limit of compiling a tree: in proportion to its length, with a cap.

    It depends only on the tree, so that the outcome does not depend on which task compiles it first.
    """
    return min(COMPILE_FUEL, _LEAST_FUEL + _MOST_FUEL_PER_BYTE * tree.python_bytes)


def too_much_code(tree: FileTree, limits: Limits) -> Rejected | None:
    """Return the rejection of a tree that is too long to be compiled under a call's limits, or None.

    Compilation is not charged to any call, so its fuel limit is compared with the fuel of one call, but at
    least with 5,000 million, for 250 KB of code.
    """
    n_bytes = tree.python_bytes
    estimate, most = _FUEL_PER_BYTE * n_bytes, max(limits.fuel, _LEAST_FUEL)
    if estimate <= most:
        return None
    return Rejected(
        "compile",
        f"{n_bytes:,} bytes of Python take some {estimate:,} fuel to compile, and the limits leave {most:,}; "
        "raise Limits.fuel, or pass less code, such as data in files that are not Python",
    )


def compile_request(
    tree: FileTree, root: str, policy: SecurityPolicy | None, known: Iterable[str] = (), prefix: str = ""
) -> dict[str, object]:
    """Return the request to compile the Python files of a tree.

    Args:
        tree: The files; only Python files are included.
        root: Mount point of the tree, such as ``/app``, which appears in tracebacks.
        policy: The security policy of the files; None for trusted code.
        known: Paths of files that need not be compiled.
        prefix: Prefix of the names of the tree's modules; may be empty.
    """
    done = set(known)
    return {
        "op": "compile",
        "files": [[path, content] for path, content in tree.python_files if path not in done],
        "root": root,
        "policy": None if policy is None else policy.to_wire(),
        "own": list(tree.own_modules),
        "prefix": prefix,
        "optimize": -1,
        "units": True,
    }


def compile_trees_request(
    trees: Sequence[FileTree], root: str, policy: SecurityPolicy | None, prefix: str = ""
) -> dict[str, object]:
    """Return the request to compile several trees; arguments as for `compile_request`."""
    return {
        "op": "compile_trees",
        "trees": [(tree.python_files, tree.own_modules) for tree in trees],
        "root": root,
        "policy": None if policy is None else policy.to_wire(),
        "prefix": prefix,
        "optimize": -1,
    }


def read_compile_trees_response(response: object, count: int) -> list[tuple[object, int]]:
    """Decode the answer to `compile_trees_request`: one answer per tree, and the fuel of each.

    Args:
        response: The decoded answer.
        count: Number of trees in the request.

    Raises:
        ProtocolError: It is not an answer to such a request.
    """
    trees = response.get("trees") if isinstance(response, Mapping) else None
    if not isinstance(trees, list) or len(trees) != count:
        raise _unexpected("holds no answer for each tree")
    answers: list[tuple[object, int]] = []
    for pair in trees:
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[1]) is not int:  # noqa: PLR2004 - a pair
            raise _unexpected("holds something else where an answer and its time should be")
        answers.append((pair[0], FUEL_PER_NS * pair[1]))
    return answers


def assemble(
    snapshot: VersionSnapshot,
    tree: FileTree,
    root: str,
    units: Sequence[CompiledUnit],
    policy: SecurityPolicy | None = None,
) -> CompiledVersion:
    """Assemble a compiled version from the compiled files of a tree.

    Args:
        snapshot: The snapshot of the tree.
        tree: The tree.
        root: Its mount point.
        units: All of its Python files, sorted by path.
        policy: Their run-time policy; None for trusted code.
    """
    imports = {name for unit in units for name in unit.imports}
    return CompiledVersion(
        snapshot.digest,
        snapshot.path,
        pack_files(
            root,
            [(unit.path, unit.code, unit.marks) for unit in units],
            policy=None if policy is None else policy.at_run_time(),
        ),
        tuple(sorted(imports)),
        heavy_packages(imports, tree.own_modules, policy),
        tuple(text for unit in units for text in unit.findings),
        files=tree.file_digests,
        file_imports={unit.path: unit.imports for unit in units},
        units=tuple(units),
    )


def heavy_packages(
    imports: Iterable[str], own: Iterable[str], policy: SecurityPolicy | None
) -> tuple[str, ...]:
    """Return the imports that decide in which image code runs, sorted.

    Args:
        imports: Top-level modules that it imports.
        own: Its own modules, which go before those of an image.
        policy: What it may not do: what it cannot import need not be there.
    """
    found = HEAVY_PACKAGES.intersection(imports).difference(own)
    if policy is not None and policy.enforce:
        found = found.difference(policy.blocked)
        if policy.allowed is not None:
            found = found.intersection(policy.allowed)
    return tuple(sorted(found))


def read_compile_response(
    response: object,
    snapshot: VersionSnapshot,
    tree: FileTree,
    root: str,
    known: Mapping[str, CompiledUnit] | None = None,
    *,
    policy: SecurityPolicy | None = None,
) -> CompiledVersion | Rejected:
    """Check and narrow a guest's answer to a compile request.

    Args:
        response: The decoded answer.
        snapshot: The snapshot of the tree.
        tree: The compiled tree.
        root: Its mount point.
        known: The files that the request omitted, by path.
        policy: The security policy of the files; None for trusted code.

    Raises:
        ProtocolError: It is not an answer to such a request.
    """
    if isinstance(response, list):
        fresh = _plain_units(response)
    elif not isinstance(response, Mapping):
        raise _unexpected("is not a map")
    elif response.get("t") == "rejected":
        return _rejected(response)
    elif response.get("t") != "compiled":
        raise _unexpected("is neither compiled nor rejected")
    else:
        given = response.get("units")
        if not isinstance(given, list):
            raise _unexpected("holds no compiled files")
        fresh = [_unit(one) for one in given]
    units = dict(known or {})
    for unit in fresh:
        if unit.path in units:
            raise _unexpected("holds a file twice, or one that was not asked for")
        units[unit.path] = unit
    wanted = [path for path, _ in tree.python_files]
    if sorted(wanted) != sorted(units):
        raise _unexpected("holds other files than were asked for")
    return assemble(snapshot, tree, root, [units[path] for path in wanted], policy)


def dump_unit(unit: CompiledUnit) -> bytes:
    """Encode a compiled file for `evocell.store.byte_code.ByteCode.put`."""
    marks = [list(mark) for mark in unit.marks]
    plain = [unit.path, unit.code, list(unit.imports), marks, list(unit.findings)]
    return encode(plain, max_bytes=_MAX_UNIT_BYTES, max_items=1 << 20, max_depth=4)


def load_unit(data: bytes) -> CompiledUnit:
    """Decode a compiled file from the bytes of `dump_unit`.

    Raises:
        ProtocolError: The bytes are malformed.
    """
    return _unit(decode_hostile(data, max_bytes=_MAX_UNIT_BYTES, max_items=1 << 20, max_depth=4))


def _unexpected(what: str) -> ProtocolError:
    return ProtocolError(f"the guest's answer to a compile request {what}")


def _plain_units(plain: list[object]) -> list[CompiledUnit]:
    """Read paths and code of files without imports, marks and findings."""
    paths, codes = plain[::2], plain[1::2]
    units = [
        CompiledUnit(path, code)
        for path, code in zip(paths, codes, strict=False)
        if isinstance(path, str) and isinstance(code, bytes)
    ]
    if 2 * len(units) != len(plain):
        raise _unexpected("holds a file without path or byte code")
    return units


def _unit(plain: object) -> CompiledUnit:
    if not isinstance(plain, list) or len(plain) != 5:  # noqa: PLR2004 - path, code, imports, marks, findings
        raise _unexpected("holds something else where a compiled file should be")
    path, code, imports, marks, findings = plain
    if not isinstance(path, str) or not isinstance(code, bytes):
        raise _unexpected("holds a file without path or byte code")
    if not isinstance(imports, list) or len(imports) > _MAX_IMPORTS or not all(map(_is_name, imports)):
        raise _unexpected("holds an import that is not a name")
    if not isinstance(marks, list) or len(marks) > _MAX_MARKS or not all(map(_is_mark, marks)):
        raise _unexpected("holds a mark that is not a name and a number")
    if not isinstance(findings, list) or len(findings) > _MAX_FINDINGS:
        raise _unexpected("holds no list of findings")
    if not all(isinstance(text, str) for text in findings):
        raise _unexpected("holds a finding that is no text")
    return CompiledUnit(
        path,
        code,
        tuple(sorted(set(imports))),
        tuple((name, number) for name, number in marks),
        tuple(text.replace("\n", " ")[:_MAX_TEXT_CHARS] for text in findings),
    )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME_CHARS and "\n" not in name


def _is_mark(mark: object) -> bool:
    return isinstance(mark, list) and len(mark) == 2 and _is_name(mark[0]) and type(mark[1]) is int  # noqa: PLR2004


def _rejected(response: Mapping[object, object]) -> Rejected:
    kind = response.get("kind")
    message = response.get("message")
    if kind not in get_args(RejectedKind) or not isinstance(message, str):
        raise _unexpected("is a rejection without its kind or message")
    return Rejected(
        cast("RejectedKind", kind),
        message[:_MAX_TEXT_CHARS],
        path=_text(response.get("path")),
        line=_number(response.get("line")),
        column=_number(response.get("column")),
        text=_text(response.get("text")),
    )


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value[:_MAX_TEXT_CHARS] if value else None
    raise _unexpected("holds something else where a text should be")


def _number(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _unexpected("holds something else where a number should be")
