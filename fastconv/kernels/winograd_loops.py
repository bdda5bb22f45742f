"""Winograd convolution: the loops around the transforms and the products.

The output is divided into blocks of tiles. For each block the input is transformed. Then, for some
output channels at a time, (m + r - 1)^2 matrix products (output channels x input channels x tiles)
are computed and transformed to outputs. All buffers stay in the caches.

If there are many blocks, each worker takes a range of them. If there are few, all workers share the
transformed input of one block: first each transforms a range of the input channels, then each
multiplies a range of the output channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fastconv.codegen.integers import Integer, Record, call_at, counted, integer_at
from fastconv.codegen.machine_function import machine_function
from fastconv.jit.compiler import range_kernel
from fastconv.jit.pointers import address, call
from fastconv.kernels.winograd_microkernels import ARGUMENTS, LAYOUT

#: The step of a call: input transform and products, one of the two, or the weight transform.
BOTH, TRANSFORM, MULTIPLY, WEIGHTS = range(4)


@range_kernel
def convolve_winograd(
    start: int,
    stop: int,
    step: int,
    block: int,
    x: Any,
    residual: Any,
    out: Any,
    memory: Any,
    arguments: Any,
) -> None:
    """Run workers `start` to `stop`.

    All arrays are flat. `residual` has the shape of `out` or is empty; `memory` has a buffer for
    each worker; `arguments` is a record of `ARGUMENTS`. If the workers share their input, `block`
    is the block to compute. In the step WEIGHTS, `out` gets the transformed weights.
    """
    added = address(residual) if residual.size else 0
    arrays = address(x), added, address(out), address(memory), address(arguments)
    call(arguments[0].loops, (start, stop, step, block, *arrays))


@machine_function(
    lambda: "winograd-loops",
    *("start", "stop", "step", "block", "x", "residual", "out", "memory", "arguments"),
)
def loops_address(builder: Any, v: Any) -> None:
    """Emit the loops of `convolve_winograd`, which take addresses."""
    write = _Loops(builder, v)
    with counted(builder, v.start, v.stop) as worker:
        own = v.memory + write.g.shared_bytes + worker * write.g.worker_bytes
        weights = v.step.compare("==", WEIGHTS)
        with builder.if_else(weights) as (then, otherwise):
            with then:
                write.transform_weights(worker, own)
            with otherwise:
                write.convolve(worker, own)


class _Block(NamedTuple):
    """Rows of tiles of one group, counted through all images, and columns of tiles."""

    group: Integer
    row: Integer
    end_row: Integer
    column: Integer
    columns: Integer


class _Range(NamedTuple):
    """A range of channels, or of tiles of output channels."""

    first: Integer
    end: Integer


class _Loops:
    """Emits the loops; `v` are the arguments, `a` and `g` the records that they point to."""

    def __init__(self, builder: Any, v: Any) -> None:
        self.builder, self.v = builder, v
        self.a = Record(builder, v.arguments, ARGUMENTS)
        self.g = Record(builder, self.a.layer, LAYOUT)
        self.size, self.tile_size = self.g.itemsize, self.g.products * self.g.weight_step

    def _share(self, worker: Integer, items: Integer) -> _Range:
        """Return a worker's range of the items."""
        workers = self.g.workers
        return _Range(worker * items // workers, (worker + 1) * items // workers)

    def _block(self, number: Integer) -> _Block:
        builder, g = self.builder, self.g
        many = g.row_blocks * g.column_blocks
        group, rest = number // many, number % many
        i, j = rest // g.column_blocks, rest % g.column_blocks
        row, end_row = (integer_at(builder, g.starts, i + n) for n in (0, 1))
        column, end_column = (
            integer_at(builder, g.starts, g.row_blocks + 1 + j + n) for n in (0, 1)
        )
        return _Block(group, row, end_row, column, end_column - column)

    @contextmanager
    def _rows(self, block: _Block) -> Iterator[tuple[Integer, Integer, Integer, Integer]]:
        """Emit a loop over the images of a block.

        It yields the image, its first row of tiles, their number, and the index of the first tile
        within the block.
        """
        height = self.g.tile_rows
        last = (block.end_row - 1) // height
        with counted(self.builder, block.row // height, last + 1) as image:
            begin = (image * height).at_least(block.row)
            row = begin - image * height
            rows = (block.end_row - begin).at_most(height - row)
            yield image, row, rows, (begin - block.row) * block.columns

    def transform_weights(self, worker: Integer, own: Integer) -> None:
        """Transform a worker's share of all weights."""
        g = self.g
        chunks, filter_tiles = g.chunks, g.filter_tiles
        first, end = self._share(worker, g.groups * filter_tiles * chunks)
        with counted(self.builder, first, end) as item:
            number, c = item // chunks, item % chunks * g.chunk
            target = self.v.out + (number * self.tile_size + c * g.tile_filters) * self.size
            channels = (g.C_per_group - c).at_most(g.chunk)
            some = number // filter_tiles, number % filter_tiles, c, channels
            self._transform_tile(own, target, *some)

    def _transform_tile(self, own: Integer, target: Integer, *some: Integer) -> None:
        """Transform weights; `some` is (group, filter tile, first channel, number of channels)."""
        buffer = own + self.g.packed_begin
        call_at(self.builder, self.a.weights, self.v.arguments, buffer, target, *some)

    def convolve(self, worker: Integer, own: Integer) -> None:
        """Transform the input, multiply, or both, for a worker's share of the work."""
        builder, v, g = self.builder, self.v, self.g
        shared = g.shared.compare("!=", 0)

        def share(items: Integer) -> _Range:
            first, end = self._share(worker, items)
            return _Range(first.choose(shared, first, 0), end.choose(shared, end, items))

        first, end = self._share(worker, g.blocks)
        first, end = first.choose(shared, v.block, first), end.choose(shared, v.block + 1, end)
        channels, tiles = share(g.C_per_group), share(g.filter_tiles)
        transformed = own.choose(shared, v.memory, own + g.inputs_begin)
        with counted(builder, first, end) as number:
            block = self._block(number)
            with builder.if_then(v.step.compare("!=", MULTIPLY)):
                self._transform_input(block, channels, own, transformed)
            with builder.if_then(v.step.compare("!=", TRANSFORM)):
                self._multiply(block, tiles, own, transformed)

    def _transform_input(
        self, block: _Block, channels: _Range, own: Integer, transformed: Integer
    ) -> None:
        g, size = self.g, self.size
        with (
            counted(self.builder, *channels) as c,
            self._rows(block) as (image, row, rows, tile),
        ):
            plane = image * g.C + block.group * g.C_per_group + c
            source = self.v.x + plane * g.H * g.W * size
            target = transformed + (c * g.pitch + tile) * size
            tiles = row, block.column, rows, block.columns
            call_at(self.builder, self.a.inputs, source, own, target, *tiles, self.a.layer)

    def _multiply(self, block: _Block, tiles: _Range, own: Integer, transformed: Integer) -> None:
        """Compute a block for a range of filter tiles."""
        builder, g = self.builder, self.g
        fresh = g.fresh.compare("!=", 0)
        channels = g.C_per_group
        at_once = g.chunk.choose(fresh, g.chunk, channels)
        with counted(builder, *tiles, g.pass_tiles) as first:
            some = _Range(first, (first + g.pass_tiles).at_most(tiles.end))
            with counted(builder, 0, channels, at_once) as c:
                part = _Range(c, (c + at_once).at_most(channels))
                tile = block.group * g.filter_tiles + first
                prepared = self.a.weight + tile * self.tile_size * self.size
                own_weights = own + g.weights_begin
                weights = prepared.choose(fresh, own_weights, prepared)
                with builder.if_then(fresh), counted(builder, *some) as t:
                    target = own_weights + (t - first) * self.tile_size * self.size
                    self._transform_tile(own, target, block.group, t, c, part.end - c)
                self._products(block, some, part, own, (transformed, weights))
            self._write_outputs(block, some, own)

    def _products(
        self,
        block: _Block,
        some: _Range,
        channels: _Range,
        own: Integer,
        factors: tuple[Integer, Integer],
    ) -> None:
        """Multiply transformed tiles by transformed weights, one matrix product per element.

        The products of later input channels are added to those of earlier ones.
        """
        builder, a, g, size = self.builder, self.a, self.g, self.size
        tiles, (transformed, weights) = (block.end_row - block.row) * block.columns, factors
        with counted(builder, 0, g.products) as p, counted(builder, *some) as t:
            source = transformed + (p * g.in_stride + channels.first * g.pitch) * size
            number = t - some.first
            weight = weights + (number * self.tile_size + p * g.weight_step) * size
            target = p * g.product_stride + number * g.tile_filters * g.pitch
            target = own + g.products_begin + target * size
            filters = (g.K_per_group - t * g.tile_filters).at_most(g.tile_filters)
            with counted(builder, 0, tiles, g.tile_columns) as j:
                # Tiles may overlap only where products are not added to earlier ones.
                inside = j.at_most(tiles - g.tile_columns).at_least(0)
                j = j.choose(g.fresh.compare("!=", 0), j, inside)
                out = target + j * size
                before = out.choose(channels.first.compare("!=", 0), out, 0)
                arrays = source + j * size, g.offsets, weight, a.plain + size * 4, before, out
                counts = channels.end - channels.first, g.run, 0, filters, tiles - j, 0
                call_at(builder, a.microkernel, *arrays, a.plain, a.layer, *counts)

    def _write_outputs(self, block: _Block, some: _Range, own: Integer) -> None:
        """Transform the products of some filter tiles to outputs, and store them."""
        builder, v, g, size = self.builder, self.v, self.g, self.size
        begin = some.first * g.tile_filters
        end = (some.end * g.tile_filters).at_most(g.K_per_group)
        with counted(builder, begin, end) as k, self._rows(block) as (image, row, rows, tile):
            channel = block.group * g.K_per_group + k
            first = (image * g.K + channel) * g.OH * g.OW
            first = (first + (row * g.OW + block.column) * g.out_m) * size
            products = own + g.products_begin + ((k - begin) * g.pitch + tile) * size
            added = v.residual.choose(v.residual.compare("!=", 0), v.residual + first, 0)
            images = products, own + g.gather_begin, v.out + first, added
            tiles = channel, row, block.column, rows, block.columns
            call_at(builder, self.a.outputs, *images, *tiles, v.arguments)
