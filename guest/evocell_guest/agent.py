"""The agent inside the sandbox: handles one request, returns one response.

Every instruction here is charged to every call, so the path of a plain call is short. Everything
that a variant raises, returns or prints becomes part of the answer, which the host does not trust.
"""

from __future__ import annotations

import gc
import platform
import sys
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from msgpack import packb as _packb

from .compiler import compile_trees, compile_version
from .diffing import diff
from .guard import BlockedImportError, trips
from .hints import hint_for
from .immortal import lasting_objects
from .imports import spent_ns, start
from .loader import Loader, LoadError
from .normalising import normalise
from .processes import run_task
from .requests import read_arguments, read_request
from .reseed import DEFAULT_SEED, prepare, reseed, reseed_numpy
from .tracebacks import clip, message, render, type_name
from .values import EncodeError, TooLarge, encode
from .walk import MAX_HASHED_KEYS

# The interpreter's default: a variant's setting must not apply to the agent.
_RECURSION_LIMIT = 1000

_MODULES = sys.modules
_clock_ns = perf_counter_ns
_set_recursion_limit = sys.setrecursionlimit
_encode_value = encode
_read_arguments = read_arguments
_read_request = read_request
_spent_ns = spent_ns
_start_counting = start

# Imports that took less of a call are not worth a word.
_NOTABLE_NS = 5_000_000

# The map {"t": "completed", "v": ...} up to the value, so that the value is encoded only once.
_COMPLETED = b"\x82\xa1t\xa9completed\xa1v"
_LOADED: bytes = _packb({"t": "completed", "v": None})
# Preallocated, because memory may be exhausted when they are needed.
_OUT_OF_MEMORY: bytes = _packb(
    {"t": "limit", "kind": "memory", "message": "the call ran out of memory and did not catch MemoryError"}
)
_UNREPORTABLE: bytes = _packb(
    {
        "t": "raised",
        "type": "UnreportableError",
        "message": "the call failed, and so did the description of its failure",
        "traceback": "",
    }
)

loader = Loader()
_streams: tuple[Any, ...] = ()
_warm: tuple[str, ...] = ()
_response = b""


def adopt(streams: tuple[Any, ...], warm: tuple[str, ...]) -> None:
    """Register the streams to flush before each response, and the modules that `boot` imported."""
    global _streams, _warm
    _streams, _warm = streams, warm


