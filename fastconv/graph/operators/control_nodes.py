"""`If`: one of two graphs, chosen when the graph is specialized.

Exporters ask for the sizes of inputs this way, which are known then. A condition that depends on
elements of an input would need both graphs at run time; it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastconv.graph.ir import Graph, Node
from fastconv.graph.operators.graph_operator import Operator, Type, register

#: The attributes that hold graphs.
BRANCHES = ("then_branch", "else_branch")
_REFUSED = (
    "the condition depends on elements of an input; fastconv chooses a branch only where sizes "
    "and constants decide"
)


def _infer_if(node: Node) -> Sequence[Type]:
    raise ValueError(_REFUSED)


def _compute_if(node: Node, inputs: Sequence[Any]) -> Any:
    raise ValueError(_REFUSED)


register("If", Operator(_infer_if, _compute_if))


def chosen_branch(graph: Graph, node: Node) -> list[Node]:
    """Replace a node by the nodes of one of its branches, and return them.

    The first input is the condition; the others are what the inputs of both branches stand for.
    """
    condition = node.constant(0)
    if condition is None or condition.size != 1:
        raise ValueError(_REFUSED)
    branch: Graph = node.attributes[BRANCHES[0 if condition.reshape(-1)[0] else 1]].copy()
    for inner, outer in zip(branch.inputs, node.inputs[1:], strict=True):
        assert outer is not None
        branch.replace(inner, outer)
    for value, result in zip(node.outputs, branch.outputs, strict=False):
        if value is not None:
            graph.replace(value, result)
    for value in node.inputs:
        if value is not None:
            value.users.remove(node)
    return branch.nodes
