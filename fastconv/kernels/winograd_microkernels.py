"""The Winograd transforms as machine code: of one channel of a block of tiles."""

from __future__ import annotations

from typing import Any

from fastconv.codegen import conv_microkernel
from fastconv.codegen.integers import Record, call_at, counted
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.winograd_transforms import (
    Form,
    RowScatter,
    Transforms,
    interleave_row,
    store_activated_row,
    store_row,
)
from fastconv.codegen.winograd_weight_grad_transforms import WeightGradTransforms
from fastconv.core.records import record_type

#: The parameters of a partition; microkernels read the first few. OH, OW and `out_m` are the sizes
#: of the stored output, after pooling if it is pooled. `offsets` is the address of the offset of
#: each channel in the transformed input, `starts` that of the bounds of the blocks: rows of tiles,
#: counted through all images, then columns.
LAYOUT = record_type(
    *conv_microkernel.LAYER,
    *("itemsize", "groups", "C", "K", "H", "W", "OH", "OW", "C_per_group", "K_per_group"),
    *("m", "out_m", "products", "chunk", "chunks", "pad_top", "pad_left", "tile_rows"),
    *("row_blocks", "column_blocks", "blocks", "workers", "shared", "fresh"),
    *("tile_filters", "tile_columns", "filter_tiles", "pass_tiles"),
    *("pitch", "scatter_plane", "gather_plane", "in_stride", "product_stride", "weight_step"),
    *("shared_bytes", "worker_bytes", "gather_begin", "products_begin", "inputs_begin"),
    *("packed_begin", "weights_begin", "offsets", "starts"),
)

#: The arguments that are the same for every input. Addresses of machine code: the loops, the three
#: transforms, the microkernel, and the weight packer (and whether it rotates). Addresses of arrays:
#: the record of the partition; the transformed weights, (groups, filter tiles, products, channels,
#: filters of a tile) with product stride `weight_step`, or weights that are still to be
#: transformed; the offset of each tap in packed weights; the bias, (K,); the activation's
#: parameters; and `plain`, the parameters of no activation, followed by zeros, the bias of the
#: products.
ARGUMENTS = record_type(
    *("loops", "inputs", "weights", "outputs", "microkernel", "pack", "rotated"),
    *("layer", "weight", "tap_offsets", "bias", "numbers", "plain", "form"),
)


