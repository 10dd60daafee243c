"""Run-time part of the security gate: an audit hook that refuses operations of a variant's own code.

Operations of the standard library or a harness on a variant's behalf are allowed. Like the whole gate it is
policy, not isolation: agent and variant share an interpreter, and a determined variant can disarm it. It is
then still confined by the membrane, without access to the host.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from . import reasons
from .gate import BLOCKED_MARK, prefix_in

Rules = Mapping[str, Any]
"""Audit event -> None if it is always refused, or the names that are refused in its arguments."""

_TRUSTED = ("/usr/local/lib/", "/evocell/", "/harness/", "<frozen ")
_IMPORT_SYSTEM = ("<frozen importlib", "<frozen zipimport")
_get_frame = sys._getframe  # noqa: SLF001 - a public function in all but its name
_MAX_FRAMES = 50
_AGENT = frozenset({"_host", "evocell_guest"})


class SecurityError(PermissionError):
    """The security gate refused an operation."""


class BlockedImportError(ImportError):
    """The security gate refused an import. A program may handle it like any missing module."""


def _make() -> tuple[Callable[..., None], Callable[..., None], list[str]]:
    """Make the hook and the function that arms it, with their state out of reach of `getattr`."""
    rules: Rules = {}
    profile = ""
    blocked: Collection[str] = frozenset()
    allowed: Collection[str] | None = None
    own: frozenset[str] = frozenset()
    busy = False
    trips: list[str] = []

    def arm(policy: Mapping[str, Any] | None, names: Iterable[str] = ()) -> None:
        """Apply a policy from now on; None applies none."""
        nonlocal rules, profile, blocked, allowed, own
        if policy is None:
            rules = {}
            return
        # Every call comes by here, and few ask for anything: sets are made of the names when they do. Tuples
        # and a mapping of its own, because the policy itself is within the variant's reach.
        profile = policy["profile"]
        blocked = tuple(policy["blocked"])
        allowed = None if policy["allowed"] is None else tuple(policy["allowed"])
        own = frozenset(names)
        rules = dict(policy["events"])

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or event not in rules:
            return
        busy = True
        try:
            if not _against(event, arguments):
                return
            if _asked_by_variant(through_imports=event == "import"):
                if event == "import":
                    arguments = (arguments[0].removeprefix(BLOCKED_MARK),)
                what = _describe(event, arguments)
                if event == "import" and not prefix_in(arguments[0], _AGENT):
                    raise BlockedImportError(what, name=arguments[0])
                trips.append(what)
                raise SecurityError(what)
        finally:
            busy = False

    def _against(event: str, arguments: tuple[Any, ...]) -> bool:
        nonlocal blocked, allowed
        names = rules[event]
        if event == "import":
            if type(blocked) is tuple:
                blocked, allowed = frozenset(blocked), None if allowed is None else frozenset(allowed)
            name = arguments[0]
            if type(name) is not str:
                return False
            if name[:1] == BLOCKED_MARK or prefix_in(name, blocked):
                return True
            return allowed is not None and name.partition(".")[0] not in own and not prefix_in(name, allowed)
        if names is None:
            return True
        return any(type(argument) is str and argument in names for argument in arguments)

    def _asked_by_variant(*, through_imports: bool) -> bool:
        """Return whether the innermost frame is a variant's; for an import, ignoring the import system's."""
        frame: Any = _get_frame(2)
        for _ in range(_MAX_FRAMES):
            if frame is None:
                return True
            file = frame.f_code.co_filename
            imports = file.startswith(_IMPORT_SYSTEM) or file.endswith("/importlib/__init__.py")
            if not (through_imports and imports):
                return not file.startswith(_TRUSTED)
            frame = frame.f_back
        return True

    def _describe(event: str, arguments: tuple[Any, ...]) -> str:
        subject = next((f" of {a[:80]!r}" for a in arguments if type(a) is str), "")
        if event == "import":
            culprit = prefix_in(arguments[0], blocked)
            why = reasons.of_module(culprit or arguments[0], listed=bool(culprit) or allowed is None)
        else:
            names = rules[event] or ()
            why = reasons.of_name(next((a for a in arguments if type(a) is str and a in names), event))
        return f"the security profile {profile!r} does not allow {event}{subject} at run time: {why}"

    return hook, arm, trips


hook, arm, trips = _make()
"""`trips` are the sentences of the refusals during this call."""


def look_for_import(name: str) -> None:
    """Apply the policy to an import for which the interpreter raises no audit event."""
    hook("import", (name,))


def install() -> None:
    """Install the audit hook, once, before the freeze. It cannot be removed."""
    sys.addaudithook(hook)
