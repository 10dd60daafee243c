"""Floating-point errors of numpy: division by zero, overflow, underflow and invalid operations are reported as natively.

WebAssembly's arithmetic has no status flags, so numpy's question after a loop, "has anything gone wrong?", had no
answer. The answer is found in the numbers instead: a result that is infinite although all operands are finite has
overflowed, or its operand is at a pole; a result that is not a number although no operand is one comes of an invalid
operation. One pass over the results, several numbers at a time, finds whether there is any such; the operands are
looked at only then. Underflow is looked for where a program asked for it, since numpy ignores it by default.

Loops go in pieces of 1,024 numbers, which are judged while they are in the processor's cache; those that write over their
operands in pieces of 512, whose operands are kept beside. Of a reduction, the operands are judged together with the result.
"""

from __future__ import annotations

from importlib.resources import files

from evocell_runtime.patches.model import AnyPatch, Donor, Edit
from evocell_runtime.patches.templates import fill

_VECTORS: tuple[dict[str, str | int], ...] = (
    {
        "SHAPE": "f64x2",
        "LANES": 2,
        "SIZE": 8,
        "GROUP": 8,
        "SPLAT": "v128.load64_splat",
        "BOUND": "(local.get $bound)",
    },
    {
        "SHAPE": "f32x4",
        "LANES": 4,
        "SIZE": 4,
        "GROUP": 16,
        "SPLAT": "v128.load32_splat",
        "BOUND": "(f32.demote_f64 (local.get $bound))",
    },
)
_PARTS = ("floats", "float_vectors", "float_indexed", "float_products", "float_casts")
_NAME_OF_DOT = "16891630"
_TRANSFER = "call_indirect (param i32 i32 i32 i32 i32) (result i32)"

_CASTS = (
    ("PyArray_CastRawArrays", 1),
    ("raw_array_assign_scalar", 2),
    ("raw_array_assign_array", 2),
    ("array_assign_boolean_subscript", 1),
    ("PyArray_CopyAsFlat", 2),
    ("npy_cast_raw_scalar_item", 1),
    ("mapiter_trivial_set", 1),
    ("mapiter_set", 5),
    ("_strided_masked_wrapper_transfer_function", 1),
    ("_strided_to_strided_multistep_cast", 3),
    ("PyArray_TransferStridedToNDim", 6),
    ("PyArray_TransferNDimToStrided", 6),
)
"""Functions that convert numbers between types, and at how many places."""

_SCALARS: tuple[tuple[str, int, int], ...] = (
    ("half_add", 23, 7),
    ("half_subtract", 23, 7),
    ("half_multiply", 23, 7),
    ("half_remainder", 23, 7),
    ("half_divmod", 23, 7),
    ("half_power", 23, 7),
    ("half_floor_divide", 23, 7),
    ("half_true_divide", 23, 7),
    ("float_add#2", 11, 8),
    ("float_subtract", 11, 8),
    ("float_multiply", 11, 8),
    ("float_remainder", 11, 9),
    ("float_divmod#2", 11, 11),
    ("float_power", 11, 8),
    ("float_floor_divide", 11, 11),
    ("float_true_divide", 11, 8),
    ("double_add", 12, 8),
    ("double_subtract", 12, 8),
    ("double_multiply", 12, 8),
    ("double_remainder", 12, 9),
    ("double_divmod", 12, 11),
    ("double_power", 12, 8),
    ("double_floor_divide", 12, 11),
    ("double_true_divide", 12, 8),
    ("longdouble_add", 13, 9),
    ("longdouble_subtract", 13, 9),
    ("longdouble_multiply", 13, 9),
    ("longdouble_remainder", 13, 11),
    ("longdouble_divmod", 13, 16),
    ("longdouble_power", 13, 9),
    ("longdouble_floor_divide", 13, 15),
    ("longdouble_true_divide", 13, 9),
    ("cfloat_add", 14, 11),
    ("cfloat_subtract", 14, 11),
    ("cfloat_multiply", 14, 11),
    ("cfloat_power", 14, 11),
    ("cfloat_true_divide", 14, 11),
    ("cdouble_add", 15, 11),
    ("cdouble_subtract", 15, 11),
    ("cdouble_multiply", 15, 11),
    ("cdouble_power", 15, 11),
    ("cdouble_true_divide", 15, 11),
    ("clongdouble_add", 16, 13),
    ("clongdouble_subtract", 16, 13),
    ("clongdouble_multiply", 16, 15),
    ("clongdouble_power", 16, 15),
    ("clongdouble_true_divide", 16, 15),
    ("byte_true_divide", 12, 9),
    ("ubyte_true_divide", 12, 9),
    ("short_true_divide", 12, 9),
    ("ushort_true_divide", 12, 9),
    ("int_true_divide", 12, 9),
    ("uint_true_divide", 12, 9),
    ("long_true_divide#2", 12, 9),
    ("ulong_true_divide", 12, 9),
    ("longlong_true_divide", 12, 9),
    ("ulonglong_true_divide", 12, 9),
)
"""Operations on scalars, with the type of their result and the number of the first local variable to add."""

