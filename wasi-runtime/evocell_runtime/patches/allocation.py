"""Short lists of freed memory in front of `malloc`.

Built for WASI, CPython has no allocator of its own for small objects (decision 19): each integer, float and tuple goes
through four calls to `dlmalloc` and back. With these lists, a piece of memory that was freed is what the next request of its
size gets, after a dozen instructions.

A piece in a list is in use as far as `dlmalloc` knows; its second word points to the next one. The heads of the lists and the numbers of their pieces lie at the bottom of the stack in memory, far below the address at which CPython would abort.
"""

from __future__ import annotations

from importlib.resources import files

from evocell_runtime.patches.model import AnyPatch, Donor, Edit

LISTS = 1024
"""Address of the lists: 8 bytes for each size, its first piece and how many there are."""

LONGEST = 256
"""Most pieces in one list. It bounds what the lists keep from `malloc`: 2 MiB, and that only until memory ends."""

LARGEST = 512
"""Size of the largest pieces that are kept, in bytes, with the word before them that holds it; all are multiples of 16."""

_ALLOCATORS = 26151952  # within the interpreter's state: tables of the allocators of its three domains
_RAW_MALLOC, _RAW_FREE = (
    992,
    989,
)  # places of `_PyMem_RawMalloc` and `_PyMem_RawFree` in the table of functions

_MALLOC = """(if (i32.le_u (local.get $size) (i32.const @MOST))
      (then
        (local.set $list (i32.and (i32.shr_u (i32.add (local.get $size) (i32.const 19)) (i32.const 1)) (i32.const -8)))
        (if (local.tee $size (i32.load offset=@LISTS (local.get $list)))
          (then
            (i32.store offset=@LISTS (local.get $list) (i32.load offset=4 (local.get $size)))
            (i32.store offset=@COUNTS (local.get $list)
              (i32.sub (i32.load offset=@COUNTS (local.get $list)) (i32.const 1)))
            (return (local.get $size))))
        (local.set $size (i32.sub (i32.shl (local.get $list) (i32.const 1)) (i32.const 4)))))
    (call $allocate (local.get $size))"""
_FREE = """(if (i32.eqz (local.get $piece)) (then (return)))
    (local.set $list (i32.load (i32.sub (local.get $piece) (i32.const 4))))
    (if (i32.lt_u (local.get $list) (i32.const @BEYOND))
      (then
        (local.set $list (i32.and (i32.shr_u (local.get $list) (i32.const 1)) (i32.const -8)))
        (local.set $count (i32.load offset=@COUNTS (local.get $list)))
        (if (i32.lt_u (local.get $count) (i32.const @LONGEST))
          (then
            (i32.store offset=4 (local.get $piece) (i32.load offset=@LISTS (local.get $list)))
            (i32.store offset=@LISTS (local.get $list) (local.get $piece))
            (i32.store offset=@COUNTS (local.get $list) (i32.add (local.get $count) (i32.const 1)))
            (return)))))
    (call $dlfree (local.get $piece))"""

_EXPECTED = {
    "PyMem_Free": "009059405f07a34c44d15c9a1dc876579ab8530f35c79336994ad104be111340",
    "PyMem_Malloc": "d9af3626714477e3b28678e06c7b6583fff9e8bbb03b37907efaeaa8e1834a79",
    "PyObject_Free": "4f6edf12b293ff52f39a1679a967af9caa3c11285f50f77a7806de04ff1337a7",
    "PyObject_Malloc": "d9168177b20d2d19dd47d11499f4de9a4892fbefac6554c9e96637c627d36a8e",
    "free": "00819cfcd4a536d61135dee790d4ccee7a75118384cc96ab5c59c45c8f2f62ed",
    "malloc": "18cb7d4d3a296a93432184e3b4b820a6a071c48f96b997d7f4c8573b7fe17e91",
}

_NUMBERS = {
    "@LISTS": LISTS,
    "@COUNTS": LISTS + 4,
    "@LAST": LARGEST // 2,
    "@MOST": LARGEST - 4,
    "@BEYOND": LARGEST + 16,
    "@LONGEST": LONGEST,
    "@RAW_MALLOC": _RAW_MALLOC,
    "@RAW_FREE": _RAW_FREE,
    "@MEMORY_MALLOC": _ALLOCATORS + 996,
    "@MEMORY_FREE": _ALLOCATORS + 1008,
    "@OBJECT_MALLOC": _ALLOCATORS + 1016,
    "@OBJECT_FREE": _ALLOCATORS + 1028,
}


def _wat() -> str:
    text = files(__package__).joinpath("allocation.wat").read_text(encoding="utf-8")
    for name, body in (("@MALLOC", _MALLOC), ("@FREE", _FREE)):
        text = text.replace(name + ")", body + ")")
    for name in sorted(_NUMBERS, key=len, reverse=True):
        text = text.replace(name, str(_NUMBERS[name]))
    return text


ALLOCATION: tuple[AnyPatch, ...] = (
    Donor(
        name="freed-memory",
        why=(
            "Each small object went through four calls to `dlmalloc` and back; CPython has no allocator of its own here. "
            "Freed pieces of at most 512 bytes are kept in short lists, one for each size."
        ),
        expected=tuple(_EXPECTED.items()),
        wat=_wat(),
    ),
    *(
        Edit(
            name=f"freed-memory-{function}",
            why="At the end of memory, the lists of freed pieces are given back before a request is refused.",
            function=function,
            expected="call dlmalloc",
            replacement="call evocell.allocate",
            places=places,
        )
        for function, places in (("calloc", 1), ("realloc", 2))
    ),
    Edit(
        name="list-append-at-the-end-of-memory",
        why=(
            "When a list could not grow, its new item lost its reference here and in the evaluation loop "
            "(python/cpython#151818): an object in use was freed. Here it keeps it; "
            "where the caller does not give it back either, one object stays."
        ),
        function="_PyList_AppendTakeRefListResize",
        expected="""
            local.set 0
            local.get 1
            i32.load
            local.tee 4
            i32.const 1073741823
            i32.gt_s
            br_if 2
            i32.const -1
            local.set 0
            local.get 1
            local.get 4
            i32.const -1
            i32.add
            local.tee 4
            i32.store
            local.get 4
            br_if 2
            local.get 1
            call _Py_Dealloc
            i32.const -1
            return
        """,
        replacement="return",
    ),
)
"""This part of the table."""
