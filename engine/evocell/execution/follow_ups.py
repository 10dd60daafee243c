"""Calls behind compilations: sent while their code is compiled, and begun in the process that compiled it.

Otherwise a worker waits while the engine reads what was compiled and asks for the call, which takes
as long as a small program does. Such a call lacks its byte code: the worker takes it from the compiler's
answer. The engine still asks for the call when it has the code, and gets the result of this one if it is the
same to the byte. Wherever it was not made, or was lost, the call is made then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack
from attrs import define, evolve, frozen

from evocell.execution.messages import GuestRequest, GuestResult
from evocell.execution.rpc import ConnectionLost, Posted, RequestFailed
from evocell.wire.frames import pack

__all__ = ["FOLLOW_UP", "LENGTH_BYTES", "FollowUp", "FollowUpRequest", "Splice"]

FOLLOW_UP = "follow_up"
"""The request for a call behind a compilation."""

LENGTH_BYTES = 4
"""Bytes of a length in the format of requests, which is marshal; little-endian."""


@frozen
class Splice:
    """The parts of a call's request around the byte code that it lacks.

    The code stands in two byte strings, one in the other, each with its length before it.

    Attributes:
        before: Everything up to the length of the outer one.
        between: Everything from there to the length of the inner one, which is the byte code.
        after: Everything behind the byte code.
        n_around: Length of the outer one without the byte code.
    """

    before: bytes
    between: bytes
    after: tuple[bytes, ...]
    n_around: int

    def filled(self, code: bytes) -> tuple[bytes, ...]:
        """Return the parts of the request with the byte code."""
        return (
            self.before + _length(self.n_around + len(code)) + self.between + _length(len(code)),
            code,
            *self.after,
        )

    def fits(self, body: bytes) -> bool:
        """Return whether a request is this one with some byte code."""
        start = len(self.before) + LENGTH_BYTES + len(self.between) + LENGTH_BYTES
        end = b"".join(self.after)
        n_code = len(body) - start - len(end)
        return n_code >= 0 and body.endswith(end) and body.startswith(self.filled(bytes(n_code))[0])


def _length(number: int) -> bytes:
    return number.to_bytes(LENGTH_BYTES, "little")


@frozen
class FollowUpRequest:
    """A call that lacks the byte code of its one file.

    Attributes:
        path: The file.
        splice: The parts of its request around the byte code.
        request: The rest of it; its parts are those behind the byte code.
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
                "splice": [splice.before, splice.between, splice.n_around],
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
        before, between, n_around = plain["splice"]
        request = GuestRequest.from_wire(plain["run"], find)
        splice = Splice(before=before, between=between, after=request.parts, n_around=n_around)
        return plain["behind"], cls(plain["path"], splice, request)

    def with_code(self, code: bytes) -> GuestRequest:
        """Return the whole call."""
        return evolve(self.request, parts=self.splice.filled(code))


@define(eq=False)
class FollowUp:
    """A call behind a compilation, as the engine follows it. Its owner calls `close` in the end.

    Attributes:
        wanted: The call.
        posted: The request for it, from when it was sent until its result was asked for.
        note: Called with its result.
    """

    wanted: FollowUpRequest
    posted: Posted | None = None
    note: Callable[[GuestResult], object] = bool
    _post: Callable[[], Posted] | None = None
    _is_placed: bool = False
    _was_posted: bool = False

    @property
    def sandbox_id(self) -> str:
        """The calling sandbox."""
        return self.wanted.request.sandbox_id

    def to_wire(self, behind: int, refer: Callable[[bytes], bytes | str]) -> bytes:
        """Return it as bytes; see `FollowUpRequest.to_wire`."""
        return self.wanted.to_wire(behind, refer)

    def sent_with(self, post: Callable[[], Posted]) -> None:
        """Take note of the process that compiles the code.

        Args:
            post: Sends the call to it.
        """
        self._post = post
        self._post_once()

    def tree_placed(self) -> None:
        """Take note that the tree is on disk, where the call finds it."""
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
        if self.posted is None or evolve(request, parts=wanted.request.parts) != wanted.request:
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
            self.posted = self._post()