_UNDERFLOWING = ("multiply", "true_divide", "power")


def _how(function: str) -> int:
    operation = function.partition("_")[2].partition("#")[0]
    return (
        1
        + 2 * (operation in _UNDERFLOWING)
        + 4 * (operation == "divmod")
        + 8 * (function == "half_remainder")
        + 16 * (operation in ("divmod", "floor_divide") and not function.startswith("half"))
        + 32 * (function.startswith("c") and operation == "true_divide")
    )


def _operands(function: str) -> Edit:
    return Edit(
        name="numpy-scalar-operands",
        why="The operands of an operation on scalars are kept when the flags are cleared, for the next patch.",
        function=function,
        expected="call npy_clear_floatstatus_barrier\ndrop",
        replacement="""
            call npy_clear_floatstatus_barrier
            drop
            local.get 0
            local.set new0
            local.get 1
            local.set new1
        """,
        new_locals=("i32", "i32"),
    )


def _errors(function: str, kind: int, first: int) -> Edit:
    return Edit(
        name="numpy-scalar-errors",
        why="Floating-point errors of operations on scalars are found when the flags are read.",
        function=function,
        expected="call npy_get_floatstatus_barrier",
        replacement=f"""
            local.get {first}
            local.get {first + 1}
            i32.const {kind}
            i32.const {_how(function)}
            call evocell.scalar_status
        """,
    )


def _wat() -> str:
    """The donor, put together of its parts."""
    room = files(__package__)
    texts = {name: room.joinpath(f"{name}.wat").read_text(encoding="utf-8") for name in _PARTS}
    return (
        texts["floats"]
        .replace("@VECTORS@", "\n".join(fill(texts["float_vectors"], named) for named in _VECTORS))
        .replace("@INDEXED@", texts["float_indexed"])
        .replace("@PRODUCTS@", texts["float_products"].replace("@DOT@", _NAME_OF_DOT))
        .replace("@CASTS@", texts["float_casts"])
    )


FLOATS: tuple[AnyPatch, ...] = (
    Donor(
        name="numpy-floating-point-errors",
        why=(
            "Division by zero, overflow and invalid operations in ufuncs, reductions, products of matrices and `np.dot` "
            "give a `RuntimeWarning`, or what `np.errstate` asks for. They gave nothing."
        ),
        expected=(
            (
                "generic_wrapped_legacy_loop",
                "57e1bd5cb6171144616f21803ca7de3b6392c4ae6d982bde240deffad725c858",
            ),
            ("_get_bufsize_errmask", "fbe055df0325af34aaa5bfdc8c52b54ad29bb76fa759fb609b8ffc7219abbcb0"),
            ("cblas_matrixproduct", "49ab880add0c5d45a74cd195c4cd713c32b6f1c796a3e209cc438b1c7a4f3368"),
        ),
        wat=_wat(),
    ),
    *(
        Edit(
            name="numpy-cast-errors",
            why="A number that does not fit the type it is converted to is reported.",
            function=function,
            expected=_TRANSFER,
            replacement="call evocell.cast",
            occurrence=0,
        )
        for function, many in _CASTS
        for _ in range(many)
    ),
    Edit(
        name="numpy-errors-at",
        why="Floating-point errors of `np.add.at` and its like are found as those of other ufuncs.",
        function="trivial_at_loop",
        expected=_TRANSFER,
        replacement="call evocell.indexed",
    ),
    Edit(
        name="numpy-errors-dot",
        why="Floating-point errors of `np.dot` are found for arrays of more than two dimensions and all types, too.",
        function="PyArray_MatrixProduct2",
        expected="local.get 15\ncall_indirect (param i32 i32 i32 i32 i32 i32 i32)",
        replacement="local.get 15\nlocal.get 10\ncall evocell.dotted",
    ),
    *(_operands(function) for function, _, _ in _SCALARS),
    *(_errors(function, kind, first) for function, kind, first in _SCALARS),
)
"""This part of the table; what calls the donor's functions comes after it."""
