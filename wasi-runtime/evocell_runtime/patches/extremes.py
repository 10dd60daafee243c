"""The largest and the smallest of numbers: maximum, minimum, fmax, fmin, argmax and argmin, in vectors.

The loops that numpy has for processors with vectors are not compiled in. Results are the same to the bit:
of NaNs the first counts; of equal numbers, which are zeros of both signs, the last, as on x86-64, and for argmax and
argmin the first. Arrays that are short, or do not lie in one piece, or overlap with the result in part, are left to
numpy's own loop.
"""

from __future__ import annotations

import re

from attrs import frozen

from evocell_runtime.patches.model import Donor
from evocell_runtime.patches.templates import fill

_BEST_OF_TWO = re.compile(r"@BEST\((.),(.)\)")
_BLOCK = 64
_FEWEST_BYTES = 2 * _BLOCK


@frozen
class Element:
    """A dtype.

    Attributes:
        name: How its loops' names begin.
        kind: "u" unsigned, "i" signed, "f" floating point.
        width: Bytes of an element.
    """

    name: str
    kind: str
    width: int

    @property
    def finds(self) -> bool:
        """Whether argmax and argmin are faster so: wide integers take several instructions to compare."""
        return self.kind == "f" or self.width < 8

    @property
    def scalar(self) -> str:
        """The type in which one is held."""
        if self.kind == "f":
            return f"f{8 * self.width}"
        return "i64" if self.width == 8 else "i32"

    @property
    def shape(self) -> str:
        """The vectors that hold several."""
        return f"{'f' if self.kind == 'f' else 'i'}{8 * self.width}x{16 // self.width}"

    def load(self) -> str:
        """The instruction that loads one."""
        if self.width < 4:
            return f"i32.load{8 * self.width}_{'s' if self.kind == 'i' else 'u'}"
        return f"{self.scalar}.load"

    def store(self) -> str:
        """The instruction that stores one."""
        return f"i32.store{8 * self.width}" if self.width < 4 else f"{self.scalar}.store"


ELEMENTS = (
    Element("BYTE", "i", 1),
    Element("UBYTE", "u", 1),
    Element("SHORT", "i", 2),
    Element("USHORT", "u", 2),
    Element("INT", "i", 4),
    Element("UINT", "u", 4),
    Element("LONG", "i", 4),
    Element("ULONG", "u", 4),
    Element("LONGLONG", "i", 8),
    Element("ULONGLONG", "u", 8),
    Element("FLOAT", "f", 4),
    Element("DOUBLE", "f", 8),
)

_LOOP = "(param $args i32) (param $dimensions i32) (param $steps i32) (param $data i32)"
_ARG = "(param $p i32) (param $n i32) (param $found i32) (param $array i32) (result i32)"

_HEAD = """
(import "interpreter" "memory" (memory 0))
(import "interpreter" "npy_clear_floatstatus_barrier" (func $clear (param i32) (result i32)))
"""

_APART = """
;; Whether a result of $size bytes at $o lies where the operand at $x does, or has nothing of it.
(func $apart (param $x i32) (param $o i32) (param $size i32) (result i32)
  (i32.or (i32.eq (local.get $x) (local.get $o))
    (i32.or
      (i32.le_u (i32.add (local.get $x) (local.get $size)) (local.get $o))
      (i32.le_u (i32.add (local.get $o) (local.get $size)) (local.get $x)))))
"""

