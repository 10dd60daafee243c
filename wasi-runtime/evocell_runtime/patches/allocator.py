"""Python's objects come from mimalloc, which the interpreter holds and does not use, and its memory from malloc.

Built for WASI, CPython has no allocator of its own for small objects and calls `malloc` for each. mimalloc is linked in and is
what CPython would use if an environment variable said so, but the interpreter starts without looking at its environment. So the
table of allocators is another one from the start.

As it is, mimalloc would never give memory back here, nor would it take any but in pieces of 32 MiB: a program that made
a list of 40 MB twice would not find room the second time. So it gets its pieces (4 MiB, or as large as one
object) from `malloc` and frees them there, where numpy finds them.
"""

from __future__ import annotations

import struct

from evocell_runtime.patches.model import AnyPatch, Data, Donor

_TABLE, _ARENA_RESERVE = 26_152_944, 26_118_508
"""Where `_PyRuntime` has the allocators of the domains "mem" and "obj", and where mimalloc has its option `arena_reserve`."""

_RAW = (992, 991, 990, 989)
_MIMALLOC_MEMORY, _MIMALLOC_OBJECTS = (1001, 1002, 1003, 1004), (1005, 1006, 1007, 1008)
"""Places in the function table of malloc, calloc, realloc and free: `_PyMem_Raw...`, `_PyMem_Mi...`, `_PyObject_Mi...`."""

_PIECES = """(module
(import "interpreter" "memory" (memory 0))
(import "interpreter" "aligned_alloc" (func $aligned_alloc (param i32 i32) (result i32)))
(import "interpreter" "free" (func $free (param i32)))
(import "original" "mi_os_prim_free" (func $counted (param i32 i32 i32)))

(func (export "_mi_prim_alloc") (param $size i32) (param $alignment i32) (param $commit i32) (param $allow_large i32)
    (param $is_large i32) (param $is_zero i32) (param $found i32) (result i32)
  (i32.store8 (local.get $is_large) (i32.const 0))
  (i32.store8 (local.get $is_zero) (i32.const 0))
  (i32.store (local.get $found) (call $aligned_alloc
    (select (local.get $alignment) (i32.const 16) (i32.gt_u (local.get $alignment) (i32.const 16)))
    (local.get $size)))
  (select (i32.const 0) (i32.const 48) (i32.load (local.get $found))))  ;; 48: ENOMEM

(func (export "mi_os_prim_free") (param $address i32) (param $size i32) (param $committed i32)
  (call $counted (local.get $address) (local.get $size) (local.get $committed))
  (call $free (local.get $address)))
)"""


def _table(memory: tuple[int, ...], objects: tuple[int, ...]) -> bytes:
    return struct.pack("<10I", 0, *memory, 0, *objects)


ALLOCATOR: tuple[AnyPatch, ...] = (
    Data(
        name="allocator",
        why="Python called malloc for every object. mimalloc is in the interpreter, and makes pure Python 6 % and a short call "
        "15 % faster.",
        address=_TABLE,
        expected=_table(_RAW, _RAW),
        replacement=_table(_MIMALLOC_MEMORY, _MIMALLOC_OBJECTS),
    ),
    Data(
        name="allocator: no arenas",
        why="mimalloc would take memory in pieces of 32 MiB and keep them.",
        address=_ARENA_RESERVE,
        expected=struct.pack("<I", 131_072),
        replacement=struct.pack("<I", 0),
    ),
    Donor(
        name="allocator: pieces from malloc",
        why="mimalloc would take its pieces from the end of the memory and could not give them back, so objects of more than "
        "32 MiB were lost when they were freed.",
        expected=(
            ("_mi_prim_alloc", "e6bc3de6db93147c4b83d2547bee41393ea1f673826f1d9e480b120fcff843b7"),
            ("mi_os_prim_free", "4a3d3654dc4ac40e679b256ab25e335eeda76e134f4f14563cc273caa477dd83"),
        ),
        wat=_PIECES,
    ),
)
