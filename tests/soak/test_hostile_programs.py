"""Generated hostile programs against an engine of two workers, for as long as `SOAK_S` says (seconds).

Figures go to standard output and, if `SOAK_FIGURES` names a file, there as JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.soak.hostile_programs import programs

import evocell

SECONDS = float(os.environ.get("SOAK_S", "2700"))
FIGURES = os.environ.get("SOAK_FIGURES")
SEED = int(os.environ.get("SOAK_SEED", "1"))
BATCH = 16
PROFILES = ["low"] * 6 + ["medium"] * 2 + ["high"]
"""Mostly the one that lets most through."""
LIMITS = evocell.Limits(
    fuel=1_000_000_000,
    memory_bytes=48 << 20,
    timeout_s=4.0,
    output_bytes=64 << 10,
    payload_bytes=1 << 20,
    scratch_bytes=1 << 20,
    scratch_files=50,
)
KINDS = {
    "completed", "raised", "syntax", "security", "compile", "load", "fuel", "timeout", "memory", "stack",
    "output", "files", "payload", "crashed",
}  # fmt: skip
CANARY = "import math\ndef f(*args):\n    return [math.sqrt(i) for i in range(200)], sorted({str(i) for i in range(50)})"
TASK = evocell.Evaluation("f", [evocell.Case()], score=lambda case, value: 1.0, limits=LIMITS)
OVERSHOOT_S = 6.0
"""What a call may run past its time limit: a slice of fuel runs to its end, which takes seconds where the machine is
so busy with other things, and the soak so patient (nice 19), that 5 million instructions do."""
GROWTH_BYTES = 32 << 20
"""What a process may hold more at the end than at half-time."""


class Watch:
    """What the soak holds against its beginning."""

    def __init__(self, engine: evocell.Engine) -> None:
        self.engine = engine
        self.me = psutil.Process()
        self.count: Counter[str] = Counter()
        self.programs = self.batches = self.replaced = 0
        self.longest_s = self.longest_batch_s = 0.0
        self.samples: list[dict[str, float]] = []
        self.workers = {child.pid for child in self.me.children()}
        self.canary = engine.evaluate_one(CANARY, TASK).test_results[0].outcome
        assert self.canary.ok
        self.begun = time.monotonic()

    def judge(self, sources: list[str], profile: str) -> None:
        sandboxes = self.engine.batch_create(
            [
                evocell.SandboxSpec(source=source, security_profile=profile, limits=LIMITS)
                for source in sources
            ]
        )
        before = time.monotonic()
        results = self.engine.batch_evaluate(sandboxes, TASK, deadline_s=300)
        for sandbox in sandboxes[:3]:
            for _ in range(2):  # in a session, where something may be left over from the first
                self.seen(self.engine.run(sandbox, "f", limits=LIMITS))
        elapsed = time.monotonic() - before
        self.longest_batch_s = max(self.longest_batch_s, elapsed)
        for source, result in zip(sources, results, strict=True):
            if result.test_results:
                self.seen(result.test_results[0].outcome, source)
            else:
                self.count[result.reason or "valid"] += 1
                assert result.reason in KINDS, (result.reason, result.error, source)
        self.engine.batch_destroy(sandboxes)
        again = self.engine.evaluate_one(CANARY, TASK).test_results[0].outcome
        assert (again, again.fuel_used) == (self.canary, self.canary.fuel_used)
        self.programs += len(sources)
        self.batches += 1
        self.sample()

    def seen(self, outcome: evocell.Outcome, source: str = "") -> None:
        self.count[outcome.kind] += 1
        self.longest_s = max(self.longest_s, outcome.wall_s)
        assert outcome.kind in KINDS, (outcome, source)
        assert outcome.wall_s < LIMITS.timeout_s + OVERSHOOT_S, (outcome, source)
        assert outcome.fuel_used <= LIMITS.fuel, (outcome, source)
        assert outcome.peak_memory_bytes <= LIMITS.memory_bytes, (outcome, source)
        assert len(outcome.stdout) + len(outcome.stderr) <= LIMITS.output_bytes

    def sample(self) -> None:
        elapsed = time.monotonic() - self.begun
        if self.samples and elapsed - self.samples[-1]["at_s"] < min(20, SECONDS / 30):
            return
        gc.collect()
        children = self.me.children(recursive=True)
        now = {child.pid for child in children}
        self.replaced += len(now - self.workers)
        self.workers = now
        sample: dict[str, float] = {
            "at_s": round(elapsed),
            "processes": len(children),
            "threads": 0,
            "files": 0,
        }
        for name, process in [("engine", self.me), *((f"worker{n}", c) for n, c in enumerate(children))]:
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                sample[f"{name}_mb"] = round((memory.rss - memory.shared) / 1e6, 1)
                sample["threads"] += process.num_threads()
                sample["files"] += process.num_fds()
        sample["programs"] = self.programs
        self.samples.append(sample)
        if FIGURES:
            Path(FIGURES).write_text(json.dumps(self.figures(), indent=1), encoding="utf-8")

    def figures(self) -> dict[str, object]:
        return {
            "seconds": round(time.monotonic() - self.begun),
            "programs": self.programs,
            "batches": self.batches,
            "outcomes": dict(self.count.most_common()),
            "longest_call_s": round(self.longest_s, 3),
            "longest_batch_s": round(self.longest_batch_s, 1),
            "workers_replaced": self.replaced,
            "samples": self.samples,
        }


@pytest.mark.soak
def test_an_engine_outlives_generated_hostile_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    # Full in minutes rather than in an hour, so that what grows beside them shows.
    for module in ("code_versions", "compiled_files"):
        monkeypatch.setattr(f"evocell.sandboxes.{module}.KEPT_BYTES", 4 << 20)
    monkeypatch.setattr("evocell.store.lineage.LOOSE", 5_000)
    monkeypatch.setattr("evocell.store.fitness.LATEST", 5_000)
    me = psutil.Process()
    before = (me.num_fds(), me.num_threads())
    with evocell.Engine(evocell.Config.load(workers=2)) as engine:
        watch = Watch(engine)
        rounds = 0
        while time.monotonic() - watch.begun < SECONDS:
            rounds += 1

            @seed(SEED * 100_000 + rounds)
            @settings(
                max_examples=20,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(st.lists(programs, min_size=BATCH, max_size=BATCH), st.sampled_from(PROFILES))
            def one_round(sources, profile):
                if time.monotonic() - watch.begun < SECONDS:
                    watch.judge(sources, profile)

            one_round()
        figures = watch.figures()
    print(json.dumps(figures, indent=1))  # noqa: T201 - the figures are what it is run for

    # By half-time the caches of code are full.
    settled = watch.samples[len(watch.samples) // 2 :]
    part = max(1, len(settled) // 4)
    for name in ("engine_mb", "worker0_mb", "worker1_mb"):
        early = max(sample.get(name, 0) for sample in settled[:part])
        late = min(sample.get(name, 0) for sample in settled[-part:])
        assert late - early < GROWTH_BYTES / 1e6, (name, early, late)
    assert max(sample["processes"] for sample in watch.samples) <= 2 + 1
    files = [sample["files"] for sample in settled]
    assert files[-1] <= min(files[:part]) + 32, files
    gc.collect()
    assert me.children() == []
    assert (me.num_fds() <= before[0] + 4, me.num_threads() <= before[1] + 4) == (True, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ten_seconds_of_it_pass():
    """So that it can be relied on when it is wanted; in a process of its own, whose processes it counts."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "soak", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "SOAK_S": "10"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr[-1_000:]
    assert "1 passed" in ran.stdout
