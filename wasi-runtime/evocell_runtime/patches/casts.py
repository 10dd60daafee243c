"""Conversions of floating-point numbers to integers give what x86-64 gives where C leaves the result open.

A number that does not fit the integer, an infinity or a NaN has no defined result in C. WebAssembly's compilers take
the nearest integer, and 0 for NaN. x86-64 has one integer for all of these, the smallest of 32 or 64 bits ("indefinite"), and
narrower types take the low bits of it or of the number as 32 bits; unsigned types of 32 bits take the low bits of 64. Programs see
it in `np.array([-1.0]).astype("u1")`, which is 255, and in `np.array([np.nan]).astype(int)`.

Where numpy's loops for contiguous single and double floats to 32 unsigned bits, made with vectors, give another result natively
than its other loops do, the other loops' is taken.
"""

from __future__ import annotations

from evocell_runtime.patches.model import AnyPatch, Donor, Edit, Everywhere, Form

_BITS = {"f32": {31: "0x4f000000", 63: "0x5f000000", 64: "0x5f800000"}}
_BITS["f64"] = {31: "0x41e0000000000000", 63: "0x43e0000000000000", 64: "0x43f0000000000000"}
"""Powers of 2 by their exponents."""

_SMALLEST = {"i32": -(1 << 31), "i64": -(1 << 63)}


def _signed(integer: str, real: str) -> str:
    """Numbers below the range saturate to the indefinite integer already."""
    power = _BITS[real][31 if integer == "i32" else 63]
    return f"""
        local.tee new0
        {integer}.trunc_sat_{real}_s
        {integer}.const {_SMALLEST[integer]}
        local.get new0
        {real}.const {power}
        {real}.lt
        select
    """


def _low_half(real: str) -> str:
    return f"""
        local.tee new0
        i64.trunc_sat_{real}_s
        i32.wrap_i64
        i32.const 0
        local.get new0
        {real}.const {_BITS[real][63]}
        {real}.lt
        select
    """


def _unsigned(real: str) -> str:
    """Compilers convert what is at least 2**63 without its highest bit, and add that afterwards."""
    return f"""
        local.tee new0
        {real}.const {_BITS[real][63]}
        {real}.ge
        if (result i64)
        local.get new0
        i64.trunc_sat_{real}_u
        i64.const 0
        local.get new0
        {real}.const {_BITS[real][64]}
        {real}.lt
        select
        else
        local.get new0
        i64.trunc_sat_{real}_s
        i64.const {_SMALLEST["i64"]}
        local.get new0
        local.get new0
        {real}.eq
        select
        end
    """


def _form(integer: str, real: str, sign: str, places: tuple[int, int]) -> Form:
    unsigned = _low_half(real) if integer == "i32" else _unsigned(real)
    text = _signed(integer, real) if sign == "s" else unsigned
    return Form(
        instruction=f"{integer}.trunc_sat_{real}_{sign}",
        replacement=text,
        narrow=_signed("i32", real) if integer == "i32" else text,
        local=real,
        places=places,
    )


