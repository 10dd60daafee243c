"""The portable profile: its own compiled code, in which every NaN has one form."""

import struct

import wasmtime

from evocell_runtime.native import new_engine
from evocell_runtime.spec import ImageSpec

# NaNs of several signs and payloads, through an addition that keeps a payload on x86-64.
ADD = """(module (func (export "add") (param i64) (result i64)
  (i64.reinterpret_f64 (f64.add (f64.reinterpret_i64 (local.get 0)) (f64.const 1)))))"""
CANONICAL = 0x7FF8 << 48
NANS = [0x7FF8DEAD << 32, 0xFFF8000000000001, 0x7FFFFFFFFFFFFFFF, 0xFFF8 << 48]


def bits(engine, nan):
    store = wasmtime.Store(engine)
    store.set_fuel(10_000)
    instance = wasmtime.Instance(store, wasmtime.Module(engine, ADD), [])
    (signed,) = struct.unpack("<q", struct.pack("<Q", nan))
    return instance.exports(store)["add"](store, signed) & 0xFFFFFFFFFFFFFFFF


def test_a_portable_engine_gives_every_nan_one_form():
    engine = new_engine(portable=True)

    assert {bits(engine, nan) for nan in NANS} == {CANONICAL}
    assert {bits(new_engine(), nan) for nan in NANS} != {CANONICAL}


def test_a_portable_image_has_code_of_its_own_and_the_default_keeps_its_name():
    assert ImageSpec(portable=True).code_key() != ImageSpec().code_key()
    assert ImageSpec(portable=True).image_id() != ImageSpec().image_id()
    assert ImageSpec(portable=False).code_key() == ImageSpec().code_key()
