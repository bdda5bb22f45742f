"""What `fastconv` offers, for type checkers.

An array of float16, float32 or float64 keeps its type where all arrays of a call have it. Mixed
types, lists and other array-likes give ``NDArray[Any]``: NumPy's promotion decides then.
"""

from collections.abc import Collection, Sequence
from typing import Any, Generic, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import TypeVar  # type checkers have it; nothing imports it at run time

from fastconv import data as data
from fastconv import nn as nn
from fastconv import onnx as onnx
from fastconv import plots as plots
from fastconv.api.adaptive_pool2d import OutputSize
from fastconv.api.conv2d_backward import Gradient
from fastconv.core.activation import Activation, ActivationLike
from fastconv.core.conv_problem import Conv2dProblem as Conv2dProblem
from fastconv.core.conv_problem import Direction
from fastconv.core.geometry import IntPair, Padding, PixelPadding
from fastconv.core.pool_axis import Indices
from fastconv.core.pool_problem import Pool2dProblem as Pool2dProblem
from fastconv.core.precision import at_precision as at_precision
from fastconv.core.precision import get_precision as get_precision
from fastconv.core.precision import set_precision as set_precision
from fastconv.estimator.classifier import CNNClassifier as CNNClassifier
from fastconv.pooling.pool_registry import PoolAlgorithmName
from fastconv.runtime.threads import get_num_threads as get_num_threads
from fastconv.runtime.threads import set_num_threads as set_num_threads
from fastconv.select.conv_registry import ForwardAlgorithm, InputGradAlgorithm, WeightGradAlgorithm
from fastconv.select.tuning import set_tuning as set_tuning

__version__: str

# What arrays are of: floating point; what plans compute in; anything that has a maximum.
F = TypeVar("F", np.float16, np.float32, np.float64)
C = TypeVar("C", np.float32, np.float64)
T = TypeVar("T", bound=np.generic)
# The dtype of a plan.
P = TypeVar("P", bound=np.floating[Any], default=Any)
# What gradients are: arrays, or None where they may be missing.
G = TypeVar("G", bound=NDArray[Any] | None, default=NDArray[Any] | None)

# fmt: off

# Convolution -----------------------------------------------------------------------------------

@overload
def conv2d(
    x: NDArray[F], weight: NDArray[F], bias: NDArray[F] | None = None, stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    activation: ActivationLike = None, algorithm: ForwardAlgorithm = "auto",
) -> NDArray[F]: ...
@overload
def conv2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    activation: ActivationLike = None, algorithm: ForwardAlgorithm = "auto",
) -> NDArray[Any]: ...

class Conv2dPlan(Generic[P]):
    problem: Conv2dProblem
    activation: Activation
    max_pool: int | None
    @property
    def algorithm(self) -> str: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    @property
    def workspace_bytes(self) -> int: ...
    def explain(self) -> str: ...
    def __call__(
        self, x: ArrayLike, out: NDArray[P] | None = None, residual: ArrayLike | None = None
    ) -> NDArray[P]: ...

@overload
def plan_conv2d(
    input_shape: tuple[int, ...], weight: NDArray[C], bias: NDArray[C] | None = None,
    stride: IntPair = 1, padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    activation: ActivationLike = None, max_pool: Literal[2] | None = None,
    algorithm: ForwardAlgorithm = "auto",
) -> Conv2dPlan[C]: ...
@overload
def plan_conv2d(
    input_shape: tuple[int, ...], weight: ArrayLike, bias: ArrayLike | None = None,
    stride: IntPair = 1, padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    activation: ActivationLike = None, max_pool: Literal[2] | None = None,
    algorithm: ForwardAlgorithm = "auto",
) -> Conv2dPlan[Any]: ...

@overload
def conv2d_input_grad(
    input_shape: tuple[int, ...], weight: NDArray[F], grad_output: NDArray[F], stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    algorithm: InputGradAlgorithm = "auto",
) -> NDArray[F]: ...
@overload
def conv2d_input_grad(
    input_shape: tuple[int, ...], weight: ArrayLike, grad_output: ArrayLike, stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    algorithm: InputGradAlgorithm = "auto",
) -> NDArray[Any]: ...

@overload
def conv2d_weight_grad(
    x: NDArray[F], weight_shape: tuple[int, ...], grad_output: NDArray[F],
    stride: IntPair = 1, padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    algorithm: WeightGradAlgorithm = "auto",
) -> NDArray[F]: ...
@overload
def conv2d_weight_grad(
    x: ArrayLike, weight_shape: tuple[int, ...], grad_output: ArrayLike,
    stride: IntPair = 1, padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    algorithm: WeightGradAlgorithm = "auto",
) -> NDArray[Any]: ...

