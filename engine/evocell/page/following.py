"""Answers to the live page: each view of the store is read through a read-only connection of its own."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evocell.errors import ConfigurationError, StoreError
from evocell.models.foreign import clean
from evocell.page.rows import latest_row
from evocell.page.search import Choice, Search, latest_run
from evocell.store.database import open_reader, store_errors
from evocell.store.inspection import blaming_store, store_reader
from evocell.store.runs import is_alive
from evocell.store.schema import NUMBER_BITS

__all__ = ["ANSWER_POINTS", "Following", "parse_view"]

ANSWER_POINTS = 5_000
"""Most points in one answer; the page requests further ones."""

_MOST_FOLLOWED = 6
_MOST_RUNS = 100
_MOST_POPULATIONS = 50
_LABEL_CHARS = 60
_MOST_CHARS = 16 << 20
_PAUSE_S = 10.0
_NO_DATA: dict[str, Any] = {"place": [], "number": [], "id": [], "column": [], "score": [], "fuel": []}


class _Followed:
    """A view of the store that a page shows."""

    def __init__(self, path: Path, choice: Choice) -> None:
        self._path = path
        self._choice = choice
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._search: Search | None = None
        self._latest: int | None = None
        self._fault: StoreError | None = None
        self._look_again = 0.0

    def data(self, wanted: Mapping[str, str]) -> str:
        with self._reading() as search:
            search.update()
            return _encode(_news(search, wanted))

    def member(self, number: int) -> str:
        with self._reading() as search:
            return _encode({"member": search.details(number)})

    def close(self) -> None:
        with self._lock:
            self._forget()

    @contextmanager
    def _reading(self) -> Iterator[Search]:
        with self._lock:
            if self._fault is not None and time.monotonic() < self._look_again:
                raise self._fault
            try:
                with store_errors(self._path), blaming_store(self._path):
                    yield self._current()
            except StoreError as error:
                # The store is reopened after a pause, since finding a fault means reading all of it.
                self._forget()
                self._fault, self._look_again = error, time.monotonic() + _PAUSE_S
                raise
            self._fault = None

    def _current(self) -> Search:
        """Return the search; a new one once a later run that is not part of it has evaluated something."""
        if self._connection is None:
            self._connection = open_reader(self._path)
        latest = latest_run(self._connection)
        if self._search is None or (latest != self._latest and not self._search.goes_on(latest)):
            self._search = Search(self._connection, self._choice)
        self._latest = latest
        return self._search

    def _forget(self) -> None:
        self._search = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Following:
    """Answers the requests of the pages of one state directory; thread-safe.

    Args:
        path: The database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._followed: OrderedDict[str, _Followed] = OrderedDict()

    def views(self) -> str:
        """Return the available views: the latest search, all runs, populations, and each run, as JSON.

        Raises:
            StoreError: The store cannot be read.
        """
        with store_reader(self._path) as connection:
            found = [{"view": "search", "label": "the latest search"}]
            outcomes = dict(connection.execute("SELECT run, outcome FROM runs ORDER BY run DESC"))
            runs = list(outcomes)
            evaluated = {run: latest_row(connection, run) for run in runs[:_MOST_RUNS]}
            some = [run for run, last in evaluated.items() if last is not None]
            if len(some) > 1:
                found.append({"view": "all", "label": f"all {len(runs):,} runs"})
            asked = "SELECT id FROM populations ORDER BY created_at DESC LIMIT ?"
            for (name,) in connection.execute(asked, (_MOST_POPULATIONS,)):
                label = name if len(name) <= _LABEL_CHARS else name[: _LABEL_CHARS - 1] + "…"
                found.append({"view": f"population:{name}", "label": f"population {label}"})
            for run in some:
                n_done = (evaluated[run] or 0) - (run << NUMBER_BITS)
                state = _state(outcomes[run], self._path, run)
                found.append(
                    {"view": f"run:{run}", "label": f"run {run}, {state}, {_rounded(n_done)} evaluations"}
                )
            return _encode({"views": found})

    def data(self, wanted: Mapping[str, str]) -> str:
        """Return the changes of a view since the epoch, revision, cursor and tree named by the page.

        Args:
            wanted: The parameters of the request.

        Returns:
            The changes, or a sentence as ``"problem"``, as JSON.
        """
        try:
            return self._of(wanted.get("view", "search")).data(wanted)
        except (ConfigurationError, StoreError) as error:
            return _encode({"problem": clean(str(error))})

    def member(self, wanted: Mapping[str, str]) -> str:
        """Return the details of an individual, shown when it is clicked on, as JSON.

        Raises:
            ConfigurationError: There is no such view.
            StoreError: The store cannot be read.
        """
        number = _number(wanted, "number", 0)
        return self._of(wanted.get("view", "search")).member(number)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            followed = list(self._followed.values())
            self._followed.clear()
        for one in followed:
            one.close()

    def _of(self, view: str) -> _Followed:
        choice = parse_view(view)
        dropped = None
        with self._lock:
            one = self._followed.get(view)
            if one is None:
                one = self._followed[view] = _Followed(self._path, choice)
            self._followed.move_to_end(view)
            if len(self._followed) > _MOST_FOLLOWED:
                _, dropped = self._followed.popitem(last=False)
        if dropped is not None:
            dropped.close()
        return one