_BEST = """
;; The @WORD of $n numbers at $p, of at least a block; NaN if one is NaN.
(func $best@ID (param $p i32) (param $n i32) (result @T)
  (local $last i32) (local $a v128) (local $b v128) (local $c v128) (local $d v128)
  (local $u v128) (local $v v128) (local $w v128) (local $x v128) (local $nan v128)
  (local.set $last (i32.sub (i32.add (local.get $p) (i32.mul (local.get $n) (i32.const @W))) (i32.const 64)))
  (local.set $a (v128.load align=1 (local.get $p)))
  (local.set $b (v128.load offset=16 align=1 (local.get $p)))
  (local.set $c (v128.load offset=32 align=1 (local.get $p)))
  (local.set $d (v128.load offset=48 align=1 (local.get $p)))
  (block $done
    (loop $blocks
      (local.set $u (v128.load align=1 (local.get $p)))
      (local.set $v (v128.load offset=16 align=1 (local.get $p)))
      (local.set $w (v128.load offset=32 align=1 (local.get $p)))
      (local.set $x (v128.load offset=48 align=1 (local.get $p)))
      (local.set $a @BEST(a,u))
      (local.set $b @BEST(b,v))
      (local.set $c @BEST(c,w))
      (local.set $d @BEST(d,x))
      @NOTE_NAN
      (br_if $done (i32.eq (local.get $p) (local.get $last)))
      (local.set $p (i32.add (local.get $p) (i32.const 64)))
      (local.set $p (select (local.get $p) (local.get $last) (i32.lt_u (local.get $p) (local.get $last))))
      (br $blocks)))
  @RETURN_NAN
  (local.set $a @BEST(a,b))
  (local.set $c @BEST(c,d))
  (local.set $a @BEST(a,c))
  @FOLDED
  (@LANE 0 (local.get $a)))
"""

_FIND = """
;; Where the first of $n numbers at $p is that equals $m, or is NaN if that is; there is one.
(func $find@ID (param $p i32) (param $n i32) (param $m @T) (result i32)
  (local $last i32) (local $v v128)
  (local.set $v (@SHAPE.splat (local.get $m)))
  (local.set $last (i32.sub (i32.add (local.get $p) (i32.mul (local.get $n) (i32.const @W))) (i32.const 64)))
  @FIND_NAN
  (block $near
    (loop $blocks
      (br_if $near (i32.gt_u (local.get $p) (local.get $last)))
      (br_if $near (v128.any_true (v128.or
        (v128.or
          (@SHAPE.eq (local.get $v) (v128.load align=1 (local.get $p)))
          (@SHAPE.eq (local.get $v) (v128.load offset=16 align=1 (local.get $p))))
        (v128.or
          (@SHAPE.eq (local.get $v) (v128.load offset=32 align=1 (local.get $p)))
          (@SHAPE.eq (local.get $v) (v128.load offset=48 align=1 (local.get $p)))))))
      (local.set $p (i32.add (local.get $p) (i32.const 64)))
      (br $blocks)))
  (block $found
    (loop $singly
      (br_if $found (@T.eq (local.get $m) (@LOAD (local.get $p))))
      (local.set $p (i32.add (local.get $p) (i32.const @W)))
      (br $singly)))
  (local.get $p))
"""

_FIND_NAN = """
  (if (@T.ne (local.get $m) (local.get $m))
    (then
      (loop $nans
        (local.set $m (@LOAD (local.get $p)))
        (if (@T.eq (local.get $m) (local.get $m))
          (then
            (local.set $p (i32.add (local.get $p) (i32.const @W)))
            (br $nans))))
      (return (local.get $p))))"""

_ARGUMENT = """
(func (export "@NAME_arg@SHORT") @ARG
  (if (i32.lt_u (local.get $n) (i32.const @FEWEST))
    (then (return (call $original_arg@ID (local.get $p) (local.get $n) (local.get $found) (local.get $array)))))
  (i32.store (local.get $found) (i32.div_u
    (i32.sub (call $find@ID (local.get $p) (local.get $n) (call $best@ID (local.get $p) (local.get $n))) (local.get $p))
    (i32.const @W)))
  (i32.const 0))
"""

