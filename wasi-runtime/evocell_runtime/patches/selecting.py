"""Selection: what `np.partition`, `np.median` and `np.percentile` do with numbers of 4 and 8 bytes, to the bit.

In which order the numbers on either side of the chosen one come out is not said by numpy, but programs see it,
so it is kept: this is numpy's introselect, swap by swap. As in `argsorting`, what is to be swapped is first
noted for up to 64 elements of either side, without a branch, and then swapped pair by pair in the order in
which the plain loop would come upon it (Edelkamp and Weiss, BlockQuicksort, 2016); the plain loop does the rest.

Numpy's own function is called for a few elements, for one of the first three places and the last of all, when
one of the numbers is a NaN, and when there is no memory for the notes.
"""

from __future__ import annotations

from attrs import frozen

from evocell_runtime.patches.model import Donor
from evocell_runtime.patches.templates import fill

_FEWEST, _BLOCK = 64, 64


@frozen
class Selected:
    """A dtype, and the function that selects among its elements.

    Attributes:
        name: What numpy calls it.
        function: The function.
        digest: SHA-256 of that function's body.
        kind: The type of WebAssembly that compares: f64, f32, i64 or i32.
        sign: "" for floating point, "_s" for signed and "_u" for unsigned integers.
    """

    name: str
    function: str
    digest: str
    kind: str
    sign: str

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return int(self.kind[1:]) // 8


_DTYPES = (
    ("double floats", "floating_point_type<double, (NPY_TYPES)12>", "double", "f64", ""),
    ("single floats", "floating_point_type<float, (NPY_TYPES)11>", "float", "f32", ""),
    ("long long integers", "integral_type<long long, (NPY_TYPES)9>", "long long", "i64", "_s"),
    (
        "unsigned long long integers",
        "integral_type<unsigned long long, (NPY_TYPES)10>",
        "unsigned long long",
        "i64",
        "_u",
    ),
    ("int integers", "integral_type<int, (NPY_TYPES)5>", "int", "i32", "_s"),
    ("unsigned int integers", "integral_type<unsigned int, (NPY_TYPES)6>", "unsigned int", "i32", "_u"),
    ("long integers", "integral_type<long, (NPY_TYPES)7>", "long", "i32", "_s"),
    ("unsigned long integers", "integral_type<unsigned long, (NPY_TYPES)8>", "unsigned long", "i32", "_u"),
)
_DIGESTS = (
    "54a73bec46d9565cf66ce0fe5910424e9591238ca05e054a9a7a65d359783956",
    "520165b63dc7afe0d08672d7e2c7cf419881a820a57fc76897e729432327fc43",
    "e1293dcc0e0ab19ef984b244a423e7184bedc8af140eafd059a286fd706c5801",
    "8af3dbcd634f36e925afdd10066de3c1f3045c82ef3f817bb2bc90d38b4563e6",
    "4ecd4f8fef3f7f6b7762bf587b55b1fa616158e2c6a329b283eed9005f682177",
    "8923c219d374e8920a4fd821a10100c2dd6886769cbe782513eafdc305140ca5",
    "1304ad1b9d0ef6707f03cc977d6c63323a5bf77ac3a910c3eef21dc2170ce9b2",
    "b4cd7074549689174d1a31e5c90a9fe2c10cba5c41e51f6a203405ede226d318",
)

ELEMENTS = tuple(
    Selected(
        name,
        f"int introselect_<npy::{tag}, false, {ctype}>({ctype}*, long*, long, long, long*, long*)",
        digest,
        kind,
        sign,
    )
    for (name, tag, ctype, kind, sign), digest in zip(_DTYPES, _DIGESTS, strict=True)
)
"""The dtypes that numpy's selection is replaced for."""

_HEAD = """
(import "interpreter" "memory" (memory 0))
(import "interpreter" "malloc" (func $malloc (param i32) (result i32)))
(import "interpreter" "free" (func $free (param i32)))
"""

_ORIGINAL = """
(import "original" "@FUNCTION" (func $original@N (param i32 i32 i32 i32 i32 i32) (result i32)))
"""

