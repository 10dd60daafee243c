"""Specification of an image, and the keys of images and compiled interpreters."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from attrs import field, frozen

from evocell_runtime import agent_zip, artifacts, patches
from evocell_runtime.errors import ImageError
from evocell_runtime.membrane import COSTS, ENVIRONMENT
from evocell_runtime.metering import metering_key
from evocell_runtime.warm import DEFAULT_WARM

FORMAT = 1
"""Bump when an image's contents change in a way that no other input of its key reflects."""

LAYOUT = 4
"""Bump when the files or the manifest of an image change shape."""

ENGINE_SETTINGS = "metered;relaxed_simd=0;exceptions;wasm_stack=64M;fiber_stack=72M"
"""The engine's settings (`native.new_engine`) that affect compiled code."""

PORTABLE_SETTINGS = ";nan_canonicalization"
"""Additional settings of a portable image."""

_CPU_INFO = Path("/proc/cpuinfo")


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _paths(values: Iterable[str | Path]) -> tuple[Path, ...]:
    return tuple(Path(value) for value in values)


@frozen(kw_only=True)
class ImageSpec:
    """Specification of an image.

    Attributes:
        warm: Modules imported before the freeze, in order.
        layers: Zip files of pure-Python packages, put on the guest's path in order.
        portable: Whether NaNs are canonicalised, the same on every processor; such an image has its own
            compiled interpreter, which is slower at arithmetic on floats.
    """

    warm: tuple[str, ...] = field(default=DEFAULT_WARM, converter=_names)
    layers: tuple[Path, ...] = field(default=(), converter=_paths)
    portable: bool = False

    def code_key(self, cpu: str | None = None) -> str:
        """Return the key of the compiled interpreter, which is independent of `warm` and `layers`.

        Args:
            cpu: `cpu_features` of the processor it is for; None for this one's.
        """
        return digest_of(
            {
                "format": FORMAT,
                "artifacts": artifacts.KEY,
                "patches": patches.CODE_KEY,
                "wasmtime": version("wasmtime"),
                "metering": metering_key(),
                "settings": ENGINE_SETTINGS + (PORTABLE_SETTINGS if self.portable else ""),
                "cpu": cpu_features() if cpu is None else cpu,
            }
        )

    def image_id(self, cpu: str | None = None) -> str:
        """Return the id of the image: a hash over all inputs.

        Args:
            cpu: `cpu_features` of the processor it is for; None for this one's.

        Raises:
            ImageError: A layer cannot be read.
        """
        return digest_of(
            {
                "code": self.code_key(cpu),
                "layout": LAYOUT,
                "patches": patches.KEY,
                "membrane": _textdigest_of("membrane.wat"),
                "costs": dict(COSTS),
                "environment": ENVIRONMENT,
                "agent": hashlib.sha256(agent_zip.build()).hexdigest(),
                "warm": list(self.warm),
                "layers": [hashlib.sha256(read_layer(path)).hexdigest() for path in self.layers],
            }
        )


def derived_id(code_key: str, parent: str, version: str | None, snapshot_sha256: str) -> str:
    """Return the id of an image frozen from a sandbox: a hash over parent, code and snapshot."""
    return digest_of(
        {
            "code": code_key,
            "layout": LAYOUT,
            "parent": parent,
            "version": version,
            "snapshot": snapshot_sha256,
        }
    )


def read_layer(path: Path) -> bytes:
    """Return a layer's bytes.

    Raises:
        ImageError: It cannot be read or is not a zip file.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        msg = f"the layer {path} cannot be read: {e.strerror}"
        raise ImageError(msg) from e
    if data[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
        msg = f"the layer {path} is not a zip file"
        raise ImageError(msg)
    return data


def cpu_features() -> str:
    """Return a hash of this processor's instruction sets, which compiled code depends on."""
    flags = ""
    try:
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = " ".join(sorted(line.split(":", 1)[1].split()))
                break
    except OSError:
        flags = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:16]}"


def _textdigest_of(name: str) -> str:
    return hashlib.sha256(files(__package__).joinpath(name).read_bytes()).hexdigest()


def digest_of(parts: object) -> str:
    """Return a short hash of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