_UFUNC = """
(func (export "@NAME_@WORD") @LOOP
  (local $n i32) (local $x i32) (local $y i32) (local $o i32) (local $xs i32) (local $ys i32) (local $os i32)
  (local $last i32) (local $size i32) (local $s v128) (local $u v128) (local $v v128) (local $own @T) (local $m @T)
  (local $a v128) (local $b v128) (local $c v128) (local $d v128)
  (local.set $n (i32.load (local.get $dimensions)))
  (local.set $x (i32.load (local.get $args)))
  (local.set $y (i32.load offset=4 (local.get $args)))
  (local.set $o (i32.load offset=8 (local.get $args)))
  (local.set $xs (i32.load (local.get $steps)))
  (local.set $ys (i32.load offset=4 (local.get $steps)))
  (local.set $os (i32.load offset=8 (local.get $steps)))
  (block $other
    (br_if $other (i32.lt_s (local.get $n) (i32.const @FEWEST)))
    (local.set $size (i32.mul (local.get $n) (i32.const @W)))
    (if (i32.eqz (i32.or (local.get $xs) (local.get $os)))
      (then
        ;; one result of all
        (br_if $other (i32.ne (local.get $x) (local.get $o)))
        (br_if $other (i32.ne (local.get $ys) (i32.const @W)))
        @REDUCED
        (return)))
    (br_if $other (i32.ne (local.get $os) (i32.const @W)))
    (br_if $other (i32.eqz (call $apart (local.get $x) (local.get $o) (local.get $size))))
    (br_if $other (i32.eqz (call $apart (local.get $y) (local.get $o) (local.get $size))))
    (local.set $last (i32.sub (i32.add (local.get $o) (local.get $size)) (i32.const 64)))
    (if (i32.eq (local.get $xs) (i32.const @W))
      (then
        (if (i32.eq (local.get $ys) (i32.const @W))
          (then
            @BOTH
            @CLEAR
            (return)))
        (br_if $other (local.get $ys))
        (local.set $s (@SPLAT (local.get $y)))
        @RIGHT
        @CLEAR
        (return)))
    (br_if $other (local.get $xs))
    (br_if $other (i32.ne (local.get $ys) (i32.const @W)))
    (local.set $s (@SPLAT (local.get $x)))
    @LEFT
    @CLEAR
    (return))
  (call $original_@ID (local.get $args) (local.get $dimensions) (local.get $steps) (local.get $data)))
"""

_REDUCED = {
    "i": """
        (local.set $own (@LOAD (local.get $o)))
        (local.set $m (call $best@ID (local.get $y) (local.get $n)))
        (if (@T.@BETTER (local.get $m) (local.get $own)) (then (@STORE (local.get $o) (local.get $m))))""",
    "f": """
        (local.set $own (@LOAD (local.get $o)))
        (if (@T.eq (local.get $own) (local.get $own))
          (then
            (local.set $m (call $best@ID (local.get $y) (local.get $n)))
            (if (i32.eqz (@T.@BETTER (local.get $own) (local.get $m)))
              (then
                (if (@T.ne (local.get $m) (local.get $m))
                  (then (local.set $y (call $find@ID (local.get $y) (local.get $n) (local.get $m))))
                  (else
                    (local.set $y (i32.add (local.get $y) (local.get $size)))
                    (loop $back
                      (local.set $y (i32.sub (local.get $y) (i32.const @W)))
                      (br_if $back (i32.and (@T.eq (local.get $m) (@T.const 0)) (@T.ne (@LOAD (local.get $y)) (local.get $m)))))))
                (if (i32.or (@T.ne (local.get $m) (local.get $m)) (@T.eq (local.get $m) (@T.const 0)))
                  (then (@BITS.store (local.get $o) (@BITS.load (local.get $y))))
                  (else (@STORE (local.get $o) (local.get $m))))))))
        @CLEAR""",
    "fm": """
        (local.set $own (@LOAD (local.get $o)))
        (br_if $other (@T.ne (local.get $own) (local.get $own)))
        (local.set $a (@SHAPE.splat (local.get $own)))
        (local.set $b (local.get $a))
        (local.set $c (local.get $a))
        (local.set $d (local.get $a))
        (local.set $last (i32.sub (i32.add (local.get $y) (local.get $size)) (i32.const 64)))
        (local.set $x (local.get $y))
        (block $done
          (loop $numbers
            (local.set $u (v128.load align=1 (local.get $x)))
            (local.set $a @BEST(a,u))
            (local.set $u (v128.load offset=16 align=1 (local.get $x)))
            (local.set $b @BEST(b,u))
            (local.set $u (v128.load offset=32 align=1 (local.get $x)))
            (local.set $c @BEST(c,u))
            (local.set $u (v128.load offset=48 align=1 (local.get $x)))
            (local.set $d @BEST(d,u))
            (br_if $done (i32.eq (local.get $x) (local.get $last)))
            (local.set $x (i32.add (local.get $x) (i32.const 64)))
            (local.set $x (select (local.get $x) (local.get $last) (i32.lt_u (local.get $x) (local.get $last))))
            (br $numbers)))
        (local.set $a @BEST(a,b))
        (local.set $c @BEST(c,d))
        (local.set $a @BEST(a,c))
        @FOLDED
        (local.set $m (@LANE 0 (local.get $a)))
        (if (@T.eq (local.get $m) (@T.const 0))
          (then
            ;; of zeros one is the better, wherever it is
            (local.set $m (@T.const @BETTER_ZERO))
            (block $same
              (br_if $same (@BITS.eq (@BITS.reinterpret_@T (local.get $own)) (@BITS.const @ZERO_BITS)))
              (loop $zeros
                (br_if $same (@BITS.eq (@BITS.load (local.get $y)) (@BITS.const @ZERO_BITS)))
                (local.set $y (i32.add (local.get $y) (i32.const @W)))
                (br_if $zeros (i32.lt_u (local.get $y) (i32.add (local.get $last) (i32.const 64)))))
              (local.set $m (@T.neg (local.get $m))))))
        (@STORE (local.get $o) (local.get $m))
        @CLEAR""",
}

