"""Fitness functions of the caller's own, which are asked about a sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.sandbox import Sandbox

__all__ = ["AsyncFitness", "Fitness"]

Fitness: TypeAlias = Callable[[Sandbox], object]
"""A fitness function of one's own: run in a thread with a `Sandbox`; returns a number or named numbers."""

AsyncFitness: TypeAlias = Callable[[AsyncSandbox], Awaitable[object]]
"""The same as an async function, run in the engine's loop with an `AsyncSandbox`."""
