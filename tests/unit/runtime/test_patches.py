"""Patches change what they expect to find, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import wasmtime

from evocell_runtime import artifacts, patches
from evocell_runtime.errors import ImageError
from evocell_runtime.patches.assembler import assemble
from evocell_runtime.patches.instructions import after_locals, instructions, text_of
from evocell_runtime.patches.layer import apply_patches, body_digest
from evocell_runtime.patches.memory import patch_memory
from evocell_runtime.patches.model import Data, Donor, Edit, Everywhere, Form, Memory
from evocell_runtime.patches.module import open_module
from evocell_runtime.patches.opcodes import BY_CODE
from evocell_runtime.patches.page import render
from evocell_runtime.rewrite import split
from evocell_runtime.spec import ImageSpec

PAGE = Path(__file__).parents[3] / "docs" / "patches.md"

WAT = """
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (memory (export "memory") 1)
  (global $sp (mut i32) (i32.const 1024))
  (data (i32.const 64) "\\2a\\00\\00\\00rest")
  (func $answer (export "answer") (param i32) (result i32)
    local.get 0
    i32.const 7
    i32.add)
  (func $twice (export "twice") (param i32) (result i32)
    local.get 0
    call $answer
    call $answer)
  (func $datum (export "datum") (result i32)
    i32.const 0
    i32.load offset=64)
  (func $unused (result f64)
    f64.const 1.5
    drop
    v128.const i32x4 1 2 3 4
    i32x4.extract_lane 2
    f64.convert_i32_s))
"""


def named(wat: str) -> bytes:
    """Assemble a module whose functions have names, as the interpreter's have."""
    wasm = bytes(wasmtime.wat2wasm(wat))
    assert open_module(wasm).number("answer") == 1
    return wasm


@pytest.fixture(scope="module")
def small():
    return named(WAT)


@pytest.fixture(scope="module")
def pinned():
    return artifacts.read_checked(artifacts.locate().wasm)


def call(wasm: bytes, name: str, *args: int) -> int:
    store = wasmtime.Store()
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    store.set_wasi(wasmtime.WasiConfig())
    instance = linker.instantiate(store, wasmtime.Module(store.engine, wasm))
    return instance.exports(store)[name](store, *args)


def edit(**changes) -> Edit:
    known = {
        "name": "an edit",
        "why": "a test",
        "function": "answer",
        "expected": "i32.const 7\ni32.add",
        "replacement": "i32.const 1000\ni32.mul",
    }
    return Edit(**known | changes)


def digest(wasm: bytes, name: str) -> str:
    module = open_module(wasm)
    return body_digest(module.body(module.number(name)))


def donor(wasm: bytes, wat: str, *functions: str) -> Donor:
    expected = tuple((name, digest(wasm, name)) for name in functions)
    return Donor(name="a donor", why="a test", expected=expected, wat=wat)


def test_no_patches_leave_the_module_as_it_is(small):
    assert apply_patches(small, ()) == small


def test_an_edit_replaces_instructions(small):
    assert call(apply_patches(small, [edit()]), "twice", 2) == 2_000_000
    assert call(small, "twice", 2) == 16


def test_an_edit_may_add_locals_calls_and_types(small):
    patch = edit(
        function="twice",
        expected="call answer\ncall answer",
        replacement="""
            i64.extend_i32_u  ; a comment
            local.set new1
            block (result i32)
              i32.const 5
              local.set new0
              local.get new1
              i32.wrap_i64
              br 0
            end
            call answer
            local.get new0
            i32.add
        """,
        new_locals=("i32", "i64"),
    )
    assert call(apply_patches(small, [patch]), "twice", 2) == 14


def test_an_edit_may_leave_instructions_out(small):
    patch = edit(function="twice", expected="call answer\ncall answer", replacement="")
    assert call(apply_patches(small, [patch]), "twice", 2) == 2


def test_edits_of_a_function_follow_each_other(small):
    second = edit(expected="i32.const 1000", replacement="i32.const -2")
    assert call(apply_patches(small, [edit(), second]), "answer", 3) == -6


def test_which_of_several_places_is_said(small):
    patch = edit(function="twice", expected="call answer", replacement="", occurrence=1)
    assert call(apply_patches(small, [patch]), "twice", 2) == 9


def test_all_places_are_changed_where_their_number_is_said(small):
    patch = edit(function="twice", expected="call answer", replacement="i32.const 1\ni32.add", places=2)
    assert call(apply_patches(small, [patch]), "twice", 2) == 4


CASTING = """
(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (memory (export "memory") 1)
  (func $answer (export "answer") (param i32) (result i32) (local f64)
    local.get 0
    f64.convert_i32_s
    f64.const 1e300
    f64.mul
    i32.trunc_sat_f64_s
    (block (br_table 0 0 (i32.const 0)))
    local.get 0
    f64.convert_i32_s
    i32.trunc_sat_f64_s
    i32.add)
  (func $narrow (export "narrow") (param i32) (result i32)
    i32.const 8
    local.get 0
    f64.convert_i32_s
    i32.trunc_sat_f64_s
    i32.store8
    i32.const 8
    i32.load)
  (func $constants (result f64)  ;; holds the bytes of the instruction, but not the instruction
    i64.const 0x02fc02fc
    drop
    f64.const nan:0x2fc02fc02fc))
"""


