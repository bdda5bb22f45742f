"""Nodes whose results nobody reads."""

from __future__ import annotations

from fastconv.graph.ir import Graph


def run(graph: Graph) -> int:
    """Remove them, last first, so that what only they read goes too."""
    kept = {id(value) for value in graph.outputs}
    count = 0
    for node in reversed(list(graph.nodes)):
        results = [value for value in node.outputs if value is not None]
        if not any(value.users or id(value) in kept for value in results):
            graph.remove(node)
            count += 1
    return count