_BLOCKS = """
            (block $done
              (loop $blocks
                @STEPS
                (br_if $done (i32.eq (local.get $o) (local.get $last)))
                (local.set $n (i32.sub (local.get $last) (local.get $o)))
                (local.set $n (select (local.get $n) (i32.const 64) (i32.lt_u (local.get $n) (i32.const 64))))
                (local.set $o (i32.add (local.get $o) (local.get $n)))
                @ADVANCED
                (br $blocks)))"""


def donors() -> tuple[Donor, ...]:
    """The patches."""
    return (
        Donor(
            name="largest and smallest",
            why="np.max, np.argmax, np.maximum and their like took 6 to 29 times as long as on the "
            "desk, because numpy's loops with vectors are not compiled in. Results are the same"
            " to the bit.",
            expected=tuple(DIGESTS.items()),
            wat=module_text(ELEMENTS),
        ),
    )


def functions(elements: tuple[Element, ...]) -> list[str]:
    """The functions that are replaced."""
    names = []
    for one in elements:
        names += [f"{one.name}_{word}" for word in ("maximum", "minimum")]
        names += [f"{one.name}_{word}" for word in ("argmax", "argmin") if one.finds]
        names += [f"{one.name}_{word}" for word in ("fmax", "fmin") if one.kind == "f"]
    return names


def module_text(elements: tuple[Element, ...]) -> str:
    """The module for some dtypes."""
    heads, parts = [_HEAD], [_APART]
    for one in elements:
        for largest in (True, False):
            word, short = ("maximum", "max") if largest else ("minimum", "min")
            identity = f"{one.name}_{word}"
            heads.append(f'(import "original" "{one.name}_{word}" (func $original_{identity} {_LOOP}))\n')
            if one.finds:
                heads.append(
                    f'(import "original" "{one.name}_arg{short}" (func $original_arg{identity} {_ARG}))\n'
                )
            texts = (_BEST, _FIND, _ARGUMENT, _UFUNC) if one.finds else (_BEST, _UFUNC)
            parts += [_filled(text, one, word, largest=largest) for text in texts]
            if one.kind == "f":
                name = f"{one.name}_f{short}"
                heads.append(f'(import "original" "{name}" (func $original_{name} {_LOOP}))\n')
                parts.append(_filled(_UFUNC, one, f"f{short}", largest=largest))
    return "(module" + "".join(heads) + "".join(parts) + ")"


