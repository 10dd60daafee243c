"""Sorting of places: what `np.argsort` does by default with numbers of 2 to 8 bytes, in the same order.

The order of equal elements is not said by numpy, but programs see it, so it is kept: this is numpy's
quicksort, swap by swap. Two things are done otherwise. Keys are laid beside the places, so that no
comparison looks into the array, and as unsigned numbers of which NaNs are the largest. And what is to be
swapped is first noted for up to 64 elements of either side, without a branch, and then swapped pair by pair
in the order in which the plain loop would come upon it (Edelkamp and Weiss, BlockQuicksort, 2016); the
plain loop does the rest.

Numpy's own function is called for a few elements, when there is no memory for the keys, and when it would
have given up on quicksort for a heap sort.
"""

from __future__ import annotations

from evocell_runtime.patches.elements import Element, elements
from evocell_runtime.patches.model import Donor
from evocell_runtime.patches.templates import fill

_FEWEST, _MOST = 48, 1 << 26
_BLOCK, _SMALL = 64, 16


ELEMENTS = elements(
    "int aquicksort_<{tag}, {ctype}, false>({ctype}*, long*, long)",
    (
        "f744a8032b2bdb8606aea89a4a323d3d9322741ae073628b6c4e478ba243633a",
        "a1592a820bf51e604aff0336b6544d6b107f4c6d59c016dddbb290643f1cdc9b",
        "5fef78ddea3cda84798e147c14efc9e4506a7ae8a54e9da7f123320298df7326",
        "083c067f86f02568b00bd3d8dc841c10586d471531c3ff1b9663a6360fc291c8",
        "e336af26fdb97dd1c30370a9a04032dd1ecefa9fb314d49a15e82b61756ca2cc",
        "8e6c304abc4c6fa7b39ecc6d604ae9cc38036f7eb7718a5153adfef77500125a",
        "63533bd034dcac414ef8e81f5c9e81d3ec3991e85c487c570e3193d81cf1e6c2",
        "fb7e9014c56c1e71693df073314c955373377842357bc659d754c44b848bb345",
        "afaea419ba35a4f022fa180886374babba3132b3f11ee823521f404ac2c16268",
        "6678b280ad23dbe5ba01759ba1d07e71b35fddd6952763922989b7258d9a9594",
        "9e0cfbca65c66768baba6db9fca7b82ebee57c2141e608b9111814c5e2183b05",
        "5bbac8f28df9428b7df079d22ebfb60c4d1ee3c76efa2601ab8da2e6cd74553d",
        "26e5ba38703b9eb5c4a1e821e09344b832651c70e442e532f977e27e298d617f",
    ),
)

_HEAD = """
(import "interpreter" "memory" (memory 0))
(import "interpreter" "malloc" (func $malloc (param i32) (result i32)))
(import "interpreter" "free" (func $free (param i32)))
"""

_ORIGINAL = """
(import "original" "@FUNCTION" (func $original@N (param i32 i32 i32)))
"""

_FUNCTION = """
(func (export "@FUNCTION") (param $array i32) (param $places i32) (param $n i32)
  (local $room i32) (local $at i32) (local $end i32) (local $place i32) (local $x @T)
  (if (i32.ge_u (i32.sub (local.get $n) (i32.const @FEWEST)) (i32.const @MOST))
    (then (return (call $original@N (local.get $array) (local.get $places) (local.get $n)))))
  (if (i32.eqz (local.tee $room
        (call $malloc (i32.add (i32.mul (local.get $n) (i32.const @PAIR)) (i32.const @NOTES)))))
    (then (return (call $original@N (local.get $array) (local.get $places) (local.get $n)))))
  (local.set $at (i32.add (local.get $room) (i32.const @NOTES)))
  (local.set $end (i32.add (local.get $at) (i32.mul (local.get $n) (i32.const @PAIR))))
  (loop $elements
    (local.set $place (i32.load (local.get $places)))
    (local.set $x (@LOAD (i32.add (local.get $array) (i32.mul (local.get $place) (i32.const @W)))))
    @MADE_ONE
    (@T.store offset=@KEY_AT (local.get $at) @KEY)
    (i32.store offset=@PLACE_AT (local.get $at) (local.get $place))
    (local.set $places (i32.add (local.get $places) (i32.const 4)))
    (br_if $elements (i32.ne (local.tee $at (i32.add (local.get $at) (i32.const @PAIR))) (local.get $end))))
  (local.set $places (i32.sub (local.get $places) (i32.shl (local.get $n) (i32.const 2))))
  (local.set $at (i32.add (local.get $room) (i32.const @NOTES)))
  (if (call $sort@PAIR (local.get $at) (i32.sub (local.get $end) (i32.const @PAIR)) (local.get $room)
        (i32.sub (i32.const 64) (i32.shl (i32.clz (i32.shr_u (local.get $n) (i32.const 1))) (i32.const 1))))
    (then
      (loop $sorted
        (i32.store (local.get $places) (i32.load offset=@PLACE_AT (local.get $at)))
        (local.set $places (i32.add (local.get $places) (i32.const 4)))
        (br_if $sorted (i32.ne (local.tee $at (i32.add (local.get $at) (i32.const @PAIR))) (local.get $end)))))
    (else (call $original@N (local.get $array) (local.get $places) (local.get $n))))
  (call $free (local.get $room)))
"""

