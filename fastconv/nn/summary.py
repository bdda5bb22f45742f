"""A table of a model's layers: output shapes, parameters, costs, algorithms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.core.geometry import as_ints
from fastconv.nn.parameter import Parameter


@dataclass(frozen=True)
class Row:
    """One layer, without the parameters of layers in it and those shared with a row above.

    `output_shape` is None where the forward pass does not use the layer. A multiplication and an
    addition are two FLOPs. `algorithm` is empty where there is no choice.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    flops: int
    parameter_bytes: int
    output_bytes: int
    algorithm: str


@dataclass(frozen=True)
class Summary:
    """The rows of a model, in the order in which its layers finish, and their sums.

    Layers that consist of others have a row only if they have parameters of their own. ``str``
    gives a table; the column KiB is parameters and output together.

    Examples
    --------
    >>> from fastconv import nn
    >>> summary = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).summary((1, 3, 10, 10))
    >>> summary.parameters, summary.flops, summary.rows[0].output_shape
    (224, 28160, (1, 8, 8, 8))
    """

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters, each counted once: as many as an optimizer trains."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> int:
        """Operations of a forward pass."""
        return sum(row.flops for row in self.rows)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all parameters and all outputs, which training holds at once."""
        return sum(row.parameter_bytes + row.output_bytes for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "kind", "output", "parameters", "MFLOP", "KiB", "algorithm")
        lines = [head]
        for row in self.rows:
            numbers = _numbers(row.parameters, row.flops, row.parameter_bytes + row.output_bytes)
            output = "not used" if row.output_shape is None else str(row.output_shape)
            lines.append((row.name, row.kind, output, *numbers, row.algorithm))
        totals = _numbers(self.parameters, self.flops, self.memory_bytes)
        lines.append(("total", "", "", *totals, ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if 3 <= i <= 5 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def _numbers(parameters: int, flops: int, size: int) -> tuple[str, str, str]:
    return f"{parameters:,}", _short(flops / 1e6), _short(size / 1024)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def summarize(model: Any, input_shape: tuple[int, ...]) -> Summary:
    """Run the model on zeros of that shape and record every layer; its mode stays as it was."""
    shape = as_ints("input_shape", input_shape, np.size(input_shape), 1)
    names: dict[Any, str] = {}
    for name, module in model.named_modules():
        names.setdefault(module, name)
    modes = [(module.training, module.keeping, module.frozen) for module in names]
    shown = [m for m in names if _own(m) or not list(m.named_children())]
    overridden = [vars(module).get("forward") for module in shown]
    used: set[Any] = set()
    counted: set[Parameter] = set()
    rows: list[Row] = []

    def watch(module: Any) -> None:
        forward = module.forward

        def watched(x: Any, *others: Any) -> Any:
            result = forward(x, *others)
            y = result[0] if isinstance(result, tuple) else result  # maxima, without indices
            rows.append(_row(names[module], module, counted, np.shape(x), y))
            used.add(module)
            return result

        vars(module)["forward"] = watched

    try:
        model.eval(keep=True)  # every layer on its own
        for module in shown:
            watch(module)
        model(np.zeros(shape, model.dtype))
    finally:
        for module, forward in zip(shown, overridden, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward
        model.eval()
        for module, mode in zip(names, modes, strict=True):
            module.training, module.keeping, module.frozen = mode
    # Parameters count even where this forward pass does not use them.
    unused = [module for module in shown if module not in used and _own(module)]
    rows += [_row(names[module], module, counted) for module in unused]
    return Summary(tuple(rows))


def _own(module: Any) -> list[Parameter]:
    """Return the parameters that a module holds itself, each once."""
    return list({v: None for v in vars(module).values() if isinstance(v, Parameter)})


def _row(
    name: str,
    module: Any,
    counted: set[Parameter],
    input_shape: tuple[int, ...] | None = None,
    y: Any = None,
) -> Row:
    """Return the row of a module that returned `y`, or was not used."""
    new = [p for p in _own(module) if p not in counted]
    counted.update(new)
    ran = input_shape is not None
    return Row(
        name or type(module).__name__,
        type(module).__name__,
        y.shape if ran else None,
        sum(p.size for p in new),
        module.flops(input_shape, y.shape) if ran else 0,
        sum(p.size * p.dtype.itemsize for p in new),
        math.prod(y.shape) * y.dtype.itemsize if ran else 0,
        module.algorithm(input_shape) if ran else "",
    )
