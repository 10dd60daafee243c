"""Hard limits of one call into a sandbox."""

from __future__ import annotations

import math
from typing import Any, TypedDict

from attrs import Attribute, evolve, field, fields, frozen

from evocell.errors import ConfigurationError

#: The capture buffer for stdout and stderr is part of the image, so it cannot be larger.
MAX_OUTPUT_BYTES = 1 << 20
#: A 32-bit WebAssembly memory cannot be larger, image included.
MAX_MEMORY_BYTES = 4 << 30
#: The guest's decoder and encoder recurse; deeper values would exceed its recursion limit.
MAX_PAYLOAD_DEPTH = 128
#: Listing and removing a scratch directory costs the host time per file.
MAX_SCRATCH_FILES = 1_000_000
#: Removing a scratch directory recurses on the host.
MAX_SCRATCH_DEPTH = 64

#: Each is a separate guest, whose memory the host must provide.
MAX_PROCESSES = 64

_MAX_INT = (1 << 63) - 1
_MAY_BE_NONE = frozenset({"scratch_bytes", "processes"})
_UPPER_BOUNDS = {
    "output_bytes": MAX_OUTPUT_BYTES,
    "memory_bytes": MAX_MEMORY_BYTES,
    "payload_depth": MAX_PAYLOAD_DEPTH,
    "scratch_files": MAX_SCRATCH_FILES,
    "scratch_depth": MAX_SCRATCH_DEPTH,
    "processes": MAX_PROCESSES,
}


def _whole(_: object, attribute: Attribute[int], value: object) -> None:
    """Refuse anything but an integer between the field's bounds."""
    name = attribute.name
    lowest = 0 if name in _MAY_BE_NONE else 1
    highest = _UPPER_BOUNDS.get(name, _MAX_INT)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"limits: {name} must be a whole number, not {value!r}", f"limits.{name}")
    if not lowest <= value <= highest:
        raise ConfigurationError(
            f"limits: {name} must be between {lowest:,} and {highest:,}, not {value:,}",
            f"limits.{name}",
        )


def _as_float(value: float) -> float:
    """Convert an integer, so that equal limits have one JSON."""
    return float(value) if type(value) is int else value


def _seconds(_: object, attribute: Attribute[float], value: object) -> None:
    """Refuse anything but a positive finite number of seconds."""
    name = attribute.name
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type,operator]
        raise ConfigurationError(
            f"limits: {name} must be a finite number of seconds above 0, not {value!r}",
            f"limits.{name}",
        )


class Bounds(TypedDict):
    """Keyword arguments that bound encoding and decoding.

    Attributes:
        max_bytes: Most bytes of the message.
        max_items: Most elements, all levels together.
        max_depth: Most levels of nesting.
    """

    max_bytes: int
    max_items: int
    max_depth: int


@frozen(kw_only=True, cache_hash=True)  # they are a key of caches, several times a call
class Limits:
    """Limits of one call.

    Attributes:
        fuel: Units of work, about ten a nanosecond, host calls included; the default is about 10 s of work.
        memory_bytes: Growth of the guest's memory above the image.
        timeout_s: Seconds of run time of the call itself, as a backstop to ``fuel``; waiting in queues
            does not count.
        output_bytes: Bytes written to stdout and stderr together, at most 1 MiB.
        payload_bytes: Bytes of the encoded arguments, and again of the encoded result.
        payload_items: Elements in the arguments, and again in the result, all levels together.
        payload_depth: Levels of nesting in the arguments, and again in the result.
        open_files: Files and directories the guest may have open at once.
        scratch_bytes: Bytes of writable ``/tmp``; 0 leaves it read-only and empty. Files count in units of
            4 KiB, including holes, each file and directory counts another 4 KiB, and files left by
            earlier calls of a session count.
        scratch_files: Files and directories in ``/tmp``.
        scratch_file_bytes: Size of the largest file in ``/tmp``; a write beyond it is an ``OSError``.
        scratch_depth: Names in a path below ``/tmp``; a longer one is an ``OSError``.
        processes: Concurrent child processes of a call, at most 64; 0 for none. Each is a guest of its own
            with the other limits for itself, but shares the call's fuel, files and time. They require the
            stand-ins for `subprocess` and `multiprocessing` in the harness; see
            ``evocell.integrations.stand_ins``.

    Raises:
        ConfigurationError: A limit has a wrong type or is out of range.
    """

    fuel: int = field(default=100_000_000_000, validator=_whole)
    memory_bytes: int = field(default=128 << 20, validator=_whole)
    timeout_s: float = field(default=300.0, converter=_as_float, validator=_seconds)
    output_bytes: int = field(default=1 << 20, validator=_whole)
    payload_bytes: int = field(default=16 << 20, validator=_whole)
    payload_items: int = field(default=1_000_000, validator=_whole)
    payload_depth: int = field(default=64, validator=_whole)
    open_files: int = field(default=64, validator=_whole)
    scratch_bytes: int = field(default=0, validator=_whole)
    scratch_files: int = field(default=1_000, validator=_whole)
    scratch_file_bytes: int = field(default=1 << 30, validator=_whole)
    scratch_depth: int = field(default=16, validator=_whole)
    processes: int = field(default=0, validator=_whole)

    @property
    def payload_bounds(self) -> Bounds:
        """The bounds of arguments, and likewise of a result, as arguments for encoding and decoding."""
        return {
            "max_bytes": self.payload_bytes,
            "max_items": self.payload_items,
            "max_depth": self.payload_depth,
        }

    def evolve(self, **changes: Any) -> Limits:
        """Return a copy with some limits changed.

        Args:
            **changes: New values by the names of the attributes.

        Raises:
            ConfigurationError: There is no such limit, or its value is invalid.
        """
        known = [attribute.name for attribute in fields(Limits)]
        for name in changes:
            if name not in known:
                raise ConfigurationError(
                    f"there is no limit named {name!r}; there are {', '.join(known)}",
                    f"limits.{name}",
                )
        return evolve(self, **changes)


def check_limits(limits: object, what: str = "limits") -> Limits | None:
    """Return limits, or None for the defaults.

    Args:
        limits: The limits.
        what: Name of the argument.

    Raises:
        ConfigurationError: It is something else.
    """
    if limits is not None and not isinstance(limits, Limits):
        raise ConfigurationError(f"{what} must be an evocell.Limits, not {type(limits).__name__}", what)
    return limits


def optional_limits(_: object, attribute: Attribute[Limits | None], value: object) -> None:
    """Validate, for attrs, that a value is limits or None."""
    check_limits(value, attribute.name)
