"""Matrix products: the innermost kernel of OpenBLAS for doubles, with a larger tile.

The library was built for no processor in particular, with tiles of 2 x 2 whose operands are shuffled
together at each step. The kernel here reads the same packed panels (two rows, or two columns, beside one
another) and keeps a tile of 4 x 2 in registers.

Results are the same to the bit. The kernel that is replaced sums up the even and the odd products of each
element apart, then adds the two sums, then the product that is left if their number is odd; so does this
one. What is left at the edges is done by the replaced kernel itself. That for singles is not replaced: with
four sums for each element a larger tile does not fit into the registers, and was slower.
"""

from __future__ import annotations

from evocell_runtime.patches.model import Donor
from evocell_runtime.patches.templates import fill

_NAME = "dgemm_kernel"
_DIGEST = "46a4ca8b3eae573c7e4766a5b7185280f4f96c35abf64598b3879c2e10302168"
_SUMS = [f"$s{row}{column}{part}" for row in (0, 2) for column in (0, 1) for part in (0, 1)]
"""Two rows' sums of a column, of the even (0) and the odd (1) products."""

_MODULE = """(module
(import "interpreter" "memory" (memory 0))
(import "original" "@NAME"
  (func $original (param $m i32) (param $n i32) (param $k i32) (param $alpha f64)
    (param $a i32) (param $b i32) (param $c i32) (param $ldc i32) (result i32)))

;; c += alpha * a * b, with m x k numbers at a, k x n at b; a column of c begins ldc numbers after the one before.
(func (export "@NAME") (param $m i32) (param $n i32) (param $k i32) (param $alpha f64)
    (param $a i32) (param $b i32) (param $c i32) (param $ldc i32) (result i32)
  (local $rows i32) (local $columns i32) (local $row i32) (local $panel i32) (local $block i32) (local $tile i32)
  (local.set $rows (i32.and (local.get $m) (i32.const -4)))
  (local.set $columns (i32.and (local.get $n) (i32.const -2)))
  (if (i32.or
        (i32.or (i32.lt_s (local.get $rows) (i32.const 1)) (i32.lt_s (local.get $columns) (i32.const 1)))
        (i32.lt_s (local.get $k) (i32.const 1)))
    (then (return (call $original (local.get $m) (local.get $n) (local.get $k) (local.get $alpha)
      (local.get $a) (local.get $b) (local.get $c) (local.get $ldc)))))
  (local.set $panel (i32.shl (local.get $k) (i32.const 4)))
  (local.set $n (i32.sub (local.get $n) (local.get $columns)))
  (loop $across
    (local.set $row (i32.const 0))
    (local.set $block (local.get $a))
    (local.set $tile (local.get $c))
    (loop $down
      (call $tile (local.get $k) (local.get $alpha) (local.get $block) (local.get $b)
        (local.get $tile) (i32.add (local.get $tile) (i32.shl (local.get $ldc) (i32.const 3))))
      (local.set $block (i32.add (local.get $block) (i32.shl (local.get $panel) (i32.const 1))))
      (local.set $tile (i32.add (local.get $tile) (i32.const 32)))
      (br_if $down (i32.lt_s (local.tee $row (i32.add (local.get $row) (i32.const 4))) (local.get $rows))))
    (if (i32.ne (local.get $m) (local.get $rows))
      (then (drop (call $original (i32.sub (local.get $m) (local.get $rows)) (i32.const 2)
        (local.get $k) (local.get $alpha) (local.get $block) (local.get $b) (local.get $tile) (local.get $ldc)))))
    (local.set $b (i32.add (local.get $b) (local.get $panel)))
    (local.set $c (i32.add (local.get $c) (i32.shl (local.get $ldc) (i32.const 4))))
    (br_if $across (local.tee $columns (i32.sub (local.get $columns) (i32.const 2)))))
  (if (local.get $n)
    (then (drop (call $original (local.get $m) (local.get $n) (local.get $k) (local.get $alpha)
      (local.get $a) (local.get $b) (local.get $c) (local.get $ldc)))))
  (i32.const 0))

;; One tile, of two panels of a and one of b, with its columns at c0 and c1.
(func $tile (param $k i32) (param $alpha f64) (param $a0 i32) (param $b i32) (param $c0 i32) (param $c1 i32)
  (local $a2 i32) (local $turns i32) (local $v0 v128) (local $v2 v128) (local $u v128) (local $w v128) @LOCALS
  (local.set $a2 (i32.add (local.get $a0) (i32.shl (local.get $k) (i32.const 4))))
  (if (local.tee $turns (i32.shr_u (local.get $k) (i32.const 1)))
    (then
      (loop $pairs
        @EVEN
        @ODD
        (local.set $a0 (i32.add (local.get $a0) (i32.const 32)))
        (local.set $a2 (i32.add (local.get $a2) (i32.const 32)))
        (local.set $b (i32.add (local.get $b) (i32.const 32)))
        (br_if $pairs (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))))
  @SUMMED
  (if (i32.and (local.get $k) (i32.const 1))
    (then
      @EVEN))
  (local.set $u (f64x2.splat (local.get $alpha)))
  @STORED)
)"""


def donors() -> tuple[Donor, ...]:
    """The patches."""
    return (
        Donor(
            name="matrix product",
            why="A product of two matrices took ten times as long as on the desk: the kernel is "
            "made for no processor. With a larger tile it takes a good half of that. Every "
            "element is summed up in the same order, so results are the same to the bit.",
            expected=((_NAME, _DIGEST),),
            wat=module_text(),
        ),
    )


def module_text() -> str:
    """The module with the kernel."""
    named = {
        "NAME": _NAME,
        "LOCALS": " ".join(f"(local {name} v128)" for name in _SUMS),
        "EVEN": "\n        ".join(_step(0)),
        "ODD": "\n        ".join(_step(1)),
        "SUMMED": "\n  ".join(
            f"(local.set {even} (f64x2.add (local.get {even}) (local.get {odd})))"
            for even, odd in zip(_SUMS[::2], _SUMS[1::2], strict=True)
        ),
        "STORED": "\n  ".join(_stored()),
    }
    return fill(_MODULE, named)


def _step(part: int) -> list[str]:
    """A product for each element: a column of a times a row of b."""
    lines = [
        f"(local.set {name} (v128.load offset={16 * part} align=8 (local.get {pointer})))"
        for name, pointer in (("$v0", "$a0"), ("$v2", "$a2"), ("$u", "$b"))
    ]
    for column in (0, 1):
        twice = " ".join(str(8 * column + byte) for byte in [*range(8), *range(8)])
        lines.append(f"(local.set $w (i8x16.shuffle {twice} (local.get $u) (local.get $u)))")
        for row in (0, 2):
            total = f"$s{row}{column}{part}"
            product = f"(f64x2.mul (local.get $v{row}) (local.get $w))"
            lines.append(f"(local.set {total} (f64x2.add (local.get {total}) {product}))")
    return lines


def _stored() -> list[str]:
    lines = []
    for column in (0, 1):
        for row in (0, 2):
            place = f"offset={8 * row} align=8"
            scaled = f"(f64x2.mul (local.get $u) (local.get $s{row}{column}0))"
            value = f"(f64x2.add {scaled} (v128.load {place} (local.get $c{column})))"
            lines.append(f"(v128.store {place} (local.get $c{column}) {value})")
    return lines
