"""`multiprocessing.Barrier` in a sandbox, made of a condition and a value that processes share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from evocell_channels import Cell, Condition

__all__ = ["Barrier"]


class Barrier:
    """A point that so many processes pass together.

    Args:
        parties: How many.
        action: Called by one of them before they go on.
        timeout: How long they wait, in seconds, unless `wait` says otherwise.
    """

    def __init__(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> None:
        self.parties = parties
        self._action = action
        self._timeout = timeout
        self._condition = Condition()
        self._state = Cell({"waiting": 0, "round": 0, "reset": -1, "broken": False})

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all are here.

        Returns:
            The place in the order of arrival, from 0.

        Raises:
            threading.BrokenBarrierError: One waited too long, or somebody broke or reset it.
        """
        with self._condition:
            with self._state as held:
                if held.value["broken"]:
                    raise threading.BrokenBarrierError
                place, current = held.value["waiting"], held.value["round"]
                held.value["waiting"] += 1
            if place + 1 == self.parties:
                self._let_go()
                return int(place)
            seconds = self._timeout if timeout is None else timeout
            if not self._condition.wait_for(lambda: self._is_over(current), seconds):
                self._break()
            with self._state as held:
                if held.value["reset"] == current or (
                    held.value["broken"] and held.value["round"] == current
                ):
                    raise threading.BrokenBarrierError
            return int(place)

    def reset(self) -> None:
        """Begin anew; those that wait get `threading.BrokenBarrierError`."""
        with self._condition:
            with self._state as held:
                if held.value["waiting"]:
                    held.value["reset"] = held.value["round"]
                held.value |= {"waiting": 0, "round": held.value["round"] + 1, "broken": False}
            self._condition.notify_all()

    def abort(self) -> None:
        """Break it: those that wait, and those to come, get `threading.BrokenBarrierError`."""
        with self._condition:
            self._break()

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return int(self._told("waiting"))

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._told("broken"))

    def _let_go(self) -> None:
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break()
            raise
        with self._state as held:
            held.value |= {"waiting": 0, "round": held.value["round"] + 1}
        self._condition.notify_all()

    def _break(self) -> None:
        with self._state as held:
            held.value["broken"] = True
        self._condition.notify_all()

    def _is_over(self, current: int) -> bool:
        with self._state as held:
            return bool(held.value["broken"] or held.value["round"] != current)

    def _told(self, name: str) -> Any:
        with self._state as held:
            return held.value[name]
