"""Get an image from the cache, or build it in a supervised process."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import psutil
from attrs import frozen

from evocell_runtime.cache import ImageCache, ImageManifest
from evocell_runtime.errors import ImageError
from evocell_runtime.spec import ImageSpec

COMPILE_CORE_S = 200.0
"""Processor time of the compilation, in seconds. Source: 93-131 s on two cores, 2026."""

COMPILE_MEMORY_BYTES = 2_800_000_000
"""Peak memory of the compilation. Source: 2.63 GB measured."""

BUILD_DISK_BYTES = 480 << 20
REBUILD_DISK_BYTES = 340 << 20
"""Disk a build needs, with and without the compiled interpreter: that of the largest image with packages."""

_TICK_S = 0.25
_OTHER_STEPS_S = {"check": 1.0, "split": 2.0, "assemble": 0.5, "warm": 4.0, "freeze": 1.0, "seal": 3.0}
_LINE_BYTES = 1 << 16


@frozen
class BuildProgress:
    """Progress of a build.

    Attributes:
        step: The current step.
        steps_done: Number of completed steps.
        steps_total: Total number of steps.
        fraction: Elapsed fraction of the estimated time, from 0 to 1.
        elapsed_s: Seconds since the build began.
        eta_s: Estimated remaining seconds; None if unknown.
    """

    step: str
    steps_done: int
    steps_total: int
    fraction: float
    elapsed_s: float
    eta_s: float | None


Progress = Callable[[BuildProgress], None]


def build_image(
    spec: ImageSpec, cache: ImageCache, progress: Progress | None = None, *, force: bool = False
) -> ImageManifest:
    """Return the specified image from the cache, or build it. Blocks.

    Safe when several processes ask at once: one builds, the others wait and then use its work. Images of an
    interpreter that is compiled already are built without waiting for a compilation.
    A damaged image is built again. Killing this process kills the build and leaves nothing behind
    that a later build does not sweep up.

    Args:
        spec: The specification of the image.
        cache: The image cache.
        progress: Called some four times a second during the wait.
        force: Build even if the cache has an intact one.

    Raises:
        ImageError: It cannot be built, or disk space or memory is insufficient.
    """
    cache.prepare()
    image_id = spec.image_id()
    if not force and (manifest := _sound(cache, image_id)) is not None:
        return manifest
    code = cache.code_dir(spec.code_key())
    with ExitStack() as locks:
        if not _has_code(code):  # only that takes long; other builds do not wait for it
            locks.enter_context(cache.lock(_waiting(progress)))
            cache.sweep()
        locks.enter_context(cache.lock(_waiting(progress), image_id=image_id))
        if not force and (manifest := _sound(cache, image_id)) is not None:
            return manifest
        cache.sweep_build(image_id)
        compile_needed = not _has_code(code)
        _require_room(cache, compile_needed=compile_needed)
        _run_builder(spec, cache, progress, compile_needed=compile_needed)
        manifest = _sound(cache, image_id)
    if manifest is None:
        msg = f"the image {image_id} was built but is not sound; look at {cache.root}"
        raise ImageError(msg)
    return manifest


def _sound(cache: ImageCache, image_id: str) -> ImageManifest | None:
    manifest = cache.get(image_id)
    return manifest if manifest is not None and not cache.check(manifest) else None


def _has_code(folder: Path) -> bool:
    """Return whether an apparently intact compiled interpreter exists; the builder also checks its hash."""
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        return bool((folder / "interpreter.cwasm").stat().st_size == record["size"])
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _waiting(progress: Progress | None) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda waited_s: progress(
        BuildProgress("another process is building; waiting", 0, len(_STEP_TEXT), 0.0, waited_s, None)
    )


def _require_room(cache: ImageCache, *, compile_needed: bool) -> None:
    need = BUILD_DISK_BYTES if compile_needed else REBUILD_DISK_BYTES
    free = shutil.disk_usage(cache.root).free
    if free < need:
        msg = (
            f"building the image takes {need >> 20} MB of disk and {cache.root} has {free >> 20} MB left; "
            "free some, or set EVOCELL_CACHE_DIR to a directory on a larger disk"
        )
        raise ImageError(msg)
    available = psutil.virtual_memory().available
    if compile_needed and available < COMPILE_MEMORY_BYTES:
        msg = (
            f"compiling the interpreter takes {COMPILE_MEMORY_BYTES / 1e9:.1f} GB of memory, once, and "
            f"{available / 1e9:.1f} GB are available; close other programs, or copy the image cache from "
            "a machine with the same processor"
        )
        raise ImageError(msg)


_STEP_TEXT = {
    "check": "checking the interpreter's files",
    "split": "separating code from memory",
    "compile": "compiling the interpreter to native code",
    "assemble": "laying out the guest's files",
    "warm": "starting Python and importing the warm set",
    "freeze": "freezing the interpreter",
    "seal": "writing the image",
}


def _run_builder(
    spec: ImageSpec, cache: ImageCache, progress: Progress | None, *, compile_needed: bool
) -> None:
    request = {
        "root": str(cache.root),
        "warm": list(spec.warm),
        "layers": [str(path.absolute()) for path in spec.layers],
        "portable": spec.portable,
    }
    # A file, not a pipe: it is read only at the end, and a full pipe would block the builder.
    with tempfile.TemporaryFile() as errors:
        error, code = _watch(request, _Tracker(progress, compile_needed=compile_needed), errors)
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LINE_BYTES))
        stderr = errors.read().decode(errors="replace")
    if error is not None:
        raise ImageError(error)
    if code is not None:
        raise ImageError(_death(code, stderr))


def _watch(
    request: Mapping[str, object], tracker: _Tracker, errors: IO[bytes]
) -> tuple[str | None, int | None]:
    """Run the builder to its end; return its reported error, and its exit code (None on success)."""
    child = subprocess.Popen(
        [sys.executable, "-m", "evocell_runtime.builder"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    error: str | None = None
    done = False
    try:
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as stdin:  # a builder that died has reported why
            stdin.write(json.dumps(request).encode() + b"\n")
        for line in _lines(child, tracker.tick):
            error = line.get("error", error)
            done = done or "image_id" in line
            if "step" in line:
                tracker.enter(line["step"])
        child.wait()
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    return error, None if done and not child.returncode else child.returncode


def _death(code: int, stderr: str) -> str:
    if code == -9:
        return "the build was killed, most likely for want of memory (it needs some 2.8 GB, once)"
    last = stderr.strip().splitlines()[-1:] or ["it said nothing"]
    return f"the build ended with code {code}: {last[0]}"


def _lines(child: subprocess.Popen[bytes], tick: Callable[[], None]) -> Iterator[dict[str, str]]:
    """Yield the builder's lines as they arrive; `tick` is called in between."""
    assert child.stdout is not None
    descriptor, pending = child.stdout.fileno(), b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], _TICK_S)
        if not ready:
            tick()
            continue
        chunk = os.read(descriptor, _LINE_BYTES)
        if not chunk:
            return
        *whole, pending = (pending + chunk).split(b"\n")
        for raw in whole:
            if raw:
                yield json.loads(raw)


