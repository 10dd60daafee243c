"""Calls behind compilations: sent while their code is compiled, and begun in the process that compiled it.

Otherwise a worker waits while the engine reads what was compiled and asks for the call, which takes
as long as a small program does. Such a call lacks its byte code: the worker takes it from the compiler's
answer. The engine still asks for the call when it has the code, and gets the result of this one if it is the
same to the byte. Wherever it was not made, or was lost, the call is made then.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
from attrs import define, evolve, frozen

from evocell.execution.messages import GuestRequest, GuestResult
from evocell.execution.rpc import ConnectionLost, Posted, RequestFailed
from evocell.wire.frames import pack

__all__ = ["FOLLOW_UP", "LENGTH_BYTES", "CompiledFile", "FollowUp", "FollowUpRequest", "Splice", "dump_marks"]

FOLLOW_UP = "follow_up"
"""The request for a call behind a compilation."""

LENGTH_BYTES = 4
"""Bytes of a length in the format of requests, which is marshal; little-endian."""

_FORMAT = 2
"""Version of marshal without references between values."""


@frozen
class CompiledFile:
    """What a call takes from the compiler's answer.

    Attributes:
        code: The byte code of the one file.
        marks: Checksums of the statements that bind its names.
    """

    code: bytes
    marks: tuple[tuple[str, int], ...] = ()


@frozen
class Splice:
    """The parts of a call's request around what it lacks: the byte code and the marks of its one file.

    Both stand in one byte string, each with its length before it, as has the string itself.

    Attributes:
        before: Everything up to the length of the string.
        between: Everything from there to the length of the byte code.
        middle: Everything from the byte code to the length of the marks.
        after: Everything behind the marks.
        n_around: Length of the string without byte code and marks.
        module: The module's name, which the marks have.
    """

    before: bytes
    between: bytes
    middle: bytes
    after: tuple[bytes, ...]
    n_around: int
    module: str

    def filled(self, compiled: CompiledFile) -> tuple[bytes, ...]:
        """Return the parts of the request with what it lacked."""
        code, marks = compiled.code, dump_marks({self.module: dict(compiled.marks)})
        outer = self.n_around + len(code) + len(marks)
        return (
            self.before + _length(outer) + self.between + _length(len(code)),
            code,
            self.middle + _length(len(marks)) + marks,
            *self.after,
        )

    def fits(self, body: bytes) -> bool:
        """Return whether a request is this one with some byte code and some marks."""
        outer = code = marks = -1
        at = 0
        if body.startswith(self.before):
            outer, at = _length_at(body, len(self.before))
        if outer >= 0 and body.startswith(self.between, at):
            code, at = _length_at(body, at + len(self.between))
        if code >= 0 and body.startswith(self.middle, at + code):
            marks, at = _length_at(body, at + code + len(self.middle))
        return (
            marks >= 0
            and outer == self.n_around + code + marks
            and body[at + marks :] == b"".join(self.after)
        )


def _length_at(body: bytes, at: int) -> tuple[int, int]:
    """Return the length that stands in a request, and the place behind it; -1 if the request ends there."""
    end = at + LENGTH_BYTES
    return (int.from_bytes(body[at:end], "little") if end <= len(body) else -1), end


def dump_marks(marks: Mapping[str, Mapping[str, int]]) -> bytes:
    """Encode the marks of modules as `evocell_guest.packing.pack` does."""
    return marshal.dumps({name: dict(bound) for name, bound in marks.items()}, _FORMAT)


def _length(number: int) -> bytes:
    return number.to_bytes(LENGTH_BYTES, "little")


@frozen
class FollowUpRequest:
    """A call that lacks what its one file is compiled to.

    Attributes:
        path: The file.
        splice: The parts of its request around that.
        request: The rest of it; its parts are those behind.
    """

    path: str
    splice: Splice
    request: GuestRequest

    def to_wire(self, behind: int, refer: Callable[[bytes], bytes | str]) -> bytes:
        """Return it as bytes.

        Args:
            behind: Number of the compilation.
            refer: As for `GuestRequest.to_wire`.
        """
        splice = self.splice
        return pack(
            {
                "behind": behind,
                "path": self.path,
                "splice": [splice.before, splice.between, splice.middle, splice.n_around, splice.module],
                "run": self.request.to_wire(refer),
            }
        )

    @classmethod
    def from_wire(cls, packed: bytes, find: Callable[[str], bytes]) -> tuple[int, FollowUpRequest]:
        """Return the number of the compilation, and the call, from the bytes of `to_wire`.

        Args:
            packed: The bytes.
            find: Returns the part with a name.
        """
        plain: Mapping[str, Any] = msgpack.unpackb(packed)
        before, between, middle, n_around, module = plain["splice"]
        request = GuestRequest.from_wire(plain["run"], find)
        splice = Splice(
            before=before,
            between=between,
            middle=middle,
            after=request.parts,
            n_around=n_around,
            module=module,
        )
        return plain["behind"], cls(plain["path"], splice, request)

    def with_code(self, compiled: CompiledFile) -> GuestRequest:
        """Return the whole call."""
        return evolve(self.request, parts=self.splice.filled(compiled))


@define(eq=False)
class FollowUp:
    """A call behind a compilation, as the engine follows it. Its owner calls `close` in the end.

    Attributes:
        make: Makes the call, once the compilation is under way; None where its code has no clear place.
        sandbox_id: The calling sandbox.
        wanted: The call, once it was made.
        posted: The request for it, from when it was sent until its result was asked for.
        note: Called with its result.
    """

    make: Callable[[], FollowUpRequest | None]
    sandbox_id: str = ""
    wanted: FollowUpRequest | None = None
    posted: Posted | None = None
    note: Callable[[GuestResult], object] = bool
    _post: Callable[[], Posted] | None = None
    _is_placed: bool = False
    _was_posted: bool = False

    def to_wire(self, behind: int, refer: Callable[[bytes], bytes | str]) -> bytes:
        """Return it as bytes; see `FollowUpRequest.to_wire`."""
        assert self.wanted is not None
        return self.wanted.to_wire(behind, refer)

    def sent_with(self, post: Callable[[], Posted]) -> None:
        """Take note of the process that compiles the code.

        Args:
            post: Sends the call to it.
        """
        self._post = post
        self._post_once()

    def tree_placed(self) -> None:
        """Take note that the tree is in its place, where the call finds it."""
        self._is_placed = True
        self._post_once()

    async def result_of(self, request: GuestRequest) -> GuestResult | None:
        """Wait for its result, if it is a given call; None if it is another, or was not made.

        If its process died, the result says so; the call is then to be made again.

        Args:
            request: The given call.

        Cancellation: The fork is discarded within a slice, before `Cancelled` leaves here.
        """
        wanted = self.wanted
        if (
            wanted is None
            or self.posted is None
            or evolve(request, parts=wanted.request.parts) != wanted.request
        ):
            return None
        if not wanted.splice.fits(request.body):
            return None
        posted, self.posted = self.posted, None  # its result is that of one call
        try:
            answer = await posted.wait()
            if not isinstance(answer, bytes):
                return None
            seen = GuestResult.from_wire(msgpack.unpackb(answer))
        except ConnectionLost as error:
            return GuestResult(lost=str(error))
        except (RequestFailed, AttributeError, KeyError, TypeError, ValueError):
            return None  # the call that is made instead tells what is wrong
        finally:
            await posted.close()
        self.note(seen)
        return seen if seen.unforked is None and seen.no_image is None else None

    async def close(self) -> None:
        """Stop it if it is under way, and wait until it has stopped; idempotent.

        Cancellation: It waits all the same.
        """
        self._was_posted = True  # what is not sent yet is not sent any more
        posted, self.posted = self.posted, None
        if posted is not None:
            await posted.close()

    def _post_once(self) -> None:
        if self._is_placed and self._post is not None and not self._was_posted:
            self._was_posted = True
            self.wanted = self.make()
            self.posted = None if self.wanted is None else self._post()
