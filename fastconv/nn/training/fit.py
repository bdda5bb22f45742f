"""Training: many small steps, in an order that a seed decides, from any of which it can go on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import ArrayLike

from fastconv.core.arguments import as_flag
from fastconv.core.geometry import as_int
from fastconv.nn.layer_arguments import as_number
from fastconv.nn.module import Module
from fastconv.nn.training.callbacks import Callback, Called, Run
from fastconv.nn.training.checkpoints import Checkpoints
from fastconv.nn.training.history import History
from fastconv.nn.training.losses import CrossEntropyLoss, Loss
from fastconv.nn.training.lr_schedules import Schedule
from fastconv.nn.training.mini_batches import Arrays, Augment, Batches, checked, split
from fastconv.nn.training.optimizer_base import Optimizer
from fastconv.nn.training.optimizers import Adam
from fastconv.nn.training.training_loop import Training
from fastconv.nn.training.training_progress import make


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
    progress: str = "auto",
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    resume: bool = True,
) -> History:
    """Train a model by mini-batches; it is left in evaluation mode.

    Parameters
    ----------
    model : Module
        Layers in it that ``eval(keep=True)`` has frozen stay in evaluation mode.
    x : array-like, (N, ...), or iterable
        Images, converted to the model's dtype batch by batch; or, without `y`, an iterable of
        pairs (images, targets) that is run through once an epoch.
    y : array-like, (N, ...), optional
        Targets: classes from 0, or whatever `loss` takes.
    loss : Loss, optional
        `CrossEntropyLoss` without one.
    optimizer : Optimizer, optional
        ``Adam(model.parameters())`` without one.
    epochs : int
        In all, with those before a resumption.
    batch_size : int
        A single sample left over at the end joins the batch before it.
    validation : (array-like, array-like) or float, optional
        Images and targets for the validation loss; or which part of `x` and `y` to keep for it.
    seed : int
        Decides the order of samples, the validation part, and the generators of `augment`. It
        does not reach generators of the model, such as those of `Dropout`.
    shuffle : bool
        Whether to shuffle arrays, anew in every epoch.
    schedule : Schedule, optional
        Of `optimizer`. It steps after every epoch, or after every batch if its attribute
        ``per_batch`` is true, as that of `OneCycleLR`.
    clip_norm : float, optional
        For `clip_grad_norm_`.
    augment : callable, optional
        ``augment(images, rng=generator)`` returns changed images. It should take all random
        numbers from `rng`, which depends on the seed, the epoch and the batch alone.
    callbacks : iterable of Callback, or of callables
        A plain callable gets the `Run` after each epoch.
    progress : {"auto", "bar", "line", "silent"}
        "bar" needs tqdm; "auto" is a bar on a terminal with tqdm, otherwise a line an epoch.
    checkpoint : str, path-like or Checkpoints, optional
        A folder to write checkpoints to, after every epoch or as `Checkpoints` says. Needs
        safetensors.
    resume : bool
        Go on from the last checkpoint, if there is one: to the same bits as without a break,
        with the same arguments and data. `epochs`, `progress` and how often checkpoints are
        written may be others than before.

    Returns
    -------
    History
        Losses, accuracies, seconds and learning rates of all epochs. After Ctrl-C, which takes
        effect after the current batch, that of the epochs so far, with ``interrupted`` true.

    Raises
    ------
    TypeError, ValueError
        Naming the argument; also if checkpoints are of another training (see Notes), if none of
        them is whole, or the newest that is holds no state of a training, naming the folder.
    FloatingPointError
        If the loss is no longer a number.
    ImportError
        Without a package that an argument needs.

    Notes
    -----
    A checkpoint is refused, saying what differs, where these do: the names and shapes of the
    model's state, which layers are frozen by ``eval(keep=True)``, loss, optimizer, schedule and
    their numbers, `clip_norm`, `batch_size`, `shuffle`, `seed`, and the data. Of arrays up to
    64 MiB all numbers are compared, of larger ones evenly spaced rows: a change of a few others
    goes unnoticed. Nothing is known of the batches that an iterable yields, of what functions
    do, nor of numbers that a loss or schedule of your own does not keep under the names that its
    constructor gives them.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((64, 1, 4, 4), dtype=np.float32)
    >>> y = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, rng=rng))
    >>> optimizer = nn.Adam(model.parameters(), lr=0.05)
    >>> history = nn.fit(model, x, y, optimizer=optimizer, batch_size=16, progress="silent")
    >>> len(history), history.last["accuracy"] > 0.9
    (10, True)
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {model!r}")
    for name, value, kind in (
        ("loss", loss, Loss), ("optimizer", optimizer, Optimizer), ("schedule", schedule, Schedule)
    ):  # fmt: skip
        if value is not None and not isinstance(value, kind):
            hint = f": did you mean {value.__name__}(...)?" if isinstance(value, type) else ""
            raise TypeError(f"{name} must be of a subclass of {kind.__name__}, got {value!r}{hint}")
    optimizer = optimizer or Adam(model.parameters())
    known = set(model.parameters())
    if not all(p in known for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            "optimizer must be of this model's parameters, got some that are not: make it anew, "
            f"e.g. {type(optimizer).__name__}(model.parameters())"
        )
    if schedule is not None and schedule.optimizer is not optimizer:
        raise ValueError("schedule must be of the optimizer that is given, got one of another")
    shuffle, resume = as_flag("shuffle", shuffle), as_flag("resume", resume)
    seed, size = as_int("seed", seed, 0), as_int("batch_size", batch_size, 1)
    pair: Any = validation
    if isinstance(validation, float | int):
        if y is None:
            raise ValueError(
                f"validation must be a pair (images, targets) where x is an iterable of batches, "
                f"got {validation!r}"
            )
        (x, y), pair = split(x, y, validation, seed)
    elif validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise TypeError(
                f"validation must be a pair (images, targets) or a part of 1, got {validation!r}"
            )
        pair = checked(*validation)
    if checkpoint is not None and not isinstance(checkpoint, Checkpoints):
        checkpoint = Checkpoints(checkpoint)
    data = Batches(x, seed) if y is None else Arrays(x, y, size, shuffle, seed)
    training = Training(
        model, data, loss or CrossEntropyLoss(), optimizer, schedule, pair, size
    )  # fmt: skip
    if clip_norm is not None:
        training.clip_norm = as_number("clip_norm", clip_norm, 0, math.inf)
    if augment is not None and not callable(augment):
        raise TypeError(f"augment must be callable with (images, rng), got {augment!r}")
    training.augment = augment
    training.checkpoints, training.fresh = checkpoint, not resume
    for callback in callbacks:
        if not isinstance(callback, Callback):
            if not callable(callback) or isinstance(callback, type):
                raise TypeError(f"callbacks must be Callbacks or callables, got {callback!r}")
            callback = Called(callback)
        training.callbacks.append(callback)
    return training.run(as_int("epochs", epochs, 0), make(progress))
