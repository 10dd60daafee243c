"""Requests about copies of sessions, between an engine and its worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evocell.errors import ProtocolError
from evocell.execution.messages import CopyRefused, GuestRequest, Host, ImageRefused

__all__ = [
    "COPYING",
    "EXPORT_IMAGE",
    "EXPORT_SESSION",
    "FORK",
    "FREEZE",
    "IMPORT_IMAGE",
    "IMPORT_SESSION",
    "answer_copying",
]

FORK, FREEZE = "fork_session", "freeze_session"
EXPORT_SESSION, IMPORT_SESSION = "export_session", "import_session"
EXPORT_IMAGE, IMPORT_IMAGE = "export_image", "import_image"

COPYING = frozenset({FORK, FREEZE, EXPORT_SESSION, IMPORT_SESSION, EXPORT_IMAGE, IMPORT_IMAGE})
"""Methods of these requests."""


async def answer_copying(host: Host, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Handle a copying request on the worker's side; a refusal is a regular answer."""
    try:
        if method == FORK:
            return {"done": await host.fork_session(params["session"], params["new"])}
        if method == FREEZE:
            request = GuestRequest.from_wire(params["run"], _not_here)
            name, replace, version = params["name"], params["replace"], params["version"]
            return {"done": await host.freeze_session(request, name=name, replace=replace, version=version)}
        if method == EXPORT_SESSION:
            return {"done": await host.export_session(params["session"])}
        if method == IMPORT_SESSION:
            await host.import_session(params["session"], params["state"])
            return {"done": None}
        if method == EXPORT_IMAGE:
            return {"done": await host.export_image(params["image"], Path(params["path"]))}
        if method == IMPORT_IMAGE:
            path, name, replace = Path(params["path"]), params["name"], params["replace"]
            return {"done": await host.import_image(path, name=name, replace=replace)}
    except CopyRefused as refusal:
        return {"refused": str(refusal), "image": isinstance(refusal, ImageRefused)}
    raise ProtocolError(f"there is no request {method!r}")


def _not_here(name: str) -> bytes:
    raise ProtocolError(f"a request about a copy refers to {name}, which it should hold")