class _Tracker:
    """Estimates the progress from measured durations of the steps."""

    def __init__(self, progress: Progress | None, *, compile_needed: bool) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        seconds = {**_OTHER_STEPS_S, "compile": COMPILE_CORE_S / cores if compile_needed else 1.0}
        self._expected = {step: seconds[step] for step in _STEP_TEXT}
        self._progress = progress
        self._begun = self._step_begun = time.monotonic()
        self._step = "check"

    def enter(self, step: str) -> None:
        """Enter a step."""
        self._step, self._step_begun = step, time.monotonic()
        self.tick()

    def tick(self) -> None:
        """Report the progress."""
        if self._progress is None:
            return
        now = time.monotonic()
        steps = list(self._expected)
        at = steps.index(self._step)
        before = sum(self._expected[s] for s in steps[:at])
        after = sum(self._expected[s] for s in steps[at + 1 :])
        spent, expected = now - self._step_begun, self._expected[self._step]
        # A step past its estimate counts as nine tenths done, so that the bar slows but never stops.
        left = max(expected - spent, spent / 9)
        total = before + spent + left + after
        self._progress(
            BuildProgress(
                step=_STEP_TEXT[self._step],
                steps_done=at,
                steps_total=len(steps),
                fraction=(before + spent) / total,
                elapsed_s=now - self._begun,
                eta_s=left + after,
            )
        )
