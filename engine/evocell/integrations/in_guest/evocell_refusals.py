"""What a sandbox has no way to do, each as an error that says what is missing and what to write instead."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["change_asyncio", "install", "install_memory", "refuse"]

_RUN = "write subprocess.run([sys.executable, 'program.py'], ...), which runs Python in a sandbox of its own"
_PIPE = "write multiprocessing.Pipe() or a Queue, which a multiprocessing.Process can use"
_SHARED = (
    "processes of a sandbox share no memory: write multiprocessing.Array(typecode, size), or send the data "
    "through a Queue or a Pipe"
)

_OF_OS = {
    "fork": (
        "a process in a sandbox cannot return twice: write multiprocessing.Process(target=function), whose "
        "function has a copy of everything, as after a fork"
    ),
    "forkpty": f"there are no terminals in a sandbox: {_RUN}",
    "openpty": f"there are no terminals in a sandbox: {_RUN}",
    "pipe": f"descriptors are not shared by processes of a sandbox: {_PIPE}",
    "pipe2": f"descriptors are not shared by processes of a sandbox: {_PIPE}",
    "posix_spawn": f"there are no programs in a sandbox but Python: {_RUN}",
    "posix_spawnp": f"there are no programs in a sandbox but Python: {_RUN}",
    **{
        f"exec{kind}": f"a process of a sandbox cannot become another program: {_RUN}"
        for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")
    },
    **{
        f"spawn{kind}": f"there are no programs in a sandbox but Python: {_RUN}"
        for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")
    },
    "wait": "write the wait() of the subprocess.Popen, or the join() of the multiprocessing.Process",
    "wait3": "write the wait() of the subprocess.Popen, or the join() of the multiprocessing.Process",
    "wait4": "write the wait() of the subprocess.Popen, or the join() of the multiprocessing.Process",
}


def refuse(name: str, said: str) -> Callable[..., Any]:
    """Return what raises an error when it is called.

    Args:
        name: What is missing.
        said: Why, and what to write instead.
    """

    def refused(*_args: Any, **_kwargs: Any) -> Any:
        message = f"{name} is not there in a sandbox: {said}"
        raise NotImplementedError(message)

    return refused


def install() -> None:
    """Put them into `os`, where it lacks these names or has some that cannot work."""
    for name, said in _OF_OS.items():
        if name == "fork" or not hasattr(os, name):
            setattr(os, name, refuse(f"os.{name}", said))
    for name, value in (("P_WAIT", 0), ("P_NOWAIT", 1), ("P_NOWAITO", 1)):
        if not hasattr(os, name):
            setattr(os, name, value)
    if "pty" not in sys.modules:
        module = ModuleType("pty")
        for name in ("fork", "openpty", "spawn"):
            setattr(module, name, refuse(f"pty.{name}", _OF_OS["forkpty"]))
        sys.modules["pty"] = module


def install_memory(package: Any, value: Any, array: Any) -> None:
    """Put in place the modules of `multiprocessing` that are made of shared memory.

    Args:
        package: The package.
        value: What stands for its `Value`.
        array: What stands for its `Array`.
    """
    memory = ModuleType("multiprocessing.shared_memory")
    for name in ("SharedMemory", "ShareableList"):
        setattr(memory, name, refuse(f"multiprocessing.shared_memory.{name}", _SHARED))
    shared = ModuleType("multiprocessing.sharedctypes")
    for name, made in (("Value", value), ("RawValue", value), ("Array", array), ("RawArray", array)):
        setattr(shared, name, made)
    for name in ("copy", "synchronized"):
        setattr(shared, name, refuse(f"multiprocessing.sharedctypes.{name}", _SHARED))
    heap = ModuleType("multiprocessing.heap")
    for name in ("Arena", "BufferWrapper", "Heap"):
        setattr(heap, name, refuse(f"multiprocessing.heap.{name}", _SHARED))
    for module in (memory, shared, heap):
        sys.modules[module.__name__] = module
        setattr(package, module.__name__.rpartition(".")[2], module)


def change_asyncio(module: Any) -> None:
    """Change `asyncio.subprocess`, and what `asyncio` has of it."""
    said = (
        "its loop cannot wait for a process: write subprocess.run(...), with its timeout, in place of await"
    )
    for name in ("create_subprocess_exec", "create_subprocess_shell"):
        refused = refuse(f"asyncio.{name}", said)
        setattr(module, name, refused)
        if (package := sys.modules.get("asyncio")) is not None and hasattr(package, name):
            setattr(package, name, refused)


def broken_pipe() -> BrokenPipeError:
    """Return the error for a dialogue with a process."""
    return BrokenPipeError(
        errno.EPIPE,
        "a process in a sandbox is given its standard input as a whole, before it runs; it was started by "
        "the first wait for it, and cannot be answered to afterwards: write all of it first, as "
        "communicate(input) does, or call the program's functions in a multiprocessing.Process with a Pipe",
    )
