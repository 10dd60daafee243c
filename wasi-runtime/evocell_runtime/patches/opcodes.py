"""The instructions of WebAssembly by name, with the kinds of their immediates.

Source: WebAssembly core specification 3.0, section 5.4 (instructions in the binary format).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_PLAIN = {
    0x00: "unreachable",
    0x01: "nop",
    0x02: "block B",
    0x03: "loop B",
    0x04: "if B",
    0x05: "else",
    0x08: "throw u",
    0x0A: "throw_ref",
    0x0B: "end",
    0x0C: "br u",
    0x0D: "br_if u",
    0x0E: "br_table L",
    0x0F: "return",
    0x10: "call F",
    0x11: "call_indirect T",
    0x12: "return_call F",
    0x13: "return_call_indirect T",
    0x1A: "drop",
    0x1B: "select",
    0x1F: "try_table C",
    0x20: "local.get V",
    0x21: "local.set V",
    0x22: "local.tee V",
    0x23: "global.get G",
    0x24: "global.set G",
    0x3F: "memory.size 0",
    0x40: "memory.grow 0",
    0x41: "i32.const s",
    0x42: "i64.const s",
    0x43: "f32.const f",
    0x44: "f64.const d",
    0xD0: "ref.null H",
    0xD1: "ref.is_null",
    0xD2: "ref.func F",
}
_LOADS = [
    "i32.load",
    "i64.load",
    "f32.load",
    "f64.load",
    "i32.load8_s",
    "i32.load8_u",
    "i32.load16_s",
    "i32.load16_u",
    "i64.load8_s",
    "i64.load8_u",
    "i64.load16_s",
    "i64.load16_u",
    "i64.load32_s",
    "i64.load32_u",
    "i32.store",
    "i64.store",
    "f32.store",
    "f64.store",
    "i32.store8",
    "i32.store16",
    "i64.store8",
    "i64.store16",
    "i64.store32",
]
_NUMBERS = [
    "i32.eqz",
    "i32.eq",
    "i32.ne",
    "i32.lt_s",
    "i32.lt_u",
    "i32.gt_s",
    "i32.gt_u",
    "i32.le_s",
    "i32.le_u",
    "i32.ge_s",
    "i32.ge_u",
    "i64.eqz",
    "i64.eq",
    "i64.ne",
    "i64.lt_s",
    "i64.lt_u",
    "i64.gt_s",
    "i64.gt_u",
    "i64.le_s",
    "i64.le_u",
    "i64.ge_s",
    "i64.ge_u",
    "f32.eq",
    "f32.ne",
    "f32.lt",
    "f32.gt",
    "f32.le",
    "f32.ge",
    "f64.eq",
    "f64.ne",
    "f64.lt",
    "f64.gt",
    "f64.le",
    "f64.ge",
    "i32.clz",
    "i32.ctz",
    "i32.popcnt",
    "i32.add",
    "i32.sub",
    "i32.mul",
    "i32.div_s",
    "i32.div_u",
    "i32.rem_s",
    "i32.rem_u",
    "i32.and",
    "i32.or",
    "i32.xor",
    "i32.shl",
    "i32.shr_s",
    "i32.shr_u",
    "i32.rotl",
    "i32.rotr",
    "i64.clz",
    "i64.ctz",
    "i64.popcnt",
    "i64.add",
    "i64.sub",
    "i64.mul",
    "i64.div_s",
    "i64.div_u",
    "i64.rem_s",
    "i64.rem_u",
    "i64.and",
    "i64.or",
    "i64.xor",
    "i64.shl",
    "i64.shr_s",
    "i64.shr_u",
    "i64.rotl",
    "i64.rotr",
    "f32.abs",
    "f32.neg",
    "f32.ceil",
    "f32.floor",
    "f32.trunc",
    "f32.nearest",
    "f32.sqrt",
    "f32.add",
    "f32.sub",
    "f32.mul",
    "f32.div",
    "f32.min",
    "f32.max",
    "f32.copysign",
    "f64.abs",
    "f64.neg",
    "f64.ceil",
    "f64.floor",
    "f64.trunc",
    "f64.nearest",
    "f64.sqrt",
    "f64.add",
    "f64.sub",
    "f64.mul",
    "f64.div",
    "f64.min",
    "f64.max",
    "f64.copysign",
    "i32.wrap_i64",
    "i32.trunc_f32_s",
    "i32.trunc_f32_u",
    "i32.trunc_f64_s",
    "i32.trunc_f64_u",
    "i64.extend_i32_s",
    "i64.extend_i32_u",
    "i64.trunc_f32_s",
    "i64.trunc_f32_u",
    "i64.trunc_f64_s",
    "i64.trunc_f64_u",
    "f32.convert_i32_s",
    "f32.convert_i32_u",
    "f32.convert_i64_s",
    "f32.convert_i64_u",
    "f32.demote_f64",
    "f64.convert_i32_s",
    "f64.convert_i32_u",
    "f64.convert_i64_s",
    "f64.convert_i64_u",
    "f64.promote_f32",
    "i32.reinterpret_f32",
    "i64.reinterpret_f64",
    "f32.reinterpret_i32",
    "f64.reinterpret_i64",
    "i32.extend8_s",
    "i32.extend16_s",
    "i64.extend8_s",
    "i64.extend16_s",
    "i64.extend32_s",
]
_SATURATING = [f"{i}.trunc_sat_{f}_{s}" for i in ("i32", "i64") for f in ("f32", "f64") for s in "su"]
_VECTORS = """
0: v128.load M v128.load8x8_s M v128.load8x8_u M v128.load16x4_s M v128.load16x4_u M v128.load32x2_s M v128.load32x2_u M
7: v128.load8_splat M v128.load16_splat M v128.load32_splat M v128.load64_splat M v128.store M
12: v128.const W i8x16.shuffle W i8x16.swizzle i8x16.splat i16x8.splat i32x4.splat i64x2.splat f32x4.splat f64x2.splat
21: i8x16.extract_lane_s l i8x16.extract_lane_u l i8x16.replace_lane l i16x8.extract_lane_s l i16x8.extract_lane_u l
26: i16x8.replace_lane l i32x4.extract_lane l i32x4.replace_lane l i64x2.extract_lane l i64x2.replace_lane l
31: f32x4.extract_lane l f32x4.replace_lane l f64x2.extract_lane l f64x2.replace_lane l
35: i8x16.eq i8x16.ne i8x16.lt_s i8x16.lt_u i8x16.gt_s i8x16.gt_u i8x16.le_s i8x16.le_u i8x16.ge_s i8x16.ge_u
45: i16x8.eq i16x8.ne i16x8.lt_s i16x8.lt_u i16x8.gt_s i16x8.gt_u i16x8.le_s i16x8.le_u i16x8.ge_s i16x8.ge_u
55: i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u i32x4.gt_s i32x4.gt_u i32x4.le_s i32x4.le_u i32x4.ge_s i32x4.ge_u
65: f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le f32x4.ge f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge
77: v128.not v128.and v128.andnot v128.or v128.xor v128.bitselect v128.any_true
84: v128.load8_lane m v128.load16_lane m v128.load32_lane m v128.load64_lane m
88: v128.store8_lane m v128.store16_lane m v128.store32_lane m v128.store64_lane m v128.load32_zero M v128.load64_zero M
94: f32x4.demote_f64x2_zero f64x2.promote_low_f32x4
96: i8x16.abs i8x16.neg i8x16.popcnt i8x16.all_true i8x16.bitmask i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u
103: f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest i8x16.shl i8x16.shr_s i8x16.shr_u i8x16.add i8x16.add_sat_s
112: i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s i8x16.sub_sat_u f64x2.ceil f64x2.floor i8x16.min_s i8x16.min_u
120: i8x16.max_s i8x16.max_u f64x2.trunc i8x16.avgr_u i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u
126: i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u
128: i16x8.abs i16x8.neg i16x8.q15mulr_sat_s i16x8.all_true i16x8.bitmask i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u
135: i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s i16x8.extend_low_i8x16_u i16x8.extend_high_i8x16_u
139: i16x8.shl i16x8.shr_s i16x8.shr_u i16x8.add i16x8.add_sat_s i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s
147: i16x8.sub_sat_u f64x2.nearest i16x8.mul i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u
155: i16x8.avgr_u i16x8.extmul_low_i8x16_s i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u
159: i16x8.extmul_high_i8x16_u i32x4.abs i32x4.neg
163: i32x4.all_true i32x4.bitmask
167: i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u i32x4.extend_high_i16x8_u
171: i32x4.shl i32x4.shr_s i32x4.shr_u i32x4.add
177: i32x4.sub
181: i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s
188: i32x4.extmul_low_i16x8_s i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u i32x4.extmul_high_i16x8_u
192: i64x2.abs i64x2.neg
195: i64x2.all_true i64x2.bitmask
199: i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s i64x2.extend_low_i32x4_u i64x2.extend_high_i32x4_u
203: i64x2.shl i64x2.shr_s i64x2.shr_u i64x2.add
209: i64x2.sub
213: i64x2.mul i64x2.eq i64x2.ne i64x2.lt_s i64x2.gt_s i64x2.le_s i64x2.ge_s
220: i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s i64x2.extmul_low_i32x4_u i64x2.extmul_high_i32x4_u
224: f32x4.abs f32x4.neg
227: f32x4.sqrt f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin f32x4.pmax f64x2.abs f64x2.neg
239: f64x2.sqrt f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin f64x2.pmax
248: i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s f32x4.convert_i32x4_u
252: i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u
"""
_KINDS = frozenset("MmWl")


def _all() -> dict[tuple[int, int], tuple[str, str]]:
    found = {(op, 0): _split(text) for op, text in _PLAIN.items()}
    found |= {(0x28 + n, 0): (name, "M") for n, name in enumerate(_LOADS)}
    found |= {(0x45 + n, 0): (name, "") for n, name in enumerate(_NUMBERS)}
    found |= {(0xFC, n): (name, "") for n, name in enumerate(_SATURATING)}
    found |= {(0xFC, 0x0A): ("memory.copy", "00"), (0xFC, 0x0B): ("memory.fill", "0")}
    for line in _VECTORS.split("\n"):
        number, _, words = line.partition(": ")
        at = int(number or 0) - 1
        for word in words.split():
            if word in _KINDS:
                found[0xFD, at] = (found[0xFD, at][0], word)
            else:
                at += 1
                found[0xFD, at] = (word, "")
    return found


def _split(text: str) -> tuple[str, str]:
    name, _, kinds = text.partition(" ")
    return name, kinds


BY_CODE: Mapping[tuple[int, int], tuple[str, str]] = MappingProxyType(_all())
"""Name and immediates of an instruction by its first byte and, after 0xFC or 0xFD, its number.

The immediates: B a block's type, u a label or tag, L a list of labels, F a function, T a function type with a table,
C a block's type with catches, V a local, G a global, 0 a zero byte, s a signed integer, f and d a float, H a heap
type, M a memory's alignment and offset, m the same with a lane, W 16 bytes, l a lane.
"""

BY_NAME: Mapping[str, tuple[tuple[int, int], str]] = MappingProxyType(
    {name: (code, kinds) for code, (name, kinds) in BY_CODE.items()}
)
"""Code and immediates of an instruction by its name."""

PREFIXED = frozenset({0xFC, 0xFD})
"""First bytes after which a number says which instruction it is."""

_WIDTH = re.compile(r"(?:load|store)(?:(\d+)x\d|(\d+))?")
_WHOLE = {"i32": 4, "f32": 4, "i64": 8, "f64": 8, "v128": 16}


def natural_bytes(name: str) -> int:
    """The alignment in bytes that an access to memory has when nothing is said of it."""
    found = _WIDTH.search(name)
    assert found is not None
    if found[1]:
        return 8
    return int(found[2]) // 8 if found[2] else _WHOLE[name.partition(".")[0]]
