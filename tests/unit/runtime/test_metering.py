"""Fuel that the code counts by itself: every way to repeat passes a charge."""

import pytest
import wasmtime

from evocell_runtime import artifacts
from evocell_runtime.leb128 import read_unsigned
from evocell_runtime.metering import CHARGE, FUEL, PAUSE_AT, SLICE
from evocell_runtime.metering.module import (
    Landmarks,
    address_taken,
    call_graph,
    find_landmarks,
    metered,
)
from evocell_runtime.metering.names import COSTS
from evocell_runtime.metering.prices import Prices
from evocell_runtime.metering.recursion import circles, uncharged_circle, without_circles
from evocell_runtime.metering.scan import functions
from evocell_runtime.native import new_engine
from evocell_runtime.patches import CODE_PATCHES
from evocell_runtime.patches.layer import apply_patches
from evocell_runtime.patches.module import open_module
from evocell_runtime.rewrite import FunctionImport, SplitModule, sections, split
from evocell_runtime.unmetered import compile_unmetered

IMPORTS = (
    FunctionImport("wasi_snapshot_preview1", "sched_yield", (), ("i32",)),
    FunctionImport("wasi_snapshot_preview1", "random_get", ("i32", "i32"), ("i32",)),
)
PROGRAM = """(module
  (import "evocell" "sched_yield" (func $yield (result i32)))
  (import "evocell" "random_get" (func $random (param i32 i32) (result i32)))
  (memory 16)
  (global $stack (mut i32) (i32.const 0))
  (table 4 funcref)
  (elem (i32.const 0) $ping $pong $leaf)
  (type $plain (func (param i32) (result i32)))
  (func $dispatch (export "dispatch") (param $state i32) (param $turns i32) (result i32)
    (loop $next
      (if (i32.and (i32.load offset=12 (local.get $state)) (i32.const 64))
        (then (drop (call $handle (local.get $state)))))
      (br_if $next (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
    (i32.load offset=16 (local.get $state)))
  (func $handle (param $state i32) (result i32)
    (i32.store offset=16 (local.get $state) (i32.add (i32.const 1) (i32.load offset=16 (local.get $state))))
    (i32.const 0))
  (func $fib (export "fib") (param $n i32) (result i32)
    (if (result i32) (i32.lt_s (local.get $n) (i32.const 2))
      (then (local.get $n))
      (else (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1)))
        (call $fib (i32.sub (local.get $n) (i32.const 2)))))))
  (func $ping (export "ping") (param $n i32) (result i32)
    (if (result i32) (i32.eqz (local.get $n)) (then (i32.const 0))
      (else (call_indirect (type $plain) (i32.sub (local.get $n) (i32.const 1)) (i32.const 1)))))
  (func $pong (param $n i32) (result i32)
    (call_indirect (type $plain) (local.get $n) (i32.const 0)))
  (func $leaf (export "leaf") (param $n i32) (result i32) (i32.mul (local.get $n) (i32.const 3)))
  (func (export "fill") (param $n i32)
    (memory.fill (i32.const 0) (i32.const 7) (local.get $n)))
  (func (export "copy") (param $n i32)
    (memory.copy (i32.const 0) (i32.const 65536) (local.get $n)))
  (func (export "yield") (result i32) (call $yield))
  (func (export "spin") (param $n i32) (result i32) (local $sum i32)
    (loop $next
      (local.set $sum (i32.add (local.get $sum) (local.get $n)))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum))
)"""
LANDMARKS = Landmarks(dispatch=0, handler=1)


@pytest.fixture(scope="module")
def code():
    parts = SplitModule(code=bytes(wasmtime.wat2wasm(PROGRAM)), segments=(), min_pages=16, imports=IMPORTS)
    return metered(parts, LANDMARKS)


class Machine:
    def __init__(self, code):
        self.engine = new_engine()
        self.store = wasmtime.Store(self.engine)
        self.store.set_fuel(1 << 60)
        self.pauses = 0
        module = wasmtime.Module.deserialize(self.engine, compile_unmetered(code))
        i32 = wasmtime.ValType.i32()

        def pause():
            self.pauses += 1
            return 0

        instance = wasmtime.Instance(
            self.store,
            module,
            [
                wasmtime.Func(self.store, wasmtime.FuncType([], [i32]), pause),
                wasmtime.Func(self.store, wasmtime.FuncType([i32, i32], [i32]), lambda *_: 0),
            ],
        )
        self.exports = instance.exports(self.store)

    def call(self, name, *args, fuel=10**9, slice_fuel=1 << 60):
        self.exports[FUEL].set_value(self.store, wasmtime.Val.i64(fuel))
        self.exports[SLICE].set_value(self.store, wasmtime.Val.i64(slice_fuel))
        self.exports[PAUSE_AT].set_value(self.store, wasmtime.Val.i64(max(0, fuel - slice_fuel)))
        try:
            value = self.exports[name](self.store, *args)
        except wasmtime.Trap as trap:
            return trap.trap_code, fuel - self.left
        return value, fuel - self.left

    @property
    def left(self):
        return self.exports[FUEL].value(self.store)


