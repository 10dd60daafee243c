"""Waits on locks end at their timeouts, and those that could never end are errors.

There are no threads, so nobody else can release a lock, set an event or fill a queue while a program waits. A wait with a timeout is
a sleep, by which the virtual clock moves on.
"""

from __future__ import annotations

from evocell_runtime.patches.model import AnyPatch, Donor, Edit
from evocell_runtime.patches.templates import refusal

_RUNTIME_ERROR = 26079272
_HANDLES_SIGNALS, _INTERRUPTED = 2, 2
"""A flag of `_PyMutex_LockTimed`, which waits for Python code have, and the answer at which they look for an exception."""

MESSAGE = (
    "this would wait for ever: there are no threads in the sandbox that could end the wait; "
    "do what is waited for before, or wait with a timeout"
)

_WAT = f"""(module
  (import "interpreter" "memory" (memory 0))
  (import "interpreter" "stack_pointer" (global $sp (mut i32)))
  (import "interpreter" "PyErr_SetString" (func $raise (param i32 i32)))
  (import "original" "_PyMutex_LockTimed" (func $lock (param i32 i64 i32) (result i32)))
{refusal(_RUNTIME_ERROR, MESSAGE)}
  (func (export "_PyMutex_LockTimed") (param $mutex i32) (param $timeout i64) (param $flags i32) (result i32)
    (if (i32.and
        (i32.and (i32.load8_u (local.get $mutex)) (i32.const 1))
        (i32.and (i64.lt_s (local.get $timeout) (i64.const 0))
          (i32.ne (i32.and (local.get $flags) (i32.const {_HANDLES_SIGNALS})) (i32.const 0))))
      (then
        (call $refuse)
        (return (i32.const {_INTERRUPTED}))))
    (call $lock (local.get $mutex) (local.get $timeout) (local.get $flags)))
  (func (export "evocell.park_for_ever")
    (param $address i32) (param $expected i32) (param $size i32) (param $timeout i64) (param $argument i32)
    (param $detach i32) (result i32)
    (call $refuse)
    (i32.const 0)))"""

WAITS: tuple[AnyPatch, ...] = (
    Edit(
        name="timed-waits",
        why=(
            "A wait with a timeout, on a lock, an event, a condition, a queue or a future, sleeps until it has timed out: "
            "`Event().wait(0.1)` is False a tenth of a second later by the virtual clock. It ended the call."
        ),
        function="__wasilibc_futex_wait",
        expected="unreachable",
        replacement="""
            local.get 3
            i32.eqz
            if
            unreachable  ; C code of its own that waits for ever
            end
            local.get 2
            local.get 4
            i32.const 1
            i32.shr_u
            local.get 3
            i32.const 0
            call clock_nanosleep
            drop
            i32.const -73
            local.set 6
        """,
    ),
    Donor(
        name="endless-waits",
        why="A wait without a timeout that can never end is a `RuntimeError` that says so. It ended the call.",
        expected=(
            ("_PyMutex_LockTimed", "e45f254f6dae4d529cfe2e314191b30fe60ee6cfff75bdcdfb9896a68ede32f6"),
        ),
        wat=_WAT,
    ),
    Edit(
        name="endless-waits-of-queues",
        why="The same for `queue.SimpleQueue`. Its caller takes no item and an exception for a failure.",
        function="_queue_SimpleQueue_get_impl",
        expected="i64.const -1\nlocal.get 4\ni32.const 1\ncall _PyParkingLot_Park",
        replacement="i64.const -1\nlocal.get 4\ni32.const 1\ncall evocell.park_for_ever",
    ),
)
"""This part of the table."""
