"""Shapes of the compile operation: what a guest is asked, what it answers, what is kept of it.

The guest does the compiling, with its own interpreter, in a fork that runs no variant code; the
execution layer carries the request there and the answer back. Nothing here does any I/O, and the
byte code is never looked into on the host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast, get_args

from attrs import field, frozen

from evocell.code.snapshots import VersionSnapshot
from evocell.code.sources import FileTree
from evocell.errors import ProtocolError
from evocell.models.outcome import Rejected, RejectedKind

#: Changes whenever the same input may compile to other bytes or be stored in another shape.
CODE_FORMAT = 1
_LENGTH_BYTES = 4
_MAX_IMPORTS = 10_000
_MAX_NAME_CHARS = 500
_MAX_TEXT_CHARS = 4_096


@frozen
class CompiledVersion:
    """A version that is ready to be loaded: its files, and byte code for its modules.

    Attributes:
        digest: Digest of the file tree.
        path: Directory of the snapshot, to be mounted at the root it was compiled for.
        code: Byte code that only a guest of the same image can read.
        imports: Top-level modules that its files import, sorted.
    """

    digest: str
    path: Path
    code: bytes = field(repr=False)
    imports: tuple[str, ...] = ()


def code_key(image_id: str, digest: str, root: str, blocked: Iterable[str]) -> str:
    """Return the key that byte code is kept under: a hash of everything that it depends on.

    Args:
        image_id: The image whose interpreter compiled it.
        digest: Digest of the file tree.
        root: Where the tree is mounted.
        blocked: Modules that its files may not import.
    """
    parts = [str(CODE_FORMAT), image_id, digest, root, *sorted(set(blocked))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compile_request(tree: FileTree, root: str, blocked: Iterable[str]) -> dict[str, object]:
    """Return the request that has a guest compile the Python files of a tree.

    Args:
        tree: The files; all but Python files are left out.
        root: Where the tree will be mounted, such as ``/app``; it shows in tracebacks.
        blocked: Modules that the files may not import.
    """
    return {
        "op": "compile",
        "files": [[path, content] for path, content in tree.files if path.endswith(".py")],
        "root": root,
        "blocked": sorted(set(blocked)),
        "optimize": -1,
    }


def read_compile_response(response: object, snapshot: VersionSnapshot) -> CompiledVersion | Rejected:
    """Check and narrow a guest's answer to a compile request.

    Args:
        response: The decoded answer.
        snapshot: The tree that was compiled.

    Raises:
        ProtocolError: It is not an answer to such a request.
    """
    if not isinstance(response, Mapping):
        raise _unexpected("is not a map")
    if response.get("t") == "compiled":
        return _compiled(response, snapshot)
    if response.get("t") == "rejected":
        return _rejected(response)
    raise _unexpected("is neither compiled nor rejected")


def dump_compiled(compiled: CompiledVersion) -> bytes:
    """Return what is kept of a compiled version, for `SnapshotStore.put_code`."""
    names = "\n".join(compiled.imports).encode("utf-8", "surrogatepass")
    return len(names).to_bytes(_LENGTH_BYTES, "big") + names + compiled.code


def load_compiled(data: bytes, snapshot: VersionSnapshot) -> CompiledVersion:
    """Return a compiled version from what `dump_compiled` made of it.

    Raises:
        ProtocolError: The bytes are not of that shape.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    end = _LENGTH_BYTES + length
    if len(data) < end:
        raise _unexpected("was kept with its end cut off")
    try:
        names = data[_LENGTH_BYTES:end].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise _unexpected("was kept with damaged names") from error
    imports = tuple(names.split("\n")) if names else ()
    return CompiledVersion(snapshot.digest, snapshot.path, data[end:], imports)


def _unexpected(what: str) -> ProtocolError:
    return ProtocolError(f"the guest's answer to a compile request {what}")


def _compiled(response: Mapping[object, object], snapshot: VersionSnapshot) -> CompiledVersion:
    code = response.get("code")
    imports = response.get("imports", [])
    if not isinstance(code, bytes):
        raise _unexpected("holds no byte code")
    if not isinstance(imports, list) or len(imports) > _MAX_IMPORTS:
        raise _unexpected("holds no list of imports")
    for name in imports:
        if not isinstance(name, str) or not name or len(name) > _MAX_NAME_CHARS or "\n" in name:
            raise _unexpected("holds an import that is not a name")
    return CompiledVersion(snapshot.digest, snapshot.path, code, tuple(sorted(set(imports))))


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