@machine_function(
    lambda form: f"winograd-inputs-{form.name}",
    *("source", "buffer", "target", "row", "column", "rows", "columns", "layer"),
)
def inputs_address(builder: Any, v: Any, form: Form) -> None:
    """Emit the transforms of rows of tiles of one channel.

    The arguments: addresses of the channel, of a buffer, and of the result's first element; the
    first row and column of tiles, and their numbers; the address of the `LAYOUT` record.
    """
    m, size, write = form.m, form.bits // 8, Transforms(builder, form)
    g = Record(builder, v.layer, LAYOUT)
    plane, height, row_size = g.scatter_plane, g.H, g.W * size
    top, left = v.row * m - g.pad_top, v.column * m - g.pad_left
    with counted(builder, 0, v.rows * m + (form.r - 1)) as u:
        h = top + u
        inside = builder.and_(h.compare(">=", 0), h.compare("<", height))
        width = h.choose(inside, g.W, 0)
        target = v.buffer + (u % m * form.alpha * plane + u // m * v.columns) * size
        scatter = RowScatter(write, target, v.source + h * row_size, width, plane)
        scatter.emit(left, v.columns)
    stride = g.in_stride
    with counted(builder, 0, v.rows * v.columns, form.lanes) as t:
        write.inputs(v.buffer + t * size, v.target + t * size, plane, v.columns, stride)


@machine_function(
    lambda form, pooled: f"winograd-{'pooled' if pooled else 'outputs'}-{form.name}",
    *("source", "buffer", "out", "residual", "channel"),
    *("row", "column", "rows", "columns", "arguments"),
)
def outputs_address(builder: Any, v: Any, form: Form, pooled: bool) -> None:
    """Emit the computation of rows of one output channel.

    The arguments: addresses of the products, of a buffer, of the output's first element, and of the
    residual's or 0; the channel; the first row and column of tiles, and their numbers; the address
    of the `ARGUMENTS` record. If `pooled`, it stores maxima over 2 x 2 windows, without a residual.
    """
    m, size = form.m // 2 if pooled else form.m, form.bits // 8
    write, a = Transforms(builder, form), Record(builder, v.arguments, ARGUMENTS)
    g = Record(builder, a.layer, LAYOUT)
    plane, stride, row_size = g.gather_plane, g.product_stride, g.OW * size
    bias, activation = a.bias + v.channel * size, (a.numbers, a.form)
    width = (v.columns * m).at_most(g.OW - v.column * m)
    with counted(builder, 0, v.rows * v.columns, form.lanes) as t:
        of, to = v.source + t * size, v.buffer + t * size
        if pooled:
            write.maxima(of, to, bias, activation, plane, stride)
        else:
            write.outputs(of, to, bias, plane, stride)
    with counted(builder, 0, (v.rows * m).at_most(g.OH - v.row * m)) as u:
        of = v.buffer + (u % m * m * plane + u // m * v.columns) * size
        out, added = v.out + u * row_size, v.residual + u * row_size
        added = added.choose(v.residual.compare("!=", 0), added, 0)
        keep = store_row(write.vector, out)
        if not pooled:
            keep = store_activated_row(write.vector, out, added, *activation)
        interleave_row(write.vector, of, plane, v.columns, width, m, keep)


@machine_function(
    lambda form: f"winograd-weights-{form.name}",
    *("arguments", "buffer", "target", "group", "tile", "first", "channels"),
)
def weights_address(builder: Any, v: Any, form: Form) -> None:
    """Emit the packing and the transform of weights.

    The arguments: addresses of the `ARGUMENTS` record, of a buffer, and of the first result; the
    group, the filter tile within it, the first input channel, and the number of input channels.
    """
    size, taps, write = form.bits // 8, form.r**2, Transforms(builder, form)
    a = Record(builder, v.arguments, ARGUMENTS)
    g = Record(builder, a.layer, LAYOUT)
    C, K, wide = g.C_per_group, g.K_per_group, g.tile_filters
    rotated = a.rotated.compare("!=", 0)
    begin = v.group * K * C + v.first.choose(rotated, v.first * K, v.first)
    source = a.weight + begin * taps * size
    some = v.tile, v.tile + 1, source, v.buffer, a.tap_offsets, v.tile + 1
    with builder.if_else(rotated) as (then, otherwise):
        with then:
            call_at(builder, a.pack, *some, K, v.channels, taps, 0, 1, wide)
        with otherwise:
            call_at(builder, a.pack, *some, K, C * taps, v.channels * taps, wide)
    count, plane, stride = v.channels * wide, g.chunk * wide, g.weight_step
    with counted(builder, 0, count, form.lanes) as t:
        write.weights(v.buffer + t * size, v.target + t * size, plane, stride, count - t)


# Weight gradients ---------------------------------------------------------------------------


@machine_function(
    lambda form, grads: f"winograd-{'grads' if grads else 'pixels'}-{form.name}",
    *("source", "target", "row", "rows", "columns", "tile", "stride"),
)
def pixels_address(builder: Any, v: Any, form: Form, grads: bool) -> None:
    """Emit the transforms of tiles of a vector of channels.

    The tiles are the inputs of F(m, r), or with `grads` its weights, which are output gradients;
    the tile stride is r pixels. The arguments: addresses of the first pixel and of the result's
    first element; the row stride of the pixels; rows and columns of tiles; the strides of tiles and
    of elements of a tile in the result.
    """
    r, size, write = form.r, form.bits // 8, WeightGradTransforms(builder, form)
    with counted(builder, 0, v.rows) as i, counted(builder, 0, v.columns) as j:
        source = v.source + (i * r * v.row + j * (r * form.lanes)) * size
        target = v.target + (i * v.columns + j) * v.tile * size
        write.pixels(source, target, v.row, v.stride, grads)


@machine_function(
    lambda form: f"winograd-sums-{form.name}",
    *("source", "target", "vectors", "stride", "plane", "first"),
)
def sums_address(builder: Any, v: Any, form: Form) -> None:
    """Emit the transforms of sums of products to gradients.

    The arguments: addresses of the sums' first element and of the gradient's; the number of
    vectors; the strides of products and of taps in elements; whether this is the first band, which
    writes the gradient instead of adding to it.
    """
    write = WeightGradTransforms(builder, form)
    with counted(builder, 0, v.vectors) as number:
        offset = number * (form.lanes * form.bits // 8)
        write.sums(v.source + offset, v.target + offset, v.stride, v.plane, v.first)