class Conv2dGradients(NamedTuple, Generic[G]):
    input: G
    weight: G
    bias: G

@overload
def conv2d_backward(
    x: NDArray[F], weight: NDArray[F], grad_output: NDArray[F], stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    relu_output: ArrayLike | None = None,
    algorithm: InputGradAlgorithm | WeightGradAlgorithm = "auto",
) -> Conv2dGradients[NDArray[F]]: ...
@overload
def conv2d_backward(
    x: NDArray[F], weight: NDArray[F], grad_output: NDArray[F], stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    need: Collection[Gradient], relu_output: ArrayLike | None = None,
    algorithm: InputGradAlgorithm | WeightGradAlgorithm = "auto",
) -> Conv2dGradients[NDArray[F] | None]: ...
@overload
def conv2d_backward(
    x: ArrayLike, weight: ArrayLike, grad_output: ArrayLike, stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    relu_output: ArrayLike | None = None,
    algorithm: InputGradAlgorithm | WeightGradAlgorithm = "auto",
) -> Conv2dGradients[NDArray[Any]]: ...
@overload
def conv2d_backward(
    x: ArrayLike, weight: ArrayLike, grad_output: ArrayLike, stride: IntPair = 1,
    padding: Padding = 0, dilation: IntPair = 1, groups: int = 1, *,
    need: Collection[Gradient], relu_output: ArrayLike | None = None,
    algorithm: InputGradAlgorithm | WeightGradAlgorithm = "auto",
) -> Conv2dGradients[NDArray[Any] | None]: ...

@overload
def conv_transpose2d(
    x: NDArray[F], weight: NDArray[F], bias: NDArray[F] | None = None, stride: IntPair = 1,
    padding: PixelPadding | Literal["valid"] = 0, output_padding: IntPair = 0, groups: int = 1,
    dilation: IntPair = 1, *, output_size: Sequence[int] | None = None,
) -> NDArray[F]: ...
@overload
def conv_transpose2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: IntPair = 1,
    padding: PixelPadding | Literal["valid"] = 0, output_padding: IntPair = 0, groups: int = 1,
    dilation: IntPair = 1, *, output_size: Sequence[int] | None = None,
) -> NDArray[Any]: ...

@overload
def algorithms(direction: Literal["forward"] = "forward") -> tuple[ForwardAlgorithm, ...]: ...
@overload
def algorithms(direction: Literal["input_grad"]) -> tuple[InputGradAlgorithm, ...]: ...
@overload
def algorithms(direction: Literal["weight_grad"]) -> tuple[WeightGradAlgorithm, ...]: ...
@overload
def algorithms(direction: Direction) -> tuple[str, ...]: ...

# Windows as columns ----------------------------------------------------------------------------

@overload
def sliding_windows(
    x: NDArray[T], kernel_size: IntPair, dilation: IntPair = 1, stride: IntPair = 1
) -> NDArray[T]: ...
@overload
def sliding_windows(
    x: ArrayLike, kernel_size: IntPair, dilation: IntPair = 1, stride: IntPair = 1
) -> NDArray[Any]: ...

@overload
def im2col(
    x: NDArray[F], kernel_size: IntPair, dilation: IntPair = 1, padding: Padding = 0,
    stride: IntPair = 1,
) -> NDArray[F]: ...
@overload
def im2col(
    x: ArrayLike, kernel_size: IntPair, dilation: IntPair = 1, padding: Padding = 0,
    stride: IntPair = 1,
) -> NDArray[Any]: ...

@overload
def col2im(
    cols: NDArray[F], output_size: tuple[int, int], kernel_size: IntPair, dilation: IntPair = 1,
    padding: Padding = 0, stride: IntPair = 1,
) -> NDArray[F]: ...
@overload
def col2im(
    cols: ArrayLike, output_size: tuple[int, int], kernel_size: IntPair, dilation: IntPair = 1,
    padding: Padding = 0, stride: IntPair = 1,
) -> NDArray[Any]: ...

# Pooling ---------------------------------------------------------------------------------------

