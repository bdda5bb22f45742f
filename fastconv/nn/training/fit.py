"""`fit`: checks its arguments and runs the training loop."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import ArrayLike

from fastconv.core.arguments import as_flag
from fastconv.core.array_hints import shown
from fastconv.core.geometry import as_int
from fastconv.nn.layer_arguments import as_number
from fastconv.nn.module import Module
from fastconv.nn.training.callbacks import Callback, Called, Run
from fastconv.nn.training.checkpoints import Checkpoints
from fastconv.nn.training.history import History
from fastconv.nn.training.losses import CrossEntropyLoss, Loss
from fastconv.nn.training.lr_schedules import Schedule
from fastconv.nn.training.mini_batches import Arrays, Augment, Batches, Pair, checked, split
from fastconv.nn.training.optimizer_base import Optimizer
from fastconv.nn.training.optimizers import Adam
from fastconv.nn.training.training_loop import Training
from fastconv.nn.training.training_progress import ProgressKind, make


def fit(
    model: Module,
    x: ArrayLike | Iterable[tuple[ArrayLike, ArrayLike]],
    y: ArrayLike | None = None,
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    validation: tuple[ArrayLike, ArrayLike] | float | None = None,
    seed: int = 0,
    shuffle: bool = True,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    augment: Augment | None = None,
    callbacks: Iterable[Callback | Callable[[Run], Any]] = (),
    progress: ProgressKind = "auto",
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    resume: bool = True,
) -> History:
    """Train a model by mini-batches; it is left in evaluation mode. `fastconv.nn` tells more.

    Parameters
    ----------
    model : Module
    x : array-like, (N, ...), or iterable
        Images; or, without `y`, an iterable of batches (images, targets), read once an epoch.
    y : array-like, (N, ...), optional
        Targets: classes from 0, or whatever `loss` takes.
    loss, optimizer, schedule : Loss, Optimizer, Schedule, optional
        `CrossEntropyLoss`, `Adam` and no schedule by default.
    epochs, batch_size : int
        `epochs` counts those before a resumption too.
    validation : (array-like, array-like) or float, optional
        Images and targets, or the fraction of `x` and `y` to use for validation.
    seed, shuffle : int, bool
        Seed of the order of samples, of the validation part and of `augment`.
    clip_norm, augment, callbacks : float, optional; callable, optional; iterable
        For `clip_grad_norm_`; ``augment(images, rng=rng)``; `Callback` objects or ``f(run)``.
    progress : {"auto", "bar", "line", "silent"}
    checkpoint, resume : str, path-like or Checkpoints, optional; bool
        A folder for checkpoints, and whether to go on from the last one in it.

    Returns
    -------
    History
        Up to Ctrl-C, which takes effect after the current batch.

    Raises
    ------
    TypeError, ValueError, ImportError, FloatingPointError
        Naming the argument; for a missing package; for a loss that is NaN or infinite.

    Examples
    --------
    >>> from fastconv.nn import Linear
    >>> fit(Linear(2, 2, rng=0), [[0, 1], [1, 0]], [0, 1], epochs=3, progress="silent").interrupted
    False
    """
    optimizer = _checked_optimizer(model, loss, optimizer, schedule)
    size, seed = as_int("batch_size", batch_size, 1), as_int("seed", seed, 0)
    pair, x, y = _as_validation(validation, x, y, seed)
    shuffle = as_flag("shuffle", shuffle)
    training = Training(
        model=model,
        data=Batches(x, seed) if y is None else Arrays(x, y, size, shuffle, seed),
        loss=loss or CrossEntropyLoss(),
        optimizer=optimizer,
        schedule=schedule,
        validation=pair,
        batch_size=size,
        clip_norm=None if clip_norm is None else as_number("clip_norm", clip_norm, 0, math.inf),
        augment=_callable_or_none(augment),
        callbacks=[_as_callback(callback) for callback in callbacks],
        checkpoints=_as_checkpoints(checkpoint),
        fresh=not as_flag("resume", resume),
    )
    _warn_of_pixels(training)
    return training.run(as_int("epochs", epochs, 0), make(progress))


def _checked_optimizer(model: Any, loss: Any, optimizer: Any, schedule: Any) -> Optimizer:
    """Return the optimizer, by default Adam, if it and the others fit each other."""
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {shown(model)}")
    for name, value, kind, example in (
        ("loss", loss, Loss, "CrossEntropyLoss()"),
        ("optimizer", optimizer, Optimizer, "Adam(model.parameters())"),
        ("schedule", schedule, Schedule, "StepLR(optimizer, 10)"),
    ):
        if value is not None and not isinstance(value, kind):
            hint = f"{value.__name__}(...)" if isinstance(value, type) else f"nn.{example}"
            raise TypeError(
                f"{name} must be of a subclass of {kind.__name__}, got {value!r}: did you mean "
                f"{hint}?"
            )
    optimizer = optimizer or Adam(model.parameters())
    known = set(model.parameters())
    if not all(p in known for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            "optimizer must be of this model's parameters, got some that are not: make it anew, "
            f"e.g. {type(optimizer).__name__}(model.parameters())"
        )
    if schedule is not None and schedule.optimizer is not optimizer:
        raise ValueError("schedule must be of the optimizer that is given, got one of another")
    return optimizer  # type: ignore[no-any-return]


def _warn_of_pixels(training: Training) -> None:
    """Warn of pixels from 0 to 255: from numbers so large most models learn badly or nothing."""
    if isinstance(training.data, Arrays) and training.augment is None:  # which may scale them
        some = training.data.x[: training.batch_size]
        if some.min() >= 0 and 100 < some.max() <= 255:
            text = "x looks like pixels from 0 to 255: give x / 255 to fit, and later to the model"
            warnings.warn(text, stacklevel=4)  # where `fit` was called, through `explained`


def _as_validation(validation: Any, x: Any, y: Any, seed: int) -> tuple[Pair | None, Any, Any]:
    """Return images and targets for validation, and those for training."""
    if isinstance(validation, float | int):
        if y is None:
            raise ValueError(
                f"validation must be a pair (images, targets) where x is an iterable of batches, "
                f"got {validation!r}"
            )
        (x, y), pair = split(x, y, validation, seed)
        return pair, x, y
    if validation is None:
        return None, x, y
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise TypeError(
            f"validation must be a pair (images, targets) or a fraction, got {validation!r}"
        )
    return checked(*validation), x, y


def _callable_or_none(augment: Any) -> Augment | None:
    if augment is not None and not callable(augment):
        raise TypeError(f"augment must be callable with (images, rng), got {augment!r}")
    return augment  # type: ignore[no-any-return]


def _as_callback(callback: Any) -> Callback:
    if isinstance(callback, Callback):
        return callback
    if not callable(callback) or isinstance(callback, type):
        raise TypeError(f"callbacks must be Callbacks or callables, got {callback!r}")
    return Called(callback)


def _as_checkpoints(checkpoint: Any) -> Checkpoints | None:
    given = checkpoint is None or isinstance(checkpoint, Checkpoints)
    return checkpoint if given else Checkpoints(checkpoint)
