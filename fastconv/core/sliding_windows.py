"""Read-only stride-trick views: every window of an image at once, without copying a byte."""

from __future__ import annotations

from typing import Any

from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray


def windows_view(
    x: NDArray[Any],
    outputs: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> NDArray[Any]:
    """Return a view (N, C, OH, OW, R, S) of `x` (N, C, H, W): window (i, j), tap (r, s).

    Moving one window down is `stride` rows, moving one tap down is `dilation` rows: both are
    only strides in memory. The caller guarantees that the windows fit.
    """
    step_n, step_c, step_h, step_w = x.strides
    strides = (
        *(step_n, step_c),
        *(step_h * stride[0], step_w * stride[1]),
        *(step_h * dilation[0], step_w * dilation[1]),
    )
    return as_strided(x, (*x.shape[:2], *outputs, *kernel), strides, writeable=False)
