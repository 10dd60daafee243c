"""numpy's default integer is 64 bits, as natively.

In the interpreter a C `long` and a pointer have 32 bits, so numpy takes its type 7 (`NPY_LONG`, which is also
`NPY_INTP`) where natively it takes one of 64 bits. With these patches type 9 (`NPY_LONGLONG`) is the default, type 5
(`NPY_INT`) is what `int32` means, and type 7 is left for indices inside compiled libraries: it widens to 64 bits
wherever a program could compute with it, and a value that does not fit it is an error rather than another value.
"""

from __future__ import annotations

from importlib.resources import files

from evocell_runtime.patches.model import AnyPatch, Data, Donor, Edit

_OBJECT_ADDRESSES = {"int32": (18129768, 7, 5), "uint32": (18128786, 8, 6)}


def _constant(
    name: str, function: str, why: str, *, old: int = 7, new: int = 9, occurrence: int | None = None
) -> Edit:
    return Edit(
        name=name,
        why=why,
        function=function,
        expected=f"i32.const {old}\ncall PyArray_DescrFromType",
        replacement=f"i32.const {new}\ncall PyArray_DescrFromType",
        occurrence=occurrence,
    )


_DEFAULTS: tuple[AnyPatch, ...] = (
    _constant(
        "numpy-default-integer",
        "int_default_descriptor",
        "`np.dtype(int)` as a type class gives 64 bits, so `np.zeros(3, int)` does.",
    ),
    _constant(
        "numpy-integer-of-int",
        "_convert_from_any",
        "`dtype=int` and `astype(int)` mean 64 bits.",
    ),
    _constant(
        "numpy-arange",
        "PyArray_ArangeObj",
        "`np.arange(3)` has 64 bits where nothing else is said.",
    ),
    _constant(
        "numpy-integer-that-fails",
        "discover_descriptor_from_pylong",
        "A Python integer that cannot be read is taken for the default integer.",
    ),
    Edit(
        name="numpy-array-of-integers",
        why="`np.array([1, 2])` has 64 bits whatever the numbers are; it had 32 when they fitted.",
        function="discover_descriptor_from_pylong",
        expected="""
            i32.const 7
            i32.const 9
            local.get 2
            i64.const 2147483648
            i64.add
            i64.const 4294967296
            i64.lt_u
            select
        """,
        replacement="i32.const 9",
    ),
    Edit(
        name="numpy-bool-and-integer",
        why="`np.True_ + 1` and what else joins booleans with a Python integer has 64 bits.",
        function="int_common_dtype",
        expected="i32.load offset=27642972\nlocal.tee 2\ni32.load",
        replacement="i32.load offset=27642932\nlocal.tee 2\ni32.load",
    ),
    _constant(
        "numpy-integer-placeholder",
        "_multiarray_umath_exec",
        "The zero that stands for a Python integer beyond 64 bits has the default type.",
    ),
    Edit(
        name="numpy-integer-operands",
        why="A Python integer as operand has the default type without being replaced by the placeholder.",
        function="convert_ufunc_arguments",
        expected="i32.load\ni32.const 7\ni32.eq",
        replacement="i32.load\ni32.const 9\ni32.eq",
    ),
    Edit(
        name="numpy-integer-calls",
        why="`np.add(2**31 - 1, 1)` computes with 64 bits.",
        function="ufunc_generic_fastcall",
        expected="""
            local.get 9
            local.get 5
            i32.const 472
            i32.add
            call PyLong_AsLongAndOverflow
            local.set 9
            block
            block
            local.get 5
            i32.load offset=472
            br_if 0
            i32.const -1
            local.set 12
            local.get 9
            i32.const -1
            i32.ne
            br_if 1
            call PyErr_Occurred
            i32.eqz
            br_if 1
            end
            i32.const 0
            local.set 11
            br 4
            end
            local.get 5
            local.get 9
            i32.store offset=304
            i32.const 7
            call PyArray_DescrFromType
        """,
        replacement="""
            local.get 9
            local.get 5
            i32.const 472
            i32.add
            call PyLong_AsLongLongAndOverflow
            local.set new0
            block
            block
            local.get 5
            i32.load offset=472
            br_if 0
            i32.const -1
            local.set 12
            local.get new0
            i64.const -1
            i64.ne
            br_if 1
            call PyErr_Occurred
            i32.eqz
            br_if 1
            end
            i32.const 0
            local.set 11
            br 4
            end
            local.get 5
            local.get new0
            i64.store offset=304
            i32.const 9
            call PyArray_DescrFromType
        """,
        new_locals=("i64",),
    ),
    Edit(
        name="numpy-sum-of-booleans",
        why="Sums and products of booleans and small integers have 64 bits.",
        function="reducelike_promote_and_resolve",
        expected="i32.const 7\nlocal.set 9",
        replacement="i32.const 9\nlocal.set 9",
    ),
    Edit(
        name="numpy-sum-of-small-integers",
        why="Integers of 32 bits count as small in this.",
        function="reducelike_promote_and_resolve",
        expected="i32.load\ni32.const 3\ni32.le_u",
        replacement="i32.load\ni32.const 7\ni32.le_u",
    ),
    Data(
        name="numpy-sum-types",
        why="The types that such sums have, by the type of what is summed.",
        address=22081920,
        expected=bytes([8, 7, 8, 7, 8, 7, 8, 7, 8]),
        replacement=bytes([10, 9, 10, 9, 10, 9, 10, 9, 10]),
    ),
)

