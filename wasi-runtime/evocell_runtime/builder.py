"""Builds an image in a process of its own, which can be killed at any moment.

Run as `python -m evocell_runtime.builder` with a JSON request on standard input; it answers with
one JSON line a step, and at the end `{"image_id": ...}` or `{"error": ...}`. It is started by
`evocell_runtime.build`, which holds the cache's lock, and dies with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import wasmtime
from attrs import asdict

from evocell_runtime import agent_zip, artifacts
from evocell_runtime.boot import load_agent, start_interpreter
from evocell_runtime.cache import (
    CODE_FILE,
    CODE_RECORD,
    IMPORTS_FILE,
    MEMBRANE_FILE,
    FileRecord,
    ImageCache,
    ImageManifest,
    record_of,
)
from evocell_runtime.errors import ImageError
from evocell_runtime.metering.module import Landmarks, find_landmarks, metered
from evocell_runtime.native import PAGE_BYTES, new_engine
from evocell_runtime.parent import die_with_parent
from evocell_runtime.patches import CODE_PATCHES, NAMES
from evocell_runtime.patches.layer import apply_patches
from evocell_runtime.rehearsal import find_hot_pages
from evocell_runtime.rewrite import SplitModule, split
from evocell_runtime.snapshot import freeze, membrane_module
from evocell_runtime.spec import ImageSpec, cpu_features, read_layer
from evocell_runtime.state_check import check_state
from evocell_runtime.unmetered import compile_unmetered

STEPS = ("check", "split", "compile", "assemble", "warm", "freeze", "seal")
"""The steps in order, as they are reported."""


def build(spec: ImageSpec, cache: ImageCache, report: Callable[[str], None]) -> str:
    """Build the specified image, whether or not it exists already.

    Args:
        spec: The specification of the image.
        cache: The image cache.
        report: Called with the name of each step as it begins.

    Returns:
        The image's id.

    Raises:
        ImageError: It cannot be built.
    """
    begun = time.monotonic()
    report("check")
    found = artifacts.locate()
    wasm = artifacts.read_checked(found.wasm)
    stdlib = artifacts.read_checked(found.stdlib_zip)
    report("split")
    wasm = apply_patches(wasm, CODE_PATCHES)
    parts = split(wasm)
    landmarks = find_landmarks(wasm)
    del wasm
    engine = new_engine(portable=spec.portable)
    code_key, image_id = spec.code_key(), spec.image_id()
    report("compile")
    code, record = compiled_interpreter(engine, parts, landmarks, cache, spec)
    with cache.new_directory(cache.image_dir(image_id), image_id=image_id) as folder:
        report("assemble")
        layers = assemble_root(folder, stdlib, spec)
        report("warm")
        instance = start_interpreter(engine, code, parts, folder / "root", folder / "empty")
        load_agent(instance, spec.warm, layers)
        report("freeze")
        snapshot = freeze(instance)
        instance.close()
        report("seal")
        module = wasmtime.Module(engine, membrane_module(parts.imports, snapshot))
        (folder / MEMBRANE_FILE).write_bytes(module.serialize())
        hot = find_hot_pages(engine, code, folder, memory_bytes=snapshot.pages * PAGE_BYTES)
        (folder / IMPORTS_FILE).write_text(
            json.dumps([asdict(function) for function in parts.imports]), encoding="utf-8"
        )
        files = {
            str(path.relative_to(folder)): record_of(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        cache.write_manifest(
            folder,
            ImageManifest(
                image_id=image_id,
                code_key=code_key,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                wasmtime=version("wasmtime"),
                python=artifacts.GUEST_PYTHON,
                warm=spec.warm,
                portable=spec.portable,
                patches=NAMES,
                layers=tuple(path.name for path in spec.layers),
                memory_bytes=snapshot.pages * PAGE_BYTES,
                code_bytes=record.size,
                snapshot_bytes=len(snapshot.data),
                snapshot_sha256=snapshot.sha256,
                build_s=round(time.monotonic() - begun, 1),
                cpu=cpu_features(),
                hot_pages=tuple((run.offset, run.size) for run in hot),
                files={CODE_FILE: record, **files},
            ),
        )
    return image_id


def compiled_interpreter(
    engine: wasmtime.Engine, parts: SplitModule, landmarks: Landmarks, cache: ImageCache, spec: ImageSpec
) -> tuple[wasmtime.Module, FileRecord]:
    """Return the compiled interpreter, from the cache if it is intact, else compiled.

    Raises:
        ImageError: It does not compile, or may keep state outside its memory.
    """
    folder = cache.code_dir(spec.code_key())
    path = folder / CODE_FILE
    try:
        record = FileRecord(**json.loads((folder / CODE_RECORD).read_text(encoding="utf-8")))
        if record_of(path) == record:
            return wasmtime.Module.deserialize_file(engine, str(path)), record
    except (OSError, ValueError, TypeError, RecursionError, wasmtime.WasmtimeError):
        pass  # absent or damaged: rebuilt below
    check_state(parts.code)
    try:
        native = compile_unmetered(metered(parts, landmarks), portable=spec.portable)
    except wasmtime.WasmtimeError as e:
        msg = f"the interpreter does not compile: {e}"
        raise ImageError(msg) from e
    with cache.new_directory(folder) as made:
        (made / CODE_FILE).write_bytes(native)
        record = record_of(made / CODE_FILE)
        (made / CODE_RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")
    del native
    return wasmtime.Module.deserialize_file(engine, str(path)), record


def assemble_root(folder: Path, stdlib: bytes, spec: ImageSpec) -> tuple[str, ...]:
    """Create the guest's `/` and the empty directory.

    Returns:
        Guest paths of the layers, in order.
    """
    root = folder / "root"
    (folder / "empty").mkdir(mode=0o700)
    members = {artifacts.STDLIB_GUEST_PATH: stdlib, agent_zip.GUEST_PATH: agent_zip.build(), "dev/null": b""}
    members["usr/local/bin/python.wasm"] = b""  # `sys.executable`, which `platform` reads
    members.update(artifacts.unpacked_data(stdlib))
    layers = {f"evocell/layers/{n:03}.zip": read_layer(path) for n, path in enumerate(spec.layers)}
    for name, data in {**members, **layers}.items():
        path = root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
    return tuple(f"/{name}" for name in layers)


def main() -> int:
    """Serve one request; see the module's docstring."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    request = json.loads(sys.stdin.readline())

    def say(**line: str) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    cache = ImageCache(Path(request["root"]))
    spec = ImageSpec(warm=request["warm"], layers=request["layers"], portable=request["portable"])
    try:
        say(image_id=build(spec, cache, lambda step: say(step=step)))
    except ImageError as e:
        say(error=str(e))
        return 1
    except OSError as e:
        free = shutil.disk_usage(cache.root).free
        say(error=f"the image cannot be written: {e.strerror} ({free >> 20} MB are free in {cache.root})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
