"""Export and import of sandboxes as files.

A file holds a sandbox's code as source files, its session's difference from its image, and its metadata.
Byte code and the image are not included: the importing guest compiles the code, and the image must exist
there or have been imported before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from evocell.code.paths import MAX_TOTAL_BYTES
from evocell.code.sources import FileTree
from evocell.errors import ConfigurationError, ProtocolError
from evocell.execution.archive import Archive, pack_tree, read_archive, tree_of, unpack_tree, write_archive
from evocell.execution.messages import SessionCopy
from evocell.models.limits import Limits
from evocell.models.specs import SandboxSpec
from evocell.models.state import SandboxState

__all__ = ["ExportedSandbox", "read_sandbox", "write_sandbox"]

KIND = "sandbox"
_TREE, _PAGES, _RUNS, _SCRATCH = "tree", "pages", "runs", "scratch"
_TREE_BYTES = MAX_TOTAL_BYTES + (8 << 20)
_PAGES_BYTES = 256 << 20
_RUNS_BYTES = 16 << 20
_SCRATCH_BYTES = 256 << 20
_MAX_PARENTS = 64


@frozen(kw_only=True)
class ExportedSandbox:
    """The content of an exported file.

    Attributes:
        spec: Its specification without the code; the id is its former one.
        image_id: Id of the image it starts from, on the exporting machine.
        snapshot_sha256: Hash of that image's snapshot, the same on every machine.
        code_in_image: Whether its code is that of the image.
        tree: Its source files; None if it holds no code, or that of its image.
        session: The state of its session; None if it had none.
    """

    spec: SandboxSpec
    image_id: str
    snapshot_sha256: str
    code_in_image: bool
    tree: FileTree | None = field(repr=False)
    session: SessionCopy | None = field(repr=False)


def write_sandbox(
    path: Path,
    state: SandboxState,
    limits: Limits,
    *,
    image: tuple[str, str],
    code: Path | None,
    code_in_image: bool,
    session: SessionCopy | None,
) -> None:
    """Write a sandbox to a new file. Blocks.

    Args:
        path: The file.
        state: Its state.
        limits: Its limits.
        image: Id and snapshot hash of the image it starts from.
        code: Directory with its source files; None if it has no code.
        code_in_image: Whether they are those of its image, and omitted.
        session: The state of its session; None if it has none.

    Raises:
        ConfigurationError: The file exists already.
        StoreError: It cannot be written.
    """
    facts: dict[str, Any] = {
        "id": state.id,
        "population": state.population,
        "generation": state.generation,
        "parent_ids": list(state.parent_ids),
        "mutation_type": state.mutation_type,
        "limits": asdict(limits),
        "image_id": image[0],
        "snapshot_sha256": image[1],
        "code_in_image": code_in_image,
        "session": None,
    }
    sections: dict[str, bytes] = {}
    if code is not None and not code_in_image:
        sections[_TREE] = pack_tree(tree_of(code))
    if session is not None:
        guest = session.guest
        facts["session"] = {"memory_bytes": guest["memory_bytes"], "state": dict(guest["state"])}
        sections |= {_PAGES: guest["packed"], _RUNS: guest["runs"], _SCRATCH: session.scratch}
    write_archive(path, Archive(KIND, facts, sections))


def read_sandbox(path: Path) -> ExportedSandbox:
    """Read a sandbox from an untrusted file. Blocks.

    Raises:
        ConfigurationError: The file does not exist.
        ProtocolError: It is not an exported sandbox, is damaged or is over a bound; the message says which.
    """
    bounds = {
        _TREE: _TREE_BYTES,
        _PAGES: _PAGES_BYTES,
        _RUNS: _RUNS_BYTES,
        _SCRATCH: _SCRATCH_BYTES,
    }
    archive = read_archive(path, KIND, bounds)
    try:
        return _exported(archive)
    except (AttributeError, ConfigurationError, KeyError, TypeError, ValueError) as error:
        told = error.message if isinstance(error, ConfigurationError) else "it says too little, or nonsense"
        raise ProtocolError(f"{path} is no exported sandbox: {told}") from error


def _exported(archive: Archive) -> ExportedSandbox:
    facts, sections = archive.facts, archive.sections
    parents = facts["parent_ids"]
    if not isinstance(parents, list) or len(parents) > _MAX_PARENTS:
        raise ValueError("parent_ids")
    spec = SandboxSpec(
        facts["id"],
        population=facts["population"],
        generation=facts["generation"],
        parent_ids=tuple(parents),
        mutation_type=facts["mutation_type"],
        limits=Limits(**{str(name): value for name, value in facts["limits"].items()}),
    )
    tree = unpack_tree(sections[_TREE], _TREE_BYTES) if _TREE in sections else None
    return ExportedSandbox(
        spec=spec,
        image_id=_text(facts, "image_id"),
        snapshot_sha256=_text(facts, "snapshot_sha256"),
        code_in_image=facts["code_in_image"] is True,
        tree=tree,
        session=_session(facts["session"], sections),
    )


def _session(facts: Mapping[str, Any] | None, sections: Mapping[str, bytes]) -> SessionCopy | None:
    if facts is None:
        return None
    numbers = {str(name): str(value) for name, value in facts["state"].items()}
    guest = {
        "memory_bytes": int(facts["memory_bytes"]),
        "state": numbers,
        "runs": sections[_RUNS],
        "packed": sections[_PAGES],
    }
    return SessionCopy(guest=guest, scratch=sections[_SCRATCH])


def _text(facts: Mapping[str, Any], key: str) -> str:
    value = facts[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value