_NAMES: tuple[AnyPatch, ...] = (
    *(
        Edit(
            name=f"numpy-{name}",
            why=f"`np.{name}` is the type of a C `int`, as on most 64-bit systems, and not that of indices.",
            function="set_typeinfo",
            expected=f"i32.const {address}\ni32.const {old}\ncall PyArray_DescrFromType",
            replacement=f"i32.const {address}\ni32.const {new}\ncall PyArray_DescrFromType",
        )
        for name, (address, old, new) in _OBJECT_ADDRESSES.items()
    ),
    Data(
        name="numpy-i4",
        why='So are `np.dtype("i4")`',
        address=22071594,
        expected=b"\x07",
        replacement=b"\x05",
    ),
    Data(
        name="numpy-u4",
        why='and `np.dtype("u4")`.',
        address=22071598,
        expected=b"\x08",
        replacement=b"\x06",
    ),
    Data(
        name="numpy-int32-name",
        why="That type is called int32 and not intc.",
        address=26435240,
        expected=(17715201).to_bytes(4, "little"),
        replacement=(18129762).to_bytes(4, "little"),
    ),
    Data(
        name="numpy-uint32-name",
        why="Likewise uint32.",
        address=26436300,
        expected=(17715189).to_bytes(4, "little"),
        replacement=(18128780).to_bytes(4, "little"),
    ),
    Edit(
        name="numpy-letters",
        why='`np.dtype("l")` and `np.dtype("L")` have 64 bits.',
        function="_convert_from_str",
        expected="local.get 9\ncall PyArray_DescrFromType\nlocal.tee 9",
        replacement="local.get 9\ncall evocell.letter\ncall PyArray_DescrFromType\nlocal.tee 9",
    ),
)

