"""What a sandbox has not (threads, processes, alarms), done in the one way it can be: at once, in turn.

Evaluators use these to keep a candidate from running for ever or from taking the evaluator down with it. In a
sandbox that is somebody else's task: the whole call has its limits. So what they start here runs to its end
before the start returns, and every timeout is met.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from types import ModuleType, SimpleNamespace
from typing import Any, Self

_PYTHON_NAMES = ("python", "pypy")


class InTurn(Executor):
    """An executor that runs what is submitted before `submit` returns."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the function and return its future, which is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except MemoryError:
            raise
        except BaseException as error:
            future.set_exception(error)
        return future


class Process:
    """A Python script or module in a namespace of its own, run when it is made.

    Stands in for `subprocess.Popen`. Only Python can be started, and it shares this interpreter's modules.

    Raises:
        FileNotFoundError: It is another program; there is none in a sandbox.
    """

    pid = 1

    def __init__(self, args: Any, bufsize: int = -1, **options: Any) -> None:
        del bufsize
        self.args = args
        words = args.split() if isinstance(args, str) else [os.fspath(word) for word in args]
        name = os.path.basename(words[0]) if words else ""
        if not words or (words[0] != sys.executable and not name.startswith(_PYTHON_NAMES)):
            message = "there are no programs in a sandbox, only this interpreter"
            raise FileNotFoundError(2, message, words[0] if words else "")
        text = bool(
            options.get("text")
            or options.get("universal_newlines")
            or options.get("encoding")
            or options.get("errors")
        )
        out, err = io.StringIO(), io.StringIO()
        merged = options.get("stderr") == subprocess.STDOUT
        with contextlib.ExitStack() as stack:
            if options.get("stdout") is not None:
                stack.enter_context(contextlib.redirect_stdout(out))
            if options.get("stderr") is not None:
                stack.enter_context(contextlib.redirect_stderr(out if merged else err))
            self.returncode = _run_python(words[1:], options.get("cwd"), options.get("env"))
        self.stdin = None
        self.stdout = self._pipe(out, options.get("stdout"), text=text)
        self.stderr = self._pipe(err, options.get("stderr"), text=text)

    @staticmethod
    def _pipe(written: io.StringIO, wanted: Any, *, text: bool) -> Any:
        if wanted == subprocess.PIPE:
            return io.StringIO(written.getvalue()) if text else io.BytesIO(written.getvalue().encode())
        if hasattr(wanted, "write"):
            mode = getattr(wanted, "mode", "w")
            wanted.write(written.getvalue().encode() if "b" in mode else written.getvalue())
        return None

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Return what it wrote."""
        del input, timeout
        return tuple(None if pipe is None else pipe.read() for pipe in (self.stdout, self.stderr))  # type: ignore[return-value]

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended."""
        del timeout
        return self.returncode

    def poll(self) -> int:
        """Return how it ended."""
        return self.returncode

    def kill(self) -> None:
        """Do nothing: it has ended."""

    terminate = kill

    def send_signal(self, _number: int) -> None:
        """Do nothing: it has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_args: object) -> None:
        return None


def _run_python(words: list[str], cwd: Any, env: Any) -> int:
    before = sys.argv, list(sys.path), os.getcwd(), dict(os.environ)
    try:
        if cwd is not None:
            os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        while words and words[0].startswith("-") and words[0] not in ("-c", "-m"):
            words = words[1:]
        if words[:1] == ["-c"]:
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        elif words[:1] == ["-m"]:
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, os.path.dirname(words[0]))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except MemoryError:
        raise
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        os.chdir(before[2])
        os.environ.clear()
        os.environ.update(before[3])
    return 0


class _Task:
    """A `multiprocessing.Process` that has ended when its start returns."""

    daemon = False
    pid = 1

    def __init__(
        self,
        group: None = None,
        target: Callable[..., Any] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        del group, daemon
        self.name = name or "Process-1"
        self.exitcode: int | None = None
        self._run = (target, tuple(args), kwargs or {})

    def run(self) -> None:
        """Call the target."""
        target, args, kwargs = self._run
        if target is not None:
            target(*args, **kwargs)

    def start(self) -> None:
        """Run to the end."""
        try:
            self.run()
            self.exitcode = 0
        except MemoryError:
            raise
        except SystemExit as end:
            self.exitcode = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            self.exitcode = 1

    def is_alive(self) -> bool:
        """Say no."""
        return False

    def join(self, timeout: float | None = None) -> None:
        """Return at once."""

    def terminate(self) -> None:
        """Do nothing: it has ended."""

    kill = close = terminate


class _Pool:
    """A `multiprocessing.Pool` of this interpreter alone."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def map(
        self, function: Callable[..., Any], values: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Do what the built-in does."""
        del chunksize
        return [function(value) for value in values]

    def imap(self, function: Callable[..., Any], values: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Do what the built-in does."""
        del chunksize
        return map(function, values)

    imap_unordered = imap

    def starmap(self, function: Callable[..., Any], values: Iterable[Iterable[Any]]) -> list[Any]:
        """Do what the one of `itertools` does."""
        return [function(*value) for value in values]

    def apply(
        self, function: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Call the function."""
        return function(*args, **(kwds or {}))

    def apply_async(
        self, function: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Call the function and hold what came of it."""
        future = InTurn().submit(function, *args, **(kwds or {}))
        return SimpleNamespace(
            get=lambda timeout=None: future.result(), wait=lambda timeout=None: None, ready=lambda: True
        )

    def close(self) -> None:
        """Do nothing."""

    terminate = join = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_args: object) -> None:
        return None


