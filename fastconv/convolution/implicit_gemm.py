"""Register tiles vectorized over output channels: any stride, any map."""

from __future__ import annotations

from fastconv.convolution.algorithm import Algorithm
from fastconv.convolution.input_grad.input_grad_by_phases import InputGradByPhases
from fastconv.convolution.register_tiles import TiledForward
from fastconv.convolution.weight_grad.implicit_gemm_weight_grad import ImplicitGemmWeightGrad

_forward = TiledForward("channels")

#: Pixels are read in place and broadcast.
IMPLICIT_GEMM = Algorithm(
    "implicit_gemm", _forward, InputGradByPhases(_forward), ImplicitGemmWeightGrad()
)
