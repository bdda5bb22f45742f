"""Padded bands: the part of the input that a block of output needs, copied with zero padding.

A band stays in the L2 of the thread that reads it. Its rows can be deinterleaved into phases,
columns 0, step, 2 * step, ... then 1, step + 1, ...: neighbouring pixels of a strided convolution
then read neighbouring elements. With a large dilation, a band holds one set of rows for each kernel
row, and skips the rows between.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen import conv_microkernel
from fastconv.codegen.integers import counted, integers_at
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.packing import clear_row, copy_row
from fastconv.codegen.vector import vectors

#: The arguments: addresses of the image's first channel and of the band; the band's first row and
#: column in the image (negative in the padding); the number of rows of a set; the address of the
#: layer's record.
ARGUMENTS = ("source", "target", "top", "left", "rows", "layer")

#: The fields of the layer's record, after those of the microkernel: channels, height and width of
#: the image; the column stride of a phase and the number of phases; the number of sets of rows, the
#: distance of their first rows and the row stride within a set; the set stride and channel stride
#: of the band in elements; elements of one phase of a row; elements to clear after the band.
LAYER = (
    *("C_per_group", "H", "W", "band_step", "phases", "sets", "set_step", "row_step"),
    *("set_size", "band_plane", "phase_width", "tail"),
)


def _name(column_step: int, bits: int, lanes: int) -> str:
    return f"padded-band-{NUMBER_TYPES[bits].name}x{lanes}-{column_step or 'n'}"


@machine_function(_name, *ARGUMENTS)
def band_copy_address(builder: Any, v: Any, column_step: int, bits: int, lanes: int) -> None:
    """Emit the packing of a band.

    `column_step` is the column stride of a phase if that is 1 or 2, else 0.
    """
    vector, size = vectors(builder, bits, lanes), NUMBER_TYPES[bits].size
    g = integers_at(builder, v.layer, LAYER, len(conv_microkernel.LAYER))
    with counted(builder, 0, g.C_per_group * g.sets) as both, counted(builder, 0, v.rows) as i:
        c, r = both // g.sets, both % g.sets
        line = c * g.band_plane + r * g.set_size + i * g.phases * g.phase_width
        h = v.top + r * g.set_step + i * g.row_step
        row = v.source + (c * g.H + h) * g.W * size
        inside = builder.icmp_unsigned("<", h.value, g.H.value)
        width = g.W.choose(inside, g.W, 0)
        with counted(builder, 0, g.phases) as phase:
            to = v.target + (line + phase * g.phase_width) * size
            across = v.left + phase, g.band_step, g.phase_width
            copy_row(vector, to, row, width, across, column_step)
    clear_row(vector, v.target + g.C_per_group * g.band_plane * size, g.tail)
