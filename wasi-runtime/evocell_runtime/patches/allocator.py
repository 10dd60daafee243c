"""Small objects of Python come from mimalloc, which the interpreter holds and does not use.

Built for WASI, CPython has no allocator of its own for small objects and calls `malloc` for each. mimalloc
is linked in and is what CPython would use if an environment variable said so, but the interpreter starts
without looking at its environment. So the table of allocators is another one from the start.

mimalloc never gives memory back, and as it is would take pieces of 32 MiB: lists and arrays would soon have
no room that the other has left. So it serves sizes up to 64 KiB only, in pieces of 8 MiB from `malloc`;
whatever is larger is from `malloc` itself, as it was. Which of the two a block is from, a table with a byte
for every 4 MiB of memory says; it lies in the last KiB of the 32 that mimalloc has for messages, of which
it never writes so many.
"""

from __future__ import annotations

import struct

from evocell_runtime.patches.model import AnyPatch, Data, Donor, Edit

_ALLOCATORS, _ARENA_RESERVE = 26_152_944, 26_118_508
"""Where `_PyRuntime` has the allocators of "mem" and "obj", and mimalloc its option `arena_reserve`."""

_MESSAGES, _MESSAGES_BYTES = 27_526_880, 32 << 10
_REGIONS = _MESSAGES + _MESSAGES_BYTES - 1024
_LARGEST = 64 << 10

_RAW = (992, 991, 990, 989)
_MIMALLOC_MEMORY, _MIMALLOC_OBJECTS = (1001, 1002, 1003, 1004), (1005, 1006, 1007, 1008)
"""Places of malloc, calloc, realloc and free in the table of functions, for each of the allocators."""

_WHY = (
    "Python called malloc for every object. mimalloc is in the interpreter, and makes pure Python and short "
    "calls faster."
)
_WHY_LARGE = "What is larger than 64 KiB stays with malloc, so that lists and arrays share their memory."

_PIECES = f"""(module
(import "interpreter" "memory" (memory 0))
(import "interpreter" "aligned_alloc" (func $aligned_alloc (param i32 i32) (result i32)))
(import "interpreter" "free" (func $free (param i32)))
(import "original" "mi_os_prim_free" (func $counted (param i32 i32 i32)))

;; Notes of the regions of 4 MiB from $address on whether mimalloc has them; of less than such a region nothing.
(func $note (param $address i32) (param $size i32) (param $has i32)
  (if (i32.eqz (i32.and (i32.or (local.get $address) (local.get $size)) (i32.const 0x3fffff)))
    (then
      (memory.fill
        (i32.add (i32.const {_REGIONS}) (i32.shr_u (local.get $address) (i32.const 22)))
        (local.get $has)
        (i32.shr_u (local.get $size) (i32.const 22))))))

(func (export "_mi_prim_alloc") (param $size i32) (param $alignment i32) (param $commit i32) (param $allow_large i32)
    (param $is_large i32) (param $is_zero i32) (param $found i32) (result i32)
  (local $address i32)
  (i32.store8 (local.get $is_large) (i32.const 0))
  (i32.store8 (local.get $is_zero) (i32.const 0))
  (local.set $address (call $aligned_alloc
    (select (local.get $alignment) (i32.const 16) (i32.gt_u (local.get $alignment) (i32.const 16)))
    (local.get $size)))
  (i32.store (local.get $found) (local.get $address))
  (if (i32.eqz (local.get $address)) (then (return (i32.const 48))))  ;; ENOMEM
  (call $note (local.get $address) (local.get $size) (i32.const 1))
  (i32.const 0))

(func (export "mi_os_prim_free") (param $address i32) (param $size i32) (param $committed i32)
  (call $note (local.get $address) (local.get $size) (i32.const 0))
  (call $counted (local.get $address) (local.get $size) (local.get $committed))
  (call $free (local.get $address)))
)"""  # noqa: E501 - WAT

