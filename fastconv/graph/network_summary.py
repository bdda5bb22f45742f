"""What a compiled network consists of: its steps, the passes that made them, and its memory."""

from __future__ import annotations

from dataclasses import dataclass

from fastconv.graph.compiled import CompiledNetwork
from fastconv.graph.step_description import StepDescription, describe, sizes


@dataclass(frozen=True)
class NetworkSummary:
    """Work and memory of a network for inputs of fixed shapes; ``str`` gives a few lines.

    Attributes
    ----------
    inputs, outputs : tuple of str
        Names with sizes.
    steps : tuple of StepDescription
        In the order in which they run.
    weight_bytes : int
        Of all constants, each counted once.
    arena_bytes : int
        Of the memory that holds all intermediate results, for one caller at a time.
    value_bytes : int
        Of the same results without sharing memory.
    largest : str
        The largest of all results, with its sizes.
    largest_bytes : int
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[StepDescription, ...]
    weight_bytes: int
    arena_bytes: int
    value_bytes: int
    largest: str
    largest_bytes: int

    @property
    def flops(self) -> int:
        """Operations of convolutions and matrix products."""
        return sum(step.flops for step in self.steps)

    def __str__(self) -> str:
        return "\n".join(
            (
                f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}",
                f"steps          {len(self.steps)}, {self.flops / 1e9:.3g} GFLOP",
                f"weights        {_size(self.weight_bytes)}",
                f"arena          {_size(self.arena_bytes)}, for values of "
                f"{_size(self.value_bytes)} that live at different times",
                f"largest value  {_size(self.largest_bytes)}, {self.largest}",
            )
        )


def summarize(compiled: CompiledNetwork) -> NetworkSummary:
    """Return the summary of a compiled network."""
    graph = compiled.graph
    values = graph.values()
    constants = {id(v.constant): v.nbytes for v in values if v.constant is not None}
    made = [value for value in values if value.producer is not None]
    largest = max(made, key=lambda value: value.nbytes, default=None)
    return NetworkSummary(
        tuple(f"{value.name} {sizes(value.shape)}" for value in graph.inputs),
        tuple(f"{value.name} {sizes(value.shape)}" for value in graph.outputs),
        tuple(describe(bound) for bound in compiled.steps),
        sum(constants.values()),
        compiled.memory.nbytes,
        sum(value.nbytes for value in made if id(value) in compiled.memory.offsets),
        f"{largest.name} {sizes(largest.shape)}" if largest else "none",
        largest.nbytes if largest else 0,
    )


def explanation(compiled: CompiledNetwork) -> str:
    """Return what passes did, the steps that result, and their memory."""
    summary = summarize(compiled)
    lines = ["passes, and how often each rewrote something"]
    lines += [f"  {name:24}{count:6}" for name, count in compiled.graph.rewrites.items()]
    table = [
        (str(number), step.operator, step.name, sizes(step.output_shape), step.algorithm)
        for number, step in enumerate(summary.steps, 1)
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += ["", "steps: operator and what is fused to it, name, output, algorithm"]
    lines += [
        "  ".join((" ", row[0].rjust(widths[0]), *map(str.ljust, row[1:], widths[1:]))).rstrip()
        for row in table
    ]
    return "\n".join((*lines, "", str(summary)))


def _size(nbytes: int) -> str:
    """Return bytes with a unit."""
    if nbytes >= 2**20:
        return f"{nbytes / 2**20:.1f} MiB"
    return f"{nbytes / 2**10:.1f} KiB" if nbytes >= 2**10 else f"{nbytes} B"
