"""Files are read and written whole: the host takes 64 KiB at a time."""

from __future__ import annotations

from evocell_runtime.patches.model import AnyPatch, Donor

_ONCE = 65536
"""Bytes that the host moves in one call, at most."""

_EXPECTED = (
    ("read", "9780a0685741c733b4ddb4a2e0922a23e855be1e1a6b2b11c24c7909a4a4c048"),
    ("write", "689ca4c0f24143c9c4f6814d73865441afe092122e07f45374c362aea5a4217e"),
    ("pread", "b1a196013cf6b8f38f3e101c159e758dbb547ac9685d111e1a958c60e1614b7a"),
    ("pwrite", "1015b03f524ed06f300d2364584630d3184e903423eef686f5cb4343ac5ddae2"),
)


def _looped(function: str, *, offset: bool) -> str:
    """The function, called again for as long as it moves all that it can at once.

    A failure after the first call is reported by the next call, as by the system.
    """
    where = "(i64.add (local.get $offset) (i64.extend_i32_u (local.get $done)))" if offset else ""
    return f"""
  (func (export "{function}") (param $fd i32) (param $bytes i32) (param $size i32)
    {"(param $offset i64)" if offset else ""} (result i32)
    (local $done i32) (local $now i32)
    (loop $next
      (local.set $now (call ${function} (local.get $fd) (i32.add (local.get $bytes) (local.get $done))
        (i32.sub (local.get $size) (local.get $done)) {where}))
      (if (i32.lt_s (local.get $now) (i32.const 0))
        (then (return (select (local.get $done) (local.get $now) (local.get $done)))))
      (local.set $done (i32.add (local.get $done) (local.get $now)))
      (br_if $next (i32.and
        (i32.eq (local.get $now) (i32.const {_ONCE}))
        (i32.lt_u (local.get $done) (local.get $size)))))
    (local.get $done))"""


_SAME = "(param i32 i32 i32) (result i32)"
_AT = "(param i32 i32 i32 i64) (result i32)"

FILES: tuple[AnyPatch, ...] = (
    Donor(
        name="whole-reads-and-writes",
        why=(
            "`os.write(fd, data)` writes all of the data and `os.read(fd, size)` reads as much as there is of a file, as do "
            "files without a buffer, `os.pread` and `os.pwrite`: natively they do. The first 65,536 bytes were moved, and a "
            "program that did not look at the number of them lost the others."
        ),
        expected=_EXPECTED,
        wat=f"""(module
  (import "original" "read" (func $read {_SAME}))
  (import "original" "write" (func $write {_SAME}))
  (import "original" "pread" (func $pread {_AT}))
  (import "original" "pwrite" (func $pwrite {_AT}))
{_looped("read", offset=False)}
{_looped("write", offset=False)}
{_looped("pread", offset=True)}
{_looped("pwrite", offset=True)}
)""",
    ),
)
"""This part of the table."""