@pytest.fixture
def machine(code):
    return Machine(code)


def test_metering_changes_no_result(machine):
    assert machine.call("fib", 15)[0] == 610
    assert machine.call("spin", 1000)[0] == 500500
    assert machine.call("ping", 9)[0] == 0
    assert machine.call("leaf", 7) == (21, 0)


def test_work_costs_in_proportion(machine):
    for name, few, many in (("spin", 1_000, 100_000), ("ping", 10, 1_000)):
        a, b = machine.call(name, few)[1], machine.call(name, many)[1]
        assert 50 * a < b <= 101 * a
    assert machine.call("fib", 20)[1] > 100 * machine.call("fib", 10)[1]
    assert machine.call("fill", 400_000)[1] >= 100_000
    assert machine.call("copy", 400_000)[1] == machine.call("fill", 400_000)[1]


@pytest.mark.parametrize(
    ("name", "argument"), [("spin", 10**8), ("fib", 40), ("ping", 10**4), ("fill", 10**6), ("copy", 10**5)]
)
def test_what_repeats_ends_with_the_fuel(machine, name, argument):
    answer, used = machine.call(name, argument, fuel=10_000)

    assert answer == wasmtime.TrapCode.UNREACHABLE
    assert machine.left < 0
    assert used > 10_000


def test_fuel_is_the_same_every_time_and_whatever_the_slice(machine):
    used = {
        machine.call("dispatch", 1024, 10_000, slice_fuel=size)[1] for size in (500, 3_000, 10**5, 1 << 60)
    }

    assert len(used) == 1


def test_the_dispatch_loop_pauses_through_the_handler(machine):
    cost = machine.call("dispatch", 1024, 1_000)[1] // 1_000
    pauses = machine.pauses

    machine.call("dispatch", 1024, 10_000, slice_fuel=100 * cost)

    assert 95 <= machine.pauses - pauses <= 100
    value, _ = machine.call("dispatch", 1024, 10)
    assert value == 0  # the original handler had nothing to do: each time it was the pause's bit alone


def test_what_the_code_itself_calls_by_the_name_of_the_pause_costs(machine):
    assert machine.call("yield") == (0, 500)
    assert machine.pauses == 0


def test_the_host_can_charge_and_ask(machine):
    machine.call("leaf", 1, fuel=980)
    assert machine.exports[CHARGE](machine.store, 100) == 880
    assert machine.exports[CHARGE](machine.store, 0) == 880
    with pytest.raises(wasmtime.Trap):
        machine.exports[CHARGE](machine.store, 881)


# ---------------------------------------------------------------------- prices

