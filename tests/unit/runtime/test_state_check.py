"""Code that could keep something outside its memory is not built."""

import pytest
import wasmtime

from evocell_runtime.builder import compiled_interpreter
from evocell_runtime.cache import ImageCache
from evocell_runtime.errors import ImageError
from evocell_runtime.metering.module import Landmarks
from evocell_runtime.native import new_engine
from evocell_runtime.rewrite import SplitModule, split
from evocell_runtime.spec import ImageSpec
from evocell_runtime.state_check import check_state

REACTOR = """(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $ask (result i32)))
  (memory (export "memory") 1)
  (table $table 4 4 funcref)
  (global $stack (mut i32) (i32.const 4096))
  (global $constant i32 (i32.const 77))
  ;;@GLOBALS
  (elem (i32.const 1) $ask)
  (elem $spare func $ask)
  (tag $thrown (param i32))
  (data (i32.const 16) "hello")
  (func (export "turn") (param $a i32) (param $b i32) (result i32) (local $wide i64) (local $lanes v128)
    ;;@BODY
    (i32.const 0)))"""

HARMLESS = {
    "bytes of numbers that look like instructions": """
        (drop (f64.const 0x1.026fc08262626p+3)) (drop (f32.const 0x1.264cfcp+3)) (drop (i32.const 0x2626))
        (drop (i64.const -0x26fc0c26fc0926)) (drop (v128.const i64x2 0x26002600fc0c26fc 0x2626262626262626))""",
    "branches": """
        (block $x (block $y (br_table $x $y $x $y $x (local.get $a)))) (block $z (br_if $z (local.get $b)))
        (if (local.get $a) (then (nop)) (else (nop))) (loop $again (br_if $again (local.get $b)))""",
    "exceptions": """
        (block $c (result i32) (try_table (result i32) (catch $thrown $c) (throw $thrown (i32.const 1))))
        (drop) (block $d (try_table (catch_all $d) (nop)))
        (block $e (result exnref) (try_table (catch_all_ref $e) (nop)) (return (i32.const 1))) (throw_ref)""",
    "calls": """
        (drop (call $ask)) (drop (call_indirect (result i32) (i32.const 1)))
        (if (local.get $a) (then (return_call $ask)))
        (if (local.get $b) (then (return_call_indirect (result i32) (i32.const 1))))""",
    "memory": """
        (i32.store offset=70000 (i32.const 8) (i32.load8_u offset=38 (i32.const 38)))
        (memory.copy (i32.const 0) (i32.const 38) (i32.const 38)) (memory.fill (i32.const 0) (i32.const 38) (i32.const 38))
        (drop (memory.grow (memory.size)))""",
    "globals": "(global.set $stack (i32.sub (global.get $stack) (global.get $constant)))",
    "conversions": "(drop (i32.trunc_sat_f64_s (f64.const 38))) (local.set $wide (i64.extend8_s (local.tee $wide (i64.const 38))))",
    "lanes": """
        (local.set $lanes (v128.load offset=38 (i32.const 0)))
        (local.set $lanes (v128.load8_lane offset=38 3 (i32.const 0) (local.get $lanes)))
        (v128.store64_lane offset=38 1 (i32.const 0) (local.get $lanes))
        (local.set $lanes (v128.load32_zero offset=300 (i32.const 0)))
        (local.set $lanes (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 31 (local.get $lanes) (local.get $lanes)))
        (local.set $lanes (i16x8.replace_lane 7 (local.get $lanes) (i32.const 38)))
        (local.set $lanes (i8x16.swizzle (i64x2.mul (local.get $lanes) (local.get $lanes)) (f64x2.promote_low_f32x4 (local.get $lanes))))
        (v128.store offset=38 (i32.const 0) (f64x2.div (local.get $lanes) (i32x4.splat (i32.const 38))))""",
}
LASTING = {
    "table.set": "(table.set $table (i32.const 0) (ref.null func))",
    "table.grow": "(drop (table.grow $table (ref.null func) (i32.const 1)))",
    "table.fill": "(table.fill $table (i32.const 0) (ref.null func) (i32.const 1))",
    "table.copy": "(table.copy (i32.const 0) (i32.const 1) (i32.const 1))",
    "table.init": "(table.init $table $spare (i32.const 0) (i32.const 0) (i32.const 1))",
    "elem.drop": "(elem.drop $spare)",
}
ON_DATA = {
    "memory.init": b"\x41\x00\x41\x00\x41\x00\xfc\x08\x00\x00",
    "data.drop": b"\xfc\x09\x00",
}


def code(body="", variables=""):
    text = REACTOR.replace(";;@BODY", body).replace(";;@GLOBALS", variables)
    return split(bytes(wasmtime.wat2wasm(text))).code


def refusal(module):
    with pytest.raises(ImageError) as caught:
        check_state(module)
    return str(caught.value)


