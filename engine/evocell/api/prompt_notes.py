"""Prompt text that describes the guest's Python to the author of code for it."""

from __future__ import annotations

from collections.abc import Mapping

from evocell.config import Config

__all__ = ["guest_notes"]

_VIRTUAL = (
    "The clock is virtual: it starts at a fixed instant, and sleeping returns at once. "
    "Random sources are seeded."
)
_CLOCK = {
    "deterministic": _VIRTUAL,
    "portable": _VIRTUAL,
    "realtime": "The clock is real; sleeping counts towards the time limit.",
}


_MISSING = (
    "The accelerator of decimal is missing, so Decimal is 40 to 90 times slower than elsewhere: use float, "
    "int or fractions where they do. ctypes, ssl, mmap of files, compression.zstd and curses are missing."
)
_DEPTH = "Recursion may go 1,000 levels deep, or thousands after sys.setrecursionlimit."


def _files(scratch_bytes: int) -> str:
    if scratch_bytes:
        return (
            "The program's own files are in the working directory and read-only; what it writes there by a "
            f"relative name, or in /tmp, is kept for the call, up to {scratch_bytes >> 10} KiB."
        )
    own = "The program's own files are in the working directory, read-only"
    return f"{own}; nothing can be written but to /dev/null."


def guest_notes(info: Mapping[str, object], config: Config) -> str:
    """Describe the guest for the author, a person or a model, of code that runs in it.

    Args:
        info: The guest's report: ``python``, ``packages`` and ``warm``.
        config: The engine's settings.

    Returns:
        A few lines of text, the same for the same image and settings.
    """
    packages = info.get("packages")
    listed = ""
    if isinstance(packages, Mapping):
        listed = ", ".join(f"{name} {version}".strip() for name, version in sorted(packages.items()))
    limits = config.limits()
    lines = [
        f"The code runs in CPython {info.get('python', '3')} compiled to WebAssembly.",
        f"Packages besides the standard library: {listed or 'none'}.",
        "There are no threads, subprocesses, signals or network: use workers=1 and n_jobs=1. asyncio runs.",
        _files(limits.scratch_bytes),
        _MISSING,
        _CLOCK[config.profile],
        (
            f"A call may do {limits.fuel:,} units of work, take {limits.memory_bytes >> 20} "
            f"MiB of memory, run {limits.timeout_s:g} s, and print {limits.output_bytes >> 10} KiB."
        ),
        (
            "Arguments and results are plain data: None, bool, int, float, complex, str, bytes, list, tuple, "
            "dict, set, and numpy arrays of numbers."
        ),
    ]
    lines.append(_DEPTH)
    if config.blocked_modules:
        blocked = ", ".join(config.blocked_modules)
        lines.append(f"These modules may not be imported, which raises ImportError: {blocked}.")
    return "\n".join(lines)
