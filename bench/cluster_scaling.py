"""What a caller and a scheduler take for an evaluation, what that predicts for many nodes, and a simulation of them.

The simulation has a real scheduler and real Dask workers, many in a process, whose guests sleep
(`measures.stub_nodes`). Processor time is that of the processes themselves, so other work on the machine disturbs
it little; rates are disturbed by it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import psutil

import evocell
from evocell.integrations.cluster.messages import pack, row_of
from evocell.integrations.dask import DaskCluster
from measures.dask_processes import Cluster, wait_for

_texts = count()
_WORKERS_PER_PROCESS = 50


def main() -> None:
    """Measure, predict, simulate, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--nodes", default="2,10,50,100", metavar="N,N", help="stub nodes (default: %(default)s)"
    )
    parser.add_argument(
        "--run-s", default="0.05,0.5", metavar="S,S", help="seconds a run takes (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="about how long each reading takes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        answers = Path(directory) / "answers"
        answers.write_bytes(_real_answers(Path(directory)))
        print(
            "run_s nodes predicted/s seen/s part caller_ms scheduler_ms workers_ms bytes/evaluation evaluations/message"
        )
        for run_s in map(float, args.run_s.split(",")):
            for nodes in map(int, args.nodes.split(",")):
                _simulate(Path(tempfile.mkdtemp(dir=directory)), answers, nodes, run_s, args.seconds)


def _sources(number: int) -> list[str]:
    return [f"def solve(n):\n    return n\n# {next(_texts)}\n" for _ in range(number)]


_TASK = evocell.Evaluation("solve", [evocell.Case((3,), expected=3)], score="equal")


def _real_answers(directory: Path) -> bytes:
    """What a real node answers to a compilation and to a call."""
    rows: dict[str, bytes] = {}
    (directory / "real").mkdir()
    cluster = Cluster(directory / "real")
    cluster.start_worker("real")
    try:
        with evocell.Engine(evocell.Config.load(workers=1), cluster=cluster.client()) as engine:
            host: Any = engine._engine._worker.host  # noqa: SLF001 - to listen
            run = host.run

            async def listen(one: Any) -> Any:
                seen = await run(one)
                rows["compile" if one.app is None else "call"] = pack({"row": row_of(seen)})
                return seen

            host.run = listen
            assert engine.evaluate(_sources(1), _TASK)[0].valid
    finally:
        cluster.close()
    return pack(rows)


def _simulate(directory: Path, answers: Path, nodes: int, run_s: float, seconds: float) -> None:
    cluster = Cluster(directory)
    wait_for(cluster.file.exists)
    client = cluster.client()
    scheduler: Any = client.scheduler
    address = str(scheduler.address)
    stubs: list[subprocess.Popen[bytes]] = []
    try:
        for first in range(0, nodes, _WORKERS_PER_PROCESS):
            number = min(_WORKERS_PER_PROCESS, nodes - first)
            words = [address, str(number), str(first), str(run_s), str(answers)]
            stubs.append(
                subprocess.Popen(
                    [sys.executable, "-m", "measures.stub_nodes", *words],
                    cwd=Path(__file__).parent,
                    stderr=subprocess.DEVNULL,
                )
            )
        client.wait_for_workers(nodes, timeout=120)
        with evocell.Engine(evocell.Config.load(workers=1), cluster=DaskCluster(client=client)) as engine:
            wait_for(lambda: sum(one.status == "up" for one in engine.workers()) == nodes, seconds=120)
            engine.evaluate(_sources(2 * nodes), _TASK)
            _read(engine, cluster, stubs, run_s, seconds)
    finally:
        for stub in stubs:
            stub.kill()
            stub.wait()
        cluster.close()


def _read(
    engine: evocell.Engine,
    cluster: Cluster,
    stubs: list[subprocess.Popen[bytes]],
    run_s: float,
    seconds: float,
) -> None:
    nodes = sum(one.status == "up" for one in engine.workers())
    caller, scheduler = psutil.Process(), psutil.Process(cluster.scheduler.pid)
    everyone = [caller, scheduler, *(psutil.Process(stub.pid) for stub in stubs)]
    host: Any = engine._engine._worker.host  # noqa: SLF001 - to listen
    link, sent = host._link, [0, 0]  # noqa: SLF001
    work = link.work

    async def listen(address: str, message: bytes) -> bytes:
        answer: bytes = await work(address, message)
        sent[0] += 1
        sent[1] += len(message) + len(answer)
        return answer

    link.work = listen
    most = nodes / run_s
    size = max(2 * nodes, int(min(most, 300.0) * seconds))
    before = [_cpu_s(process) for process in everyone]
    begun = time.perf_counter()
    results = engine.evaluate(_sources(size), _TASK)
    took = time.perf_counter() - begun
    assert all(result.valid for result in results)
    caller_s, scheduler_s, *stubs_s = (
        (_cpu_s(process) - then) / size for process, then in zip(everyone, before, strict=True)
    )
    predicted = min(most, 1 / caller_s, 1 / scheduler_s)
    print(
        f"{run_s:5g} {nodes:5d} {predicted:11.0f} {size / took:6.0f} {size / took / predicted:4.2f} "
        f"{caller_s * 1e3:9.2f} {scheduler_s * 1e3:12.2f} {sum(stubs_s) * 1e3:10.2f} {sent[1] / size:16,.0f} {size / sent[0]:19.1f}",
        flush=True,
    )


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