def _filled(text: str, one: Element, word: str, *, largest: bool) -> str:
    quiet = word.startswith("f")
    real = one.kind == "f"
    signed = "" if real else f"_{'s' if one.kind == 'i' else 'u'}"
    kept = "s" if one.kind == "i" else "u"
    small = f"_{kept}" if one.width < 4 else ""
    steps = _Steps(one, word, largest=largest)
    named = {
        "NOTE_NAN": "\n".join(_note_nan(one)) if real else "",
        "RETURN_NAN": (
            "(if (v128.any_true (local.get $nan)) (then (return (@T.const nan))))" if real else ""
        ),
        "FIND_NAN": _FIND_NAN if real else "",
        "BETTER_ZERO": "0" if largest else "-0",
        "ZERO_BITS": 0 if largest else 1 << 8 * one.width - 1,
        "FOLDED": "\n".join(_folded(steps)),
        "BOTH": _blocks(steps, "xy"),
        "RIGHT": _blocks(steps, "xs"),
        "LEFT": _blocks(steps, "sy"),
        "CLEAR": "(drop (call $clear (local.get $dimensions)))" if real else "",
        "BETTER": ("gt" if largest else "lt") + signed,
        "BITS": f"i{8 * one.width}",
        "FEWEST": _FEWEST_BYTES // one.width,
        "SPLAT": f"v128.load{8 * one.width}_splat",
        "SHAPE": one.shape,
        "SHORT": "max" if largest else "min",
        "LANE": f"{one.shape}.extract_lane{small}",
        "LOAD": one.load(),
        "STORE": one.store(),
        "LOOP": _LOOP,
        "NAME": one.name,
        "WORD": word,
        "ARG": _ARG,
        "ID": f"{one.name}_{word}",
        "T": one.scalar,
        "W": one.width,
    }
    text = text.replace("@REDUCED", _REDUCED["fm" if quiet else "f" if real else "i"])
    text = _BEST_OF_TWO.sub(lambda found: steps.best(found[1], found[2]), text)
    return fill(text, named)


@frozen
class _Steps:
    """Instructions for vectors in locals of one letter."""

    one: Element
    word: str
    largest: bool

    def best(self, first: str, second: str) -> str:
        """The better of each two; if neither is better, or one is NaN, the first."""
        one, shape = self.one, self.one.shape
        a, b = f"(local.get ${first})", f"(local.get ${second})"
        if one.kind == "f":
            return f"({shape}.{'pmax' if self.largest else 'pmin'} {a} {b})"
        if one.width < 8:
            return f"({shape}.{'max' if self.largest else 'min'}_{'s' if one.kind == 'i' else 'u'} {a} {b})"
        left, right = a, b
        if one.kind == "u":
            sign = "(v128.const i64x2 0x8000000000000000 0x8000000000000000)"
            left, right = f"(v128.xor {a} {sign})", f"(v128.xor {b} {sign})"
        return f"(v128.bitselect {a} {b} (i64x2.{'gt_s' if self.largest else 'lt_s'} {left} {right}))"

    def strict(self, first: str, second: str) -> str:
        """The better of each two, of zeros the positive one being the larger."""
        instruction = f"{self.one.shape}.{'max' if self.largest else 'min'}"
        return f"({instruction} (local.get ${first}) (local.get ${second}))"

    def of_both(self, first: str, second: str) -> str:
        """What the loop makes of each two."""
        shape = self.one.shape
        a, b = f"(local.get ${first})", f"(local.get ${second})"
        if self.one.kind != "f":
            return self.best(first, second)
        if self.word.startswith("f"):
            number = f"(v128.bitselect {a} {self.strict(first, second)} ({shape}.ne {b} {b}))"
            return f"(v128.bitselect {b} {number} ({shape}.ne {a} {a}))"
        kept = f"(v128.or ({shape}.{'gt' if self.largest else 'lt'} {a} {b}) ({shape}.ne {a} {a}))"
        return f"(v128.bitselect {a} {b} {kept})"


def _note_nan(one: Element) -> list[str]:
    pairs = [f"({one.shape}.ne (local.get ${name}) (local.get ${name}))" for name in "uvwx"]
    some = f"(v128.or (v128.or {pairs[0]} {pairs[1]}) (v128.or {pairs[2]} {pairs[3]}))"
    return [f"(local.set $nan (v128.or (local.get $nan) {some}))"]


