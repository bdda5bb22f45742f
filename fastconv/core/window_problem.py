"""What convolution and pooling have in common: windows that slide over images."""

from __future__ import annotations

import numpy as np

from fastconv.core.cached import cached_property
from fastconv.core.geometry import PaddingPairs, output_size

Shape4 = tuple[int, int, int, int]


class WindowProblem:
    """The sizes that follow from an input, a kernel and how it slides; see `Conv2dProblem`."""

    N: int
    C: int
    H: int
    W: int
    R: int
    S: int
    stride: tuple[int, int]
    padding: PaddingPairs
    dilation: tuple[int, int]
    dtype: str

    @property
    def _ceil_mode(self) -> bool:
        return False

    @property
    def output_shape(self) -> Shape4:
        """Shape of the output."""
        raise NotImplementedError

    @cached_property
    def OH(self) -> int:
        """Output height."""
        return output_size(
            self.H, self.R, self.stride[0], self.dilation[0], self.padding[0], self._ceil_mode
        )

    @cached_property
    def OW(self) -> int:
        """Output width."""
        return output_size(
            self.W, self.S, self.stride[1], self.dilation[1], self.padding[1], self._ceil_mode
        )

    @property
    def input_shape(self) -> Shape4:
        """(N, C, H, W)."""
        return self.N, self.C, self.H, self.W

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize

    @property
    def input_bytes(self) -> int:
        """Bytes of the input."""
        return self.N * self.C * self.H * self.W * self.itemsize

    @property
    def output_bytes(self) -> int:
        """Bytes of the output."""
        N, K, OH, OW = self.output_shape
        return N * K * OH * OW * self.itemsize
