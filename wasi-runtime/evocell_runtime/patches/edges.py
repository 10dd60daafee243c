"""Values at the edges of what numbers can be: what x86-64 and its C library give there.

C leaves open what is here, or means another width: shifts are counted in `size_t`, which has 32 bits here, so that a
count of 2**32 was none; which of two zeros is the larger; and the exponent of what has none.
"""

from __future__ import annotations

from evocell_runtime.patches.model import AnyPatch, Donor, Edit

_FREXP = """(module
  (import "interpreter" "memory" (memory 0))
  (import "original" "frexp" (func $double (param f64 i32) (result f64)))
  (import "original" "frexpf" (func $single (param f32 i32) (result f32)))
  (import "original" "frexpl" (func $long (param i32 i64 i64 i32)))
  (func (export "frexp") (param $x f64) (param $exponent i32) (result f64)
    (i32.store (local.get $exponent) (i32.const 0))
    (call $double (local.get $x) (local.get $exponent)))
  (func (export "frexpf") (param $x f32) (param $exponent i32) (result f32)
    (i32.store (local.get $exponent) (i32.const 0))
    (call $single (local.get $x) (local.get $exponent)))
  (func (export "frexpl") (param $into i32) (param $low i64) (param $high i64) (param $exponent i32)
    (i32.store (local.get $exponent) (i32.const 0))
    (call $long (local.get $into) (local.get $low) (local.get $high) (local.get $exponent))))"""

LAST_ZERO: tuple[Edit, ...] = tuple(
    Edit(
        name="last-of-two-zeros",
        why=(
            "`np.maximum(-0.0, 0.0)` is 0.0 and `np.maximum(0.0, -0.0)` is -0.0, as on x86-64: of equal numbers the last counts. "
            "It was the first."
        ),
        function=f"{name}_{word}",
        expected=f"{scalar}.{old}",
        replacement=f"{scalar}.{new}",
        places=3,
    )
    for name, scalar in (("FLOAT", "f32"), ("DOUBLE", "f64"))
    for word, old, new in (("maximum", "ge", "gt"), ("minimum", "le", "lt"))
)
"""These come before the kernels, which replace the same functions and leave short arrays to them."""

EDGES: tuple[AnyPatch, ...] = (
    *(
        Edit(
            name="shifts-of-64-bits",
            why=(
                "A shift of 64-bit integers by 2**32 and more, or by a negative number, gives 0 or -1, as by every count beyond 63. "
                "Of the count only 32 bits were looked at: `np.left_shift(1, 2**32)` gave 1."
            ),
            function=function,
            expected="i64.const 4294967232\ni64.and",
            replacement="i64.const -64\ni64.and",
            places=places,
        )
        for kind in ("longlong", "ulonglong")
        for function, places in (
            (f"{kind}_lshift", 1),
            (f"{kind}_rshift", 1),
            (f"{kind.upper()}_left_shift", 24),
            (f"{kind.upper()}_right_shift", 24),
        )
    ),
    Donor(
        name="exponent-of-infinity",
        why="`np.frexp` of infinities and NaN gives the exponent 0. It gave what lay on the stack.",
        expected=(
            ("frexp", "f3108182393742d947d764178c80db94776b589fc076e7bf2fa6f3c0f2134977"),
            ("frexpf", "cb88e62fa1ae72bac44806ce7d9c6f0b6c066c9660e720e549130b064589e398"),
            ("frexpl", "9736273f97933f4404f8cf75d4e6529417a22c9384f4efe033ee314fae325f1d"),
        ),
        wat=_FREXP,
    ),
)
"""This part of the table."""
