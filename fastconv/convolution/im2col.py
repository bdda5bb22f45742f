"""im2col convolution: copy the image's patches to the columns of a matrix, multiply by the weights.

For one group and one block of output pixels::

    out          (K, pixels)     = weight   (K, C*R*S) @ columns   (C*R*S, pixels)
    columns_grad (C*R*S, pixels) = weight.T (C*R*S, K) @ grad      (K, pixels)       then col2im
    weight_grad  (K, C*R*S)      = grad     (K, pixels) @ columns.T (pixels, C*R*S)

The column matrix repeats every input element up to R*S times, so only a part of it exists at a
time: output pixels are divided into blocks (the batch first, then rows, then columns) whose columns
stay below `COLUMN_BYTES`.

Source: K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for
document processing" (2006).
"""

from __future__ import annotations

import itertools

import numpy as np

from fastconv.convolution.algorithm import Algorithm, Array, Forward, Gradient, Implementation
from fastconv.convolution.blocking.partition import (
    PARTS,
    WORTH_A_TASK,
    Block,
    Part,
    Range,
    blocks_below,
    parts_of,
    split,
    worthwhile_pixels,
)
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import extent
from fastconv.core.sliding_windows import windows_view
from fastconv.runtime import cpu, threads
from fastconv.runtime.workspace import scratch

#: The largest column buffer of a thread, unless the column of a single pixel is larger.
COLUMN_BYTES = 2 * 2**20
#: The largest fraction of peak that one thread of BLAS reaches between copies.
BLAS_PART = 0.65


class Lowering:
    """im2col through a strided view, and col2im."""

    #: Bytes of columns per second and thread, with the hand-over to BLAS, and in col2im.
    im2col_per_second, col2im_per_second = 3.5e9, 2e9

    def im2col(
        self, problem: Conv2dProblem, x: Array, block: Block, c0: int, columns: Array
    ) -> None:
        """Fill `columns` with the patches of `block`, of the channels from `c0` on.

        `columns` has shape (channels * R * S, pixels); row (c, r, s) holds the input that tap
        (r, s) of channel c reads for each output pixel of the block.
        """
        images, rows, width = block.shape
        channels = columns.shape[0] // (problem.R * problem.S)
        needed = padded_block(problem, x[:, c0 : c0 + channels], block)
        kernel = (problem.R, problem.S)
        patches = windows_view(needed, (rows, width), kernel, problem.stride, problem.dilation)
        shape = (channels, problem.R, problem.S, images, rows, width)
        columns.reshape(shape)[...] = patches.transpose(1, 4, 5, 0, 2, 3)

    def col2im(
        self, problem: Conv2dProblem, columns: Array, block: Block, c0: int, out: Array
    ) -> None:
        """Add `columns`, in the order of `im2col`, back onto the images `out`."""
        channels = columns.shape[0] // (problem.R * problem.S)
        taps = columns.reshape(channels, problem.R, problem.S, *block.shape)
        (n0, n1), (i0, i1), (j0, j1) = block
        (stride_h, stride_w), (dilation_h, dilation_w) = problem.stride, problem.dilation
        (top, _), (left, _) = problem.padding
        for r, s in itertools.product(range(problem.R), range(problem.S)):
            first, last = problem.rows_of_tap(r)
            rows = range(max(first, i0), min(last, i1))
            first, last = problem.columns_of_tap(s)
            cols = range(max(first, j0), min(last, j1))
            if not rows or not cols:
                continue
            h = rows.start * stride_h + r * dilation_h - top
            w = cols.start * stride_w + s * dilation_w - left
            target = out[
                n0:n1,
                c0 : c0 + channels,
                h : h + (len(rows) - 1) * stride_h + 1 : stride_h,
                w : w + (len(cols) - 1) * stride_w + 1 : stride_w,
            ]
            source = taps[:, r, s, :, rows.start - i0 : rows.stop - i0]
            target += source[..., cols.start - j0 : cols.stop - j0].swapaxes(0, 1)