_SORT = """
(func $swap@PAIR (param $one i32) (param $other i32)
  (local $kept @MOVED)
  (local.set $kept (@MOVED.load (local.get $one)))
  (@MOVED.store (local.get $one) (@MOVED.load (local.get $other)))
  (@MOVED.store (local.get $other) (local.get $kept)))

;; Sorts the pairs from $left to $right; $depth is how many times they may be divided. 0 if they would have to be more often.
(func $sort@PAIR (param $left i32) (param $right i32) (param $notes i32) (param $depth i32) (result i32)
  (local $stack i32) (local $middle i32) (local $i i32) (local $j i32) (local $pivot @T) (local $kept @MOVED)
  (local $low i32) (local $high i32) (local $from_left i32) (local $from_right i32)
  (local $many_left i32) (local $many_right i32) (local $noted_left i32) (local $noted_right i32)
  (local $unseen i32) (local $take i32) (local $at i32) (local $t i32)
  (local.set $stack (local.get $notes))
  (loop $segments
    (if (i32.lt_s (local.get $depth) (i32.const 0)) (then (return (i32.const 0))))
    (block $small
      (loop $divided
        (br_if $small (i32.lt_s (i32.sub (local.get $right) (local.get $left)) (i32.const @SMALL)))
        ;; the median of three, beside the end
        (local.set $middle (i32.add (local.get $left) (i32.mul (i32.shr_u
          (i32.div_u (i32.sub (local.get $right) (local.get $left)) (i32.const @PAIR)) (i32.const 1)) (i32.const @PAIR))))
        (if @LESS_MIDDLE_LEFT (then (call $swap@PAIR (local.get $middle) (local.get $left))))
        (if @LESS_RIGHT_MIDDLE (then (call $swap@PAIR (local.get $right) (local.get $middle))))
        (if @LESS_MIDDLE_LEFT (then (call $swap@PAIR (local.get $middle) (local.get $left))))
        (local.set $pivot @KEY_MIDDLE)
        (call $swap@PAIR (local.get $middle) (i32.sub (local.get $right) (i32.const @PAIR)))
        ;; what is to be swapped is noted without branches
        (local.set $low (i32.add (local.get $left) (i32.const @PAIR)))
        (local.set $high (i32.sub (local.get $right) (i32.const @TWO_PAIRS)))
        (local.set $many_left (i32.const 0))
        (local.set $many_right (i32.const 0))
        (block $noted
          (loop $blocks
            (local.set $unseen (i32.add (i32.div_s
              (i32.sub (local.get $high) (local.get $low)) (i32.const @PAIR)) (i32.const 1)))
            (br_if $noted (i32.lt_s (local.get $unseen) (i32.const 8)))
            (if (i32.eqz (local.get $many_left))
              (then
                (local.set $take (i32.shr_u (local.get $unseen) (i32.eqz (local.get $many_right))))
                (if (i32.gt_u (local.get $take) (i32.const @BLOCK)) (then (local.set $take (i32.const @BLOCK))))
                (local.set $unseen (i32.sub (local.get $unseen) (local.get $take)))
                (local.set $from_left (local.get $low))
                (local.set $noted_left (i32.add (local.get $notes) (i32.const @LEFT_NOTES)))
                (local.set $at (i32.const 0))
                (loop $scanned
                  (i32.store8 (i32.add (local.get $noted_left) (local.get $many_left)) (local.get $at))
                  (local.set $many_left (i32.add (local.get $many_left)
                    (@T.ge_u @KEY_LOW (local.get $pivot))))
                  (local.set $low (i32.add (local.get $low) (i32.const @PAIR)))
                  (br_if $scanned (i32.ne
                    (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $take))))))
            (if (i32.eqz (local.get $many_right))
              (then
                (local.set $take (local.get $unseen))
                (if (i32.gt_u (local.get $take) (i32.const @BLOCK)) (then (local.set $take (i32.const @BLOCK))))
                (local.set $from_right (local.get $high))
                (local.set $noted_right (i32.add (local.get $notes) (i32.const @RIGHT_NOTES)))
                (local.set $at (i32.const 0))
                (if (local.get $take) (then
                (loop $scanned
                  (i32.store8 (i32.add (local.get $noted_right) (local.get $many_right)) (local.get $at))
                  (local.set $many_right (i32.add (local.get $many_right)
                    (@T.le_u @KEY_HIGH (local.get $pivot))))
                  (local.set $high (i32.sub (local.get $high) (i32.const @PAIR)))
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
                    (i32.mul (i32.load8_u (local.get $noted_left)) (i32.const @PAIR))))
                  (local.set $j (i32.sub (local.get $from_right)
                    (i32.mul (i32.load8_u (local.get $noted_right)) (i32.const @PAIR))))
                  (local.set $kept (@MOVED.load (local.get $i)))
                  (@MOVED.store (local.get $i) (@MOVED.load (local.get $j)))
                  (@MOVED.store (local.get $j) (local.get $kept))
                  (local.set $noted_left (i32.add (local.get $noted_left) (i32.const 1)))
                  (local.set $noted_right (i32.add (local.get $noted_right) (i32.const 1)))
                  (br_if $swapped (local.tee $t (i32.sub (local.get $t) (i32.const 1)))))))
            (br $blocks)))
        ;; the rest
        (local.set $i (i32.sub (local.get $low) (i32.const @PAIR)))
        (if (local.get $many_left) (then
          (local.set $i (i32.add (local.get $from_left) (i32.mul
            (i32.sub (i32.load8_u (local.get $noted_left)) (i32.const 1)) (i32.const @PAIR))))))
        (local.set $j (i32.add (local.get $high) (i32.const @PAIR)))
        (if (local.get $many_right) (then
          (local.set $j (i32.sub (local.get $from_right) (i32.mul
            (i32.sub (i32.load8_u (local.get $noted_right)) (i32.const 1)) (i32.const @PAIR))))))
        (block $met
          (loop $plain
            (loop $up
              (local.set $i (i32.add (local.get $i) (i32.const @PAIR)))
              (br_if $up (@T.lt_u @KEY_I (local.get $pivot))))
            (loop $down
              (local.set $j (i32.sub (local.get $j) (i32.const @PAIR)))
              (br_if $down (@T.lt_u (local.get $pivot) @KEY_J)))
            (br_if $met (i32.ge_u (local.get $i) (local.get $j)))
            (call $swap@PAIR (local.get $i) (local.get $j))
            (br $plain)))
        (call $swap@PAIR (local.get $i) (i32.sub (local.get $right) (i32.const @PAIR)))
        ;; the larger part waits
        (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))
        (i32.store offset=8 (local.get $stack) (local.get $depth))
        (if (i32.lt_s (i32.sub (local.get $i) (local.get $left)) (i32.sub (local.get $right) (local.get $i)))
          (then
            (i32.store (local.get $stack) (i32.add (local.get $i) (i32.const @PAIR)))
            (i32.store offset=4 (local.get $stack) (local.get $right))
            (local.set $right (i32.sub (local.get $i) (i32.const @PAIR))))
          (else
            (i32.store (local.get $stack) (local.get $left))
            (i32.store offset=4 (local.get $stack) (i32.sub (local.get $i) (i32.const @PAIR)))
            (local.set $left (i32.add (local.get $i) (i32.const @PAIR)))))
        (local.set $stack (i32.add (local.get $stack) (i32.const 12)))
        (br $divided)))
    (local.set $i (local.get $left))
    (block $inserted
      (loop $insert
        (br_if $inserted (i32.ge_s (local.get $i) (local.get $right)))
        (local.set $j (local.get $i))
        (local.set $i (i32.add (local.get $i) (i32.const @PAIR)))
        (local.set $pivot @KEY_I)
        (br_if $insert (@T.ge_u (local.get $pivot) @KEY_J))
        (local.set $kept (@MOVED.load (local.get $i)))
        (loop $shifted
          (@MOVED.store offset=@PAIR (local.get $j) (@MOVED.load (local.get $j)))
          (local.set $j (i32.sub (local.get $j) (i32.const @PAIR)))
          (if (i32.ge_u (local.get $j) (local.get $left))
            (then (br_if $shifted (@T.lt_u (local.get $pivot) @KEY_J)))))
        (@MOVED.store offset=@PAIR (local.get $j) (local.get $kept))
        (br $insert)))
    (if (i32.ne (local.get $stack) (local.get $notes))
      (then
        (local.set $stack (i32.sub (local.get $stack) (i32.const 12)))
        (local.set $left (i32.load (local.get $stack)))
        (local.set $right (i32.load offset=4 (local.get $stack)))
        (local.set $depth (i32.load offset=8 (local.get $stack)))
        (br $segments))))
  (i32.const 1))
"""

