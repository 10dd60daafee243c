"""Information about images and workers."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from attrs import frozen

from evocell.errors import ConfigurationError

__all__ = ["ImageInfo", "WorkerInfo", "WorkerKill", "WorkerStatus", "check_image_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_ID = re.compile(r"[0-9a-f]{32}\Z")


@frozen(kw_only=True)
class ImageInfo:
    """An image: an interpreter with imported modules or, if made by `freeze`, a sandbox's state.

    Attributes:
        id: Hash over all inputs of the image.
        name: The name by which it was found; None if it was found by its id.
        parent_id: For an image made by `freeze`, the image of its sandbox.
        version: For such an image, the digest of the code loaded in it.
        created_at: When it was built or frozen, ISO 8601 in UTC.
        memory_bytes: Size of a guest's memory at its start, shared until written to.
        snapshot_bytes: Bytes of it on disk, without unused memory.
        snapshot_sha256: Hash of the memory and the guest's state.
        python: The guest's Python version.
    """

    id: str
    name: str | None = None
    parent_id: str | None = None
    version: str | None = None
    created_at: str
    memory_bytes: int
    snapshot_bytes: int
    snapshot_sha256: str
    python: str


def check_image_name(name: object) -> str:
    """Return a valid image name.

    Raises:
        ConfigurationError: The name is invalid.
    """
    if not isinstance(name, str) or not _NAME.match(name) or _ID.match(name):
        raise ConfigurationError(
            f"an image cannot be named {name!r:.120}; use 1 to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit",
            "name",
        )
    return name


WorkerStatus: TypeAlias = Literal["starting", "up", "draining", "refused"]


@frozen(kw_only=True)
class WorkerInfo:
    """State of one worker, or of a node of a cluster, at one moment.

    Attributes:
        name: The name of its slot; the process in it changes.
        pid: Process id, on its machine; None while there is no process, or it has not started.
        status: ``"up"`` accepts calls; ``"starting"`` is not ready yet, or waits for a restart;
            ``"draining"`` still accepts calls while its successor starts; ``"refused"`` is a node that
            gets no calls for the reason in `problem`.
        sessions: Number of sandboxes with a session in it.
        calls: Number of calls in it, waiting or running.
        finished: Number of calls finished in this process.
        restarts: Number of replacements of the process.
        capacity: Most sandboxes with a session in it, if none has much data of its own; None while there is
            no process.
        node: Address of the node; None for a process of this machine.
        processes: Guest processes of the node; None for a process of this machine, or if it has not joined.
        problem: Why a node is refused, in a sentence.
        memory_bytes: Memory of a node's guest processes, as last reported; None for a process of this
            machine, which can be inspected directly.
        cpu_s: Processor seconds of these processes, likewise.
    """

    name: str
    pid: int | None
    status: WorkerStatus
    sessions: int = 0
    calls: int = 0
    finished: int = 0
    restarts: int = 0
    capacity: int | None = None
    node: str | None = None
    processes: int | None = None
    problem: str | None = None
    memory_bytes: int | None = None
    cpu_s: float | None = None


@frozen(kw_only=True)
class WorkerKill:
    """A worker process that was killed for its memory.

    Attributes:
        worker: Its name.
        limit: Bytes of memory that it was allowed.
        reached: Bytes that it held.
        sandbox_ids: Sandboxes with calls under way in it.
    """

    worker: str
    limit: int
    reached: int
    sandbox_ids: tuple[str, ...] = ()
