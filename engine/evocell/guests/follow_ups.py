"""Calls behind compilations: begun in a worker process as soon as it has compiled their code.

The engine sends such a call while its code is compiled. It lacks the byte code, which is taken from the
compiler's answer. That comes from a guest: it is decoded under caps, and unless it is exactly one
file's byte code, with imports that need no other image, the call is left to the engine.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from attrs import define

from evocell.errors import ProtocolError
from evocell.execution.follow_ups import CompiledFile
from evocell.execution.messages import GuestResult
from evocell.wire.values import decode_hostile
from evocell_runtime.untrusted import GuestBytes
from evocell_runtime.warm import HEAVY_PACKAGES

__all__ = ["FollowUps", "compiled_file"]

EXPECTED_S = 0.02
"""Seconds after a compilation in which the call behind it is expected."""

MOST_KEPT = 64
"""Compilations whose byte code waits for its call, or that are under way."""

MAX_ANSWER_BYTES = 256 << 10
"""Bytes of an answer beyond which the call is left to the engine."""

_MAX_ITEMS = 10_000
_MAX_DEPTH = 6


@define(eq=False)
class _Leading:
    """A compilation that a call follows.

    Attributes:
        answer: Its answer, once it has ended.
        ended: Whether it has.
        begin: Begins the call, once that has come; gets None where there is no byte code for it.
    """

    answer: GuestBytes | None = None
    ended: bool = False
    begin: Callable[[GuestBytes | None], object] | None = None


class FollowUps:
    """The compilations that calls follow, and the calls that came before their compilation had ended."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._leading: OrderedDict[int, _Leading] = OrderedDict()
        self._latest = -math.inf

    def __len__(self) -> int:
        return len(self._leading)

    @property
    def expected(self) -> bool:
        """Whether a call is likely to come at any moment, behind a compilation of just now."""
        return bool(self._leading) and self._clock() - self._latest < EXPECTED_S

    def lead(self, name: int) -> None:
        """Note that a compilation begins, which a call may follow."""
        self._leading[name] = _Leading()
        self._latest = self._clock()
        while len(self._leading) > MOST_KEPT:
            _, oldest = self._leading.popitem(last=False)
            if oldest.begin is not None:
                oldest.begin(None)

    def ended(self, name: int, seen: GuestResult | None) -> None:
        """Note that a compilation has ended, and begin the call behind it."""
        leading = self._leading.get(name)
        if leading is None:
            return
        answer = None if seen is None else seen.answer
        if answer is not None and len(answer) > MAX_ANSWER_BYTES:
            answer = None  # no call can be made of it, and many of them may wait here
        leading.answer, leading.ended = answer, True
        self._latest = self._clock()
        if leading.begin is not None:
            del self._leading[name]
            leading.begin(leading.answer)

    def follow(self, name: int, begin: Callable[[GuestBytes | None], object]) -> None:
        """Begin a call once a compilation has ended.

        Args:
            name: The compilation.
            begin: Called with its answer, None if there is none; at once if the compilation is not known.
        """
        leading = self._leading.get(name)
        if leading is None:
            begin(None)
        elif leading.ended:
            del self._leading[name]
            begin(leading.answer)
        else:
            leading.begin = begin

    def leave(self, name: int) -> None:
        """Forget a call that waits for a compilation."""
        self._leading.pop(name, None)


def compiled_file(answer: GuestBytes | None, path: str) -> CompiledFile | None:
    """Return what a file was compiled to from a compiler's answer; None where the engine has to look at it.

    Args:
        answer: The answer of the guest.
        path: The one file that was compiled.
    """
    if answer is None or len(answer) > MAX_ANSWER_BYTES:
        return None
    try:
        found = decode_hostile(answer, max_bytes=MAX_ANSWER_BYTES, max_items=_MAX_ITEMS, max_depth=_MAX_DEPTH)
    except ProtocolError:
        return None
    match found:
        case [str(name), bytes(code)] if name == path:
            return CompiledFile(code)
        case {"t": "compiled", "units": [[str(name), bytes(code), list(imports), list(marks), []]]}:
            if name == path and all(map(_is_mark, marks)) and not _needs_another_image(imports):
                return CompiledFile(code, tuple((bound, number) for bound, number in marks))
    return None


def _is_mark(value: object) -> bool:
    return isinstance(value, list) and [type(part) for part in value] == [str, int]


def _needs_another_image(imports: list[object]) -> bool:
    return any(isinstance(name, str) and name in HEAVY_PACKAGES for name in imports)
