"""numpy's default integer is 64 bits.

In the interpreter a C `long` and a pointer have 32 bits, so numpy takes its type 7 (`NPY_LONG`, which is also
`NPY_INTP`) where natively it takes one of 64 bits. Here that one is type 9 (`NPY_LONGLONG`).
"""

from __future__ import annotations

from evocell_runtime.patches.model import AnyPatch, Edit

INTEGERS: tuple[AnyPatch, ...] = (
    Edit(
        name="numpy-default-integer",
        why="`dtype(int)` where nothing else is said, as in `np.zeros(3, int)`, is 64 bits wide.",
        function="int_default_descriptor",
        expected="i32.const 7\ncall PyArray_DescrFromType",
        replacement="i32.const 9\ncall PyArray_DescrFromType",
    ),
)