def everywhere(**changes) -> Everywhere:
    known = {
        "instruction": "i32.trunc_sat_f64_s",
        "replacement": "local.tee new0\ni32.trunc_sat_f64_s\nlocal.get new0\ndrop\ni32.const 1\ni32.add",
        "narrow": "drop\ni32.const 77",
        "local": "f64",
        "places": (3, 1),
    }
    return Everywhere(name="everywhere", why="a test", forms=(Form(**known | changes),))


def test_an_instruction_is_changed_wherever_it_is():
    small = named(CASTING)
    changed = apply_patches(small, [everywhere()])
    assert call(small, "answer", 5) == (1 << 31) - 1 + 5 - (1 << 32)
    assert call(changed, "answer", 5) == -(1 << 31) + 6
    assert call(changed, "narrow", 5) == 77


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"places": (2, 1)}, "i32.trunc_sat_f64_s is there 3 times, 1 of them narrowed"),
        ({"places": (3, 0)}, "i32.trunc_sat_f64_s is there 3 times, 1 of them narrowed"),
        ({"instruction": "i32.add"}, "i32.add cannot be changed everywhere"),
        ({"replacement": "call nothing"}, "no function nothing"),
    ],
)
def test_a_change_everywhere_that_does_not_fit_is_refused(changes, said):
    with pytest.raises(ImageError, match=said):
        apply_patches(named(CASTING), [everywhere(**changes)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"function": "twice", "expected": "call answer", "places": 3}, "twice are there 2 times"),
        ({"expected": "i32.const 8"}, "answer are there 0 times"),
        ({"expected": ""}, "does not say which instructions of answer"),
        ({"function": "twice", "expected": "call answer"}, "twice are there 2 times"),
        ({"function": "twice", "expected": "call answer", "occurrence": 2}, "twice are there 2 times"),
        ({"function": "nothing"}, "no function nothing"),
        ({"replacement": "i32.konst 1"}, "'i32.konst 1' is not an instruction"),
        ({"replacement": "call nothing"}, "no function nothing"),
        ({"replacement": "i32.const 4294967296"}, "is not an instruction"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(small, changes, said):
    with pytest.raises(ImageError, match=said) as raised:
        apply_patches(small, [edit(**changes)])
    assert "'an edit'" in str(raised.value)


def test_a_donor_replaces_a_function_and_can_call_the_original(small):
    patch = donor(
        small,
        """(module
          (import "original" "answer" (func $was (param i32) (result i32)))
          (import "interpreter" "datum" (func $datum (result i32)))
          (func $more (param i32 i32) (result i32) (i32.sub (local.get 0) (local.get 1)))
          (func (export "answer") (param i32) (result i32)
            (call $more (call $was (local.get 0)) (call $datum))))""",
        "answer",
    )
    assert call(apply_patches(small, [patch]), "twice", 100) == 100 + 2 * (7 - 42)


def test_a_donor_may_use_memory_and_the_stack_pointer(small):
    patch = donor(
        small,
        """(module
          (import "interpreter" "memory" (memory 0))
          (import "interpreter" "stack_pointer" (global $sp (mut i32)))
          (func (export "answer") (param i32) (result i32)
            (i32.store (global.get $sp) (local.get 0))
            (i32.add (i32.load (global.get $sp)) (i32.load offset=64 (i32.const 0)))))""",
        "answer",
    )
    assert call(apply_patches(small, [patch]), "answer", 1) == 43


def test_a_donor_gives_functions_for_edits_to_call(small):
    helper = donor(
        small,
        '(module (func (export "evocell.half") (param i32) (result i32) (i32.shr_u (local.get 0) (i32.const 1))))',
    )
    patch = edit(replacement="i32.add\ncall evocell.half", expected="i32.add")
    assert call(apply_patches(small, [helper, patch]), "answer", 3) == 5


def test_a_donor_wraps_what_was_edited_before(small):
    wrapper = """(module
      (import "original" "answer" (func $was (param i32) (result i32)))
      (func (export "answer") (param i32) (result i32) (i32.sub (call $was (local.get 0)) (i32.const 1))))"""
    assert call(apply_patches(small, [edit(), donor(small, wrapper, "answer")]), "answer", 2) == 1999


@pytest.mark.parametrize(
    ("wat", "said"),
    [
        (
            '(module (memory 1) (func (export "answer") (param i32) (result i32) unreachable))',
            "a memory of its own",
        ),
        (
            '(module (global (mut i32) (i32.const 1)) (func (export "answer") (param i32) (result i32) unreachable))',
            "a global",
        ),
        ('(module (func (export "answer") (result i32) unreachable))', "with the type"),
        ('(module (func (export "nothing") (result i32) unreachable))', "no function nothing"),
        (
            '(module (import "elsewhere" "answer" (func (param i32) (result i32))))',
            "must be interpreter or original",
        ),
        ('(module (import "original" "datum" (func (result i32))))', "which it does not replace"),
        ('(module (import "interpreter" "other" (memory 0)))', "only interpreter.memory"),
        ("(module (func (unknown)))", "cannot be assembled"),
        ("(module)", "other functions than those"),
    ],
)
def test_a_donor_that_does_not_fit_is_refused(small, wat, said):
    with pytest.raises(ImageError, match=said) as raised:
        apply_patches(small, [donor(small, wat, "answer")])
    assert "'a donor'" in str(raised.value)


def test_a_donor_made_for_another_body_is_refused(small):
    text = '(module (func (export "answer") (param i32) (result i32) unreachable))'
    patch = Donor(name="a donor", why="a test", expected=(("answer", "00" * 32),), wat=text)
    with pytest.raises(ImageError, match="the body of answer is not the one"):
        apply_patches(small, [patch])


def test_data_is_changed_where_it_is_what_is_expected(small):
    patch = Data(name="data", why="a test", address=64, expected=b"\x2a\0", replacement=b"\x2b\1")
    assert call(apply_patches(small, [patch]), "datum") == 0x12B


@pytest.mark.parametrize(
    "patch",
    [
        Data(name="data", why="", address=64, expected=b"\x2b", replacement=b"\x00"),
        Data(name="data", why="", address=64, expected=b"\x2a", replacement=b"\x00\x01"),
        Data(name="data", why="", address=4096, expected=b"\x2a", replacement=b"\x00"),
        Data(name="data", why="", address=71, expected=b"t\0", replacement=b"xx"),
    ],
)
def test_data_that_is_not_what_is_expected_is_refused(small, patch):
    with pytest.raises(ImageError, match="'data' does not fit"):
        apply_patches(small, [patch])


class Bytes:
    """Memory that is a byte array."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data


def test_memory_is_changed_at_its_moment_and_through_pointers():
    memory = Bytes(bytes([8, 0, 0, 0]) + bytes(4) + bytes(range(8)))
    patch = Memory(
        name="m", why="", moment="warmed", address=0, path=(2,), expected=b"\x02\x03", replacement=b"\xff\xfe"
    )
    patch_memory(memory, [patch], "started")
    assert memory.data[10:12] == b"\x02\x03"
    patch_memory(memory, [patch], "warmed")
    assert memory.data[9:13] == b"\x01\xff\xfe\x04"
    with pytest.raises(ImageError, match="'m' does not fit"):
        patch_memory(memory, [patch], "warmed")


def test_every_function_of_the_interpreter_can_be_read_and_written_again(pinned):
    module = open_module(pinned)
    first = len(module.imports)
    for number in range(first, first + len(module.bodies), 997):
        body = module.body(number)
        lines = [text_of(module, one) for one in instructions(body)]
        if any(line.startswith("try_table") for line in lines):
            continue
        again = bytes(body[: after_locals(body)[1]]) + assemble(module, "\n".join(lines))
        assert [text_of(module, one) for one in instructions(again)] == lines


def test_instructions_have_the_numbers_that_the_assembler_knows():
    plain = [
        name for name, kinds in BY_CODE.values() if not kinds and "." in name and not name.startswith("ref")
    ]
    assert len(plain) > 300
    text = "(module (func (param i32) " + " ".join(plain) + "))"
    module = open_module(bytes(wasmtime.wat2wasm(text)))
    assert [one.name for one in instructions(module.body(0))] == [*plain, "end"]


def test_the_table_fits_the_pinned_interpreter(pinned):
    changed = apply_patches(pinned, patches.CODE_PATCHES)
    assert hashlib.sha256(changed).digest() != hashlib.sha256(pinned).digest()
    assert split(changed).imports == split(pinned).imports


def test_every_patch_has_its_own_name_and_says_why():
    """Changes at several places that go by one name have one reason."""
    assert len({(patch.name, patch.why) for patch in patches.PATCHES}) == len(patches.NAMES)
    assert all(patch.why for patch in patches.PATCHES)


def test_the_page_explains_the_table():
    assert PAGE.read_text(encoding="utf-8") == render(patches.PATCHES), (
        "write it anew: python -m evocell_runtime.patches page > docs/patches.md"
    )


def test_patches_are_part_of_the_names_of_code_and_image(monkeypatch):
    code, image = ImageSpec().code_key(), ImageSpec().image_id()
    monkeypatch.setattr(patches, "KEY", "other")
    assert ImageSpec().code_key() == code
    assert ImageSpec().image_id() != image
    monkeypatch.setattr(patches, "CODE_KEY", "other")
    assert ImageSpec().code_key() != code
