"""Register tiles vectorized over output width: for large maps, few taps, few output channels."""

from __future__ import annotations

from fastconv.convolution.algorithm import Algorithm, Array, Gradient
from fastconv.convolution.input_grad.input_grad_by_phases import InputGradByPhases
from fastconv.convolution.register_tiles import TiledForward
from fastconv.convolution.weight_grad.direct_1x1_weight_grad import Direct1x1WeightGrad, takes
from fastconv.convolution.weight_grad.direct_weight_grad import DirectAnyWeightGrad
from fastconv.core.conv_problem import Conv2dProblem


class DirectWeightGrad(Gradient):
    """Sums over pixels, read in place: products of planes for 1x1 kernels, of rows for others."""

    _one_by_one, _any = Direct1x1WeightGrad(), DirectAnyWeightGrad()

    def _of(self, problem: Conv2dProblem) -> Gradient:
        return self._one_by_one if takes(problem) else self._any

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Delegate to the implementation for the kernel size."""
        return self._of(problem).refusal(problem)

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Delegate to the implementation for the kernel size."""
        return self._of(problem).estimated_seconds(problem, threads)

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Delegate to the implementation for the kernel size."""
        return self._of(problem).workspace_bytes(problem)

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Run the implementation for the kernel size."""
        self._of(problem).run(problem, factor, grad_output, out)


_forward = TiledForward("width")

#: Weights are broadcast, pixels are loaded in place.
DIRECT = Algorithm("direct", _forward, InputGradByPhases(_forward), DirectWeightGrad())
