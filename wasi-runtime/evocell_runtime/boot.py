"""Boot of an interpreter up to the freeze, one function per step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import wasmtime

from evocell_runtime import membrane
from evocell_runtime.agent_zip import GUEST_PATH
from evocell_runtime.body import Body
from evocell_runtime.calls import CallLimits, CallResult
from evocell_runtime.errors import ImageError
from evocell_runtime.instance import Instance
from evocell_runtime.native import PAGE_BYTES, RawMemory
from evocell_runtime.patches import MEMORY_PATCHES
from evocell_runtime.patches.memory import patch_memory
from evocell_runtime.rewrite import SplitModule
from evocell_runtime.untrusted import GuestBytes

BOOT_STATE = dict.fromkeys(membrane.GLOBALS, 0)
"""Initial values of the membrane's globals."""

BOOT_MEMORY_BYTES = 2 << 30
"""Memory limit of a boot; the frozen image is far smaller."""

_WORD = 4
_LEAST_IMMORTAL = 1 << 30
_MOST_REFERENCES = 1 << 24
_LEAST_OBJECT_BYTES = 16
_MOST_OBJECTS = 1 << 21
_SHOWN_BYTES = 1 << 16
_BOOT_FUEL = 400_000_000_000
_BOOT_SEED = 0x5EED
_BOOT_OPEN_FILES = 256


def membrane_pre(engine: wasmtime.Engine, module: wasmtime.Module) -> wasmtime.InstancePre:
    """Link a membrane with WASI, once for all stores."""
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    return linker.instantiate_pre(module)


def start_interpreter(
    engine: wasmtime.Engine, code: wasmtime.Module, parts: SplitModule, root: Path, empty: Path
) -> Instance:
    """Start a fresh interpreter: fill the memory from the data segments, run `_initialize`.

    Args:
        engine: The engine that compiled `code`.
        code: The compiled interpreter.
        parts: The other parts of the split module.
        root: The guest's `/`.
        empty: An empty directory, for `/app`, `/harness` and `/tmp`.

    Raises:
        ImageError: The interpreter does not start.
    """
    text = membrane.render(parts.imports, pages=parts.min_pages, state=BOOT_STATE)
    module = wasmtime.Module(engine, bytes(wasmtime.wat2wasm(text)))
    directories = (str(root), str(empty), str(empty), str(empty))
    body = Body(engine, membrane_pre(engine, module), code)
    body.furnish(directories, memory_limit_bytes=BOOT_MEMORY_BYTES, scratch=False)
    instance = Instance(body)
    if instance.memory.size_bytes < parts.min_pages * PAGE_BYTES:
        instance.close()
        msg = "the interpreter's memory is smaller than its data"
        raise ImageError(msg)
    for segment in parts.segments:
        instance.memory.write(segment.offset, segment.data)
    instance.initialize()
    patch_memory(instance.memory, MEMORY_PATCHES, "started")
    return instance


def load_agent(instance: Instance, warm: tuple[str, ...], layers: tuple[str, ...]) -> None:
    """Import the agent and the warm set, so that every fork starts with them.

    Args:
        instance: A started interpreter.
        warm: Modules to import, in order.
        layers: Guest paths of zip files to put on the path first.

    Raises:
        ImageError: An import failed; the guest's own traceback is in the message.
    """
    text = (
        "import sys\n"
        f"sys.path[:0] = [{('/' + GUEST_PATH)!r}]\n"
        f"sys.path += {json.dumps(list(layers))}\n"
        "from evocell_guest.boot import boot\n"
        f"boot({json.dumps(list(warm))})\n"
    )
    result = _run(instance, text.encode())
    if not result.returned or result.status:
        shown = (result.stderr or result.stdout).text(_SHOWN_BYTES).strip()
        why = shown.splitlines()[-1] if shown else f"it ended with {result.trap or 'no message'}"
        msg = f"the image could not be warmed: {why}"
        error = ImageError(msg)
        error.add_note(shown)
        raise error
    make_immortal(instance.memory, result.response)
    _run(instance, b"import evocell_guest.agent as agent; agent.hold(b'')\ndel agent\n")
    patch_memory(instance.memory, MEMORY_PATCHES, "warmed")


def make_immortal(memory: RawMemory, addresses: GuestBytes | None, *, strict: bool = True) -> int:
    """Set objects' reference counts to that of an immortal one, so that reading them dirties no page.

    Args:
        memory: The memory of the idle guest.
        addresses: The value of `evocell_guest.immortal.lasting_objects`: `None` first. Addresses beyond the
            number of objects that fit into the memory, or beyond 2,097,152, are ignored.
        strict: Whether an anomaly is an error, as during a build; otherwise anomalous objects are skipped:
            a guest that was tampered with harms only itself.

    Returns:
        The number of changed objects.

    Raises:
        ImageError: An address or a count is impossible for such an object.
    """
    size = memory.size_bytes
    most = min(size // _LEAST_OBJECT_BYTES, _MOST_OBJECTS) + 1
    listed = _words(b"" if addresses is None else addresses.unchecked(), most)
    if not listed:
        return 0
    words = memory.words()
    none = listed[0]
    immortal = words[none // _WORD] if not none % _WORD and none + _WORD <= size else 0
    if immortal < _LEAST_IMMORTAL:
        if not strict:
            return 0
        msg = f"None has a reference count of {immortal} in the guest, which is not an immortal one"
        raise ImageError(msg)
    changed = 0
    for address in listed[1:]:
        if address % _WORD or address + _WORD > size:
            if not strict:
                continue
            msg = f"the guest named an object at {address}, which cannot be one"
            raise ImageError(msg)
        references = words[address // _WORD]
        if not 0 < references < _MOST_REFERENCES:
            # An object listed twice is already immortal.
            if references >= _LEAST_IMMORTAL or not strict:
                continue
            msg = f"the object at {address} has {references} references, which cannot be"
            raise ImageError(msg)
        words[address // _WORD] = immortal
        changed += 1
    return changed


def _words(data: bytes, most: int) -> memoryview[int]:
    """Return the first 32-bit numbers in bytes, without copying."""
    if sys.byteorder != "little":  # pragma: no cover - wasmtime maps the guest's memory as it is
        raise ImageError("images can be made on little-endian machines only")
    count = min(len(data) // _WORD, most)
    return memoryview(data)[: count * _WORD].cast("I")


def _run(instance: Instance, program: bytes) -> CallResult:
    limits = CallLimits(fuel=_BOOT_FUEL, open_files=_BOOT_OPEN_FILES)
    call = instance.start(program, b"", limits, seed=_BOOT_SEED)
    while not call.poll():
        pass
    return call.finish()
