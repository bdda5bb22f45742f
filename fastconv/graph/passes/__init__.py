"""The passes that rewrite a graph, each a file with a match and a rewrite, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastconv.graph.ir import Graph
from fastconv.graph.passes import (
    fold_batch_norm,
    fuse_activation,
    fuse_max_pool,
    fuse_residual,
    pad_into_conv,
    recognize_activations,
    remove_dead_nodes,
    remove_identities,
)


@dataclass(frozen=True)
class Pass:
    """A named rewrite: ``run(graph)`` changes the graph and returns how often."""

    name: str
    run: Callable[[Graph], int]


PASSES = (
    Pass("remove_identities", remove_identities.run),
    Pass("recognize_activations", recognize_activations.run),
    Pass("pad_into_conv", pad_into_conv.run),
    Pass("fold_batch_norm", fold_batch_norm.run),
    Pass("fuse_residual", fuse_residual.run),
    Pass("fuse_activation", fuse_activation.run),
    Pass("fuse_max_pool", fuse_max_pool.run),
    Pass("remove_dead_nodes", remove_dead_nodes.run),
)


def optimize(graph: Graph, without: frozenset[str] = frozenset()) -> Graph:
    """Run all passes but those named on a graph, count their rewrites in it, and return it."""
    with np.errstate(all="ignore"):  # of statistics and weights, whatever they are
        for each in PASSES:
            if each.name not in without:
                graph.rewrites[each.name] = each.run(graph)
    return graph
