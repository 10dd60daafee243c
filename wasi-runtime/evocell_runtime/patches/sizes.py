"""`sys.maxsize` may be given wherever it only says that there is no bound."""

from __future__ import annotations

from importlib.resources import files

from evocell_runtime.patches.model import AnyPatch, Donor, Edit

_BOUNDED = {
    "PyObject_LengthHint": 1,
    "Struct_pack_into": 1,
    "Struct_unpack_from": 1,
    "_bisect_bisect_left": 1,
    "_bisect_bisect_right": 1,
    "_bisect_insort_left": 1,
    "_bisect_insort_right": 1,
    "_bz2_BZ2Decompressor_decompress": 1,
    "_csv_field_size_limit": 1,
    "_io_BytesIO_readlines": 1,
    "_io_TextIOWrapper_readline": 1,
    "_io__Buffered_peek": 1,
    "_io__Buffered_read1": 1,
    "_io__RawIOBase_read": 1,
    "_lzma_LZMADecompressor_decompress": 1,
    "_multibytecodec_MultibyteStreamReader_read": 1,
    "_multibytecodec_MultibyteStreamReader_readline": 1,
    "_multibytecodec_MultibyteStreamReader_readlines": 1,
    "_sre_SRE_Pattern_findall": 2,
    "_sre_SRE_Pattern_finditer": 2,
    "_sre_SRE_Pattern_fullmatch": 2,
    "_sre_SRE_Pattern_prefixmatch": 2,
    "_sre_SRE_Pattern_scanner": 2,
    "_sre_SRE_Pattern_search": 2,
    "_sre_SRE_Pattern_split": 1,
    "_sre_SRE_Pattern_sub": 1,
    "_sre_SRE_Pattern_subn": 1,
    "array_array_insert": 1,
    "array_array_pop": 1,
    "batched_new": 1,
    "binascii_b2a_hex": 1,
    "binascii_hexlify": 1,
    "bytearray_hex": 1,
    "bytearray_insert": 1,
    "bytearray_pop": 1,
    "bytearray_replace": 1,
    "bytearray_rsplit": 1,
    "bytearray_split": 1,
    "bytes_hex": 1,
    "bytes_replace": 1,
    "bytes_rsplit": 1,
    "bytes_split": 1,
    "convertitem": 1,
    "deque_init": 1,
    "deque_insert": 1,
    "get_legacy_print_mode": 1,
    "itertools_combinations": 1,
    "itertools_permutations": 1,
    "list_insert": 1,
    "list_pop": 1,
    "memoryview_hex": 1,
    "pack_into": 1,
    "unicode_replace": 1,
    "unicode_rsplit": 1,
    "unicode_split": 1,
    "unicodedata_iter_graphemes": 2,
    "unpack_from": 1,
    "zlib_Decompress_decompress": 1,
    "zlib__ZlibDecompressor_decompress": 1,
}
"""Functions that read a bound as an integer, and how often."""

_INDEXED = {"_Py_convert_optional_to_ssize_t": 1, "islice_new": 4, "lru_cache_new": 1}
"""Functions that read a bound as an index."""

_CONVERTED = ("binascii_b2a_ascii85", "binascii_b2a_base32", "binascii_b2a_base64", "binascii_b2a_base85")
"""Functions that have a bound converted."""

_WHY = (
    "`sys.maxsize` is 2**63 - 1 for programs, as natively, and means that there is no bound; here sizes have 32 bits. "
    "A bound beyond them is as good as the largest."
)


def _bounds(function: str, many: int, call: str, helper: str) -> tuple[Edit, ...]:
    return tuple(
        Edit(
            name=f"bound-{function}" + (f"-{place + 1}" if many > 1 else ""),
            why=_WHY,
            function=function,
            expected=f"call {call}",
            replacement=f"call {helper}",
            occurrence=0,  # those before it are replaced already
        )
        for place in range(many)
    )


SIZES: tuple[AnyPatch, ...] = (
    Donor(
        name="bounds",
        why="Functions that take the nearest size for an integer of 64 bits; what follows calls them.",
        expected=(),
        wat=files(__package__).joinpath("sizes.wat").read_text(encoding="utf-8"),
    ),
    *(
        edit
        for function, many in _BOUNDED.items()
        for edit in _bounds(function, many, "PyLong_AsSsize_t", "evocell.size")
    ),
    *(
        edit
        for function, many in _INDEXED.items()
        for edit in _bounds(function, many, "PyNumber_AsSsize_t", "evocell.index")
    ),
    *(
        edit
        for function in _CONVERTED
        for edit in _bounds(function, 1, "_PyLong_Size_t_Converter", "evocell.converted")
    ),
)
"""This part of the table."""