def _folded(steps: _Steps) -> list[str]:
    """The lanes of the vector $a made into its first."""
    lines, apart = [], 8
    while apart >= steps.one.width:
        order = " ".join(str((byte + apart) % 16) for byte in range(16))
        lines.append(f"(local.set $v (i8x16.shuffle {order} (local.get $a) (local.get $a)))")
        lines.append(f"(local.set $a {steps.best('a', 'v')})")
        apart //= 2
    return lines


def _blocks(steps: _Steps, operands: str) -> str:
    """The loop over two arrays, or one and a number that is in every lane of $s."""
    lines = []
    for offset in range(0, _BLOCK, 16):
        place = f"offset={offset} align=1"
        left, right = operands[0], operands[1]
        if left == "x":
            lines.append(f"(local.set $u (v128.load {place} (local.get $x)))")
        if right == "y":
            lines.append(f"(local.set $v (v128.load {place} (local.get $y)))")
        value = steps.of_both("u" if left == "x" else "s", "v" if right == "y" else "s")
        lines.append(f"(v128.store {place} (local.get $o) {value})")
    moved = [name for name in operands if name != "s"]
    advanced = [f"(local.set ${name} (i32.add (local.get ${name}) (local.get $n)))" for name in moved]
    return _BLOCKS.replace("@STEPS", "\n".join(lines)).replace("@ADVANCED", "\n".join(advanced))


