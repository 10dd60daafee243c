"""Information about images and about workers."""

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
    """An image: an interpreter with imported modules; for one made by `freeze`, the state of a sandbox.

    Attributes:
        id: Hash over everything that went into it.
        name: The name it was asked for by; None if that was its id.
        parent_id: For an image made by `freeze`, the one its sandbox had started from.
        version: For such an image, the digest of the code that is loaded in it.
        created_at: When it was built or frozen, ISO 8601 in UTC.
        memory_bytes: Size of a guest's memory at its start, shared until written to.
        snapshot_bytes: How much of that is used, as it lies on disk.
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
    """Return a name that an image can go by.

    Raises:
        ConfigurationError: It cannot be one.
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
    """The state of one worker, or of a node of a cluster, at one moment.

    Attributes:
        name: The name of its place; the process in it changes.
        pid: The process, on the machine that it runs on; None while there is none, or it has not started.
        status: ``"up"`` takes calls; ``"starting"`` is not ready yet, or waits to be started again;
            ``"draining"`` takes calls as well, and its successor is on the way; ``"refused"`` is a node that
            gets no calls, for what `problem` says.
        sessions: Sandboxes that keep their state in it.
        calls: Calls that are in it now, waiting or running.
        finished: Calls that came to an end in this process.
        restarts: How often the process was replaced by another.
        capacity: How many sandboxes can keep their state in it, if none has much data of its own; None while
            there is no process.
        node: Address of the node; None for a process of this machine.
        processes: Guest processes of the node; None for a process of this machine, or if it has not joined.
        problem: Why a node is refused, in a sentence.
        memory_bytes: Memory that the guest processes of a node hold, as it said lately; None for a process of
            this machine, which can be looked at.
        cpu_s: Processor seconds that they used, likewise.
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
    """A worker process that was killed for the memory that it held.

    Attributes:
        worker: Its name.
        limit: Bytes of memory that it may hold.
        reached: Bytes that it held.
        sandbox_ids: Whose calls were under way in it.
    """

    worker: str
    limit: int
    reached: int
    sandbox_ids: tuple[str, ...] = ()
