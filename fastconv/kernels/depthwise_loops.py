"""Depthwise convolution: each output plane from one input plane, without packing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastconv.codegen.depthwise_microkernel import DepthwiseMicrokernel, DepthwiseShape
from fastconv.codegen.integers import counted, counted_together, integers_at
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.number_types import NUMBER_TYPES

#: The parameters of a layer, in the kernel's order.
LAYER = (
    *("form", "C", "K", "multiplier", "H", "W", "OH", "OW", "pad_top", "pad_left"),
    *("pad_odd", "out_row", "out_plane"),
)
#: The arguments, those of `run_code`: a range of blocks, and addresses. `out` begins with the first
#: element to be written; `residual` is as large, or 0.
ARGUMENTS = ("start", "stop", "x", "weight", "bias", "residual", "out", "numbers", "layer")


@machine_function(lambda shape: shape.name, *ARGUMENTS)
def depthwise_address(builder: Any, v: Any, shape: DepthwiseShape) -> None:
    """Emit the loop over a range of blocks, each `rows` rows of one plane of the output."""
    g, size, rows = integers_at(builder, v.layer, LAYER), NUMBER_TYPES[shape.bits].size, shape.rows
    side, many = 2 if shape.pooled else 1, (g.OH + (rows - 1)) // rows
    with counted_together(builder, v.start, v.stop, (g.K, many)) as (image, k, block):
        i = (block * rows).at_most(g.OH - rows)
        v.source = v.x + (image * g.C + k // g.multiplier) * g.H * g.W * size
        v.line = (image * g.K + k) * g.out_plane + i // side * g.out_row
        _write_rows(builder, v, g, (k, i), shape)


def _write_rows(
    builder: Any, v: Any, g: Any, corner: tuple[Any, Any], shape: DepthwiseShape
) -> None:
    """Emit the loop over the tiles of a block: output channel k, from row i on."""
    (k, i), size = corner, NUMBER_TYPES[shape.bits].size
    columns = shape.vectors * shape.lanes
    # For a pair of filters, columns are counted in pairs.
    taps, spacing = shape.R * (shape.S + (shape.odd or 0)), 1 if shape.odd is None else 2
    side, wide = 2 if shape.pooled else 1, (g.OW + (spacing - 1)) // spacing
    with counted(builder, 0, wide, columns) as first:
        j = first.at_most(wide - columns).at_least(0)
        begin = (v.line + j * spacing // side) * size
        tile = SimpleNamespace(
            x=v.source,
            weight=v.weight + k * (taps * size),
            bias=v.bias + k * size,
            out=v.out + begin,
            residual=v.residual.choose(v.residual.compare("!=", 0), v.residual + begin, 0),
            numbers=v.numbers,
            form=g.form,
            height=g.H,
            width=g.W,
            top=i * shape.stride[0] - g.pad_top,
            left=j * shape.stride[1] - g.pad_left,
            left_odd=j - g.pad_odd,
            out_row=g.out_row,
            columns=g.OW - j * spacing,
        )
        DepthwiseMicrokernel(builder, shape, tile).emit()
