"""Selection of the objects of the frozen heap to make immortal.

Reading an object changes its reference count, and in a fork every written page is copied. CPython
does not change the count of an immortal object, so at the freeze the host makes all objects reachable
from the loaded modules immortal: they live as long as the image anyway.

Source: PEP 683; the count is the first word of an object, and that of None shows its value.
"""

from __future__ import annotations

import gc
import sys
from array import array
from types import CodeType
from typing import Any

_PARTS_OF_CODE = (
    "co_consts",
    "co_names",
    "co_name",
    "co_qualname",
    "co_filename",
    "co_linetable",
    "co_exceptiontable",
)


def lasting_objects() -> bytes:
    """Return the addresses of all objects that are reachable from the loaded modules and from types.

    All of them are reachable from `sys.modules` or `object`, and none belongs only to a running function. So
    they are alive when this has returned.

    Returns:
        Unsigned 32-bit addresses in the machine's byte order, that of `None` first.
    """
    seen: set[int] = set()
    pending: list[Any] = [sys.modules, object]
    while pending:
        found = pending.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        pending.extend(gc.get_referents(found))
        if isinstance(found, CodeType):
            pending.extend(getattr(found, part) for part in _PARTS_OF_CODE)
            pending.extend(found.co_varnames + found.co_cellvars + found.co_freevars)
        elif isinstance(found, type):
            # A static type does not report its dictionary to the collector.
            pending.extend(type.__dict__["__dict__"].__get__(found).values())
            pending.extend(type.__subclasses__(found))
    seen.discard(id(None))
    return array("I", [id(None), *sorted(seen)]).tobytes()
