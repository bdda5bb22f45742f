"""A model as a table: what each layer gives, learns, costs, and how it is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.geometry import as_ints


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes
    ----------
    name, kind : str
        Where it is in the model, and its class.
    output_shape : tuple of int
    parameters : int
    flops : int
        Of a forward pass; a multiplication and an addition are two.
    parameter_bytes, output_bytes : int
    algorithm : str
        What computes it, where there is a choice.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int
    parameter_bytes: int
    output_bytes: int
    algorithm: str


@dataclass(frozen=True)
class Summary:
    """The rows of a model, in the order in which its layers run, and their sums.

    ``str`` gives a table; the column KiB is parameters and output together.
    """

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters."""
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
            lines.append((row.name, row.kind, str(row.output_shape), *numbers, row.algorithm))
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
    """Send zeros of that shape through the model and note what each layer does.

    The model is then in the mode it was in.
    """
    shape = as_ints("input_shape", input_shape, len(input_shape), 1)
    modules = list(model.named_modules())
    modes = [(module.training, module.keeping, module.frozen) for _, module in modules]
    rows: list[Row] = []

    def watch(name: str, module: Any) -> None:
        forward = module.forward

        def watched(x: Any) -> Any:
            y = forward(x)
            rows.append(_row(name, module, np.shape(x), y))
            return y

        vars(module)["forward"] = watched

    leaves = [(name, module) for name, module in modules if not list(module.named_children())]
    try:
        model.eval(keep=True)  # every layer on its own
        for name, module in leaves:
            watch(name, module)
        model(np.zeros(shape, model.dtype))
    finally:
        for _, module in leaves:
            vars(module).pop("forward", None)
        model.eval()
        for (_, module), mode in zip(modules, modes, strict=True):
            module.training, module.keeping, module.frozen = mode
    return Summary(tuple(rows))


def _row(name: str, module: Any, input_shape: tuple[int, ...], y: Any) -> Row:
    parameters = list(module.parameters())
    return Row(
        name or type(module).__name__,
        type(module).__name__,
        y.shape,
        sum(p.size for p in parameters),
        module.flops(input_shape, y.shape),
        sum(p.size * p.dtype.itemsize for p in parameters),
        math.prod(y.shape) * y.dtype.itemsize,
        module.algorithm(input_shape),
    )
