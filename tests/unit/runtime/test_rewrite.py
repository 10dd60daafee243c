import pytest
import wasmtime

from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_unsigned, write_unsigned
from evocell_runtime.membrane import TABLE
from evocell_runtime.rewrite import MAGIC, WASI_MODULE, FunctionImport, Segment, split

REACTOR = f"""(module
  (type $pair (func (param i32 i64) (result i32)))
  (import "{WASI_MODULE}" "fd_read" (func $read (type $pair)))
  (import "host" "call" (func $call (param f32 f64)))
  (memory (export "memory") 3)
  (global $stack (mut i32) (i32.const 4096))
  (func (export "_initialize") (i32.store8 (i32.const 8) (i32.const 33)))
  (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "ask") (result i32) (call $read (i32.const 5) (i64.const 6)))
  (data (i32.const 16) "hello")
  (data (i32.const 131072) "far"))"""


def assemble(text):
    return bytes(wasmtime.wat2wasm(text))


def engine_and_store():
    engine = wasmtime.Engine()
    return engine, wasmtime.Store(engine)


def refusal(wasm):
    with pytest.raises(ImageError) as caught:
        split(wasm)
    return str(caught.value)


def without(section, wasm):
    """The module without one of its sections."""
    out, at = bytearray(MAGIC), 8
    while at < len(wasm):
        size, body = read_unsigned(wasm, at + 1)
        if wasm[at] != section:
            out += wasm[at : body + size]
        at = body + size
    return bytes(out)


def test_memory_and_data_leave_the_code():
    parts = split(assemble(REACTOR))

    assert parts.segments == (Segment(16, b"hello"), Segment(131_072, b"far"))
    assert parts.min_pages == 3
    code = wasmtime.Module(wasmtime.Engine(), parts.code)
    assert [(i.module, i.name) for i in code.imports] == [
        ("evocell", "fd_read"),
        ("evocell", "host.call"),
        ("evocell", "memory"),
    ]
    assert [e.name for e in code.exports] == ["memory", "_initialize", "peek", "ask"]
    assert code.imports[2].type.limits.min == 3


def test_imports_keep_their_signatures_and_tell_their_membrane_names():
    read, call = split(assemble(REACTOR)).imports

    assert read == FunctionImport(WASI_MODULE, "fd_read", ("i32", "i64"), ("i32",))
    assert call == FunctionImport("host", "call", ("f32", "f64"), ())
    assert (read.export_name, call.export_name) == ("fd_read", "host.call")


def test_the_code_runs_on_whatever_memory_it_is_given():
    parts = split(assemble(REACTOR))
    engine, store = engine_and_store()
    module = wasmtime.Module(engine, parts.code)
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(3, None)))
    asked = []

    def read(a, b):
        asked.append((a, b))
        return 77

    functions = [
        wasmtime.Func(store, module.imports[0].type, read),
        wasmtime.Func(store, module.imports[1].type, lambda *_: None),
    ]
    memory.write(store, parts.segments[0].data, parts.segments[0].offset)
    exports = wasmtime.Instance(store, module, [*functions, memory]).exports(store)

    assert exports["peek"](store, 16) == ord("h")
    exports["_initialize"](store)
    assert exports["peek"](store, 8) == 33
    assert exports["ask"](store) == 77
    assert asked == [(5, 6)]


def test_the_same_input_gives_the_same_output_and_names_are_dropped():
    wasm = assemble(REACTOR)
    custom = b"\0" + write_unsigned(5) + b"\x04name"

    assert split(wasm) == split(wasm + custom)
    assert b"$read" not in split(wasm).code


def test_a_data_count_is_dropped_with_the_data():
    wasm = assemble(REACTOR)
    at = 8
    while wasm[at] != 10:
        size, body = read_unsigned(wasm, at + 1)
        at = body + size
    counted = wasm[:at] + b"\x0c\x01\x02" + wasm[at:]
    wasmtime.Module.validate(wasmtime.Engine(), counted)

    assert split(counted) == split(wasm)


@pytest.mark.parametrize(("section", "what"), [(1, "types"), (2, "imports"), (5, "a memory"), (11, "data")])
def test_a_module_without_a_section_it_needs_is_refused(section, what):
    sentence = refusal(without(section, assemble(REACTOR)))

    assert f"has no section for {what}; a reactor that owns its memory is needed" in sentence


def changed(old, new):
    assert old in REACTOR
    return assemble(REACTOR.replace(old, new))


@pytest.mark.parametrize(
    ("wasm", "sentence"),
    [
        (b"", "does not begin with the magic number"),
        (b"\x7fELF1234567", "does not begin with the magic number"),
        (changed("(global", "(start 2) (global"), "has a start function"),
        (changed('(export "memory") 3', '(export "memory") 3 9'), "shared, 64-bit or has a maximum"),
        (changed('(data (i32.const 16) "hello")', '(data "hello")'), "data segment 0 is passive"),
        (
            changed('(import "host"', '(import "host" "g" (global $g i32)) (import "host"'),
            "imports host.g, which is not a function",
        ),
        (
            changed("(data (i32.const 16)", "(data (i32.add (i32.const 1) (i32.const 2))"),
            "data segment 0 has a computed offset",
        ),
        (
            changed('(memory (export "memory") 3)', '(memory (export "memory") 3) (memory 1)'),
            "has 2 memories",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_by_its_sentence(wasm, sentence):
    assert sentence in refusal(wasm)


def test_a_module_cut_short_anywhere_is_refused_or_whole():
    wasm = assemble(REACTOR)
    whole, cuts = split(wasm), 0
    for end in range(len(wasm)):
        try:
            assert split(wasm[:end]) == whole  # only names are missing
        except ImageError:
            cuts += 1

    assert cuts > 200


def test_the_interpreter_imports_exactly_what_the_table_decides(parts):
    assert len(parts.imports) == 43
    assert sorted(f.export_name for f in parts.imports) == sorted(d.name for d in TABLE)
    assert len({d.name for d in TABLE}) == len(TABLE)