def test_the_interpreter_keeps_all_of_its_state_in_its_memory(parts):
    check_state(parts.code)


@pytest.mark.parametrize("what", HARMLESS)
def test_what_leaves_nothing_behind_is_read_over(what):
    module = code(HARMLESS[what])
    wasmtime.Module.validate(new_engine(), module)

    check_state(module)
    check_state(code("\n".join(HARMLESS.values())))


@pytest.mark.parametrize("what", LASTING)
@pytest.mark.parametrize("before", ["", *HARMLESS])
def test_what_changes_tables_or_segments_is_refused_wherever_it_stands(what, before):
    module = code(HARMLESS.get(before, "") + LASTING[what])

    assert f"function 0 of the interpreter's code has the instruction {what}, which" in refusal(module)


@pytest.mark.parametrize("what", ON_DATA)
def test_what_changes_data_is_refused(what):
    module = code("(i32.store (i32.const 0x7abcde) (i32.const 0x7abcde))")
    store = b"\x41\xde\xf9\xea\x03\x41\xde\xf9\xea\x03\x36\x02\x00"
    assert store in module

    assert f"the instruction {what}, which" in refusal(
        module.replace(store, ON_DATA[what].ljust(len(store), b"\x01"))
    )


@pytest.mark.parametrize(
    ("instruction", "shown"),
    [
        (b"\xfc\x8c\x00\x00\x00", "fc 8c 00 00"),  # table.init, its number written in two bytes
        (b"\xfe\x03\x00\x01\x01", "fe 03 00 01"),  # atomics
        (b"\x28\x42\x01\x00\x01", "28 42 01 00"),  # a load from a second memory
        (b"\x40\x01\x01\x01\x01", "40 01 01 01"),  # growth of it
        (b"\xfd\x80\x02\x01\x01", "fd 80 02 01"),  # relaxed vectors
        (b"\x02\x64\x70\x0b\x01", "02 64 70 0b"),  # a block of a type of its own
        (b"\x1f\x63\x70\x00\x0b", "1f 63 70 00"),
        (b"\xfb\x05\x00\x01\x01", "fb 05 00 01"),  # collected objects
        (b"\xff\x01\x01\x01\x01", "ff 01 01 01"),
    ],
)
def test_an_instruction_that_is_not_known_is_refused(instruction, shown):
    module = code("(drop (i32.const 0x7abcde))" * 1)
    place = b"\x41\xde\xf9\xea\x03\x1a"
    assert place in module

    assert f"an instruction that is not known ({shown})" in refusal(
        module.replace(place, instruction.ljust(len(place), b"\x01"))
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ("(global (mut i32) (i32.const 1))", "has 2 mutable globals"),
        ("(global (mut i64) (i64.const 1))", "global 2 of the interpreter is not a 32-bit integer"),
        ("(global (mut funcref) (ref.null func))", "global 2 of the interpreter is not a 32-bit integer"),
        ("(global i32 (global.get $constant))", "is not a 32-bit integer with a constant start"),
        ("(global i32 (i32.add (i32.const 1) (i32.const 2)))", "global 2 of the interpreter has a computed start"),
        ('(export "p" (global $stack))', "exports the global p, which others could write to"),
        ('(export "t" (table $table))', "exports the table t, which others could write to"),
    ],
)  # fmt: skip
def test_further_state_in_the_sections_is_refused(variables, sentence):
    assert sentence in refusal(code(variables=variables))


def test_a_constant_may_be_exported():
    check_state(code(variables='(export "c" (global $constant))'))


@pytest.mark.parametrize("kind", ["(table 1 funcref)", "(memory 1)", "(global (mut i32))", "(tag)"])
def test_nothing_but_functions_is_imported_by_what_is_split(kind):
    text = REACTOR.replace('(import "wasi', f'(import "host" "more" {kind}) (import "wasi')

    with pytest.raises(ImageError, match=r"host\.more, which is not a function|memories"):
        split(bytes(wasmtime.wat2wasm(text)))


def test_an_unknown_section_is_refused():
    assert "a section 14, of which it is not known" in refusal(code() + b"\x0e\x00")


def test_code_cut_short_anywhere_is_refused_or_whole():
    whole = code("\n".join(HARMLESS.values()))
    refused = 0
    for end in range(8, len(whole)):
        try:
            check_state(whole[:end])
        except ImageError:
            refused += 1

    assert refused > 300


def test_the_builder_does_not_compile_such_code(tmp_path):
    cache = ImageCache(tmp_path / "cache")
    cache.prepare()
    parts = SplitModule(code=code(LASTING["table.set"]), segments=(), min_pages=1, imports=())

    with pytest.raises(ImageError, match=r"table\.set"):
        compiled_interpreter(new_engine(), parts, Landmarks(dispatch=0, handler=0), cache, ImageSpec())
    assert list((cache.root / "code").iterdir()) == []
