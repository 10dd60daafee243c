"""Sums, differences, products and quotients of arrays, element by element, in vectors.

The loops that numpy has for processors with vectors are not compiled in. Results are the same to the bit, but
for what kind of NaN a NaN is. Arrays that are short, or do not lie in one piece, or overlap with the result in
part, are left to numpy's own loop, and so is summing up.
"""

from __future__ import annotations

from evocell_runtime.patches.extremes import Element
from evocell_runtime.patches.model import Donor
from evocell_runtime.patches.templates import fill

_FEWEST = 16

_BODIES = (
    ("add", "BYTE UBYTE", "f2e28b2826d1dcb9022da30d7d06628996624ee555264b16bd41b0982d5b0c2d"),
    ("subtract", "BYTE UBYTE", "35f1890b43ff89d1251a5392fc25d8df33639b80cdbb9e280fb2e6b740db91da"),
    ("add", "SHORT USHORT", "ca2510ef42117d620c3a8b4a4bc3ac2145bae2856c2dd346aaaae8d67d9c7beb"),
    ("subtract", "SHORT USHORT", "4075d180b2344ebea0126ee35e9ad1f5169583755ec9995219950b311529ad57"),
    ("multiply", "SHORT USHORT", "df09e576e5087dcf7102a4a096fa13427dd1d00b3660b0a51d32fa0b5bd3b9f9"),
    ("add", "INT UINT LONG ULONG", "70747e6bce4b36fbc97377e191aa8888d63a877d1f4637d84d92cfae1bf7872a"),
    ("subtract", "INT UINT LONG ULONG", "62022e09f7de21e68e97025d07a09d8b9e890c622f64f04f78822367d25e9033"),
    ("multiply", "INT UINT LONG ULONG", "106d1dca79dc9c8532b4be938281b521e85ad7cf443a931a30da0b36073a81b8"),
    ("add", "LONGLONG ULONGLONG", "1f47ed9f8f1fb8c9ad1ae62073bb418dd1dcf6a5abe1561e55e05bf377db7d2d"),
    ("subtract", "LONGLONG ULONGLONG", "43e9c5d9f0b1df2ca94dcfda698b7e2c549dd6d1ff4c32ea2d2d9bd704bcf4ff"),
    ("multiply", "LONGLONG ULONGLONG", "123c2e51c3b18ef8da2ccd1049857db7fd11acf2f45e5a83be043ecd210aae94"),
    ("add", "FLOAT", "c4627e8433256f065a90f65f56a59940cc1cf255bcbd06663417c42903a41b19"),
    ("subtract", "FLOAT", "6555e880775c505602e78f79438dd501488190b1af0b08980ae5de0ae9f051ea"),
    ("multiply", "FLOAT", "87b37bc70f245c93759e7c497d403643c3e70a4eedaf2797bc2bdfd15ae9e3e2"),
    ("divide", "FLOAT", "af1a84b7ca669067e1e89f90abd8404724491b96d4a8f59f0924a050ea712791"),
    ("add", "DOUBLE", "26dd032e177f0a397b46bc4d953858f5d360f84b2bcfd5eb51d59a71e23d3eb4"),
    ("subtract", "DOUBLE", "3047aba3e724b8439332cfa2055e137fd1b933673dcb774984741a9d75316f74"),
    ("multiply", "DOUBLE", "a0797c6abb5c49f99baaea350dcb51592b5fb2a63f9e536585d14c42a7ba2f39"),
    ("divide", "DOUBLE", "0f0e6bda49ed4d805e10baa261bd6ac232afb441d8f2448661862b68558a1c70"),
)
"""An operation, the dtypes, and the SHA-256 of the function's body, which those of one width have in common."""