_QUADS = """
;; Long doubles have 128 bits here. Their exponents say whether they fit.
(module
  (import "original" "__fixtfsi" (func $to_i32 (param i64 i64) (result i32)))
  (import "original" "__fixtfdi" (func $to_i64 (param i64 i64) (result i64)))
  (import "original" "__fixunstfdi" (func $to_u64 (param i64 i64) (result i64)))
  (func $magnitude (param $high i64) (result i64)
    (i64.and (local.get $high) (i64.const 0x7fffffffffffffff)))
  (func $i32 (export "__fixtfsi") (param $low i64) (param $high i64) (result i32)
    (if (i64.ge_u (call $magnitude (local.get $high)) (i64.const 0x401e000000000000))
      (then (return (i32.const 0x80000000))))
    (call $to_i32 (local.get $low) (local.get $high)))
  (func $i64 (export "__fixtfdi") (param $low i64) (param $high i64) (result i64)
    (if (i64.ge_u (call $magnitude (local.get $high)) (i64.const 0x403e000000000000))
      (then (return (i64.const 0x8000000000000000))))
    (call $to_i64 (local.get $low) (local.get $high)))
  (func (export "__fixunstfsi") (param $low i64) (param $high i64) (result i32)
    (i32.wrap_i64 (call $i64 (local.get $low) (local.get $high))))
  (func (export "__fixunstfdi") (param $low i64) (param $high i64) (result i64)
    (if (i64.lt_s (local.get $high) (i64.const 0x403e000000000000))
      (then (return (call $i64 (local.get $low) (local.get $high)))))
    (if (i64.lt_s (local.get $high) (i64.const 0x403f000000000000))
      (then (return (call $to_u64 (local.get $low) (local.get $high)))))
    (select (i64.const 0x8000000000000000) (i64.const 0)
      (i32.or
        (i64.gt_u (local.get $high) (i64.const 0x7fff000000000000))
        (i32.and (i64.eq (local.get $high) (i64.const 0x7fff000000000000))
          (i64.ne (local.get $low) (i64.const 0))))))
  (func (export "evocell.quad_to_16") (param $low i64) (param $high i64) (result i32)
    (local $whole i32)
    (local.set $whole (call $i32 (local.get $low) (local.get $high)))
    (select (local.get $whole) (i32.const 0x8000)
      (i32.eq (i32.extend16_s (local.get $whole)) (local.get $whole)))))
"""

_QUAD_CASTS = (
    ("byte", "__fixtfsi"),
    ("ubyte", "__fixunstfsi"),
    ("short", "__fixtfsi"),
    ("ushort", "__fixunstfsi"),
)


def _quad_edits() -> tuple[Edit, ...]:
    """Aligned long doubles are converted at one place more than others."""
    return tuple(
        Edit(
            name="numpy-casts-of-long-doubles",
            why="Long doubles become unsigned short integers through 32 bits, and narrower ones through 16, as natively.",
            function=f"{loop}cast_{source}_to_{target}",
            expected=f"call {call}",
            replacement=f"call {'__fixtfsi' if target == 'ushort' else 'evocell.quad_to_16'}",
            places=7 if source == "longdouble" and "aligned" in loop else 6,
        )
        for source in ("longdouble", "clongdouble")
        for loop in ("_aligned_contig_", "_aligned_", "_contig_", "_")
        for target, call in _QUAD_CASTS
    )


CASTS: tuple[AnyPatch, ...] = (
    Everywhere(
        name="casts-to-integers",
        why=(
            "A floating-point number that does not fit the integer that it is converted to gives what x86-64 gives: "
            "`np.array([-1.0]).astype('u1')` is 255, and infinity and NaN as int64 are the smallest integer. "
            "They gave the nearest integer, and 0 for NaN."
        ),
        forms=(
            _form("i32", "f32", "s", (910, 112)),
            _form("i32", "f32", "u", (448, 113)),
            _form("i32", "f64", "s", (2249, 159)),
            _form("i32", "f64", "u", (945, 325)),
            _form("i64", "f32", "s", (121, 0)),
            _form("i64", "f32", "u", (90, 0)),
            _form("i64", "f64", "s", (398, 0)),
            _form("i64", "f64", "u", (113, 0)),
        ),
    ),
    Donor(
        name="casts-of-long-doubles",
        why="The same for long doubles.",
        expected=(
            ("__fixtfsi", "0bb6989a5ee0ac0d28677c6ca2753a1d787b552ce44372c9ca3682921ad4cfbf"),
            ("__fixtfdi", "dacd5b7517eabb47cc444c568cbbd0e023c076f9d79c182857682c44ce551fc8"),
            ("__fixunstfsi", "6db80a9787ed306d4e9d2c5fd71004beb4e24887a3e601fd23453920fef287eb"),
            ("__fixunstfdi", "1a80b7583d7de26234487dbee05db6c0320fd12c6bfd10943a6b133c7e1f65bc"),
        ),
        wat=_QUADS,
    ),
    *_quad_edits(),
)
"""This part of the table, which comes first: what other parts replace or keep is to have it."""