def server(call: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Return the function that serves one request over `call`, the host's mailbox.

    Args:
        call: Sends bytes and returns bytes; an empty message fetches the request.
    """

    def serve() -> None:
        # The host reads the response in place after this has returned: keep it alive.
        global _response  # noqa: PLW0603
        _response = handle(call(b""))
        call(_response)

    return serve


def hold(message: bytes) -> None:
    """Keep a message alive for the host to read in place, until the next response."""
    global _response  # noqa: PLW0603
    _response = message


def held() -> bytes:
    """Return the message that is kept alive."""
    return _response


def handle(data: bytes) -> bytes:
    """Handle one request and return the encoded response.

    Args:
        data: An encoded map with the operation under ``"op"``: ``"call"``, ``"compile"``,
            ``"compile_trees"``, ``"diff"``, ``"normalise"``, ``"info"``, ``"together"``, in the copy of a
            guest ``"task"``, or, on the way to an image, ``"settle"``, ``"lasting"``.
    """
    _set_recursion_limit(_RECURSION_LIMIT)
    request = _read_request(data)
    operation = request["op"]
    if operation == "call":
        response = _call(request)
        _flush()
        spent = _spent_ns()
        return (
            response if spent < _NOTABLE_NS or response is _OUT_OF_MEMORY else _with_imports(response, spent)
        )
    if operation == "together":
        response = _COMPLETED + encode(_together(request), max_bytes=request["payload_bytes"])
        _flush()
        return response
    if operation == "task":
        response = _COMPLETED + encode(run_task(request["pid"]))
        _flush()
        return response
    if operation == "compile":
        return encode(
            compile_version(
                request["files"],
                request.get("policy"),
                request.get("optimize", -1),
                request.get("root", "/app"),
                own=request.get("own", ()),
                prefix=request.get("prefix", ""),
                units=request.get("units", False),
            )
        )
    if operation == "compile_trees":
        return compile_trees(
            request["trees"],
            request["policy"],
            request["optimize"],
            request["root"],
            request["prefix"],
        )
    if operation == "diff":
        return encode(diff(request["old"], request["new"], request["context"]))
    if operation == "normalise":
        return encode(normalise(request["files"]))
    if operation == "info":
        return encode(_info())
    if operation == "settle":
        return _settle(request["code"])
    if operation == "lasting":
        return lasting_objects()
    return _rejected(f"the agent knows no operation {str(operation)[:80]!r}")


def _call(request: dict[str, Any]) -> bytes:
    try:
        seed = request["seed"]
        if trips:
            trips.clear()
        reseed(seed)
        _start_counting()
        code, harness = request["code"], request["harness"]
        had_numpy = "numpy.random" in _MODULES
        if code is not None or harness is not None:
            loader.install(code, harness)
            if not request["entry"]:
                return _LOADED
        function = loader.resolve(request["entry"])
        if not had_numpy:
            reseed_numpy(seed)
        args, kwargs = _read_arguments(request["args"])
        value = function(*args, **kwargs)
        _set_recursion_limit(_RECURSION_LIMIT)
        if trips:
            return _rejected(trips[0], "security")
        return _COMPLETED + _encode_value(
            value,
            max_bytes=request["payload_bytes"],
            max_items=request["payload_items"],
            max_depth=request["payload_depth"],
            max_hashed_keys=MAX_HASHED_KEYS,
            root="result",
        )
    except BaseException as error:
        try:
            kind = type(error)
            if issubclass(kind, MemoryError) and not (kind is MemoryError and _of_parser(error)):
                return _OUT_OF_MEMORY
            _set_recursion_limit(_RECURSION_LIMIT)
            if trips:
                return _rejected(trips[0], "security")
            return _failed(error)
        except MemoryError:
            return _OUT_OF_MEMORY
        except BaseException:
            return _UNREPORTABLE


def _together(request: dict[str, Any]) -> list[list[list[Any]]]:
    """Make the same calls in several variants, one after the other.

    Returns:
        For each variant and call the encoded response, and the time that it took by the virtual clock, which
        is its fuel divided by ten.
    """
    bounds = {name: request[name] for name in ("entry", "payload_bytes", "payload_items", "payload_depth")}
    variants = []
    for code in request["codes"]:
        answers: list[list[Any]] = []
        loader.renew()
        for seed, arguments in request["calls"]:
            began_ns = _clock_ns()
            load = (
                {"code": None, "harness": None} if answers else {"code": code, "harness": request["harness"]}
            )
            answer = _call({**bounds, **load, "seed": seed, "args": arguments})
            answers.append([answer, _clock_ns() - began_ns])
        variants.append(answers)
    return variants


def _with_imports(response: bytes, spent: int) -> bytes:
    """Add to a response, which is a small map, how long the call's imports took."""
    return bytes((response[0] + 1,)) + response[1:] + b"\xa1i\xcf" + spent.to_bytes(8, "big")


def _of_parser(error: BaseException) -> bool:
    """Return whether an error is the parser's for too deep nesting, which did not exhaust the memory."""
    said = error.args[0] if error.args else None
    return type(said) is str and said.startswith("Parser stack overflowed")


def _settle(code: bytes | None) -> bytes:
    """Prepare the interpreter with its loaded code to be frozen into an image.

    Its objects are exempted from the collector, which would make every fork copy their pages.
    """
    try:
        if code is not None:
            loader.install(code, None)
        loader.settle()
        prepare(DEFAULT_SEED)
        gc.collect()
        gc.freeze()
        return _pack({"t": "settled"})
    except MemoryError:
        return _OUT_OF_MEMORY
    except BaseException as error:
        try:
            return _failed(error)
        except BaseException:
            return _UNREPORTABLE


def _failed(error: BaseException) -> bytes:
    """Describe the exception that ended a call; the agent's own refusals have no traceback."""
    kind = type(error)
    if kind is LoadError:
        return _rejected(str(error))
    if kind is TooLarge:
        return _pack({"t": "limit", "kind": "payload", "message": clip(str(error), 4096)})
    if kind is EncodeError:
        return _raised("UnencodableResult", clip(str(error), 4096), "")
    if kind is BlockedImportError:
        return _rejected(str(error), "security")
    text, shown = message(error), render(error, loader.roots)
    hint = hint_for(error)
    if hint:
        text, shown = clip(f"{text} ({hint})", 4096), f"{shown}\n({hint})"
    return _raised(type_name(error), text, shown)


def _raised(name: str, text: str, traceback: str) -> bytes:
    return _pack({"t": "raised", "type": name, "message": text, "traceback": traceback})


def _rejected(text: str, kind: str = "load") -> bytes:
    return _pack(
        {
            "t": "rejected",
            "kind": kind,
            "message": clip(text, 4096),
            "path": None,
            "line": None,
            "column": None,
            "text": None,
        }
    )


def _pack(answer: dict[str, Any]) -> bytes:
    data: bytes = _packb(answer)
    return data


def _flush() -> None:
    """Flush buffered output, also of streams that a variant has installed."""
    known = _streams
    for stream in known:
        _flush_one(stream)
    out, err = getattr(sys, "stdout", None), getattr(sys, "stderr", None)
    if len(known) != 2 or out is not known[0] or err is not known[1]:
        _flush_one(out)
        _flush_one(err)


def _flush_one(stream: Any) -> None:
    # It may be closed, over the host's cap on output, or an object of the variant.
    try:  # noqa: SIM105 - `suppress` costs every call as much as the flush does
        stream.flush()
    except BaseException:  # noqa: S110
        pass


def _info() -> dict[str, Any]:
    # Only the description of an image needs this, in a fork of its own: no other call pays for the import.
    from importlib.metadata import distributions

    packages = {found.name: found.version for found in distributions()}
    ordered = dict(sorted(packages.items(), key=lambda item: item[0].lower()))
    return {"t": "info", "python": platform.python_version(), "packages": ordered, "warm": list(_warm)}