DIGESTS: dict[str, str] = {
    "BYTE_maximum": "bfa8978f5e9b010c3283bac2e69af1e760f6161be8a8981fe4ccf4cc8c545001",
    "BYTE_minimum": "1d5bcaefa42ece76a5f9d818667608aa2c67d585966b2d7d881b2d605c796618",
    "BYTE_argmax": "e1f12fc66ffc3a424dcbdf6cf7a36108d45c08490324e7fade08b843d2b8693e",
    "BYTE_argmin": "1d1d2926c41cf9632a714e824779c44605c03bb619fdc2a7a1d6a199ccca5813",
    "UBYTE_maximum": "1ecd02fc55dfbf928f60ee211c23331319f73c761b18a9ae93e9b59adde1edfe",
    "UBYTE_minimum": "e20488bc79cd3e7e2ecad6407acb1495f91929d785bc22c59f055ccb5728dbe0",
    "UBYTE_argmax": "9787a0ac0bb9084afbfc9ea1ff6ccbe737492591b77e468a95f8850f66dfc0a8",
    "UBYTE_argmin": "5c660eb094944453492f6d99581c8a695b57c3e2c300f5a4c821c20e1614e6bb",
    "SHORT_maximum": "61598a870d6d7635e3011aac8a22c5f84fca021c6fe846bdcc840d2932c2d3d7",
    "SHORT_minimum": "70769ed5f1bf822af26fe8d177ef6c889edd43c212a3d86ea3527bbc54e11c88",
    "SHORT_argmax": "f87f358d1ca8bc81c0f35e82db709aca401055f6a48b56afb54316083b228509",
    "SHORT_argmin": "1a77e7ad62592e1bdf3cc3f35a9dff13890568fbcc9a258c51b78a512e01ce1a",
    "USHORT_maximum": "358d0e5b68c2b165e12507752bd4f1a56efa05b1cb567b424446524fb4d70f79",
    "USHORT_minimum": "61cf4a2f9ce3344aca0294a9f7fe2b2f40b1424e23953cd5b8b3966f3a779c58",
    "USHORT_argmax": "aded26fbd50841c10148d47480a7e941ec2f9b353f097e62e5209efd62d782ba",
    "USHORT_argmin": "cee0665e7aff6cd360540938852d4d75292359ae4774aba85a8bba0372d7ebe9",
    "INT_maximum": "6ef70bdda841dc3df30aea7ef962812a4097f4bc385fb35a00d63099ab33eaf7",
    "INT_minimum": "5231796b26c774232679cbad79f7c504eeb4684a4f6e48dbe2c8591469c091dd",
    "INT_argmax": "7000fad363fd371ea5d68f0f2106fcce4e42a59dfdc5cea197ddc87cdb5dade6",
    "INT_argmin": "23385f78d8b4612f51a2c657b0a6820265a865b884a1c3c0ab8902c14d67d675",
    "UINT_maximum": "d0b048e2b607e0aee6a5267bad324f7451f6838d0215924cf2c169fa79edcd28",
    "UINT_minimum": "b54f1c2ba08b87fadb1ffaa2400fcf54331597e04960b83923be1edd62e5f89a",
    "UINT_argmax": "b8778187f1ad005dde3b7e2efe6ce8c157bd62dd240f956a998b91ce16df6744",
    "UINT_argmin": "15163c98ab61270b7e9bee049be8a11e7388c5d6f81f1a69ad7cf5a6015bba6e",
    "LONG_maximum": "6ef70bdda841dc3df30aea7ef962812a4097f4bc385fb35a00d63099ab33eaf7",
    "LONG_minimum": "5231796b26c774232679cbad79f7c504eeb4684a4f6e48dbe2c8591469c091dd",
    "LONG_argmax": "7000fad363fd371ea5d68f0f2106fcce4e42a59dfdc5cea197ddc87cdb5dade6",
    "LONG_argmin": "23385f78d8b4612f51a2c657b0a6820265a865b884a1c3c0ab8902c14d67d675",
    "ULONG_maximum": "d0b048e2b607e0aee6a5267bad324f7451f6838d0215924cf2c169fa79edcd28",
    "ULONG_minimum": "b54f1c2ba08b87fadb1ffaa2400fcf54331597e04960b83923be1edd62e5f89a",
    "ULONG_argmax": "b8778187f1ad005dde3b7e2efe6ce8c157bd62dd240f956a998b91ce16df6744",
    "ULONG_argmin": "15163c98ab61270b7e9bee049be8a11e7388c5d6f81f1a69ad7cf5a6015bba6e",
    "LONGLONG_maximum": "cdefb9cac43372cb611d62c6830b70dbf7adef265e0c19cd7a5fafa43d085e86",
    "LONGLONG_minimum": "4645b99b68d714b9d67cdcda49fde80308061be671cec7bb79cffca5b9fc5316",
    "ULONGLONG_maximum": "2b282069351fa78515bc9149671ca8724cb0c8b11fcfdf4f9f56d38a1f0bb63b",
    "ULONGLONG_minimum": "2ff3733898ae0f073acd7f252311fffd242e5e5b1c0fef4f5cc0fc72835c8bf8",
    "FLOAT_maximum": "1d2e94a2cd99d0cc262df252554a311fd7e727b9b3feb7d7168af0161626a5da",
    "FLOAT_minimum": "5365cee0b78dccfc42e3fbc234f82599f521c43d01981309e8396f00359a5f7e",
    "FLOAT_argmax": "cf512b916702ba8853cd69549b41fe0ebe863430c6d713879867ba8452fa008e",
    "FLOAT_argmin": "2dc1adc32736c9ccd0470e9d22ad2541b1fa7f8e7f12cf3ec24e38ab65506c90",
    "FLOAT_fmax": "bc079202e6f36a0367a99108061e44abc341e01ba47a0940fcb85b140e9ade33",
    "FLOAT_fmin": "cc0e1bd60e3377eb426f11527f97936f165477d6fa12ce82b1f8a168c10800a2",
    "DOUBLE_maximum": "40b26ba96e2eb50b4d0caf3ecdaa6f781df9f11c2198561be8e44b3155846dd7",
    "DOUBLE_minimum": "31d34472ae33dd5639f910749f111f9ae4d1fe557713b7e6fe221f18d2858322",
    "DOUBLE_argmax": "7fa149645dbacb2f44e83206bfbf8e86c3dc659dd13477730aaf841a25165d5c",
    "DOUBLE_argmin": "4cdae4ea47c284bfdaf4decf9f217ac3bab64fac1c133ec73d60e63b70cb7d6f",
    "DOUBLE_fmax": "49a8242fb495b389103d3859bfb34bbe0959f611c0d0c0e225140df14df1aede",
    "DOUBLE_fmin": "222f84eaddf1e5babbcdb35c1b05e8849943cce077d1d54ada6c94e1be01cf5a",
}