_MADE_ONE = """
    (if (@T.eq (local.get $x) (@T.const @SIGN)) (then (local.set $x (@T.const 0))))
    (if (@T.gt_u (@T.and (local.get $x) (@T.const @MAGNITUDE)) (@T.const @INFINITY))
      (then (local.set $x (@T.const @MAGNITUDE))))"""

_KEYS = {
    "u": "(local.get $x)",
    "i": "(@T.xor (local.get $x) (@T.const @SIGN))",
    "M": "(@T.sub (@T.xor (local.get $x) (@T.const @SIGN)) (@T.const 1))",
    "f": "(@T.xor (local.get $x) (@T.or (@T.const @SIGN) (@T.and (@T.const @MAGNITUDE) "
    "(@T.sub (@T.const 0) (@T.shr_u (local.get $x) (@T.const @LAST_BIT))))))",
}


def donors() -> tuple[Donor, ...]:
    """The patches."""
    return (
        Donor(
            name="argsort",
            why="np.argsort took six times as long as on the desk: every comparison looked into the"
            " array twice, and every other one was a branch that was not foreseen. Equal "
            "elements come out in the same order as before.",
            expected=tuple((element.function, element.digest) for element in ELEMENTS),
            wat=module_text(ELEMENTS),
        ),
    )


