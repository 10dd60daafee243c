"""Metering of a whole module: sections, exports and prices around `evocell_runtime.metering.instrument`."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attrs import frozen

from evocell_runtime.errors import ImageError
from evocell_runtime.leb128 import read_signed, read_unsigned, write_signed, write_unsigned
from evocell_runtime.metering import instrument, recursion
from evocell_runtime.metering.instrument import Plan
from evocell_runtime.metering.names import CHARGE, COSTS, FUEL, PAUSE_AT, SIGNAL, SLICE, SLICE_FUEL, STACK
from evocell_runtime.metering.prices import Prices
from evocell_runtime.metering.scan import Function, functions
from evocell_runtime.patches.module import open_module
from evocell_runtime.rewrite import MAGIC, SplitModule

__all__ = ["Landmarks", "find_landmarks", "metered"]

YIELD_COST = 500
"""Fuel charged when the guest itself calls `sched_yield`."""

_TYPE, _FUNCTION, _GLOBAL, _EXPORT, _ELEMENT, _CODE = 1, 3, 6, 7, 9, 10
_STACK_POINTER, _MUTABLE_I32 = 0, b"\x7f\x01"
_THROUGH_TABLE = 1 << 30
"""Added to the index of a type to get its node in the call graph, where functions are nodes as well."""


@frozen(kw_only=True)
class Landmarks:
    """Functions of CPython that metering must know, by their index in the code section.

    Attributes:
        dispatch: `_PyEval_EvalFrameDefault`; its loop with the most code of its own dispatches instructions.
        handler: `_Py_HandlePending`.
        signal: `raise` of the C library.
        breaker: Offset of `eval_breaker` in `PyThreadState`.
    """

    dispatch: int
    handler: int
    signal: int = 0
    breaker: int = 12


def find_landmarks(wasm: bytes) -> Landmarks:
    """Find the functions by their names in the module's name section.

    Args:
        wasm: The module, with its name section.

    Raises:
        ImageError: A function is missing there, or its name occurs more than once.
    """
    module = open_module(wasm)
    imported = len(module.imports)
    return Landmarks(
        dispatch=module.number("_PyEval_EvalFrameDefault") - imported,
        handler=module.number("_Py_HandlePending") - imported,
        signal=module.number("raise") - imported,
    )


def metered(parts: SplitModule, landmarks: Landmarks) -> bytes:
    """Return the code of a split module with metering.

    Args:
        parts: The module.
        landmarks: CPython's functions in it.

    Raises:
        ImageError: The module does not have the expected form; the message says what was found.
    """
    with _no_collections():
        return _metered(parts, landmarks)


def _metered(parts: SplitModule, landmarks: Landmarks) -> bytes:
    module = open_module(parts.code)
    by_id = {sid: bytes(body) for sid, body in module.sections}
    imported = len(parts.imports)
    pause = next((n for n, function in enumerate(parts.imports) if function.name == "sched_yield"), None)
    if pause is None:
        msg = "the interpreter does not import sched_yield, by which it pauses"
        raise ImageError(msg)
    found = list(functions(by_id[_CODE]))
    signatures, taken = module.function_types, address_taken(by_id[_ELEMENT])
    charged = charged_entries(call_graph(found, signatures, taken, imported), taken)
    entries = frozenset(entry - imported for entry in charged)
    globals_count, at = read_unsigned(by_id[_GLOBAL], 0)
    if by_id[_GLOBAL][at : at + 2] != _MUTABLE_I32:
        msg = "the interpreter's first global is not a stack pointer, a changeable number of 32 bits"
        raise ImageError(msg)
    plan = Plan(
        fuel=globals_count,
        pause_at=globals_count + 1,
        slice=globals_count + 2,
        charge=imported + len(found),
        charged_yield=imported + len(found) + 1,
        pause=pause,
        entries=entries,
        dispatch=(landmarks.dispatch, _dispatch_loop(found[landmarks.dispatch])),
        handler=landmarks.handler,
        breaker=landmarks.breaker,
        parameters=[len(module.types[signature][0]) for signature in signatures],
        prices=Prices(found, imported, entries, COSTS),
        costs=COSTS,
    )
    bodies = instrument.instrumented(by_id[_CODE], plan)
    bodies += (instrument.charge_function(plan), instrument.yield_function(plan, YIELD_COST))
    charge_type = len(module.types)
    changed = {
        _TYPE: _longer(by_id[_TYPE], 2, b"\x60\x01\x7e\x01\x7e" + b"\x60\x00\x01\x7f"),
        _FUNCTION: _longer(
            by_id[_FUNCTION], 2, write_unsigned(charge_type) + write_unsigned(charge_type + 1)
        ),
        _GLOBAL: _longer(by_id[_GLOBAL], 3, _i64_global(0) * 2 + _i64_global(SLICE_FUEL)),
        _EXPORT: _longer(
            by_id[_EXPORT],
            6,
            _export(FUEL, 3, plan.fuel)
            + _export(PAUSE_AT, 3, plan.pause_at)
            + _export(SLICE, 3, plan.slice)
            + _export(CHARGE, 0, plan.charge)
            + _export(STACK, 3, _STACK_POINTER)
            + _export(SIGNAL, 0, imported + landmarks.signal),
        ),
        _CODE: write_unsigned(len(bodies)) + b"".join(bodies),
    }
    out = [MAGIC]
    for sid, body in by_id.items():
        payload = changed.get(sid, body)
        out += (bytes([sid]), write_unsigned(len(payload)), payload)
    return b"".join(out)


def call_graph(
    found: list[Function], signatures: list[int], taken: set[int], imported: int
) -> dict[int, list[int]]:
    """Return the call graph, by function index; a call through the table leads to a node for its type."""
    graph: dict[int, list[int]] = {}
    for number, function in enumerate(found):
        graph[imported + number] = list(
            {
                _THROUGH_TABLE + call.target if call.indirect else call.target
                for call in function.calls
                if call.indirect or call.target >= imported
            }
        )
    by_type: Mapping[int, list[int]] = defaultdict(list)
    for function_index in sorted(taken):
        if function_index >= imported:
            by_type[_THROUGH_TABLE + signatures[function_index - imported]].append(function_index)
    graph.update(by_type)
    return graph


def charged_entries(graph: Mapping[int, list[int]], taken: set[int]) -> set[int]:
    """Return functions that break all cycles of calls: those in the table, then others where needed."""
    charged = {node for part in recursion.circles(graph) for node in part if node in taken}
    left = {n: [to for to in tos if to not in charged] for n, tos in graph.items() if n not in charged}
    return charged | recursion.without_circles(left, [n for n in left if n < _THROUGH_TABLE])


def address_taken(body: bytes) -> set[int]:
    """Return the indices of the functions in the table.

    Args:
        body: The contents of the element section.

    Raises:
        ImageError: A segment is not a plain list of functions.
    """
    count, at = read_unsigned(body, 0)
    taken: set[int] = set()
    for number in range(count):
        kind, at = read_unsigned(body, at)
        if kind != 0 or body[at] != 0x41:
            msg = f"element segment {number} of the interpreter is not a plain list of functions"
            raise ImageError(msg)
        _, at = read_signed(body, at + 1)
        size, at = read_unsigned(body, at + 1)
        for _ in range(size):
            index, at = read_unsigned(body, at)
            taken.add(index)
    return taken


def _dispatch_loop(function: Function) -> int:
    """Return the index of the loop that dispatches instructions: the one with the most code of its own."""
    if not function.loops:
        msg = "the interpreter's evaluation function has no loop"
        raise ImageError(msg)
    return max(range(len(function.loops)), key=lambda n: function.loops[n].own_bytes)


def _longer(body: bytes, more: int, text: bytes) -> bytes:
    """Append entries to a section that is a vector, and return it."""
    count, at = read_unsigned(body, 0)
    return write_unsigned(count + more) + body[at:] + text


def _i64_global(value: int) -> bytes:
    return b"\x7e\x01\x42" + write_signed(value) + b"\x0b"


def _export(name: str, kind: int, index: int) -> bytes:
    raw = name.encode()
    return write_unsigned(len(raw)) + raw + bytes([kind]) + write_unsigned(index)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Disable garbage collection, which would scan hundreds of thousands of objects that all stay alive."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
