"""The training loop: its position, its checkpoints, and how it goes on from one."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from fastconv.core.arguments import Array
from fastconv.nn.layer_arguments import as_dtype
from fastconv.nn.layers.containers import Sequential
from fastconv.nn.layers.conv_layers import Conv2d, ConvTranspose2d
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.module import Module
from fastconv.nn.training import resuming
from fastconv.nn.training.callbacks import Callback, Run
from fastconv.nn.training.checkpoints import Checkpoints
from fastconv.nn.training.compile_training import compile_training
from fastconv.nn.training.history import History, RunningMetrics
from fastconv.nn.training.losses import Loss
from fastconv.nn.training.lr_schedules import Schedule
from fastconv.nn.training.mini_batches import AUGMENT, Arrays, Augment, Batches, generator
from fastconv.nn.training.optimizer_base import Optimizer
from fastconv.nn.training.optimizers import clip_grad_norm_
from fastconv.nn.training.training_progress import Progress


@dataclass(kw_only=True)
class Training:
    """A training: what `fit` was given, and its position."""

    model: Module
    data: Arrays | Batches
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule | None
    validation: tuple[Array, Array] | None
    batch_size: int
    clip_norm: float | None
    augment: Augment | None
    callbacks: list[Callback]
    checkpoints: Checkpoints | None
    #: Whether to start anew, and to drop the checkpoints of another training.
    fresh: bool
    identity: dict[str, str] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.about = Run(self.model, History(), self.validation is not None)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Set the position in an epoch to its start."""
        self.batch, self.seconds, self.rate = 0, 0.0, 0.0
        self.metrics = RunningMetrics()

    # The loop ----------------------------------------------------------------------------

    def run(self, epochs: int, progress: Progress) -> History:
        """Train up to that number of epochs, or until a callback or Ctrl-C stops it."""
        found = None
        if self.checkpoints is not None:
            self.checkpoints.prepare()
            self.identity = self.describe()  # before callbacks and schedules change anything
            found = None if self.fresh else self.checkpoints.newest()
        if found is not None:
            self.load_position(*found)
        for callback in self.callbacks:
            callback.on_begin(self.about)
        if found is not None:
            with resuming.naming(found[0]):
                self.load(found[1])
        interrupted = False
        with _first_layer_without_input_grad(self.model), _deferred_interrupt() as signals:
            try:
                if self.about.epoch < epochs:
                    self.compile_kernels()
                while self.about.epoch < epochs and not self.about.stop and not signals:
                    self.epoch(epochs, progress, signals)
            except KeyboardInterrupt:
                interrupted = True
            except FloatingPointError:  # all the more the best weights are wanted
                self.end()
                raise
            finally:
                self.model.eval()
                self.model.zero_grad()
                progress.close()
        self.about.history.interrupted = interrupted or bool(signals)
        self.end()
        return self.about.history

    def end(self) -> None:
        """Tell the callbacks that the training has ended."""
        for callback in self.callbacks:
            callback.on_end(self.about)

    def compile_kernels(self) -> None:
        """Compile what steps will need, several kernels at once, if batches are known."""
        if not isinstance(self.data, Arrays):
            return
        images, _ = self.validation or (self.data.x[:0], None)
        rest = len(images) % self.batch_size
        parts = [part for part in (images[: self.batch_size], images[:rest]) if len(part)]
        batches = self.data.of_each_size()
        compile_training(self.model, self.loss, self.optimizer, batches, parts)

    def epoch(self, epochs: int, progress: Progress, signals: list[int]) -> None:
        """Train for the rest of an epoch, or up to the batch in which Ctrl-C came."""
        number, began = self.about.epoch, time.perf_counter() - self.seconds
        self.model.train()
        progress.begin(number, epochs, self.batch, len(self.data))
        for images, targets in self.data.epoch(number, self.batch):
            self.rate = float(self.optimizer.param_groups[0]["lr"])
            self.step(number, images, targets)
            progress.batch(self.metrics.loss)
            self.seconds = time.perf_counter() - began
            if signals or self.checkpoint_is_due():
                self.save()
            if signals:
                return
        if not self.metrics.samples:
            raise ValueError("x must yield the batches it did before, got fewer")
        values = {"loss": self.metrics.loss, "accuracy": self.metrics.accuracy}
        self.model.eval()
        if self.validation is not None:
            values.update(self.validate(*self.validation))
        self.seconds = time.perf_counter() - began
        self.about.history.append(**values, seconds=self.seconds, learning_rate=self.rate)
        if self.schedule is not None and not self.schedule.per_batch:
            self.schedule.step()
        for callback in self.callbacks:
            callback.on_epoch_end(self.about)
        self.model.eval()  # a callback may have changed it
        self.begin_epoch()
        self.save()
        progress.end(self.about.history.last)

    def step(self, epoch: int, images: Array, targets: Array) -> None:
        """Learn from one batch."""
        if self.augment is not None:
            rng: Generator = generator(self.data.seed, AUGMENT, epoch, self.batch)
            images = np.asarray(self.augment(images, rng=rng))
        images = as_dtype("x", images, self.model.dtype)
        before = {name: buffer.copy() for name, buffer in self.model.named_buffers()}
        pred = self.model(images)
        value = self.loss(pred, targets)
        if not math.isfinite(value):  # the running statistics must not contain the batch
            self.model.load_state_dict(before, strict=False)
            raise FloatingPointError(
                f"the loss is {value} in epoch {epoch + 1}, batch {self.batch + 1}: try a smaller "
                "learning rate, clip_norm, or look for NaN and very large numbers in x and y"
            )
        self.model.zero_grad()
        self.model.backward(self.loss.backward())
        if self.clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        if self.schedule is not None and self.schedule.per_batch:
            self.schedule.step()
        self.metrics.add(self.loss, value, pred, targets)
        self.batch += 1
        self.steps += 1

    def validate(self, images: Array, targets: Array) -> dict[str, float]:
        """Return loss and accuracy of the validation data."""
        metrics = RunningMetrics()
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            pred = self.model(as_dtype("validation", images[rows], self.model.dtype))
            metrics.add(self.loss, self.loss(pred, targets[rows]), pred, targets[rows])
        return {"val_loss": metrics.loss, "val_accuracy": metrics.accuracy}

    # Checkpoints -------------------------------------------------------------------------

    def checkpoint_is_due(self) -> bool:
        """Return whether to write a checkpoint now; after the last batch the epoch's is next."""
        every = None if self.checkpoints is None else self.checkpoints.every
        return every is not None and self.steps % every == 0 and self.batch != len(self.data)

    def save(self) -> None:
        """Write a checkpoint, if there is a folder for them."""
        if self.checkpoints is None:
            return
        state = {
            "training": self.identity,
            "position": {
                name: getattr(self, name) for name in ("steps", "batch", "seconds", "rate")
            },
            "metrics": vars(self.metrics),
            "stop": bool(self.about.stop),
            "history": self.about.history.to_dict(),
            "model": self.model.state_dict(),
            "frozen": resuming.frozen(self.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule and self.schedule.state_dict(),
            "generators": [rng.bit_generator.state for rng in self.generators()],
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }
        self.checkpoints.write(state, self.steps, forget=self.fresh)
        self.fresh = False

    def load_position(self, folder: Path, state: dict[str, Any]) -> None:
        """Take over the position of a checkpoint, if it is whole and of this training."""
        with resuming.naming(folder):
            resuming.check_state(state)
        groups = resuming.group_settings(state["optimizer"]["param_groups"])
        left = resuming.as_texts({"optimizer": groups, "frozen": state["frozen"]})
        wrong = resuming.differences(state["training"], self.identity, left)
        if wrong:
            raise ValueError(
                f"checkpoint must be of this training, those in {str(folder.parent)!r} "
                "are of another; resume=False begins anew:\n  " + "\n  ".join(wrong)
            )
        batches = len(self.data) if isinstance(self.data, Arrays) else 0
        parts = self.model, batches, self.schedule, self.generators(), len(self.callbacks)
        with resuming.naming(folder):
            resuming.check_parts(state, *parts)
        self.identity = state["training"]
        self.about.history = History.from_dict(state["history"])
        self.about.stop = state["stop"]
        vars(self).update(state["position"])
        vars(self.metrics).update(state["metrics"])

    def load(self, state: dict[str, Any]) -> None:
        """Take over the rest of a checkpoint: first what may be refused, the model last."""
        for callback, kept in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(kept)
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.optimizer.load_state_dict(state["optimizer"])
        for rng, kept in zip(self.generators(), state["generators"], strict=True):
            rng.bit_generator.state = kept
        self.model.load_state_dict(state["model"])
        for name, module in self.model.named_modules():
            module.frozen = name in state["frozen"]

    def describe(self) -> dict[str, str]:
        """Return what must be the same when training goes on."""
        pair = self.validation
        described = {
            **self.data.describe(),
            "validation": pair and [resuming.fingerprint(array) for array in pair],
            "model": {name: f"{v.dtype} {v.shape}" for name, v in self.model.state_dict().items()},
            "frozen": resuming.frozen(self.model),
            "loss": resuming.constructed(self.loss),
            **resuming.describe_optimizer(self.optimizer, self.schedule, self.model),
            "clip_norm": self.clip_norm,
            "augment": None if self.augment is None else type(self.augment).__name__,
            "generators": [type(g.bit_generator).__name__ for g in self.generators()],
            "callbacks": [type(callback).__name__ for callback in self.callbacks],
        }
        return resuming.as_texts(described)

    def generators(self) -> list[Generator]:
        """Return all generators that layers hold, such as those of `Dropout`."""
        values = (value for module in self.model.modules() for value in vars(module).values())
        return list({id(g): g for g in values if isinstance(g, Generator)}.values())


@contextmanager
def _first_layer_without_input_grad(model: Module) -> Iterator[None]:
    """Save the time for the gradient of the images, which is not used."""
    layer: Any = model
    while _has_backward_of(layer, Sequential) and len(layer):
        layer = layer[0]
    saved = _has_backward_of(layer, Conv2d, ConvTranspose2d, Linear) and layer.input_grad
    if saved:
        layer.input_grad = False
    try:
        yield
    finally:
        if saved:
            layer.input_grad = True


def _has_backward_of(layer: Module, *kinds: type[Module]) -> bool:
    """Return whether `backward` is that of one of these: a subclass's own may need the gradient."""
    own = vars(layer).get("backward", type(layer).backward)
    return isinstance(layer, kinds) and any(own is kind.backward for kind in kinds)


@contextmanager
def _deferred_interrupt() -> Iterator[list[int]]:
    """Note Ctrl-C for the end of the batch; a second one interrupts at once."""
    signals: list[int] = []

    def note(number: int, frame: Any) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield signals
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
