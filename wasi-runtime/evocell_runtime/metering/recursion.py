"""Which functions have to be charged when they are entered, so that no recursion goes free.

A loop is charged at its header. A path that repeats without a loop repeats calls: it is a circle in the graph
of calls, in which a call through the table may reach every function of its type whose address is taken.
A set of functions is chosen that every such circle passes through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["circles", "uncharged_circle", "without_circles"]


def circles(graph: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """The strongly connected parts of a graph that hold a circle.

    Args:
        graph: For each node the nodes it leads to.

    Returns:
        Their nodes. Source: Tarjan, Depth-first search and linear graph algorithms, 1972; without recursion.
    """
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    found: list[list[int]] = []
    for root in graph:
        if root in number:
            continue
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        work = [(root, iter(graph.get(root, ())))]
        while work:
            node, ahead = work[-1]
            for to in ahead:
                if to not in number:
                    number[to] = low[to] = len(number)
                    stack.append(to)
                    on_stack.add(to)
                    work.append((to, iter(graph.get(to, ()))))
                    break
                if to in on_stack:
                    low[node] = min(low[node], number[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    part = []
                    while True:
                        last = stack.pop()
                        on_stack.discard(last)
                        part.append(last)
                        if last == node:
                            break
                    if len(part) > 1 or node in graph.get(node, ()):
                        found.append(part)
    return found


def without_circles(graph: Mapping[int, Sequence[int]], may: Iterable[int]) -> set[int]:
    """Nodes whose removal leaves no circle: in each part the one with the most ways through it.

    Args:
        graph: For each node the nodes it leads to.
        may: Nodes that may be chosen.
    """
    allowed = set(may)
    chosen: set[int] = set()
    work = circles(graph)
    while work:
        part = set(work.pop())
        inside = {node: [to for to in graph.get(node, ()) if to in part] for node in part}
        ways_in = dict.fromkeys(part, 0)
        for tos in inside.values():
            for to in tos:
                ways_in[to] += 1
        best = max(
            (node for node in part if node in allowed),
            key=lambda node: (ways_in[node] * len(inside[node]), -node),
        )
        chosen.add(best)
        part.discard(best)
        work += circles({node: [to for to in inside[node] if to != best] for node in part})
    return chosen


def uncharged_circle(graph: Mapping[int, Sequence[int]], charged: set[int]) -> list[int]:
    """A part of the graph that holds a circle through none of the charged nodes; empty if there is none."""
    left = {
        node: [to for to in tos if to not in charged] for node, tos in graph.items() if node not in charged
    }
    return next(iter(circles(left)), [])