_INDICES: tuple[AnyPatch, ...] = (
    *(
        Edit(
            name=f"numpy-checked-index-{where}{source}",
            why="An integer that is too large for an index is an error, and not cut to 32 bits.",
            function=f"{where}{source}_to_long",
            expected="i32.load8_u offset=16\ni32.const 1\ni32.and",
            replacement="i32.load8_u offset=16\ndrop\ni32.const 1",
        )
        for source in ("longlong", "uint", "ulong")
        for where in ("_aligned_cast_", "_aligned_contig_cast_", "_cast_", "_contig_cast_")
    ),
    *(
        Edit(
            name=f"numpy-index-error-{where.strip('_')}",
            why="The error is an `IndexError`, as it is natively for an index that is out of range.",
            function=f"{where}longlong_to_long",
            expected="i32.load offset=26079184\ni32.const 17395630",
            replacement="i32.load offset=26079528\ni32.const 17588093",
            occurrence=0,
        )
        for where in ("_aligned_cast_", "_aligned_contig_cast_", "_cast_", "_contig_cast_")
    ),
    *(
        Edit(
            name=f"numpy-products-of-indices-{function}-{place + 1}",
            why="`dot`, `inner`, `vdot` and `correlate` of indices are computed with 64 bits.",
            function=function,
            expected="call PyArray_DTypeFromObject",
            replacement="call evocell.operand_type",
            occurrence=0,  # the one before it is replaced already
        )
        for function in (
            "PyArray_MatrixProduct2",
            "PyArray_InnerProduct",
            "array_vdot",
            "PyArray_Correlate",
            "PyArray_Correlate2",
        )
        for place in range(2)
    ),
    Edit(
        name="numpy-loops-for-indices",
        why="A function with loops for `long` but none for 64 bits (`scipy.special.eval_hermite`) takes the default integer.",
        function="ufunc_loop_matches",
        expected="local.get 16\ni32.load\nlocal.get 5\nlocal.get 2\ncall PyArray_CanCastArrayTo",
        replacement="""
            local.get 16
            i32.load
            local.get 5
            local.get 2
            call PyArray_CanCastArrayTo
            local.get 0
            local.get 16
            i32.load
            local.get 5
            call evocell.loop_fits
            i32.and
        """,
    ),
    Edit(
        name="numpy-loops-for-indices-of-one",
        why="The same where the first operand is looked at.",
        function="ufunc_loop_matches",
        expected="local.get 7\ni32.load\nlocal.get 5\nlocal.get 2\ncall PyArray_CanCastArrayTo",
        replacement="""
            local.get 7
            i32.load
            local.get 5
            local.get 2
            call PyArray_CanCastArrayTo
            local.get 0
            local.get 7
            i32.load
            local.get 5
            call evocell.loop_fits
            i32.and
        """,
    ),
    Edit(
        name="numpy-loops-for-indices-by-type",
        why="The same where only types are compared.",
        function="ufunc_loop_matches",
        expected="local.get 5\nlocal.get 2\ncall PyArray_CanCastTypeTo",
        replacement="""
            local.get 5
            local.get 2
            call PyArray_CanCastTypeTo
            local.get 0
            local.get 16
            i32.load
            local.get 5
            call evocell.loop_takes
            i32.or
        """,
    ),
    Edit(
        name="numpy-wide-operand",
        why="Computing with indices that a compiled library gave is done with 64 bits.",
        function="convert_ufunc_arguments",
        expected="local.get 4\nlocal.get 0\ni32.add\nlocal.tee 25\nlocal.get 1\ni32.const 28",
        replacement="""
            local.get 3
            local.get 0
            i32.add
            local.get 1
            call evocell.widen_array
            local.tee 1
            i32.store
            local.get 4
            local.get 0
            i32.add
            local.tee 25
            local.get 1
            i32.const 28
        """,
    ),
    Edit(
        name="numpy-wide-single-operand",
        why="The same for functions of one argument.",
        function="convert_ufunc_arguments",
        expected="local.get 4\nlocal.get 0\ni32.const 28\ni32.add\ni32.load\ni32.const 4",
        replacement="""
            local.get 3
            local.get 0
            call evocell.widen_array
            local.tee 0
            i32.store
            local.get 4
            local.get 0
            i32.const 28
            i32.add
            i32.load
            i32.const 4
        """,
    ),
)

_WRAPPED: tuple[tuple[str, int, str], ...] = (
    ("array_argsort", 4, "83bb868753a3e7d57fe5caae5aecd9eb2a16cb23b9133047e4d0fea95c2976d1"),
    ("array_argpartition", 4, "d0dae5c919afffe3071062fecabc4485d9e44a8ba977d32f9dbcf28450abd99f"),
    ("array_argmax", 4, "3d48314a7eb258e5f2e0d4de4ad85a9354861188013e2a26d4e998b42283fc90"),
    ("array_argmin", 4, "36d16adfe5cd1a75b4d73a51c8b11e8bf8d24009ecdf2df53110f3ac9f13dee6"),
    ("array_searchsorted", 4, "066a1193852ad777150b4546b3155ddedac561df83f5a448e6c0ac5355d5a1d5"),
    ("arr_bincount", 4, "74eb5af738ada2340c3f4cd8a426e05c6d9b3d9def3d5cb4c31ace048c020049"),
    ("array_lexsort", 4, "70005ebd2e502000f7459083e99fb21226062b2dfaa96182167dfb2892e507c1"),
    ("arr_unravel_index", 3, "5c2526379e1a2760fe51edbef4b5d5c16434534940ed039ec6d7fc39660211e4"),
    ("arr_ravel_multi_index", 3, "2b97c2803bbfef3fd30de1e740f49b601c232ebd64df4650ea803ef1ef70d268"),
    ("array_where", 3, "a77853d76065f0d88a02e436c7ce40136e88a95a0e0fef50727677958bfbd864"),
    ("array_nonzero", 2, "4df9dab02ee4a0c44b9af41e8bc133250bdcf22c7dcd1dbee11f43b9007e0b50"),
    ("ufunc_generic_fastcall", 5, "d201f9833724216e3012e15556bc854f224fb08301fcad229daff085bed7e92d"),
    (
        "__pyx_pw_5numpy_6random_6mtrand_11RandomState_109permutation",
        4,
        "450a29df91b7c5f6f7858f884dd1eed5c67bf08f50810288a88bd4d1b2ea21d0",
    ),
    (
        "__pyx_pw_5numpy_6random_6mtrand_11RandomState_103multinomial",
        4,
        "20a9167e810f42eb8a835af12bffa84c4534c10f8d1cefd7ef8334dccbaaa56d",
    ),
    (
        "__pyx_pw_5numpy_6random_6mtrand_11RandomState_35choice",
        4,
        "8828a50c08ae3373e4b8daafcd31752761bea9498ae4fb348950c394d3caf081",
    ),
    (
        "__pyx_pw_5numpy_6random_6mtrand_11RandomState_87binomial",
        4,
        "28f846f187fa8548ad8859c4cc8259e6d7ba16c2aa8e35d586f80d510af5403b",
    ),
)
"""Functions whose results are widened, with the number of their parameters and the SHA-256 of their bodies."""

