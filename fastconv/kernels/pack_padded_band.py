"""Padded bands: the part of the input that a block of output needs, copied with zero padding.

A band lies in the L2 cache of the thread that reads it. Its rows can be deinterleaved into phases,
the columns 0, step, 2 * step, ... then 1, step + 1, ...: neighbouring pixels of a strided
convolution then read neighbouring elements. Where the rows of the kernel are far apart, a band
holds what each of them reads, one after the other, and nothing between.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastconv.codegen import conv_microkernel
from fastconv.codegen.integers import counted, integers, integers_at
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.packing import clear_row, copy_row
from fastconv.codegen.vector import vectors
from fastconv.jit.emitter import emitted_address

#: What a band's copy is called with: addresses of the image's first channel and of the band, the
#: image's first row and column in the band (negative in the padding), how many rows of a set to
#: copy, and the address of the layer's record.
ARGUMENTS = ("source", "target", "top", "left", "rows", "layer")

#: What it reads of the layer's record, after what the microkernel reads: channels, height and width
#: of the image, the distance of the columns of a phase and how many phases to keep, how many sets
#: of rows to copy, the distance of their first rows and of the rows of a set, elements from one
#: set, and from one channel, of the band to the next, elements of one phase of a row, and how many
#: elements to clear behind the band.
LAYER = (
    *("C_per_group", "H", "W", "band_step", "phases", "sets", "set_step", "row_step"),
    *("set_size", "band_plane", "phase_width", "behind"),
)


@cache
def band_copy_address(column_step: int, bits: int, lanes: int) -> int:
    """Return the address of the machine code that fills a band.

    `column_step` is that of the phases if it is 1 or 2. Others are rare: 0 stands for all.
    """
    number = NUMBER_TYPES[bits]

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        vector, size = vectors(builder, bits, lanes), number.size
        v = integers(builder, arguments)
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
                copy_row(vector, to, row, width, *across, column_step)
        clear_row(vector, v.target + g.C_per_group * g.band_plane * size, g.behind)

    name = f"padded-band-{number.name}x{lanes}-{column_step or 'n'}"
    return emitted_address(name, ARGUMENTS, emit)
