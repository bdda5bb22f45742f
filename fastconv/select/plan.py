"""A convolution prepared once and run often."""

from __future__ import annotations

from dataclasses import dataclass
from types import GenericAlias
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.convolution.algorithm import Array, Epilogue, Run
from fastconv.convolution.fused_max_pool import pooling_of
from fastconv.core.activation import Activation
from fastconv.core.arguments import as_computed, as_numbers, check_out, check_shape
from fastconv.core.cached import cached_property
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.runtime import output_memory
from fastconv.select.choice import Choice, explain


@dataclass(frozen=True)
class _OfOneImage:
    """Runs a batch of one for arrays without the batch axis."""

    run: Run

    def __call__(self, x: Array, residual: Array | None, out: Array) -> None:
        added = None if residual is None else residual[np.newaxis]
        self.run(x[np.newaxis], added, out[np.newaxis])


class Conv2dPlan:
    """A convolution prepared once and run often: see `fastconv.plan_conv2d`.

    Attributes
    ----------
    problem : Conv2dProblem
        The convolution.
    algorithm : str
        The algorithm that runs.
    activation : Activation
        The fused activation.
    max_pool : 2 or None
        The window size of fused max pooling.
    output_shape : tuple of int
        Shape of a call's result: (N, K, OH, OW), pooled (N, K, OH // 2, OW // 2); without N if the
        plan is for one image.
    workspace_bytes : int
        Scratch memory a thread needs besides input and output.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> options = {"activation": "relu", "algorithm": "naive"}
    >>> plan = fastconv.plan_conv2d((1, 1, 1, 2), np.ones((1, 1, 1, 1)), **options)
    >>> plan([[[[1.0, 2.0]]]], residual=[[[[-3.0, 3.0]]]])
    array([[[[0., 5.]]]])
    >>> plan.explain().splitlines()[-1]
    'naive was named'
    """

    __class_getitem__: Any = classmethod(GenericAlias)  # Conv2dPlan[np.float32], as in the stub

    def __init__(
        self,
        problem: Conv2dProblem,
        choice: Choice,
        weight: Array,
        bias: Array,
        activation: Activation,
        max_pool: int | None = None,
        single: bool = False,
    ) -> None:
        self.problem = problem
        self.activation = activation
        self.max_pool = max_pool
        self._choice = choice
        epilogue = Epilogue(activation, pooled=max_pool is not None)
        run = choice.algorithm.forward.bind(problem, weight, bias, epilogue)
        self.run = _OfOneImage(run) if single else run
        # Shapes that every call checks. One image has no batch axis.
        returned = problem.output_shape if max_pool is None else pooling_of(problem).output_shape
        shapes = problem.input_shape, problem.output_shape, returned
        self._input_shape, self._convolved, self._output_shape = (
            shape[single:] for shape in shapes
        )
        self._dtype = np.dtype(problem.dtype)

    @property
    def algorithm(self) -> str:
        """The name of the algorithm that runs."""
        return self._choice.algorithm.name

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of a call's result."""
        return self._output_shape

    @cached_property
    def workspace_bytes(self) -> int:
        """Scratch memory a thread needs besides input and output."""
        return self._choice.algorithm.forward.workspace_bytes(self.problem)

    def explain(self) -> str:
        """Return a table of every algorithm: its estimate, or why not it; ``*`` runs."""
        text = explain(self.problem, "forward", self._choice)
        if self.max_pool is None:
            return text
        stored = self._choice.algorithm.forward.pools(self.problem)
        when = "before the output is stored" if stored else "in a second pass"
        return f"{text}\nmaxima of {self.max_pool} x {self.max_pool} windows are taken {when}"

    def __repr__(self) -> str:
        shapes = f"{self.problem.input_shape} -> {self._output_shape}"
        return f"<Conv2dPlan {shapes} by {self.algorithm}>"

    def __call__(
        self, x: ArrayLike, out: Array | None = None, residual: ArrayLike | None = None
    ) -> Array:
        """Return ``activation(convolution of x + residual)``, written into `out` if one is given.

        With `max_pool` the maxima of that.

        Parameters
        ----------
        x : array-like, (N, C, H, W) or (C, H, W)
            Of the plan's input shape, and of a type that converts to the plan's without loss.
        out : ndarray, of the plan's `output_shape`, optional
            C-contiguous, writable, of the plan's dtype, and apart from `x` and `residual` in
            memory.
        residual : array-like, (N, K, OH, OW) or (K, OH, OW), optional
            Added before the activation, as a residual network wants it. Its type must fit as
            that of `x`.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        array = self._checked("x", x, self._input_shape)
        added = None
        if residual is not None:
            added = self._checked("residual", residual, self._convolved)
        if out is None:
            out = output_memory.empty(self._output_shape, self._dtype)
        else:
            check_out(out, self._output_shape, self._dtype, "x", array)
            if added is not None:
                check_out(out, self._output_shape, self._dtype, "residual", added)
        if self.problem.N:
            self.run(array, added, out)
        return out

    def _checked(self, name: str, value: Any, shape: tuple[int, ...]) -> Array:
        # The usual case first: a small convolution takes no longer than all these checks.
        if type(value) is np.ndarray and value.dtype == self._dtype and value.shape == shape:
            return as_computed(value, self._dtype)
        array = as_numbers(name, value, len(shape))
        output = "the output" if self.max_pool is None else "the output before pooling"
        check_shape(name, array, shape, "the plan's input" if name == "x" else output)
        if not np.can_cast(array.dtype, self._dtype):
            dtype = self.problem.dtype
            raise TypeError(
                f"{name} must fit the plan's {dtype} without loss, got {array.dtype}: "
                f"convert it ({name}.astype({dtype!r})) or plan with weights of its type"
            )
        return as_computed(array, self._dtype)