_REALLOC = f"""(module
(import "interpreter" "memory" (memory 0))
(import "interpreter" "malloc" (func $malloc (param i32) (result i32)))
(import "interpreter" "realloc" (func $realloc (param i32 i32) (result i32)))
(import "interpreter" "_PyMem_MiMalloc" (func $new (param i32 i32) (result i32)))
(import "interpreter" "_PyMem_MiFree" (func $free (param i32 i32)))
(import "original" "_PyMem_MiRealloc" (func $within (param i32 i32 i32) (result i32)))

(func $moved (export "_PyMem_MiRealloc") (param $context i32) (param $block i32) (param $size i32) (result i32)
  (local $fresh i32) (local $many i32) (local $rest i32)
  (if (i32.eqz (local.get $block))
    (then (return (call $new (local.get $context) (local.get $size)))))
  (if (i32.eqz (i32.load8_u offset={_REGIONS} (i32.shr_u (local.get $block) (i32.const 22))))
    (then (return (call $realloc (local.get $block)
      (select (local.get $size) (i32.const 1) (local.get $size))))))
  (if (i32.le_u (local.get $size) (i32.const {_LARGEST}))
    (then (return (call $within (local.get $context) (local.get $block) (local.get $size)))))
  (if (i32.eqz (local.tee $fresh (call $malloc (local.get $size)))) (then (return (i32.const 0))))
  ;; the block had at most a quarter more than the largest size, and what lies behind it does no harm
  (local.set $many (select (local.get $size) (i32.const {_LARGEST + _LARGEST // 4})
    (i32.lt_u (local.get $size) (i32.const {_LARGEST + _LARGEST // 4}))))
  (local.set $rest (i32.sub (i32.shl (memory.size) (i32.const 16)) (local.get $block)))
  (memory.copy (local.get $fresh) (local.get $block)
    (select (local.get $many) (local.get $rest) (i32.lt_u (local.get $many) (local.get $rest))))
  (call $free (local.get $context) (local.get $block))
  (local.get $fresh))

(func (export "_PyObject_MiRealloc") (param $context i32) (param $block i32) (param $size i32) (result i32)
  (call $moved (local.get $context) (local.get $block) (local.get $size)))
)"""  # noqa: E501 - WAT


def _table(memory: tuple[int, ...], objects: tuple[int, ...]) -> bytes:
    return struct.pack("<10I", 0, *memory, 0, *objects)


def _of_domain(domain: str) -> tuple[AnyPatch, ...]:
    larger = f"local.get {{}}\ni32.const {_LARGEST}\ni32.gt_u\nif (result i32)\n"
    generic = "local.get 2\nlocal.get 1\ni32.const 0\ni32.const 0\ncall _mi_malloc_generic"
    zeroed = "local.get 4\nlocal.get 2\ni32.const 1\ni32.const 0\ncall _mi_malloc_generic"
    return (
        Edit(
            name=f"allocator: {domain}, malloc",
            why=_WHY_LARGE,
            function=f"_Py{domain}_MiMalloc",
            expected=generic,
            replacement=f"{larger.format(1)}local.get 1\ncall malloc\nelse\n{generic}\nend",
            occurrence=1,
        ),
        Edit(
            name=f"allocator: {domain}, calloc",
            why=_WHY_LARGE,
            function=f"_Py{domain}_MiCalloc",
            expected=zeroed,
            replacement=f"{larger.format(2)}i32.const 1\nlocal.get 2\ncall calloc\nelse\n{zeroed}\nend",
            occurrence=1,
        ),
        Edit(
            name=f"allocator: {domain}, free",
            why=_WHY_LARGE,
            function=f"_Py{domain}_MiFree",
            expected="local.get 1\ni32.eqz\nbr_if 0",
            replacement=f"""
                local.get 1
                i32.eqz
                br_if 0
                local.get 1
                i32.const 22
                i32.shr_u
                i32.load8_u offset={_REGIONS}
                i32.eqz
                if
                local.get 1
                call free
                br 1
                end""",
        ),
    )


ALLOCATOR: tuple[AnyPatch, ...] = (
    Data(
        name="allocator",
        why=_WHY,
        address=_ALLOCATORS,
        expected=_table(_RAW, _RAW),
        replacement=_table(_MIMALLOC_MEMORY, _MIMALLOC_OBJECTS),
    ),
    Data(
        name="allocator: pieces",
        why="mimalloc would take memory in pieces of 32 MiB; now of 8 MiB.",
        address=_ARENA_RESERVE,
        expected=struct.pack("<I", 131_072),
        replacement=struct.pack("<I", 32_768),
    ),
    *_of_domain("Mem"),
    *_of_domain("Object"),
    Donor(
        name="allocator: realloc",
        why="A block that grows over 64 KiB moves from mimalloc to malloc.",
        expected=(
            ("_PyMem_MiRealloc", "230ed48ae5ba8753df6ab2c4e92a60924f2dd7c1da6f381b9ec9d12d9e8370d8"),
            ("_PyObject_MiRealloc", "230ed48ae5ba8753df6ab2c4e92a60924f2dd7c1da6f381b9ec9d12d9e8370d8"),
        ),
        wat=_REALLOC,
    ),
    Donor(
        name="allocator: pieces from malloc",
        why="mimalloc would take its pieces from the end of the memory; now malloc gives them, and "
        "they are noted.",
        expected=(
            ("_mi_prim_alloc", "e6bc3de6db93147c4b83d2547bee41393ea1f673826f1d9e480b120fcff843b7"),
            ("mi_os_prim_free", "4a3d3654dc4ac40e679b256ab25e335eeda76e134f4f14563cc273caa477dd83"),
        ),
        wat=_PIECES,
    ),
)
