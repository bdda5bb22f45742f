"""The kernels of a training, compiled several at once before its first step.

A copy of the model takes a step with each size of batch while loops note their types and do
nothing else. So what is compiled is what these layers need at these sizes, whatever they are.
"""

from __future__ import annotations

import contextlib
import copy

import numpy as np

from fastconv.core.arguments import Array
from fastconv.jit.compile_ahead import compiling_ahead
from fastconv.nn.layer_arguments import as_dtype
from fastconv.nn.module import Module
from fastconv.nn.training.losses import Loss
from fastconv.nn.training.optimizer_base import Optimizer

# A model of more bytes is not copied; its first step takes longer than a kernel anyway.
_MOST_BYTES = 2**28


def compile_training(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    batches: list[tuple[Array, Array]],
    validation: list[Array],
) -> None:
    """Compile what steps with such batches need, and the evaluation of such images.

    Nothing is computed, and nothing given is changed. Layers, losses and optimizers of others than
    this package are not run once more than their author expects: a training with such is left to
    compile its kernels one by one, and so is one whose step fails.
    """
    parts = [*model.modules(), loss, optimizer]
    if not all(type(part).__module__.startswith("fastconv.") for part in parts):
        return
    # A method replaced in an object, such as a `forward` that counts, is of others too.
    if any(callable(getattr(type(part), name, None)) for part in parts for name in vars(part)):
        return
    if sum(p.value.nbytes for p in model.parameters()) > _MOST_BYTES:
        return
    with contextlib.suppress(Exception), np.errstate(all="ignore"), compiling_ahead():
        model, loss, optimizer = copy.deepcopy((model, loss, optimizer))
        with contextlib.suppress(Exception):  # what was noted before is compiled
            model.train()
            for images, targets in batches:
                loss(model(as_dtype("x", images, model.dtype)), targets)
                model.zero_grad()
                model.backward(loss.backward())
                optimizer.step()
            model.eval()
            for images in validation:
                model(as_dtype("validation", images, model.dtype))
