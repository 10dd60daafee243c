"""Reasons of the security gate's refusals, with alternatives: the ends of its messages."""

from __future__ import annotations

_NO_NETWORK = (
    "there is no network in the sandbox; pass the data as arguments, or put it in a file of the program's"
)
_NO_PROCESSES = "there are no processes in the sandbox; do the work in this one"
_AGENTS = "it belongs to the sandbox's own agent; leave it out"
_GUARD = (
    "leave it out, or put it where it is not reached or into try ... except ImportError: at run time it "
    "raises ImportError"
)
_MODULES = {
    "_host": _AGENTS,
    "evocell_guest": _AGENTS,
    "socket": f"{_NO_NETWORK}; {_GUARD}",
    "multiprocessing": f"{_NO_PROCESSES}; {_GUARD}",
    "subprocess": f"{_NO_PROCESSES}; {_GUARD}",
    "ctypes": f"there are no libraries to load in the sandbox; use struct, array or numpy; {_GUARD}",
}
_BLOCKED = f"the engine's blocked_modules name it; {_GUARD}"
_NOT_LISTED = f"this profile allows modules that compute, and those of allowed_modules; {_GUARD}"

_FRAMES = (
    "it leads to the frames of running functions; pass a function what it needs as an argument, and raise or "
    "log instead of looking at who called"
)
_TRACING = "it watches or changes how the interpreter runs code; time or count inside the program instead"
_OBJECTS = "it lists objects that are not the program's; keep references of your own"
_CODE = "it makes or changes code objects; define another function instead"
_CLASSES = "it reaches classes that are not the program's; keep a list of your own, in __init_subclass__"
_TEXT_AS_CODE = "it runs text as code; write the code out, or use ast.literal_eval for values"
_FILES = "it opens files; pass the data as arguments"
_ENDS = "it ends the interpreter; return or raise instead"
_INNARDS = "it reaches into the interpreter; name what you need directly"
_INPUT = "there is nobody to ask; pass the value as an argument"

_NAMES = {
    "gc.get_objects": _OBJECTS,
    "gc.get_referents": _OBJECTS,
    "gc.get_referrers": _OBJECTS,
    "sys.call_tracing": _TRACING,
    "sys.monitoring": _TRACING,
    "sys.addaudithook": _TRACING,
    "sys.setprofile": _TRACING,
    "sys.settrace": _TRACING,
    "threading.setprofile": _TRACING,
    "threading.settrace": _TRACING,
    "types.CodeType": _CODE,
    "types.FrameType": _FRAMES,
    "code.__new__": _CODE,
    "os.abort": _ENDS,
    "os._exit": _ENDS,
    "sys.exit": _ENDS,
    "exit": _ENDS,
    "quit": _ENDS,
    "compile": _TEXT_AS_CODE,
    "eval": _TEXT_AS_CODE,
    "exec": _TEXT_AS_CODE,
    "open": _FILES,
    "input": _INPUT,
    "breakpoint": _INPUT,
    "co_code": _CODE,
    "__code__": _CODE,
    "__subclasses__": _CLASSES,
}
_FRAME_WORDS = ("frame", "inspect.", "f_", "_current_")


def of_module(name: str, *, listed: bool = True) -> str:
    """Return why a module is blocked, and the alternative.

    Args:
        name: The blocked module.
        listed: Whether it is blocked explicitly, not just missing from the allowed ones.
    """
    return _MODULES.get(name, _BLOCKED) if listed else _NOT_LISTED


def of_name(name: str) -> str:
    """Return why a name, an attribute or an event is refused, and the alternative."""
    found = _NAMES.get(name)
    if found is None:
        found = _FRAMES if any(word in name for word in _FRAME_WORDS) else _INNARDS
    return found