@overload
def max_pool2d(
    x: NDArray[T], kernel_size: IntPair, stride: IntPair | None = None, padding: Padding = 0,
    dilation: IntPair = 1, ceil_mode: bool = False, return_indices: Literal[False] = False, *,
    wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[T]: ...
@overload
def max_pool2d(
    x: NDArray[T], kernel_size: IntPair, stride: IntPair | None = None, padding: Padding = 0,
    dilation: IntPair = 1, ceil_mode: bool = False, *, return_indices: Literal[True],
    wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> tuple[NDArray[T], Indices]: ...
@overload
def max_pool2d(
    x: ArrayLike, kernel_size: IntPair, stride: IntPair | None = None, padding: Padding = 0,
    dilation: IntPair = 1, ceil_mode: bool = False, return_indices: Literal[False] = False, *,
    wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[Any]: ...
@overload
def max_pool2d(
    x: ArrayLike, kernel_size: IntPair, stride: IntPair | None = None, padding: Padding = 0,
    dilation: IntPair = 1, ceil_mode: bool = False, *, return_indices: Literal[True],
    wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> tuple[NDArray[Any], Indices]: ...

@overload
def max_pool2d_grad(
    grad_output: NDArray[F], indices: ArrayLike, input_shape: tuple[int, ...], *,
    wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[F]: ...
@overload
def max_pool2d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_shape: tuple[int, ...], *,
    wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[Any]: ...

@overload
def avg_pool2d(
    x: NDArray[F], kernel_size: IntPair, stride: IntPair | None = None, padding: Padding = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    *, dilation: IntPair = 1, wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[F]: ...
@overload
def avg_pool2d(
    x: ArrayLike, kernel_size: IntPair, stride: IntPair | None = None, padding: Padding = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    *, dilation: IntPair = 1, wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[Any]: ...

@overload
def avg_pool2d_grad(
    grad_output: NDArray[F], input_shape: tuple[int, ...], kernel_size: IntPair,
    stride: IntPair | None = None, padding: Padding = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *,
    dilation: IntPair = 1, wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[F]: ...
@overload
def avg_pool2d_grad(
    grad_output: ArrayLike, input_shape: tuple[int, ...], kernel_size: IntPair,
    stride: IntPair | None = None, padding: Padding = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, *,
    dilation: IntPair = 1, wide_padding: bool = False, algorithm: PoolAlgorithmName = "auto",
) -> NDArray[Any]: ...

@overload
def adaptive_avg_pool2d(
    x: NDArray[F], output_size: OutputSize, *, algorithm: PoolAlgorithmName = "auto"
) -> NDArray[F]: ...
@overload
def adaptive_avg_pool2d(
    x: ArrayLike, output_size: OutputSize, *, algorithm: PoolAlgorithmName = "auto"
) -> NDArray[Any]: ...

@overload
def adaptive_avg_pool2d_grad(
    grad_output: NDArray[F], input_shape: tuple[int, ...], *,
    algorithm: PoolAlgorithmName = "auto",
) -> NDArray[F]: ...
@overload
def adaptive_avg_pool2d_grad(
    grad_output: ArrayLike, input_shape: tuple[int, ...], *,
    algorithm: PoolAlgorithmName = "auto",
) -> NDArray[Any]: ...

@overload
def adaptive_max_pool2d(
    x: NDArray[T], output_size: OutputSize, return_indices: Literal[False] = False, *,
    algorithm: PoolAlgorithmName = "auto",
) -> NDArray[T]: ...
@overload
def adaptive_max_pool2d(
    x: NDArray[T], output_size: OutputSize, return_indices: Literal[True], *,
    algorithm: PoolAlgorithmName = "auto",
) -> tuple[NDArray[T], Indices]: ...
@overload
def adaptive_max_pool2d(
    x: ArrayLike, output_size: OutputSize, return_indices: Literal[False] = False, *,
    algorithm: PoolAlgorithmName = "auto",
) -> NDArray[Any]: ...
@overload
def adaptive_max_pool2d(
    x: ArrayLike, output_size: OutputSize, return_indices: Literal[True], *,
    algorithm: PoolAlgorithmName = "auto",
) -> tuple[NDArray[Any], Indices]: ...

@overload
def max_unpool2d(
    x: NDArray[T], indices: ArrayLike, kernel_size: IntPair, stride: IntPair | None = None,
    padding: PixelPadding = 0, output_size: tuple[int, ...] | None = None,
) -> NDArray[T]: ...
@overload
def max_unpool2d(
    x: ArrayLike, indices: ArrayLike, kernel_size: IntPair, stride: IntPair | None = None,
    padding: PixelPadding = 0, output_size: tuple[int, ...] | None = None,
) -> NDArray[Any]: ...

@overload
def max_unpool2d_grad(grad_output: NDArray[T], indices: ArrayLike) -> NDArray[T]: ...
@overload
def max_unpool2d_grad(grad_output: ArrayLike, indices: ArrayLike) -> NDArray[Any]: ...

def pool_algorithms() -> tuple[PoolAlgorithmName, ...]: ...