_REPLACED = (
    ("PyArray_Scalar", "e3fea8c22aa48c4e34a5382bd22b7d237eb70eb017059ee16f67c544db2487f5"),
    ("PyArray_EinsteinSum", "996796d9b84feb1284ac602e02930c449fa8c96f24729b141ae8c812e1eebb93"),
    ("prepare_index_noarray", "98cda439c91b78365a28381a7b96bb06c6883f5e4be55df166cb1e72b9b4587a"),
    ("PyArray_CanCastArrayTo", "c36de2e1eec70911239778aa506b96ac2ffa316fa0f0c10453baa7902973e64f"),
    ("long_arrtype_new", "61a78ce3c04c9c89f2b9bb88bf5c145ae5703bda7ebac85b02fe8128d64c6644"),
    ("ulong_arrtype_new", "1f67baf7abf20ae18652be139e747741cf6dd598e53f371d43df12ff3a38f1ca"),
)
"""Functions that the donor replaces by name."""

_WRAPPER = """
  (import "original" "{name}" (func ${name} {params} (result i32)))"""
_WRAPPER_BODY = """
  (func (export "{name}") {params} (result i32)
    (call {how} (call ${name} {gets})))"""


def _donor() -> str:
    """The donor with a function around each of those whose results are widened."""
    imports = bodies = ""
    for name, many, _ in _WRAPPED:
        params = "(param" + " i32" * many + ")"
        gets = " ".join(f"(local.get {place})" for place in range(many))
        imports += _WRAPPER.format(name=name, params=params)
        how = "$widen_array" if "RandomState" in name else "$widen"
        bodies += _WRAPPER_BODY.format(name=name, params=params, gets=gets, how=how)
    text = files(__package__).joinpath("integers.wat").read_text(encoding="utf-8")
    return text.replace("@IMPORTS@", imports.lstrip("\n")).replace("@WRAPPERS@", bodies)


_RESULTS: tuple[AnyPatch, ...] = (
    Donor(
        name="numpy-index-results",
        why=(
            "What `argsort`, `nonzero`, `searchsorted`, `bincount` and their like give has 64 bits where a program asked "
            "for it, and 64-bit integers are cast safely to the type of indices (`np.repeat(a, counts)`). scipy, pandas, scikit-learn and statsmodels get indices of the width of a pointer, for which their "
            "compiled halves were made."
        ),
        expected=(
            *((name, digest) for name, _, digest in _WRAPPED),
            *_REPLACED,
        ),
        wat=_donor(),
    ),
)

_BY_NAME: tuple[AnyPatch, ...] = (
    Edit(
        name="numpy-type-names",
        why='`np.dtype("intp")` and `np.dtype("uintp")` have 64 bits for programs, and a pointer\'s width for compiled libraries.',
        function="_convert_from_str",
        expected="local.get 8\nlocal.get 1\ncall _convert_from_any",
        replacement="local.get 8\nlocal.get 1\ncall evocell.named_type",
        occurrence=0,
    ),
)

_RANDOM: tuple[AnyPatch, ...] = (
    Edit(
        name="numpy-choice-beyond-32-bits",
        why="`Generator.choice(2**40, 3, replace=False)` never ended: it began to count at a number cut to 32 bits.",
        function="__pyx_pf_5numpy_6random_10_generator_9Generator_26choice",
        expected="i64.sub\ni64.extend32_s\nlocal.tee 37",
        replacement="i64.sub\nlocal.tee 37",
    ),
)

INTEGERS: tuple[AnyPatch, ...] = (*_DEFAULTS, *_RESULTS, *_NAMES, *_BY_NAME, *_INDICES, *_RANDOM)
"""This part of the table; what calls a donor's functions comes after it."""