OPERATIONS = 400
WORK = "(local.set $x (i32.xor (local.get $x) (i32.mul (local.get $x) (local.get $x))))" * (OPERATIONS // 2)
LEAVE = "(br_if $out (i32.eq (local.get $x) (i32.const 5)))"


def price(body, *besides, entries=()):
    """What a turn of the one loop of a function costs, in which `body` stands."""
    text = f"""(module (memory 1) (type $plain (func (param i32) (result i32))) (table 1 funcref)
      (func (param $x i32) (result i32)
        (block $out (loop $turn {body} (br_if $turn (local.get $x)))) (local.get $x))
      {" ".join(besides)})"""
    by_id = {sid: bytes(body) for sid, body in sections(memoryview(bytes(wasmtime.wat2wasm(text))))}
    return Prices(list(functions(by_id[10])), 0, frozenset(entries), COSTS).of_loops(0)[0]


def test_a_turn_costs_what_is_done_in_it():
    empty = price("")

    assert price(WORK) - empty == OPERATIONS * COSTS.operation
    assert price(WORK + WORK) - empty == 2 * OPERATIONS * COSTS.operation
    roots = "(drop (f64.sqrt (f64.const 2)))" * 10
    assert price(roots) - empty == 10 * COSTS.quotient
    stores = "(v128.store (i32.const 0) (v128.const i64x2 0 0))" * 10
    assert price(stores) - empty == 10 * (COSTS.vector_store + COSTS.operation)


def test_either_side_of_a_branch_is_taken_half_of_the_times():
    empty, whole = price(""), OPERATIONS * COSTS.operation
    one_side = f"(if (local.get $x) (then {WORK}))"
    both = f"(if (local.get $x) (then {WORK}) (else {WORK}))"
    left_out = f"(block $over (br_if $over (local.get $x)) {WORK})"
    one_of_four = f"(block $c (block $b (block $a (br_table $a $b $c $c (local.get $x))) {WORK} (br $c)))"

    assert price(one_side) - empty == whole / 2 + COSTS.branch
    assert price(both) - empty == whole + COSTS.branch
    assert price(left_out) - empty == whole / 2 + COSTS.branch
    assert whole / 4 <= price(one_of_four) - empty <= whole / 4 + 2 * COSTS.branch


def test_work_behind_many_checks_is_not_free():
    """A program that is always past the checks does it in each turn."""
    assert price(LEAVE * 100 + WORK) - price(LEAVE * 100) >= OPERATIONS * COSTS.operation / 16 - 1


def test_what_a_turn_calls_is_part_of_it_unless_it_is_charged_by_itself():
    helper = f"(func $help (param $x i32) (result i32) {WORK} (local.get $x))"
    call = "(local.set $x (call $help (local.get $x)))"
    through = "(local.set $x (call_indirect (type $plain) (local.get $x) (i32.const 0)))"

    assert price(call, helper) - price("") == OPERATIONS * COSTS.operation
    assert price(call, helper, entries=[1]) == price("")
    assert price(through) - price("") == COSTS.indirect_call


def test_inner_loops_are_charged_by_themselves_and_what_comes_after_them_is_not_forgotten():
    inner = f"(loop $inner {WORK} (br_if $inner (local.get $x)))"

    assert price(inner) == price("")
    assert price(inner + WORK) - price("") == OPERATIONS * COSTS.operation


# ---------------------------------------------------------------------- graphs


def test_circles_are_found_and_broken():
    graph = {1: [2], 2: [3], 3: [1, 4], 4: [5], 5: [], 6: [6], 7: [8], 8: [7, 1]}

    assert sorted(map(sorted, circles(graph))) == [[1, 2, 3], [6], [7, 8]]
    chosen = without_circles(graph, graph)
    assert len(chosen) == 3
    assert uncharged_circle(graph, chosen) == []
    assert uncharged_circle(graph, chosen - {6}) == [6]


# ---------------------------------------------------------------------- the interpreter's own code


@pytest.fixture(scope="module")
def interpreter():
    wasm = apply_patches(artifacts.locate().wasm.read_bytes(), CODE_PATCHES)
    parts = split(wasm)
    landmarks = find_landmarks(wasm)
    return parts, metered(parts, landmarks)


@pytest.mark.slow
def test_every_circle_of_the_interpreters_code_passes_a_charge(interpreter):
    """Read the metered code anew: each loop and each recursion begins with a charge; copies are preceded by one."""
    parts, code = interpreter
    by_id = {sid: bytes(body) for sid, body in sections(memoryview(code))}
    body = by_id[10]
    found = list(functions(body))
    imported = len(parts.imports)
    fuel = fuel_index(by_id[7])
    charge = b"\x23" + bytes([fuel]) + b"\x42"
    store = b"\x24" + bytes([fuel])

    loops = 0
    for number, function in enumerate(found):
        for loop in function.loops:
            assert body.startswith(charge, loop.start), (number, loop)
            loops += 1
        for bulk in function.bulk:
            assert store in body[bulk.at - 24 : bulk.at], (number, bulk)
    assert loops > 129_000

    taken = address_taken(by_id[9])
    signatures = open_module(code).function_types
    graph = call_graph(found, signatures, taken, imported)
    charged = {
        imported + number for number, function in enumerate(found) if body.startswith(charge, function.code)
    }
    assert uncharged_circle(graph, charged) == []
    assert len(charged) > 30_000


def test_nothing_but_charges_names_the_counter(interpreter):
    """The original code has two globals; the three that are new are named by what was written in alone."""
    parts, _ = interpreter
    by_id = {sid: bytes(body) for sid, body in sections(memoryview(parts.code))}

    assert read_unsigned(by_id[6], 0)[0] == 2


def fuel_index(exports):
    name = FUEL.encode()
    at = exports.index(bytes([len(name)]) + name) + 1 + len(name)
    assert exports[at] == 3
    return read_unsigned(exports, at + 1)[0]
