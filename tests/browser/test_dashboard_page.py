"""`evocell dashboard` in a real browser: a run that goes on, two runs side by side, hostile names, the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from evocell.models.fitness import FitnessResult
from evocell.models.state import SandboxState
from evocell.store.database import FILE_NAME
from evocell.store.journal import Journal
from evocell.store.lineage import LineageTracker
from evocell.store.runs import open_run
from evocell.store.store import Store

EVIL = "</script><img src=x onerror=\"document.title='owned'\">"


class Run:
    """An engine's run as its store sees it; `go` evaluates a generation of one-line programs."""

    def __init__(self, store, population):
        self.run = open_run(store, image_id="0123456789abcdef", has_version=lambda _: True)
        self.journal = Journal(store, self.run.number)
        self.lineage = LineageTracker(self.journal)
        self.store, self.population = store, population
        self.generation, self.parent = 0, ()

    def go(self, size, *, score):
        numbers = []
        for place in range(size):
            name = f"{EVIL}-{self.population}-{self.generation}-{place}"
            number = self.lineage.record(
                name, self.parent, generation=self.generation, mutation_type="mutation", kept=False
            )
            state = SandboxState(
                name, generation=self.generation, parent_ids=self.parent, population=self.population
            )
            self.journal.state(number, state, kept=False)
            version = f"{number:064x}"
            expression = " + ".join(f"x{n}" for n in range(self.generation + 40))
            self.journal.source(version, [("program.py", f"def f(): return {expression}  # {EVIL}".encode())])
            numbers.append((number, name, version))
        batch = self.journal.begin_batch(
            "evaluate", [one[0] for one in numbers], entry="program:f", task="t", direction="maximize"
        )
        for place, (number, name, version) in enumerate(numbers):
            valid = place % 10 != 9
            result = FitnessResult(
                name,
                self.generation,
                score * (1 + place / size) if valid else 0.0,
                valid=valid,
                reason=None if valid else EVIL,
                fuel_used=10_000 + place,
                evaluation_time_ms=1.0,
            )
            self.journal.evaluated(batch, number, result, version)
        self.journal.end_batch(batch, "done")
        self.parent = (numbers[size // 2][1],)
        self.generation += 1
        self.store.flush_blocking()


@pytest.fixture
def runs(tmp_path):
    with Store(tmp_path / FILE_NAME, durable=False) as store:
        first = Run(store, EVIL)
        store.execute("INSERT INTO populations VALUES (?, NULL, 0, 'maximize', 0.0)", (EVIL,))
        for generation in range(8):
            first.go(100, score=10.0**generation / 1e4)
        first.run.close()
        second = Run(store, "second")
        second.go(40, score=1.0)
        yield first, second
        with suppress(Exception):
            second.run.close()


@pytest.fixture
def live(browser, runs, tmp_path):
    command = [sys.executable, "-m", "evocell", "dashboard", str(tmp_path), "--no-open"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            browser._post("/url", {"url": server.stdout.readline().strip()})
            wait(browser, "return document.documentElement.dataset.ready === 'yes'")
            yield browser, server
        finally:
            browser._post("/url", {"url": "about:blank"})
            browser.complaints()
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0


def wait(browser, script, *arguments):
    end = time.monotonic() + 30
    while not browser.run(script, *arguments):
        assert time.monotonic() < end, (script, arguments, browser.text("body"))
        time.sleep(0.03)


def look(browser):
    """Have the page look now, and wait until it has."""
    browser.run("window.__before = +document.documentElement.dataset.looks; look();")
    wait(browser, "return +document.documentElement.dataset.looks > window.__before")


def choose(browser, box, view):
    browser.run(
        "const b = document.querySelector(arguments[0]); b.value = arguments[1]; b.dispatchEvent(new Event('change'))",
        box,
        view,
    )


def test_it_follows_a_run_and_compares_two(live, runs):
    browser, _ = live
    _, second = runs
    has = "return document.querySelector(arguments[0]).innerText.includes(arguments[1])"
    assert "40" in browser.text("#facts")
    assert "running" in browser.text("#status")
    assert browser.text("#best-about").startswith(EVIL)
    card = browser.text("#card h3")
    for _ in range(3):
        second.go(40, score=second.generation * 5.0)
    look(browser)
    wait(browser, has, "#facts", "160")
    wait(browser, "return document.querySelector('#card h3').innerText !== arguments[0]", card)
    assert browser.run("return D.points.score.length") == 160
    assert browser.run("return D.columns.map(c => c.label)") == [0, 1, 2, 3]

    # What somebody has opened stays open; of what is in no tree the source is asked for.
    browser.run("open(D.points.number[3])")
    wait(browser, has, "#card h3", "second-0-3")
    browser.run("document.querySelector('#card .tabs button').click()")
    assert EVIL in browser.text("#card pre")
    second.go(40, score=90.0)
    look(browser)
    wait(browser, has, "#facts", "200")
    assert "second-0-3" in browser.text("#card h3")

    choose(browser, "#view", "run:1")
    wait(browser, has, "#facts", "800")
    assert "over" in browser.text("#status")
    assert "logarithmic" in browser.text("#fitness-about")
    choose(browser, "#other", "run:2")
    wait(browser, "return document.querySelectorAll('#fitness .rival').length === 1")
    assert "Run 1" in browser.text("#compared-table")
    assert "Run 2" in browser.text("#compared-table")
    assert browser.text("#compared-about") == ""
    choose(browser, "#view", f"population:{EVIL}")
    wait(browser, has, "#title", "Population")
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.run("return document.title") != "owned"
    asked = browser.run("return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)")
    assert set(asked) == {browser.run("return location.origin")}
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == []


def test_words_that_differ_are_marked_in_a_long_line(live, runs):
    browser, _ = live
    _, second = runs
    second.go(40, score=70.0)
    look(browser)
    wait(browser, "return document.querySelectorAll('#card pre .add b').length > 0")
    assert (
        browser.run(
            "return [...document.querySelectorAll('#card pre .add b')].map(b => b.textContent).join('')"
        )
        == " + x40"
    )
    wide = "const p = document.querySelector('#best pre'); return p.scrollWidth <= p.clientWidth && p.querySelector('span').offsetHeight > 30"
    assert browser.run(wide)  # it is wrapped, and nothing of it is out of sight


def test_the_page_says_when_the_server_is_gone_and_when_the_run_is_over(live, runs):
    browser, server = live
    _, second = runs
    second.run.close()
    look(browser)
    wait(browser, "return document.querySelector('#status').innerText.startsWith('over')")
    server.send_signal(signal.SIGINT)
    server.wait(30)
    browser.run("look()")
    wait(browser, "return document.querySelector('#status').innerText.includes('still running?')")


@pytest.mark.slow
def test_thirty_thousand_are_shown_and_followed(live, runs):
    browser, _ = live
    _, second = runs
    for generation in range(100):
        second.go(300, score=1.0 + generation)
    look(browser)
    wait(browser, "return D.n_individuals === 30040 && D.points.id.length === 30040")
    before = "return [D.n_individuals, document.querySelectorAll('#deaths rect').length, document.querySelectorAll('#tree .node').length]"
    _, n_bars, n_nodes = browser.run(before)
    assert n_bars <= 120
    assert n_nodes <= 600
    told = "return performance.getEntriesByType('resource').filter(e => e.name.includes('/data')).pop().encodedBodySize"
    second.go(10, score=1.0)
    look(browser)
    wait(browser, "return D.n_individuals === 30050")
    assert browser.run(told) < 20_000  # what is new, and not all of it
    assert browser.complaints() == []
