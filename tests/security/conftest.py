"""A probe for the membrane: a guest that is nothing but its 43 imports, each to be called with any arguments."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime
from attrs import field, frozen

from evocell_runtime import artifacts, membrane
from evocell_runtime.body import Body
from evocell_runtime.boot import BOOT_STATE, membrane_pre
from evocell_runtime.instance import Instance
from evocell_runtime.native import AsyncCall, ExportName, RawFunction, new_engine, read_global
from evocell_runtime.rewrite import FunctionImport, split

PAGES = 96
FUEL = 1_000_000_000

IOVS, PATH, OUT, BUF = 0x1000, 0x8000, 0x10000, 0x20000
"""Where tests keep iovecs, paths, results and data in the probe's memory; all below its heap at 1 MiB."""


@frozen(kw_only=True)
class Answer:
    """What a raw call came to: an errno, or a trap's name; and the fuel it took."""

    errno: int | None
    trap: str | None
    fuel: int


@frozen
class Workshop:
    """What probes are made from, once a run."""

    engine: wasmtime.Engine
    imports: tuple[FunctionImport, ...]
    membrane: wasmtime.InstancePre = field(init=False)
    code: wasmtime.Module = field(init=False)

    def __attrs_post_init__(self) -> None:
        text = membrane.render(self.imports, pages=PAGES, state=BOOT_STATE)
        module = wasmtime.Module(self.engine, bytes(wasmtime.wat2wasm(text)))
        object.__setattr__(self, "membrane", membrane_pre(self.engine, module))
        object.__setattr__(self, "code", wasmtime.Module(self.engine, probe_wat(self.imports)))


def probe_wat(imports: tuple[FunctionImport, ...]) -> str:
    """A guest that imports what the interpreter imports and exports a caller for each."""
    declared, callers = [], []
    for number, function in enumerate(imports):
        name, params = function.export_name, " ".join(function.params)
        result = f"(result {' '.join(function.results)})" if function.results else ""
        declared.append(f'(import "evocell" "{name}" (func $f{number} (param {params}) {result}))')
        given = " ".join(f"(local.get {n})" for n in range(len(function.params)))
        callers.append(f'(func (export "call.{name}") (param {params}) {result} (call $f{number} {given}))')
    return f"""(module
      {" ".join(declared)}
      (import "evocell" "memory" (memory {PAGES}))
      {" ".join(callers)}
      (global $fuel (export "evocell.fuel") (mut i64) (i64.const 0))
      (global (export "evocell.pause_at") (mut i64) (i64.const 0))
      (global (export "evocell.slice") (mut i64) (i64.const 0))
      (func (export "evocell.charge") (param $fuel i64) (result i64)
        (global.set $fuel (i64.sub (global.get $fuel) (local.get $fuel)))
        (if (i64.lt_s (global.get $fuel) (i64.const 0)) (then (unreachable)))
        (global.get $fuel))
      (global $top (mut i32) (i32.const 0x100000))
      (func (export "host_alloc") (param $size i32) (result i32)
        (global.get $top)
        (global.set $top (i32.and (i32.const -16)
          (i32.add (global.get $top) (i32.add (local.get $size) (i32.const 15))))))
      (func (export "evocell.signal") (param i32) (result i32) (i32.const 0))
      (func (export "turn") (param i32 i32) (result i32) (i32.const 0))
      (func (export "_initialize")))"""