class _Queue(queue.Queue):  # type: ignore[type-arg]
    """A `multiprocessing.Queue`: nothing will ever come that is not there."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take what is there, or raise `queue.Empty`."""
        del block, timeout
        return super().get(block=False)

    def close(self) -> None:
        """Do nothing."""

    join_thread = close


def _multiprocessing() -> ModuleType:
    module = ModuleType("multiprocessing")
    names = {
        "Process": _Task,
        "Pool": _Pool,
        "Queue": _Queue,
        "SimpleQueue": _Queue,
        "JoinableQueue": _Queue,
        "TimeoutError": TimeoutError,
        "cpu_count": lambda: 1,
        "freeze_support": lambda: None,
        "set_start_method": lambda method, force=False: None,
        "get_start_method": lambda allow_none=False: "spawn",
        "get_context": lambda method=None: module,
        "current_process": lambda: SimpleNamespace(name="MainProcess", daemon=False, pid=1),
        "__path__": [],
    }
    for name, value in names.items():
        setattr(module, name, value)
    return module


class EvaluationResult:
    """OpenEvolve's result: metrics, and artifacts beside them."""

    __module__ = "openevolve.evaluation_result"

    def __init__(self, metrics: dict[str, Any], artifacts: dict[str, Any] | None = None) -> None:
        self.metrics = metrics
        self.artifacts = {} if artifacts is None else artifacts

    @classmethod
    def from_dict(cls, metrics: dict[str, Any]) -> EvaluationResult:
        """Make one of metrics alone."""
        return cls(metrics)

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics alone."""
        return self.metrics

    def has_artifacts(self) -> bool:
        """Say whether there are any."""
        return bool(self.artifacts)

    def get_artifact_keys(self) -> list[str]:
        """Return their names."""
        return list(self.artifacts)

    def __repr__(self) -> str:
        return f"EvaluationResult(metrics={self.metrics!r}, artifacts={self.artifacts!r})"


def _openevolve() -> dict[str, ModuleType]:
    package, module = ModuleType("openevolve"), ModuleType("openevolve.evaluation_result")
    package.__path__ = []
    package.evaluation_result = module  # type: ignore[attr-defined]
    package.EvaluationResult = module.EvaluationResult = EvaluationResult  # type: ignore[attr-defined]
    return {package.__name__: package, module.__name__: module}


def install() -> None:
    """Put the stand-ins where evaluators look for what they stand in for."""
    concurrent.futures.ThreadPoolExecutor = InTurn  # type: ignore[misc,assignment]
    concurrent.futures.ProcessPoolExecutor = InTurn  # type: ignore[misc,assignment]
    subprocess.Popen = Process  # type: ignore[misc,assignment]
    threading.Thread.start = lambda self: self.run()  # type: ignore[method-assign]
    threading.Thread.join = lambda self, timeout=None: None  # type: ignore[method-assign]
    threading.Thread.is_alive = lambda self: False  # type: ignore[method-assign]
    for name, number in (("SIGALRM", 14), ("SIGKILL", 9), ("ITIMER_REAL", 0)):
        if not hasattr(signal, name):
            setattr(signal, name, number)
    signal.alarm = lambda seconds: 0
    signal.setitimer = lambda which, seconds, interval=0.0: (0.0, 0.0)
    signal.signal = lambda number, handler: None  # type: ignore[assignment]
    sys.modules["multiprocessing"] = _multiprocessing()
    sys.modules.update(_openevolve())
