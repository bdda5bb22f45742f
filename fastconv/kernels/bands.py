"""Bands: the part of the input that a block of output needs, copied with its zero margins.

A band lies in the second-level cache of the thread that reads it. Its rows can be taken apart
into phases, the columns 0, step, 2 * step, ... then 1, step + 1, ...: neighbouring pixels of a
strided convolution then read neighbouring elements. Where the rows of the kernel are far apart,
a band holds what each of them reads, one after the other, and nothing between.
"""

from __future__ import annotations

from functools import lru_cache

from fastconv.codegen.rows import clear_row, copy_element, copy_row
from fastconv.kernels.jit import address_of

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


@lru_cache(maxsize=32)
def band_copy_address(column_step: int, bits: int, lanes: int) -> int:
    """Return the address of the machine code that fills a band.

    `column_step` is that of the phases if it is 1 or 2. Others are rare: 0 stands for all.
    """
    size = bits // 8

    def copy_band(  # type: ignore[no-untyped-def]
        source, target, channels, height, width, top, left,
        step, phases, sets, set_step, row_step, rows, set_size, plane, phase_width, behind,
    ):  # fmt: skip
        if column_step:
            step = column_step
        for number in range(channels * sets):
            c, r = divmod(number, sets)
            line = target + (c * plane + r * set_size) * size
            for i in range(rows):
                h = top + r * set_step + i * row_step
                if h < 0 or h >= height:
                    clear_row(line, phases * phase_width, bits, lanes)
                    line += phases * phase_width * size
                    continue
                row = source + (c * height + h) * width * size
                for phase in range(phases):
                    first = left + phase
                    begin = min(max(0, -(first // step)), phase_width)
                    end = max(begin, min(phase_width, -((first - width) // step)))
                    clear_row(line, begin, bits, lanes)
                    place = row + (first + begin * step) * size
                    if column_step:
                        count = end - begin
                        copy_row(line + begin * size, place, count, column_step or 1, bits, lanes)
                    else:
                        for k in range(end - begin):
                            at = (begin + k) * size
                            copy_element(line + at, place + k * step * size, bits)
                    clear_row(line + end * size, phase_width - end, bits, lanes)
                    line += phase_width * size
        clear_row(target + channels * plane * size, behind, bits, lanes)

    name = f"band-f{bits}x{lanes}-{column_step or 'n'}"
    return address_of(copy_band, name, len(ARGUMENTS))