def parse_view(view: str) -> Choice:
    """Parse the name of a view: ``search``, ``all``, ``run:N`` or ``population:NAME``.

    Raises:
        ConfigurationError: There is no such kind of view.
    """
    kind, _, name = view.partition(":")
    if view == "search":
        return Choice()
    if view == "all":
        return Choice(all_runs=True)
    if kind == "run":
        with suppress(ValueError):
            return Choice(run=_bounded(name, 1 << 31))
    if kind == "population" and name:
        return Choice(population=name)
    raise ConfigurationError("a view is search, all, run: with a number, or population: with a name", "view")


def _encode(answer: Mapping[str, Any]) -> str:
    """Return an answer as JSON; its length is capped, since values in the store may have any size.

    Raises:
        ConfigurationError: It is too long.
    """
    text = json.dumps(answer, allow_nan=False, separators=(",", ":"))
    if len(text) > _MOST_CHARS:
        raise ConfigurationError(
            f"the answer has {len(text):,} characters, more than the {_MOST_CHARS:,} that are sent"
        )
    return text


def _news(search: Search, wanted: Mapping[str, str]) -> dict[str, Any]:
    figures = search.figures
    head = search.head()
    known = wanted.get("epoch") == figures.epoch
    revision = _number(wanted, "revision", -1) if known else -1
    cursor = _number(wanted, "cursor", 0) if known else 0
    points: dict[str, Any] = _NO_DATA
    if wanted.get("points") == "1":
        points, cursor = figures.points(cursor, ANSWER_POINTS)
    answer = {
        "epoch": figures.epoch,
        "head": head,
        "columns": figures.columns(revision),
        "revision": figures.revision,
        "points": points,
        "cursor": cursor,
        "more": wanted.get("points") == "1" and cursor < figures.cursor,
    }
    tag = f"{search.task[:16]}:{'.'.join(str(one['number']) for one in head['leaders'])}"
    if wanted.get("points") == "1" and not answer["more"] and wanted.get("tree") != tag:
        members, n_family = search.tree()
        answer["tree"] = {"tag": tag, "members": members, "n_family": n_family}
    return answer


def _number(wanted: Mapping[str, str], name: str, default: int) -> int:
    try:
        return _bounded(wanted[name], 1 << 53) if name in wanted else default
    except ValueError:
        return default


def _bounded(text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):  # noqa: PLR2004 - digits of 64 bits
        raise ValueError(text)
    return min(int(text), most)


def _state(outcome: str, path: Path, run: int) -> str:
    if outcome == "open":
        return "running" if is_alive(path, run) else "killed"
    return "killed" if outcome == "killed" else "over"


def _rounded(count: int) -> str:
    """Return a number of evaluations as text, rounded so that it does not change with each evaluation."""
    return f"{count:,}" if count < 1000 else f"{count // 1000:,} k"  # noqa: PLR2004 - from here on in thousands