_FUNCTION = """
;; $array of $n elements; $kth is wanted. $found is the stack of $many places that are settled, or 0.
(func (export "@FUNCTION") (param $array i32) (param $places i32) (param $n i32) (param $kth i32)
    (param $found i32) (param $many i32) (result i32)
  (local $low i32) (local $high i32) (local $settled i32) (local $at i32) (local $notes i32)
  (block $plain
    (br_if $plain (i32.lt_s (local.get $n) (i32.const @FEWEST)))
    (br_if $plain (i32.ge_s (local.get $kth) (i32.sub (local.get $n) (i32.const 1))))
    (br_if $plain (i32.lt_s (local.get $kth) (i32.const 3)))
    (local.set $high (i32.sub (local.get $n) (i32.const 1)))
    (if (i32.eqz (local.get $many)) (then (local.set $found (i32.const 0))))
    (if (local.get $found)
      (then
        (local.set $settled (i32.load (local.get $many)))
        (block $bounded
          (loop $popped
            (br_if $bounded (i32.lt_s (local.get $settled) (i32.const 1)))
            (local.set $at (i32.load (i32.sub (i32.add (local.get $found)
              (i32.shl (local.get $settled) (i32.const 2))) (i32.const 4))))
            (br_if $plain (i32.eq (local.get $at) (local.get $kth)))
            (if (i32.gt_s (local.get $at) (local.get $kth))
              (then
                (local.set $high (i32.sub (local.get $at) (i32.const 1)))
                (br $bounded)))
            (local.set $low (i32.add (local.get $at) (i32.const 1)))
            (local.set $settled (i32.sub (local.get $settled) (i32.const 1)))
            (br $popped)))))
    (br_if $plain (i32.lt_s (i32.sub (local.get $kth) (local.get $low)) (i32.const 3)))
    (br_if $plain (i32.lt_s (i32.sub (local.get $high) (local.get $low)) (i32.const @FEWEST)))
    @NO_NAN
    (br_if $plain (i32.eqz (local.tee $notes (call $malloc (i32.const @NOTES)))))
    (if (local.get $found) (then (i32.store (local.get $many) (local.get $settled))))
    (call $select@N (local.get $array)
      (i32.add (local.get $array) (i32.shl (local.get $low) (i32.const @SHIFT)))
      (i32.add (local.get $array) (i32.shl (local.get $high) (i32.const @SHIFT)))
      (local.get $kth) (local.get $found) (local.get $many) (local.get $notes)
      (i32.sub (i32.const 62) (i32.shl (i32.clz (local.get $n)) (i32.const 1))))
    (call $free (local.get $notes))
    (return (i32.const 0)))
  (call $original@N (local.get $array) (local.get $places) (local.get $n) (local.get $kth)
    (local.get $found) (local.get $many)))

(func $swap@N (param $one i32) (param $other i32)
  (local $kept @MOVED)
  (local.set $kept (@MOVED.load (local.get $one)))
  (@MOVED.store (local.get $one) (@MOVED.load (local.get $other)))
  (@MOVED.store (local.get $other) (local.get $kept)))

(func $order@N (param $one i32) (param $other i32)
  (if (@LT (@T.load (local.get $other)) (@T.load (local.get $one)))
    (then (call $swap@N (local.get $one) (local.get $other)))))

(func $settle@N (param $place i32) (param $kth i32) (param $found i32) (param $many i32)
  (local $n i32)
  (if (i32.eqz (local.get $found)) (then (return)))
  (local.set $n (i32.load (local.get $many)))
  (if (i32.and (i32.eq (local.get $place) (local.get $kth)) (i32.eq (local.get $n) (i32.const 50)))
    (then (i32.store offset=196 (local.get $found) (local.get $place)))
    (else
      (if (i32.and (i32.ge_s (local.get $place) (local.get $kth)) (i32.lt_s (local.get $n) (i32.const 50)))
        (then
          (i32.store (i32.add (local.get $found) (i32.shl (local.get $n) (i32.const 2))) (local.get $place))
          (i32.store (local.get $many) (i32.add (local.get $n) (i32.const 1))))))))

;; The place of the median of five elements, which are put in some order.
(func $middle@N (param $at i32) (result i32)
  (local $one i32) (local $two i32) (local $three i32) (local $four i32)
  (local.set $one (i32.add (local.get $at) (i32.const @W)))
  (local.set $two (i32.add (local.get $one) (i32.const @W)))
  (local.set $three (i32.add (local.get $two) (i32.const @W)))
  (local.set $four (i32.add (local.get $three) (i32.const @W)))
  (call $order@N (local.get $at) (local.get $one))
  (call $order@N (local.get $three) (local.get $four))
  (call $order@N (local.get $at) (local.get $three))
  (call $order@N (local.get $one) (local.get $four))
  (call $order@N (local.get $one) (local.get $two))
  (if (@LT (@T.load (local.get $three)) (@T.load (local.get $two)))
    (then
      (if (@LT (@T.load (local.get $three)) (@T.load (local.get $one))) (then (return (local.get $one))))
      (return (local.get $three))))
  (local.get $two))

;; The place of a median of medians of fives of the $n elements at $array.
(func $medians@N (param $array i32) (param $n i32) (result i32)
  (local $fives i32) (local $left i32) (local $from i32) (local $to i32)
  (local.set $fives (local.tee $left (i32.div_u (local.get $n) (i32.const 5))))
  (local.set $from (local.get $array))
  (local.set $to (local.get $array))
  (if (local.get $left)
    (then
      (loop $each
        (call $swap@N (call $middle@N (local.get $from)) (local.get $to))
        (local.set $from (i32.add (local.get $from) (i32.const @FIVE)))
        (local.set $to (i32.add (local.get $to) (i32.const @W)))
        (br_if $each (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))
  (local.set $left (i32.shr_u (local.get $fives) (i32.const 1)))
  (if (i32.gt_u (local.get $fives) (i32.const 2))
    (then (drop (call $original@N (local.get $array) (i32.const 0) (local.get $fives) (local.get $left)
      (i32.const 0) (i32.const 0)))))
  (i32.add (local.get $array) (i32.shl (local.get $left) (i32.const @SHIFT))))

;; Selects among the elements from $low to $high; $depth is how often they may be divided by a median of three.
(func $select@N (param $array i32) (param $low i32) (param $high i32) (param $kth i32) (param $found i32)
    (param $many i32) (param $notes i32) (param $depth i32)
  (local $i i32) (local $j i32) (local $middle i32) (local $pivot @T) (local $kept @MOVED) (local $wanted i32)
  (local $up i32) (local $down i32) (local $from_left i32) (local $from_right i32)
  (local $many_left i32) (local $many_right i32) (local $noted_left i32) (local $noted_right i32)
  (local $unseen i32) (local $take i32) (local $at i32) (local $t i32)
  (local.set $wanted (i32.add (local.get $array) (i32.shl (local.get $kth) (i32.const @SHIFT))))
  (block $small
    (loop $divided
      (br_if $small (i32.le_u (i32.sub (local.get $high) (local.get $low)) (i32.const @W)))
      (local.set $i (i32.add (local.get $low) (i32.const @W)))
      (local.set $j (local.get $high))
      (if (i32.or (i32.gt_s (local.get $depth) (i32.const 0))
            (i32.lt_s (i32.sub (local.get $j) (local.get $i)) (i32.const @FIVE)))
        (then
          (local.set $middle (i32.add (local.get $low) (i32.shl (i32.shr_u
            (i32.sub (local.get $high) (local.get $low)) (i32.const @SHIFT_AND_ONE)) (i32.const @SHIFT))))
          (call $order@N (local.get $middle) (local.get $high))
          (call $order@N (local.get $low) (local.get $high))
          (if (@LT (@T.load (local.get $low)) (@T.load (local.get $middle)))
            (then (call $swap@N (local.get $low) (local.get $middle))))
          (call $swap@N (local.get $middle) (local.get $i)))
        (else
          (call $swap@N (local.get $low) (call $medians@N (local.get $i)
            (i32.shr_u (i32.sub (local.get $j) (local.get $i)) (i32.const @SHIFT))))
          (local.set $i (local.get $low))
          (local.set $j (i32.add (local.get $high) (i32.const @W)))))
      (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))
      (local.set $pivot (@T.load (local.get $low)))
      ;; what is to be swapped is noted without branches
      (local.set $up (i32.add (local.get $i) (i32.const @W)))
      (local.set $down (i32.sub (local.get $j) (i32.const @W)))
      (local.set $many_left (i32.const 0))
      (local.set $many_right (i32.const 0))
      (block $noted
        (loop $blocks
          (local.set $unseen (i32.add (i32.shr_s
            (i32.sub (local.get $down) (local.get $up)) (i32.const @SHIFT)) (i32.const 1)))
          (br_if $noted (i32.lt_s (local.get $unseen) (i32.const 8)))
          (if (i32.eqz (local.get $many_left))
            (then
              (local.set $take (i32.shr_u (local.get $unseen) (i32.eqz (local.get $many_right))))
              (if (i32.gt_u (local.get $take) (i32.const @BLOCK)) (then (local.set $take (i32.const @BLOCK))))
              (local.set $unseen (i32.sub (local.get $unseen) (local.get $take)))
              (local.set $from_left (local.get $up))
              (local.set $noted_left (local.get $notes))
              (local.set $at (i32.const 0))
              (loop $scanned
                (i32.store8 (i32.add (local.get $noted_left) (local.get $many_left)) (local.get $at))
                (local.set $many_left (i32.add (local.get $many_left)
                  (@GE (@T.load (local.get $up)) (local.get $pivot))))
                (local.set $up (i32.add (local.get $up) (i32.const @W)))
                (br_if $scanned (i32.ne
                  (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $take))))))
          (if (i32.eqz (local.get $many_right))
            (then
              (local.set $take (local.get $unseen))
              (if (i32.gt_u (local.get $take) (i32.const @BLOCK)) (then (local.set $take (i32.const @BLOCK))))
              (local.set $from_right (local.get $down))
              (local.set $noted_right (i32.add (local.get $notes) (i32.const @RIGHT_NOTES)))
              (local.set $at (i32.const 0))
              (if (local.get $take)
                (then
                  (loop $scanned
                    (i32.store8 (i32.add (local.get $noted_right) (local.get $many_right)) (local.get $at))
                    (local.set $many_right (i32.add (local.get $many_right)
                      (@LE (@T.load (local.get $down)) (local.get $pivot))))
                    (local.set $down (i32.sub (local.get $down) (i32.const @W)))
                    (br_if $scanned (i32.ne
                      (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $take))))))))
          (local.set $t (select (local.get $many_left) (local.get $many_right)
            (i32.lt_u (local.get $many_left) (local.get $many_right))))
          (local.set $many_left (i32.sub (local.get $many_left) (local.get $t)))
          (local.set $many_right (i32.sub (local.get $many_right) (local.get $t)))
          (if (local.get $t)
            (then
              (loop $swapped
                (local.set $i (i32.add (local.get $from_left)
                  (i32.shl (i32.load8_u (local.get $noted_left)) (i32.const @SHIFT))))
                (local.set $j (i32.sub (local.get $from_right)
                  (i32.shl (i32.load8_u (local.get $noted_right)) (i32.const @SHIFT))))
                (local.set $kept (@MOVED.load (local.get $i)))
                (@MOVED.store (local.get $i) (@MOVED.load (local.get $j)))
                (@MOVED.store (local.get $j) (local.get $kept))
                (local.set $noted_left (i32.add (local.get $noted_left) (i32.const 1)))
                (local.set $noted_right (i32.add (local.get $noted_right) (i32.const 1)))
                (br_if $swapped (local.tee $t (i32.sub (local.get $t) (i32.const 1)))))))
          (br $blocks)))
      ;; the rest
      (local.set $i (i32.sub (local.get $up) (i32.const @W)))
      (if (local.get $many_left) (then
        (local.set $i (i32.add (local.get $from_left) (i32.shl
          (i32.sub (i32.load8_u (local.get $noted_left)) (i32.const 1)) (i32.const @SHIFT))))))
      (local.set $j (i32.add (local.get $down) (i32.const @W)))
      (if (local.get $many_right) (then
        (local.set $j (i32.sub (local.get $from_right) (i32.shl
          (i32.sub (i32.load8_u (local.get $noted_right)) (i32.const 1)) (i32.const @SHIFT))))))
      (block $met
        (loop $plain
          (loop $ahead
            (local.set $i (i32.add (local.get $i) (i32.const @W)))
            (br_if $ahead (@LT (@T.load (local.get $i)) (local.get $pivot))))
          (loop $back
            (local.set $j (i32.sub (local.get $j) (i32.const @W)))
            (br_if $back (@LT (local.get $pivot) (@T.load (local.get $j)))))
          (br_if $met (i32.lt_u (local.get $j) (local.get $i)))
          (call $swap@N (local.get $i) (local.get $j))
          (br $plain)))
      (call $swap@N (local.get $low) (local.get $j))
      (if (i32.ne (local.get $j) (local.get $wanted))
        (then (call $settle@N
          (i32.shr_u (i32.sub (local.get $j) (local.get $array)) (i32.const @SHIFT))
          (local.get $kth) (local.get $found) (local.get $many))))
      (if (i32.ge_u (local.get $j) (local.get $wanted))
        (then (local.set $high (i32.sub (local.get $j) (i32.const @W)))))
      (if (i32.le_u (local.get $j) (local.get $wanted))
        (then (local.set $low (local.get $i))))
      (br_if $divided (i32.lt_u (local.get $low) (local.get $high)))))
  (if (i32.eq (local.get $high) (i32.add (local.get $low) (i32.const @W)))
    (then (call $order@N (local.get $low) (local.get $high))))
  (call $settle@N (local.get $kth) (local.get $kth) (local.get $found) (local.get $many)))
"""

