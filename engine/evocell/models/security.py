"""Security policies: what the gate refuses under each profile, as plain data that the guest applies.

The gate is policy, for mutation operators and for reports of the names that variants try to use. Isolation is
the task of the membrane: code that passes the gate cannot reach the host either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

from attrs import evolve, field, frozen

SecurityProfile = Literal["low", "medium", "high"]

SECURITY_PROFILES: tuple[SecurityProfile, ...] = ("low", "medium", "high")

_OF_PROCESSES = ("multiprocessing", "subprocess")
_AGENT = ("_host", "evocell_guest")

_NAMES = (
    "gc.get_objects",
    "gc.get_referents",
    "gc.get_referrers",
    "inspect.currentframe",
    "inspect.getouterframes",
    "inspect.stack",
    "inspect.trace",
    "sys._clear_type_cache",
    "sys._current_exceptions",
    "sys._current_frames",
    "sys._getframe",
    "sys._getframemodulename",
    "sys.addaudithook",
    "sys.call_tracing",
    "sys.monitoring",
    "sys.setprofile",
    "sys.settrace",
    "threading.setprofile",
    "threading.settrace",
    "types.CodeType",
    "types.FrameType",
)
_ATTRIBUTES = (
    "ag_frame",
    "co_code",
    "cr_frame",
    "f_back",
    "f_builtins",
    "f_code",
    "f_globals",
    "f_locals",
    "gi_frame",
    "tb_frame",
    "__subclasses__",
)
_EVENTS: Mapping[str, tuple[str, ...] | None] = {
    "import": None,
    "code.__new__": None,
    "ctypes.dlopen": None,
    "gc.get_objects": None,
    "gc.get_referents": None,
    "gc.get_referrers": None,
    "sys._current_exceptions": None,
    "sys._current_frames": None,
    "sys._getframe": None,
    "sys._getframemodulename": None,
    "sys.addaudithook": None,
    "sys.monitoring.register_callback": None,
    "sys.setprofile": None,
    "sys.settrace": None,
    "object.__getattr__": ("ag_frame", "cr_frame", "gi_frame", "tb_frame"),
    "object.__setattr__": ("__code__",),
}

_HIGH_NAMES = (
    "importlib.import_module",
    "importlib.reload",
    "os.abort",
    "os._exit",
    "os.environ",
    "sys.exit",
    "sys.meta_path",
    "sys.modules",
    "sys.path",
    "sys.path_hooks",
    "sys.setrecursionlimit",
)
_HIGH_ATTRIBUTES = (
    "__bases__",
    "__builtins__",
    "__closure__",
    "__code__",
    "__defaults__",
    "__dict__",
    "__getattribute__",
    "__globals__",
    "__import__",
    "__kwdefaults__",
    "__loader__",
    "__mro__",
    "__reduce__",
    "__reduce_ex__",
    "__spec__",
    "__subclasshook__",
)
_HIGH_BUILTINS = (
    "__builtins__",
    "__import__",
    "__loader__",
    "__spec__",
    "breakpoint",
    "compile",
    "eval",
    "exec",
    "exit",
    "globals",
    "input",
    "open",
    "quit",
)
_HIGH_EVENTS: Mapping[str, tuple[str, ...] | None] = {
    "builtins.breakpoint": None,
    "builtins.input": None,
    "compile": None,
    "exec": None,
    "marshal.load": None,
    "marshal.loads": None,
    "object.__delattr__": ("__code__", "__defaults__", "__kwdefaults__"),
    "object.__setattr__": ("__code__", "__defaults__", "__kwdefaults__"),
    "open": None,
    "os.listdir": None,
    "os.mkdir": None,
    "os.remove": None,
    "os.rename": None,
    "os.rmdir": None,
    "os.scandir": None,
    "os.truncate": None,
    "pickle.find_class": None,
}

#: Modules that the profile ``high`` allows: those that compute. `allowed_modules` adds to them.
COMPUTING_MODULES = (
    "__future__",
    "abc",
    "array",
    "base64",
    "binascii",
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "colorsys",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "fractions",
    "functools",
    "graphlib",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "itertools",
    "json",
    "keyword",
    "math",
    "networkx",
    "numbers",
    "numpy",
    "operator",
    "pandas",
    "pprint",
    "queue",
    "random",
    "re",
    "reprlib",
    "scipy",
    "sklearn",
    "statistics",
    "string",
    "struct",
    "sympy",
    "textwrap",
    "time",
    "typing",
    "typing_extensions",
    "unicodedata",
    "uuid",
    "zlib",
)

#: Submodules of these that load or write files and machine code.
_NOT_COMPUTING = (
    "numpy.ctypeslib",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.testing",
    "scipy.weave",
)


@frozen(kw_only=True)
class SecurityPolicy:
    """A security policy: actions that a variant's code must not take, as far as text or audit events show.

    Attributes:
        profile: The profile it comes from.
        enforce: Whether findings reject the code, or are only reported.
        blocked: Modules that must not be imported, submodules included.
        allowed: The only modules that may be imported besides the code's own; None for all but the blocked.
        names: Dotted names that must not be reached through an import.
        attributes: Attributes that must not be named.
        builtins: Built-in names that must not be used.
        events: Audit events refused when the variant's own code causes them: None for all of a kind, or the
            names that are refused in their arguments.
    """

    profile: SecurityProfile
    enforce: bool = True
    blocked: tuple[str, ...] = ()
    allowed: tuple[str, ...] | None = None
    names: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    builtins: tuple[str, ...] = ()
    events: Mapping[str, tuple[str, ...] | None] = field(factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """Return the policy as plain data, for the guest."""
        return {
            "profile": self.profile,
            "enforce": self.enforce,
            "blocked": list(self.blocked),
            "allowed": None if self.allowed is None else list(self.allowed),
            "names": list(self.names),
            "attributes": list(self.attributes),
            "builtins": list(self.builtins),
            "events": {event: None if found is None else list(found) for event, found in self.events.items()},
        }

    def at_run_time(self) -> dict[str, Any] | None:
        """What of it the audit hook needs, as plain data in tuples; None if that refuses nothing."""
        if not (self.enforce and self.events):
            return None
        return {
            "profile": self.profile,
            "blocked": self.blocked,
            "allowed": self.allowed,
            "events": dict(self.events),
        }

    def with_processes(self) -> SecurityPolicy:
        """Return the policy of calls with processes, which does not block the modules for them."""
        return evolve(self, blocked=tuple(name for name in self.blocked if name not in _OF_PROCESSES))

    @cached_property
    def digest(self) -> str:
        """Hash over all fields: code that passed one policy has not passed another."""
        return hashlib.sha256(json.dumps(self.to_wire(), sort_keys=True).encode()).hexdigest()


def policy_for(
    profile: SecurityProfile, *, blocked: Iterable[str], allowed: Iterable[str] = (), enforce: bool = True
) -> SecurityPolicy:
    """Make the policy of a profile.

    Args:
        profile: ``"low"`` only blocks modules; ``"medium"`` also access to internals of the interpreter or
            the agent (frames, tracing, code objects, the collector's lists); ``"high"`` allows only
            modules that compute, and no evaluation of text, no files and no introspection.
        blocked: Modules that must not be imported under any profile; the agent's own are always blocked.
        allowed: Modules that ``"high"`` allows besides its own list.
        enforce: Whether to refuse, or only to report.
    """
    names = tuple(sorted({*blocked, *_AGENT}))
    if profile == "low":
        return SecurityPolicy(profile=profile, enforce=enforce, blocked=names, events={"import": None})
    if profile == "medium":
        return SecurityPolicy(
            profile=profile,
            enforce=enforce,
            blocked=names,
            names=_NAMES,
            attributes=_ATTRIBUTES,
            events=_EVENTS,
        )
    return SecurityPolicy(
        profile=profile,
        enforce=enforce,
        blocked=tuple(sorted({*names, *_NOT_COMPUTING})),
        allowed=tuple(sorted({*COMPUTING_MODULES, *allowed})),
        names=(*_NAMES, *_HIGH_NAMES),
        attributes=(*_ATTRIBUTES, *_HIGH_ATTRIBUTES),
        builtins=_HIGH_BUILTINS,
        events={**_EVENTS, **_HIGH_EVENTS},
    )