_WIDTHS = {"BYTE": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONGLONG": 8, "FLOAT": 4, "DOUBLE": 8}


def _element(name: str) -> Element:
    floating, width = name in ("FLOAT", "DOUBLE"), _WIDTHS[name.removeprefix("U")]
    kind = "f" if floating else "u" if name.startswith("U") else "i"
    return Element(name, kind, width)


LOOPS = tuple(
    (_element(name), operation, digest) for operation, names, digest in _BODIES for name in names.split()
)
"""The dtype, the operation and the function's digest of each loop that is replaced."""

_HEAD = """
(import "interpreter" "memory" (memory 0))
"""

_ORIGINAL = """
(import "original" "@FUNCTION" (func $original@N (param i32 i32 i32 i32)))
"""

_APART = """
;; Whether $size bytes at $o have nothing of the $other bytes at $x.
(func $apart (param $x i32) (param $other i32) (param $o i32) (param $size i32) (result i32)
  (i32.or
    (i32.le_u (i32.add (local.get $x) (local.get $other)) (local.get $o))
    (i32.le_u (i32.add (local.get $o) (local.get $size)) (local.get $x))))

;; The same, or all of them.
(func $fit (param $x i32) (param $o i32) (param $size i32) (result i32)
  (i32.or (i32.eq (local.get $x) (local.get $o))
    (call $apart (local.get $x) (local.get $size) (local.get $o) (local.get $size))))
"""

_FUNCTION = """
(func (export "@FUNCTION") (param $args i32) (param $dimensions i32) (param $steps i32) (param $data i32)
  (local $n i32) (local $x i32) (local $y i32) (local $o i32) (local $size i32) (local $end i32)
  (local $by_x i32) (local $by_y i32) (local $a v128) (local $b v128)
  (local.set $n (i32.load (local.get $dimensions)))
  (local.set $x (i32.load (local.get $args)))
  (local.set $y (i32.load offset=4 (local.get $args)))
  (local.set $o (i32.load offset=8 (local.get $args)))
  (local.set $by_x (i32.load (local.get $steps)))
  (local.set $by_y (i32.load offset=4 (local.get $steps)))
  (local.set $size (i32.mul (local.get $n) (i32.const @W)))
  (block $plain
    (br_if $plain (i32.lt_s (local.get $n) (i32.const @FEWEST)))
    (br_if $plain (i32.ne (i32.load offset=8 (local.get $steps)) (i32.const @W)))
    (local.set $end (i32.add (local.get $o) (i32.and (local.get $size) (i32.const -32))))
    (if (i32.eq (local.get $by_x) (i32.const @W))
      (then
        (br_if $plain (i32.eqz (call $fit (local.get $x) (local.get $o) (local.get $size))))
        (if (i32.eq (local.get $by_y) (i32.const @W))
          (then
            (br_if $plain (i32.eqz (call $fit (local.get $y) (local.get $o) (local.get $size))))
            @BOTH)
          (else
            (br_if $plain (local.get $by_y))
            (br_if $plain (i32.eqz (call $apart (local.get $y) (i32.const @W) (local.get $o) (local.get $size))))
            (local.set $b (@SHAPE.splat (@LOAD (local.get $y))))
            @ONE_RIGHT)))
      (else
        (br_if $plain (local.get $by_x))
        (br_if $plain (i32.ne (local.get $by_y) (i32.const @W)))
        (br_if $plain (i32.eqz (call $fit (local.get $y) (local.get $o) (local.get $size))))
        (br_if $plain (i32.eqz (call $apart (local.get $x) (i32.const @W) (local.get $o) (local.get $size))))
        (local.set $a (@SHAPE.splat (@LOAD (local.get $x))))
        @ONE_LEFT))
    (local.set $end (i32.add (local.get $o) (i32.and (local.get $size) (i32.const 31))))
    (block $done
      (loop $rest
        (br_if $done (i32.eq (local.get $o) (local.get $end)))
        (@STORE (local.get $o) (@T.@OP (@LOAD (local.get $x)) (@LOAD (local.get $y))))
        (local.set $x (i32.add (local.get $x) (local.get $by_x)))
        (local.set $y (i32.add (local.get $y) (local.get $by_y)))
        (local.set $o (i32.add (local.get $o) (i32.const @W)))
        (br $rest)))
    (return))
  (call $original@N (local.get $args) (local.get $dimensions) (local.get $steps) (local.get $data)))
"""

_VECTORS = """(loop $vectors
              (v128.store align=1 (local.get $o) (@SHAPE.@OP {left} {right}))
              (v128.store offset=16 align=1 (local.get $o) (@SHAPE.@OP {next_left} {next_right}))
              {ahead}
              (br_if $vectors (i32.ne (local.tee $o (i32.add (local.get $o) (i32.const 32))) (local.get $end))))"""


def donors() -> tuple[Donor, ...]:
    """The patches."""
    return (
        Donor(
            name="arithmetic of arrays",
            why="a + b, a - b, a * b and a / b of arrays that fit into the processor's cache took four to "
            "eleven times as long as on the desk, because numpy's loops with vectors are not compiled in. "
            "Results are the same to the bit.",
            expected=tuple((_function(element, word), digest) for element, word, digest in LOOPS),
            wat=module_text(),
        ),
    )


def module_text() -> str:
    """The module with the loops."""
    parts = [_HEAD]
    parts += [_filled(_ORIGINAL, element, word, n) for n, (element, word, _) in enumerate(LOOPS)]
    parts.append(_APART)
    parts += [_filled(_FUNCTION, element, word, n) for n, (element, word, _) in enumerate(LOOPS)]
    return "(module" + "".join(parts) + ")"


def _function(element: Element, operation: str) -> str:
    return f"{element.name}_{operation}"


def _vectors(left: str, right: str) -> str:
    """The loop over vectors, of operands that move ("x", "y") or are one number in a vector ("a", "b")."""

    def operand(name: str, offset: str = "") -> str:
        kept = f"(local.get ${name})"
        return f"(v128.load {offset}align=1 {kept})" if name in "xy" else kept

    return _VECTORS.format(
        left=operand(left),
        right=operand(right),
        next_left=operand(left, "offset=16 "),
        next_right=operand(right, "offset=16 "),
        ahead=" ".join(
            f"(local.set ${name} (i32.add (local.get ${name}) (i32.const 32)))"
            for name in (left, right)
            if name in "xy"
        ),
    )


def _filled(text: str, element: Element, operation: str, number: int) -> str:
    named: dict[str, str | int] = {
        "FUNCTION": _function(element, operation),
        "N": number,
        "W": element.width,
        "T": element.scalar,
        "SHAPE": element.shape,
        "OP": {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div"}[operation],
        "LOAD": element.load(),
        "STORE": element.store(),
        "FEWEST": max(_FEWEST, 32 // element.width),
        "BOTH": _vectors("x", "y"),
        "ONE_RIGHT": _vectors("x", "b"),
        "ONE_LEFT": _vectors("a", "y"),
    }
    return fill(text, named)
