"""A Dask cluster of processes: a scheduler and workers with their nannies, as an administrator starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
from distributed import Client
from distributed.security import Security

T = TypeVar("T")

_QUIET = {
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error",
    "DASK_DISTRIBUTED__WORKER__USE_FILE_LOCKING": "false",
}


class Cluster:
    """Starts processes, and kills every one of them at the end.

    Args:
        directory: Where scheduler file and logs go.
        environment: Variables that the processes get beside those of this one.
        tls: A file with a key and a certificate that has signed itself, of scheduler, workers and clients;
            None for connections without TLS.
    """

    def __init__(
        self, directory: Path, environment: Mapping[str, str] | None = None, *, tls: Path | None = None
    ) -> None:
        self.directory = directory
        self._tls = tls
        self.file = directory / "scheduler.json"
        own = {"DASK_TEMPORARY_DIRECTORY": str(directory)}
        self._environment = {**os.environ, **_QUIET, **own, **(environment or {})}
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: list[Client] = []
        self.scheduler = self._start(
            "dask_scheduler",
            "--port",
            "0",
            "--host",
            "127.0.0.1",
            "--no-dashboard",
            "--scheduler-file",
            str(self.file),
        )

    def start_worker(
        self, name: str, *, threads: int = 1, nanny: bool = True, path: Path | None = None
    ) -> None:
        """Start a worker; it comes when it comes.

        Args:
            name: What it is called.
            threads: How many it has.
            nanny: Whether another one takes its place when it dies.
            path: A directory that goes first on its Python path.
        """
        words = ["--name", name, "--nthreads", str(threads), "--no-dashboard", "--memory-limit", "0"]
        self.workers[name] = self._start(
            "dask_worker",
            "--scheduler-file",
            str(self.file),
            "--local-directory",
            str(self.directory),
            *words,
            "--nanny" if nanny else "--no-nanny",
            path=path,
        )

    def client(self) -> Client:
        """Connect to the scheduler."""
        client = Client(scheduler_file=str(self.file), security=self._security(), set_as_default=False)
        self._clients.append(client)
        return client

    def _security(self) -> Security | None:
        if self._tls is None:
            return None
        own = str(self._tls)
        return Security(tls_ca_file=own, tls_client_cert=own, tls_client_key=own, require_encryption=True)

    def guests(self) -> list[psutil.Process]:
        """The guest processes of all nodes."""
        return [
            process
            for worker in self.workers.values()
            if worker.poll() is None
            for process in psutil.Process(worker.pid).children(recursive=True)
            if _is_guest(process)
        ]

    def close(self) -> None:
        """Have the workers end, and then the scheduler."""
        for client in self._clients:
            client.close(timeout=2)
        patience_s = 20 if self.scheduler.poll() is None else 0  # without one a worker takes its time
        for processes in ([*self.workers.values()], [self.scheduler]):
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(patience_s)
                except subprocess.TimeoutExpired:
                    _kill(process)

    def _start(self, module: str, *words: str, path: Path | None = None) -> subprocess.Popen[bytes]:
        if self._tls is not None:
            own = str(self._tls)
            words = (*words, "--tls-ca-file", own, "--tls-cert", own, "--tls-key", own)
            words = ("--protocol", "tls", *words)
        environment = dict(self._environment)
        if path is not None:
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(path), environment.get("PYTHONPATH")])
            )
        with (self.directory / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )


def _kill(process: subprocess.Popen[bytes]) -> None:
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    process.wait()


def _is_guest(process: psutil.Process) -> bool:
    try:
        return "evocell.guests.main" in process.cmdline()
    except psutil.Error:
        return False


def wait_for(condition: Callable[[], T], *, seconds: float = 60.0) -> T:
    """Wait until something holds, and return it."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"it did not come about within {seconds:g} s")