class _Im2col(Implementation):
    """Columns block by block, with a BLAS product for each."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering

    def _seconds(self, problem: Conv2dProblem, threads: int, bytes_per_second: float) -> float:
        """Count the columns as moved once, and the product at the speed of a large one."""
        most = 110e9 if problem.dtype == "float32" else 55e9
        blas = min(most, BLAS_PART * cpu.describe().instructions.flops(problem.dtype))
        moving = problem.column_bytes / bytes_per_second
        return 50e-6 + (moving + problem.flops / blas) / threads


class Im2colForward(_Im2col, Forward):
    """One block of output pixels per task; a single block is divided by output channels instead."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the columns as filled once."""
        return self._seconds(problem, threads, self.lowering.im2col_per_second)

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count one block of columns, and one of the product."""
        pixels = min(_forward_pixels(problem), problem.N * problem.P)
        rows = problem.C * problem.R * problem.S
        return (rows + problem.K) * pixels * problem.itemsize

    def prepare(self, problem: Conv2dProblem, weight: Array) -> Array:
        """Return the weights as matrices."""
        return _matrices(problem, weight)

    def run(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """Run one block of output pixels per task, or divide a single block by output channels."""
        blocks = list(blocks_below(problem, (0, problem.N), _forward_pixels(problem)))
        offsets = bias.reshape(problem.groups, problem.K_per_group, 1)

        def multiply(columns: Array, block: Block, part: Part) -> None:
            groups, filters = slice(*part.groups), slice(*part.channels)
            factors = prepared[groups, filters], columns[groups]
            if block.shape[0] == 1:  # one image: its pixels have a constant stride in `out`
                result = _pixels(problem, out, block)[groups, filters]
                np.matmul(*factors, out=result)
                result += offsets[groups, filters]
                return
            shape = (*factors[0].shape[:2], block.pixels)
            with scratch("product", shape, problem.dtype) as result:
                np.matmul(*factors, out=result)
                result += offsets[groups, filters]
                _store_pixels(problem, result, block, part, out)

        def lower_and_multiply(block: Block) -> None:
            shape = (problem.groups, problem.taps, block.pixels)
            with scratch("columns", shape, problem.dtype) as columns:
                self.lowering.im2col(problem, x, block, 0, columns.reshape(-1, block.pixels))
                multiply(columns, block, Part((0, problem.groups), (0, problem.K_per_group)))

        if len(blocks) > 1:
            threads.run_tasks(lower_and_multiply, blocks)
            return

        block = blocks[0]
        window = problem.R * problem.S
        shape = (problem.groups, problem.taps, block.pixels)
        with scratch("columns", shape, problem.dtype) as columns:
            rows = columns.reshape(problem.C * window, block.pixels)

            def lower_channels(channels: Range) -> None:
                first, last = channels
                self.lowering.im2col(problem, x, block, first, rows[first * window : last * window])

            channel_parts = min(PARTS, columns.size // WORTH_A_TASK)
            filter_parts = parts_of(problem.groups, problem.K_per_group, PARTS, smallest=32)
            threads.run_tasks(lower_channels, split(problem.C, channel_parts))
            threads.run_tasks(lambda part: multiply(columns, block, part), filter_parts)


class Im2colInputGrad(_Im2col, Gradient):
    """Some images and channels per task, so no two tasks write to the same elements."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the columns as added back once."""
        return self._seconds(problem, threads, self.lowering.col2im_per_second)

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count one block of columns."""
        return min(COLUMN_BYTES, problem.column_bytes)

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Give each task some images and channels."""
        matrices = _matrices(problem, factor)
        worth = problem.N * problem.column_shape[1] * problem.P // WORTH_A_TASK
        image_ranges = split(problem.N, min(PARTS, worth))
        parts = _channel_parts(problem, PARTS // len(image_ranges))

        def raise_part(task: tuple[Range, Part]) -> None:
            images, part = task
            groups, taps, c0, rows = _rows_of(problem, part)
            out[slice(*images), c0 : c0 + rows // (problem.R * problem.S)] = 0
            filters = matrices[groups, :, taps].swapaxes(1, 2)
            for block in blocks_below(problem, images, _pixels_for(problem, rows)):
                grad = _pixels(problem, grad_output, block)[groups]
                shape = (*filters.shape[:2], block.pixels)
                with scratch("columns", shape, problem.dtype) as columns:
                    np.matmul(filters, grad, out=columns)
                    self.lowering.col2im(problem, columns.reshape(rows, -1), block, c0, out)

        threads.run_tasks(raise_part, list(itertools.product(image_ranges, parts)))


class Im2colWeightGrad(_Im2col, Gradient):
    """Small gradients have private copies per range of pixels; large ones are divided by channels.

    Either way no two tasks write to the same elements, and copies are summed in a fixed order.
    """

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the columns as filled once."""
        return self._seconds(problem, threads, self.lowering.im2col_per_second)

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count one block of columns, and a product."""
        return min(COLUMN_BYTES, problem.column_bytes) + problem.weight_bytes

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out` with the weight gradient."""
        copies = COLUMN_BYTES // problem.weight_bytes
        parts = _channel_parts(problem, PARTS if copies < 4 else 1)
        _, _, _, rows = _rows_of(problem, parts[0])
        pixels = min(_pixels_for(problem, rows), worthwhile_pixels(problem))
        blocks = list(blocks_below(problem, (0, problem.N), pixels))
        ranges = split(len(blocks), min(PARTS, copies) if copies >= 4 else 1)
        gradient = _matrices(problem, out)
        private = gradient[np.newaxis]
        if len(ranges) > 1:
            private = np.empty((len(ranges), *gradient.shape), gradient.dtype)

        def sum_blocks(task: tuple[int, Part]) -> None:
            copy, part = task
            groups, taps, c0, rows = _rows_of(problem, part)
            target = private[copy, groups, :, taps]
            for number, block in enumerate(blocks[slice(*ranges[copy])]):
                grad = _pixels(problem, grad_output, block)[groups]
                shape = (target.shape[0], target.shape[2], block.pixels)
                with scratch("columns", shape, problem.dtype) as columns:
                    self.lowering.im2col(problem, factor, block, c0, columns.reshape(rows, -1))
                    if number == 0:
                        np.matmul(grad, columns.swapaxes(1, 2), out=target)
                        continue
                    with scratch("product", target.shape, problem.dtype) as product:
                        np.matmul(grad, columns.swapaxes(1, 2), out=product)
                        target += product

        threads.run_tasks(sum_blocks, list(itertools.product(range(len(ranges)), parts)))
        if len(ranges) > 1:
            np.sum(private, axis=0, out=gradient)


def im2col(name: str, lowering: Lowering) -> Algorithm:
    """Return the algorithm with the given im2col and col2im."""
    gradients = Im2colInputGrad(lowering), Im2colWeightGrad(lowering)
    return Algorithm(name, Im2colForward(lowering), *gradients)


IM2COL = im2col("im2col", Lowering())


def _matrices(problem: Conv2dProblem, weight: Array) -> Array:
    """Return the weights as matrices: (groups, K / groups, C / groups * R * S)."""
    return weight.reshape(problem.groups, problem.K_per_group, problem.taps)


def _forward_pixels(problem: Conv2dProblem) -> int:
    column = problem.C * problem.R * problem.S * problem.itemsize
    return max(1, min(COLUMN_BYTES // column, worthwhile_pixels(problem)))


def _pixels_for(problem: Conv2dProblem, rows: int) -> int:
    return max(1, COLUMN_BYTES // (rows * problem.itemsize))


def _channel_parts(problem: Conv2dProblem, parts: int) -> list[Part]:
    smallest = max(1, 64 // (problem.R * problem.S))  # rows for an efficient product
    return parts_of(problem.groups, problem.C_per_group, parts, smallest)


def _rows_of(problem: Conv2dProblem, part: Part) -> tuple[slice, slice, int, int]:
    """Return the part's groups, its rows in each group, first channel, and row count."""
    (g0, g1), (c0, c1) = part
    window = problem.R * problem.S
    rows = (g1 - g0) * (c1 - c0) * window
    first = g0 * problem.C_per_group + c0
    return slice(g0, g1), slice(c0 * window, c1 * window), first, rows


def padded_block(problem: Conv2dProblem, x: Array, block: Block) -> Array:
    """Return the part of the zero-padded `x` that a block reads, a view if possible."""
    starts, stops, sizes = [], [], (problem.H, problem.W)
    for axis, (first, last) in enumerate((block.rows, block.columns)):
        before, stride = problem.padding[axis][0], problem.stride[axis]
        span = extent((problem.R, problem.S)[axis], problem.dilation[axis])
        starts.append(first * stride - before)
        stops.append((last - 1) * stride + span - before)
    inside = [
        (max(0, min(start, size)), max(0, min(stop, size)))
        for start, stop, size in zip(starts, stops, sizes, strict=True)
    ]
    (h0, h1), (w0, w1) = inside
    part = x[slice(*block.images), :, h0:h1, w0:w1]
    if inside == list(zip(starts, stops, strict=True)):
        return part
    (top, left), (bottom, right) = starts, stops
    padded = np.zeros((*part.shape[:2], bottom - top, right - left), x.dtype)
    if part.size:
        padded[:, :, h0 - top : h1 - top, w0 - left : w1 - left] = part
    return padded


def _pixels(problem: Conv2dProblem, tensor: Array, block: Block) -> Array:
    """Return the block of `tensor` (N, K, OH, OW) as (groups, K / groups, pixels).

    A view where the block consists of whole rows of one image, else a copy.
    """
    (n0, n1), (i0, i1), (j0, j1) = block
    part = tensor[n0:n1, :, i0:i1, j0:j1].swapaxes(0, 1)
    return part.reshape(problem.groups, problem.K_per_group, block.pixels)


def _store_pixels(
    problem: Conv2dProblem, result: Array, block: Block, part: Part, out: Array
) -> None:
    """Copy a product (groups, filters, pixels) to its pixels in `out`."""
    (n0, n1), (i0, i1), (j0, j1) = block
    (g0, g1), (k0, k1) = part
    first = g0 * problem.K_per_group + k0
    count = (g1 - g0) * (k1 - k0)
    target = out[n0:n1, first : first + count, i0:i1, j0:j1]
    target[...] = result.reshape(count, *block.shape).swapaxes(0, 1)
