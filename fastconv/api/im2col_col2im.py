"""im2col and col2im, as a user calls them: what im2col convolution is built on, on its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.convolution.blocking.partition import Block
from fastconv.convolution.im2col_jit import CompiledLowering
from fastconv.core.arguments import (
    Array,
    as_batch,
    as_computed,
    as_returned,
    check_shape,
    result_dtypes,
)
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import IntPair, Padding, as_ints, as_pair, require_tensor
from fastconv.core.sliding_windows import windows_view
from fastconv.runtime.threads import run_tasks

_lowering = CompiledLowering()


def sliding_windows(
    x: ArrayLike, kernel_size: IntPair, dilation: IntPair = 1, stride: IntPair = 1
) -> Array:
    """Return every window of `x` as a read-only view, without copying.

    Parameters
    ----------
    x : array-like, (N, C, H, W) or (C, H, W)
    kernel_size, dilation, stride : int or (int, int)

    Returns
    -------
    ndarray, (N, C, OH, OW, R, S), of one image (C, OH, OW, R, S)
        A view into `x` where `x` is an array: ``result[n, c, i, j]`` is the window of output
        (i, j). It costs no memory, because moving one window on is only a stride.

    Raises
    ------
    TypeError, ValueError
        Also where the kernel is larger than the image.

    Examples
    --------
    >>> import numpy as np
    >>> sliding_windows(np.arange(9).reshape(1, 1, 3, 3), 2)[0, 0, 1, 1]
    array([[4, 5],
           [7, 8]])
    """
    array, single = as_batch("x", x)
    kernel = as_pair("kernel_size", kernel_size, 1)
    step, gap = as_pair("stride", stride, 1), as_pair("dilation", dilation, 1)
    problem = _window_problem(array.shape, kernel, gap, ((0, 0), (0, 0)), step)
    windows = windows_view(array, (problem.OH, problem.OW), kernel, step, gap)
    return windows[0] if single else windows


def im2col(
    x: ArrayLike,
    kernel_size: IntPair,
    dilation: IntPair = 1,
    padding: Padding = 0,
    stride: IntPair = 1,
) -> Array:
    """Return the patches of `x` as the columns of a matrix (PyTorch's unfold).

    Parameters
    ----------
    x : array-like, (N, C, H, W) or (C, H, W)
    kernel_size, dilation, stride : int or (int, int)
    padding : as in `conv2d`

    Returns
    -------
    ndarray, (N, C * R * S, OH * OW), of one image (C * R * S, OH * OW)
        Column i * OW + j is the patch under output (i, j), channel by channel, row by row.

    Raises
    ------
    TypeError, ValueError
        Also where the kernel is larger than the padded image.

    Examples
    --------
    >>> import numpy as np
    >>> im2col(np.arange(9.0).reshape(1, 1, 3, 3), 2)[0]
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    array, single = as_batch("x", x)
    dtype, returned = result_dtypes(array)
    kernel = as_pair("kernel_size", kernel_size, 1)
    problem = _window_problem(array.shape, kernel, dilation, padding, stride, dtype)
    cols = np.empty(problem.column_shape, dtype)
    ready = as_computed(array, dtype)
    run_tasks(
        lambda n: _lowering.im2col(problem, ready, _image(problem, n), 0, cols[n]), range(problem.N)
    )
    return as_returned(cols, returned, single)


def col2im(
    cols: ArrayLike,
    output_size: tuple[int, int],
    kernel_size: IntPair,
    dilation: IntPair = 1,
    padding: Padding = 0,
    stride: IntPair = 1,
) -> Array:
    """Add the columns of a matrix back onto an image, the adjoint of `im2col` (PyTorch's fold).

    Parameters
    ----------
    cols : array-like, (N, C * R * S, OH * OW), of one image (C * R * S, OH * OW)
    output_size : (int, int)
        Height and width of the image.
    kernel_size, dilation, padding, stride
        As in `im2col`.

    Returns
    -------
    ndarray, (N, C, H, W), of one image (C, H, W)
        Where patches overlap their values are summed: ``col2im(im2col(x))`` is x times the
        number of windows that cover each pixel.

    Raises
    ------
    TypeError, ValueError
        Also where `cols` does not fit the other arguments.

    Examples
    --------
    >>> import numpy as np
    >>> col2im(np.ones((1, 4, 4)), (3, 3), 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    array, single = as_batch("cols", cols, ("N", "C * R * S", "OH * OW"))
    dtype, returned = result_dtypes(array)
    H, W = as_ints("output_size", output_size, 2, 1)
    R, S = as_pair("kernel_size", kernel_size, 1)
    N, rows, _ = array.shape
    if rows % (R * S) or rows == 0:
        raise ValueError(
            f"cols must have C * R * S rows, a multiple of {R * S} for kernel_size {(R, S)}, "
            f"got shape {array.shape[single:]}"
        )
    shape = (N, rows // (R * S), H, W)
    require_tensor(f"output_size {(H, W)}", shape)
    problem = _window_problem(shape, (R, S), dilation, padding, stride, dtype)
    meaning = "C * R * S, OH * OW" if single else "N, C * R * S, OH * OW"
    check_shape("cols", array, problem.column_shape, meaning, single)
    out = np.zeros(problem.input_shape, dtype)
    ready = as_computed(array, dtype)
    run_tasks(
        lambda n: _lowering.col2im(problem, ready[n], _image(problem, n), 0, out),
        range(problem.N),
    )
    return as_returned(out, returned, single)


def _window_problem(
    input_shape: tuple[int, ...],
    kernel: tuple[int, int],
    dilation: IntPair,
    padding: Padding,
    stride: IntPair,
    dtype: str = "float64",
) -> Conv2dProblem:
    """Return the convolution by one filter over all channels: it has the windows in question."""
    weight_shape = (1, input_shape[1], *kernel)
    problem = Conv2dProblem.from_shapes(
        input_shape, weight_shape, stride, padding, dilation, 1, dtype, names=("x", "kernel_size")
    )
    require_tensor(f"kernel_size {kernel}", problem.column_shape)
    return problem


def _image(problem: Conv2dProblem, n: int) -> Block:
    return Block((n, n + 1), (0, problem.OH), (0, problem.OW))
