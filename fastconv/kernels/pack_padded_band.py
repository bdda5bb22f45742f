"""Bands: the part of the input that a block of output needs, copied with its zero margins.

A band lies in the second-level cache of the thread that reads it. Its rows can be taken apart
into phases, the columns 0, step, 2 * step, ... then 1, step + 1, ...: neighbouring pixels of a
strided convolution then read neighbouring elements. Where the rows of the kernel are far apart,
a band holds what each of them reads, one after the other, and nothing between.
"""

from __future__ import annotations

from functools import cache

from fastconv.codegen.row_copies import clear_row, copy_row
from fastconv.jit.compiler import address_of

#: What a band's copy is called with: addresses of the image's first channel and of the band, then
#: channels, height and width of the image, its first row and column in the band (negative in the
#: margin), the distance of the columns of a phase and how many phases to keep, how many sets of
#: rows to copy and the distance of their first rows, the distance of the rows of a set and how
#: many to copy, elements from one set, and from one channel, of the band to the next, elements of
#: one phase of a row, and how many elements to clear behind the band.
ARGUMENTS = (
    *("source", "target", "channels", "height", "width", "top", "left"),
    *("step", "phases", "sets", "set_step", "row_step", "rows"),
    *("set_size", "plane", "phase_width", "behind"),
)


@cache
def band_copy_address(column_step: int, bits: int, lanes: int) -> int:
    """Return the address of the machine code that fills a band.

    `column_step` is that of the phases if it is 1 or 2. Others are rare: 0 stands for all.
    """
    size = bits // 8

    def copy_band(  # type: ignore[no-untyped-def]
        source, target, channels, height, width, top, left,
        step, phases, sets, set_step, row_step, rows, set_size, plane, phase_width, behind,
    ):  # fmt: skip
        for number in range(channels * sets):
            c, r = divmod(number, sets)
            line = target + (c * plane + r * set_size) * size
            for i in range(rows):
                h = top + r * set_step + i * row_step
                row = source + (c * height + h) * width * size
                there = width if 0 <= h < height else 0
                for phase in range(phases):
                    first = left + phase
                    copy_row(line, row, there, first, step, phase_width, column_step, bits, lanes)
                    line += phase_width * size
        clear_row(target + channels * plane * size, behind, bits, lanes)

    name = f"band-f{bits}x{lanes}-{column_step or 'n'}"
    return address_of(copy_band, name, len(ARGUMENTS))
