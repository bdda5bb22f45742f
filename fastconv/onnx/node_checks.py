"""Nodes against ONNX's own description of each operator: names, attributes, numbers of inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastconv.graph.operators import operator_list

_DOMAINS = ("", "ai.onnx")
#: Operators that the reader or the table of versions replaces.
REPLACED = {"Constant", "Upsample", "Scatter"}
# Nodes of each missing operator that are named.
_NAMED = 3


def refuse_unknown(nodes: Iterable[Any], has_functions: bool) -> None:
    """Refuse operators that fastconv does not have, all in one message."""
    unknown: dict[str, list[str]] = {}
    for node in nodes:
        own = node.domain in _DOMAINS
        if own and (node.op_type in REPLACED or operator_list.find(node.op_type) is not None):
            continue
        name = node.op_type if own else f"{node.domain}.{node.op_type}"
        unknown.setdefault(name, []).append(node.name or ", ".join(node.output))
    if not unknown:
        return
    listed = []
    for name, places in sorted(unknown.items()):
        more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
        listed.append(f"{name} (node{'s' * (len(places) > 1)} {', '.join(places[:_NAMED])}{more})")
    hint = ""
    if has_functions:
        hint = "; onnx.inliner.inline_local_functions replaces functions that the model defines"
    raise ValueError(f"fastconv does not have these operators: {'; '.join(listed)}{hint}")


def check_node(node: Any, opset: int) -> None:
    """Refuse attributes and numbers of inputs and outputs that an operator does not take."""
    from onnx import defs

    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        raise ValueError(f"version {opset} of ONNX's operators does not have it") from None
    for what, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not least <= len(names) <= most:
            raise ValueError(f"takes {least} to {most} {what}, got {len(names)}")
    for index, name in enumerate(node.input):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if not name and formal.option != defs.OpSchema.FormalParameterOption.Optional:
            raise ValueError(f"needs input {index}, {formal.name}")
    given = {attribute.name for attribute in node.attribute}
    if len(given) != len(node.attribute):
        raise ValueError("an attribute is given twice")
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is None or int(known.type.value) != attribute.type:
            names = ", ".join(schema.attributes)
            raise ValueError(
                f"attribute {attribute.name!r} does not exist or has another type; "
                f"the attributes are {names or 'none'}"
            )
    missing = [name for name, each in schema.attributes.items() if each.required]
    missing = [name for name in missing if name not in given]
    if missing:
        raise ValueError(f"needs the attribute {', '.join(missing)}")