_NO_NAN = """(local.set $at (i32.add (local.get $array) (i32.shl (local.get $low) (i32.const @SHIFT))))
    (local.set $notes (i32.add (local.get $array) (i32.shl (local.get $high) (i32.const @SHIFT))))
    (loop $numbers
      (br_if $plain (@T.ne (@T.load (local.get $at)) (@T.load (local.get $at))))
      (br_if $numbers (i32.le_u (local.tee $at (i32.add (local.get $at) (i32.const @W))) (local.get $notes))))"""


def donors() -> tuple[Donor, ...]:
    """The patches."""
    return (
        Donor(
            name="partition",
            why="np.partition took seven times as long as on the desk, since every other comparison is a "
            "branch that is not foreseen. Elements come out in the same order as before.",
            expected=tuple((element.function, element.digest) for element in ELEMENTS),
            wat=module_text(),
        ),
    )


def module_text() -> str:
    """The module that selects."""
    parts = [_HEAD]
    parts += [_filled(_ORIGINAL, element, number) for number, element in enumerate(ELEMENTS)]
    parts += [_filled(_FUNCTION, element, number) for number, element in enumerate(ELEMENTS)]
    return "(module" + "".join(parts) + ")"


def _filled(text: str, element: Selected, number: int) -> str:
    shift = element.width.bit_length() - 1
    named: dict[str, str | int] = {
        "FUNCTION": element.function,
        "N": number,
        "T": element.kind,
        "MOVED": f"i{element.kind[1:]}",
        "W": element.width,
        "FIVE": 5 * element.width,
        "SHIFT": shift,
        "SHIFT_AND_ONE": shift + 1,
        "LT": f"{element.kind}.lt{element.sign}",
        "LE": f"{element.kind}.le{element.sign}",
        "GE": f"{element.kind}.ge{element.sign}",
        "NO_NAN": "" if element.sign else _NO_NAN,
        "FEWEST": _FEWEST,
        "BLOCK": _BLOCK,
        "NOTES": 2 * _BLOCK + 128,
        "RIGHT_NOTES": _BLOCK + 64,
    }
    return fill(text, named)