def module_text(elements: tuple[Element, ...]) -> str:
    """The module that sorts the places of some dtypes."""
    parts = [_HEAD]
    parts += [_filled(_ORIGINAL, element, number) for number, element in enumerate(elements)]
    for wide in sorted({element.width == 8 for element in elements}):
        parts.append(_filled(_SORT, next(one for one in elements if (one.width == 8) == wide), 0))
    parts += [_filled(_FUNCTION, element, number) for number, element in enumerate(elements)]
    return "(module" + "".join(parts) + ")"


def _filled(text: str, element: Element, number: int) -> str:
    wide = element.width == 8
    kept, pair = ("i64", 16) if wide else ("i32", 8)
    key_at, place_at = (0, 8) if wide else (4, 0)
    bits = 8 * element.width
    sign = 1 << bits - 1

    def key(name: str) -> str:
        return f"({kept}.load offset={key_at} (local.get ${name}))"

    named = {
        "FUNCTION": element.function,
        "MADE_ONE": _MADE_ONE if element.kind == "f" else "",
        "KEY_AT": key_at,
        "PLACE_AT": place_at,
        **{f"KEY_{name.upper()}": key(name) for name in ("middle", "low", "high", "i", "j")},
        "LESS_MIDDLE_LEFT": f"({kept}.lt_u {key('middle')} {key('left')})",
        "LESS_RIGHT_MIDDLE": f"({kept}.lt_u {key('right')} {key('middle')})",
        "KEY": _KEYS[element.kind],
        "PAIR": pair,
        "TWO_PAIRS": 2 * pair,
        "MOVED": "v128" if wide else "i64",
        "SMALL": _SMALL * pair,
        "BLOCK": _BLOCK,
        "NOTES": 512 + 2 * _BLOCK + 128,
        "LEFT_NOTES": 512,
        "RIGHT_NOTES": 512 + _BLOCK + 64,
        "FEWEST": _FEWEST,
        "MOST": _MOST - _FEWEST,
        "LAST_BIT": bits - 1,
        "SIGN": sign,
        "MAGNITUDE": sign - 1,
        "INFINITY": {2: 0x7C00, 4: 0x7F80_0000, 8: 0x7FF0_0000_0000_0000}[element.width],
        "LOAD": "i32.load16_u" if element.width == 2 else f"{kept}.load",
        "N": number,
        "T": kept,
        "W": element.width,
    }
    return fill(text, named)