class Probe:
    """A guest whose imports are called one by one, the way the interpreter would."""

    IOVS, PATH, OUT, BUF, FUEL = IOVS, PATH, OUT, BUF, FUEL
    size_bytes = PAGES << 16

    def __init__(self, workshop: Workshop, root: Path, *, scratch: bool) -> None:
        self.root, self.app, self.harness, self.tmp = (
            root / name for name in ("root", "app", "harness", "tmp")
        )
        places = (self.root, self.app, self.harness, self.tmp)
        for place in places:
            place.mkdir(exist_ok=True)
        self.imports = {f.export_name: f for f in workshop.imports}
        self.body = Body(workshop.engine, workshop.membrane, workshop.code)
        self.body.furnish(
            tuple(str(place) for place in places), memory_limit_bytes=PAGES << 16, scratch=scratch
        )
        self.instance = Instance(self.body)
        self.instance.initialize()
        self.begin()

    def begin(
        self,
        *,
        seed=1,
        realtime=False,
        output=4096,
        open_files=8,
        quota=1 << 20,
        entries=100,
        file_bytes=1 << 30,
        depth=4,
        request=(0, 0),
    ) -> None:
        """Set what holds for one call of the host, as `Instance.start` does."""
        values = (seed, int(realtime), output, open_files, quota, entries, file_bytes, depth, *request, FUEL)
        self.instance._short(self.body.begin, *values)

    # ------------------------------------------------------------------ calls

    def call(
        self, name: str, *args: int, fuel: int = FUEL, on_slice: Callable[[], None] | None = None
    ) -> Answer:
        """Call an import; `on_slice` runs each time the guest comes up for air."""
        function, body = self.imports[name], self.body
        handle = ExportName(f"call.{name}").find(body.context, body.inner)
        raw = RawFunction(handle, function.params, len(function.results))
        body.set_fuel(fuel, pausing=False)
        body.write("clock_fuel", fuel)
        call = AsyncCall(body.context, raw, *args)
        while not call.poll():
            if on_slice is not None:
                on_slice()
        result = call.result
        trap, _ = call.close()
        left = body.fuel
        used = fuel - max(0, left)
        trap = "OUT_OF_FUEL" if trap is not None and left < 0 else trap
        returned = trap is None and bool(function.results)
        return Answer(errno=result if returned else None, trap=trap, fuel=used)

    def open(self, directory: int, path: str, *, oflags: int = 0, rights: int = 2, fdflags: int = 0) -> int:
        """Open a file and return its descriptor. Rights: 2 reads, 64 writes."""
        answer = self.call("path_open", directory, 0, *self.path(path), oflags, rights, 0, fdflags, OUT)
        assert (answer.errno, answer.trap) == (0, None), answer
        return self.u32(OUT)

    def create(self, path: str, *, fdflags: int = 0) -> int:
        """Create a file in the scratch directory, to be read and written."""
        return self.open(6, path, oflags=1, rights=2 | 64 | 4 | 32 | (1 << 22), fdflags=fdflags)

    def create_again(self, path: str) -> int:
        """Open a file of the scratch directory, emptying it."""
        return self.open(6, path, oflags=1 | 8, rights=2 | 64 | (1 << 22))

    # ------------------------------------------------------------------ memory and state

    def path(self, text: str | bytes, at: int = PATH) -> tuple[int, int]:
        """Write a path; its pointer and length."""
        raw = text.encode() if isinstance(text, str) else text
        self.write(at, raw)
        return at, len(raw)

    def iovecs(self, *parts: tuple[int, int]) -> tuple[int, int]:
        """Write iovecs; their pointer and count."""
        self.write(IOVS, b"".join(struct.pack("<II", *part) for part in parts))
        return IOVS, len(parts)

    def write(self, at: int, data: bytes) -> None:
        self.instance.memory.write(at, data)

    def read(self, at: int, size: int) -> bytes:
        return self.instance.memory.read(at, size)

    def u32(self, at: int) -> int:
        return int.from_bytes(self.read(at, 4), "little")

    def u64(self, at: int) -> int:
        return int.from_bytes(self.read(at, 8), "little")

    def state(self, name: str) -> int:
        """A global of the membrane."""
        handle = ExportName(name).find(self.body.context, self.body.outer)
        return read_global(self.body.context, handle, wasmtime._ffi.wasmtime_val_t())

    def captured(self) -> tuple[bytes, bytes]:
        """stdout and stderr so far."""
        arena = self.state("arena")
        return (
            self.read(arena + membrane.AT_STDOUT, self.state("stdout_len")),
            self.read(arena + membrane.AT_STDERR, self.state("stderr_len")),
        )


@pytest.fixture(scope="session")
def workshop() -> Workshop:
    parts = split(artifacts.read_checked(artifacts.locate().wasm))
    return Workshop(new_engine(), parts.imports)


@pytest.fixture
def make_probe(workshop, tmp_path):
    """Make probes over the same four directories; only the last, `tmp`, may be written, unless it is said not to be."""
    made = []

    def make(*, scratch: bool = True) -> Probe:
        made.append(Probe(workshop, tmp_path, scratch=scratch))
        return made[-1]

    yield make
    for probe in made:
        probe.instance.close()


@pytest.fixture
def probe(make_probe) -> Probe:
    return make_probe()
