"""Choice of the functions that are charged on entry, so that no recursion is free.

Loops are charged at their headers. Code that repeats without a loop does so by recursion, which is a cycle in
the call graph; there a call through the table may reach every function of its type whose address is taken.
The chosen functions break all cycles: each cycle contains at least one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["circles", "uncharged_circle", "without_circles"]


def circles(graph: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """Return the strongly connected components of a graph that contain a cycle.

    Args:
        graph: The successors of each node.

    Returns:
        The nodes of each component. Source: Tarjan, Depth-first search and linear graph algorithms, 1972;
        here with an explicit stack instead of recursion.
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
    """Return nodes whose removal leaves no cycle (a feedback vertex set), chosen greedily.

    In each strongly connected component it is the node with the largest product of predecessors and
    successors.

    Args:
        graph: The successors of each node.
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
    """Return a component with a cycle that avoids all charged nodes; empty if there is none."""
    left = {
        node: [to for to in tos if to not in charged] for node, tos in graph.items() if node not in charged
    }
    return next(iter(circles(left)), [])
