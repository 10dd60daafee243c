"""Outcomes of calls into sandboxes: a closed family of immutable records.

Failure of an individual is normal, so it is data. The kind of failure (trap, fuel, memory, time)
and every reading are the host's own; `Completed.value` is the guest's claim. Thousands of these
are created per second, so nothing here validates.
"""

from __future__ import annotations

from reprlib import Repr
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from attrs import field, frozen

from evocell.errors import OutcomeError
from evocell.models.equality import ByContent
from evocell.models.html import facts

RejectedKind = Literal["syntax", "security", "compile", "load"]
NOTABLE_IMPORT_FUEL = 500_000_000
"""Imports that take less are not mentioned."""

_ABRIDGED = Repr()
_ABRIDGED.maxlist = _ABRIDGED.maxtuple = _ABRIDGED.maxset = _ABRIDGED.maxfrozenset = _ABRIDGED.maxdict = 20
_ABRIDGED.maxstring = _ABRIDGED.maxother = 200

LimitKind = Literal["fuel", "timeout", "memory", "stack", "output", "files", "payload"]


@frozen(kw_only=True)
class Outcome:
    """Outcome of one call: the fields common to all kinds. Only subclasses are instantiated.

    Two outcomes of the same deterministic call compare equal: equality ignores wall time.

    Attributes:
        fuel_used: Units of work, host calls included.
        wall_s: Run time of the call itself, in seconds.
        peak_memory_bytes: Peak memory of the guest above its image, measured by the host.
        stdout: Captured standard output, cut at the limit.
        stderr: Captured standard error, cut at the limit.
        deterministic: False if a repetition may end differently, as after a wall-clock kill.
        import_fuel: How much of `fuel_used` went into importing modules that its image has not imported, as
            the call says itself; 0 if it was little, and in the realtime profile.
    """

    ok: ClassVar[bool] = False
    """True only if the call returned a value."""

    fuel_used: int = 0
    wall_s: float = field(default=0.0, eq=False)
    peak_memory_bytes: int = 0
    stdout: str = ""
    stderr: str = ""
    deterministic: bool = True
    import_fuel: int = 0

    @property
    def kind(self) -> str:
        """The kind of outcome, from a closed set, such as ``"completed"`` or ``"fuel"``."""
        return type(self).__name__.lower()

    @property
    def error(self) -> str | None:
        """None for a completed call, else a sentence that describes the failure."""
        return f"the call ended as {self.kind!r}"

    @property
    def imports_note(self) -> str:
        """A sentence for a call whose work was mostly imports, with what to do; empty for any other."""
        if self.import_fuel < NOTABLE_IMPORT_FUEL or 2 * self.import_fuel < self.fuel_used:
            return ""
        return (
            f"imports took {self.import_fuel:,} of its {self.fuel_used:,} fuel; modules that are named in "
            "Config(warm=...) are imported once, in the image, and cost a call nothing"
        )

    def unwrap(self) -> Any:
        """Return the value of a completed call.

        Raises:
            OutcomeError: The call did not complete; the exception holds this outcome.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise OutcomeError(self)

    def _repr_html_(self) -> str:
        value = {"value": _ABRIDGED.repr(self.unwrap())} if self.ok else {"error": self.error}
        return facts(
            self.kind,
            [
                *value.items(),
                ("stdout", self.stdout or None),
                ("stderr", self.stderr or None),
                ("fuel", self.fuel_used),
                ("peak memory, bytes", self.peak_memory_bytes),
                ("time, ms", 1000 * self.wall_s),
            ],
        )

    if not TYPE_CHECKING:  # type checkers report it earlier

        def __getattr__(self, name: str) -> NoReturn:
            if name == "value":
                raise AttributeError(
                    f"there is no value: {self.error}; ask .ok first, or call unwrap()", name=name, obj=self
                )
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )


@frozen
class Completed(Outcome):
    """The call returned.

    Attributes:
        value: The return value, decoded under the limits: a claim of untrusted code.
    """

    ok: ClassVar[bool] = True
    """True: there is a value."""

    value: Any = field(default=None, eq=ByContent)

    @property
    def error(self) -> str | None:
        """None: nothing went wrong."""
        return None

    def unwrap(self) -> Any:
        """Return the value."""
        return self.value


@frozen
class Raised(Outcome):
    """The code raised an exception, during import or during the call.

    Attributes:
        type_name: Name of the exception's class, such as ``"ValueError"``.
        message: The exception's text, cut to a few KiB.
        traceback: The formatted traceback, the variant's own frames only.
    """

    type_name: str
    message: str = ""
    traceback: str = ""

    @property
    def error(self) -> str | None:
        """The exception's type and message, as Python prints them."""
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


@frozen
class Rejected(Outcome):
    """The code was refused, before it ran or, by the security gate's audit hook, while it ran.

    Attributes:
        kind: ``"syntax"``, ``"security"``, ``"compile"`` or ``"load"`` (the entry is missing).
        message: A sentence that describes the fault.
        path: The faulty file, relative to the variant's root.
        line: Line, counted from 1.
        column: Column, counted from 1.
        text: The source line itself.
    """

    kind: RejectedKind
    message: str
    path: str | None = None
    line: int | None = None
    column: int | None = None
    text: str | None = None

    @property
    def error(self) -> str | None:
        """The message, preceded by its location as ``path:line:column``."""
        place = ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


@frozen
class LimitExceeded(Outcome):
    """The call was stopped at one of its limits, or its arguments or result exceeded one.

    Attributes:
        kind: The limit: fuel, timeout, memory, stack, output, files or payload.
        limit: The limit's value, in the unit of `Limits`; None if it has no single number.
        reached: The value that the call reached, in the same unit; None if unknown.
        message: A sentence with details beyond the numbers; may be empty.
    """

    kind: LimitKind
    limit: float | None = None
    reached: float | None = None
    message: str = ""

    @property
    def error(self) -> str | None:
        """The message, or a sentence made of the numbers; of fuel, whether imports took most of it."""
        note = self.imports_note if self.kind == "fuel" else ""
        return f"{self._said}; {note}" if note else self._said

    @property
    def _said(self) -> str:
        if self.message:
            return self.message
        parts = [f"stopped at the {self.kind} limit"]
        if self.limit is not None:
            parts.append(f"of {self.limit:,}")
        if self.reached is not None:
            parts.append(f"(reached {self.reached:,})")
        return " ".join(parts)


@frozen
class GuestCrashed(Outcome):
    """The guest ended itself: a trap, an abort, or ``os._exit``.

    Attributes:
        reason: The observation, such as the trap's name.
        exit_code: The code it exited with, if it did.
    """

    reason: str
    exit_code: int | None = None

    @property
    def kind(self) -> str:
        """``"crashed"``."""
        return "crashed"

    @property
    def error(self) -> str | None:
        """The reason, in a sentence."""
        return f"the guest crashed: {self.reason}"


@frozen
class WorkerLost(Outcome):
    """The process that ran the call died, or was lost, before it returned a result.

    Attributes:
        reason: The cause, as far as known.
    """

    reason: str

    @property
    def kind(self) -> str:
        """``"worker_lost"``."""
        return "worker_lost"

    @property
    def error(self) -> str | None:
        """The reason, in a sentence."""
        return f"the worker was lost: {self.reason}"
