"""The loop of a training, its place in it, and how that is kept and found again."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fastconv.nn.layer_arguments import as_dtype
from fastconv.nn.layers.containers import Sequential
from fastconv.nn.layers.conv_layers import Conv2d, ConvTranspose2d
from fastconv.nn.layers.linear_layer import Linear
from fastconv.nn.module import Module
from fastconv.nn.training.callbacks import Callback, Run
from fastconv.nn.training.checkpoints import Checkpoints
from fastconv.nn.training.compile_training import compile_training
from fastconv.nn.training.grad_clipping import clip_grad_norm_
from fastconv.nn.training.history import History
from fastconv.nn.training.losses import Loss
from fastconv.nn.training.lr_schedules import Schedule
from fastconv.nn.training.mini_batches import AUGMENT, Arrays, Augment, Batches, generator
from fastconv.nn.training.optimizer_base import Optimizer
from fastconv.nn.training.resuming import check_parts, check_state, naming
from fastconv.nn.training.running_metrics import Tally
from fastconv.nn.training.training_identity import (
    describe_steps,
    differences,
    fingerprint,
    frozen,
    made_of,
    optimizer_of,
)
from fastconv.nn.training.training_progress import Progress

Array = NDArray[Any]


class Training:
    """A training under way: where it is, and all it needs to go on."""

    def __init__(
        self,
        model: Module,
        data: Arrays | Batches,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule | None,
        validation: tuple[Array, Array] | None,
        batch_size: int,
    ) -> None:
        self.model, self.data, self.loss = model, data, loss
        self.optimizer, self.schedule, self.validation = optimizer, schedule, validation
        self.batch_size = batch_size
        self.clip_norm: float | None = None
        self.augment: Augment | None = None
        self.checkpoints: Checkpoints | None = None
        self.fresh = False
        self.callbacks: list[Callback] = []
        self.about = Run(model, History())
        self.identity: dict[str, Any] = {}
        self.steps = 0
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Start counting anew."""
        self.batch, self.seconds, self.rate = 0, 0.0, 0.0
        self.tally = Tally()

    # The loop ----------------------------------------------------------------------------

    def run(self, epochs: int, progress: Progress) -> History:
        """Train until there were so many epochs, or somebody stops it."""
        found = None
        self.about.validated = self.validation is not None
        if self.checkpoints is not None:
            self.checkpoints.prepare()
            self.identity = self.describe()  # before callbacks and schedules change anything
            found = None if self.fresh else self.checkpoints.newest()
        if found is not None:
            self.load_position(*found)
        for callback in self.callbacks:
            callback.on_begin(self.about)
        if found is not None:
            with naming(found[0]):
                self.load(found[1])
        interrupted = False
        with _first_layer_without_input_grad(self.model), _polite_interrupts() as asked:
            try:
                if self.about.epoch < epochs:
                    self.compile_kernels()
                while self.about.epoch < epochs and not self.about.stop and not asked:
                    self.epoch(epochs, progress, asked)
            except KeyboardInterrupt:
                interrupted = True
            except FloatingPointError:  # the best weights so far are worth the more
                for callback in self.callbacks:
                    callback.on_end(self.about)
                raise
            finally:
                self.model.eval()
                self.model.zero_grad()
                progress.close()
        self.about.history.interrupted = interrupted or bool(asked)
        for callback in self.callbacks:
            callback.on_end(self.about)
        return self.about.history

    def compile_kernels(self) -> None:
        """Compile what steps will need, several kernels at once, if batches are known."""
        if not isinstance(self.data, Arrays):
            return
        images, _ = self.validation or (self.data.x[:0], None)
        rest = len(images) % self.batch_size
        parts = [part for part in (images[: self.batch_size], images[:rest]) if len(part)]
        batches = self.data.of_each_size()
        compile_training(self.model, self.loss, self.optimizer, batches, parts)

    def epoch(self, epochs: int, progress: Progress, asked: list[int]) -> None:
        """Train for the rest of an epoch, or until somebody asks to stop."""
        number, began = self.about.epoch, time.perf_counter() - self.seconds
        self.model.train()
        progress.begin(number, epochs, self.batch, len(self.data))
        for images, targets in self.data.epoch(number, self.batch):
            self.rate = float(self.optimizer.param_groups[0]["lr"])
            self.step(number, images, targets)
            progress.batch(self.tally.loss)
            self.seconds = time.perf_counter() - began
            every = self.checkpoints and self.checkpoints.every
            if self.checkpoints and (asked or (every and self.steps % every == 0)):
                self.save()
            if asked:
                return
        if not self.tally.samples:
            raise ValueError("x must yield the batches it did before, got fewer")
        values = {"loss": self.tally.loss, "accuracy": self.tally.accuracy}
        self.model.eval()
        if self.validation is not None:
            values.update(self.validate(*self.validation))
        self.seconds = time.perf_counter() - began
        self.about.history.append(**values, seconds=self.seconds, learning_rate=self.rate)
        if self.schedule is not None and not self.schedule.per_batch:
            self.schedule.step()
        for callback in self.callbacks:
            callback.on_epoch_end(self.about)
        self.model.eval()  # whatever callbacks did
        self.begin_epoch()
        if self.checkpoints is not None:
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
        if not math.isfinite(value):  # running statistics have seen the batch: they forget it
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
        self.tally.add(self.loss, value, pred, targets)
        self.batch += 1
        self.steps += 1

    def validate(self, images: Array, targets: Array) -> dict[str, float]:
        """Return loss and accuracy of the validation data."""
        tally = Tally()
        for start in range(0, len(images), self.batch_size):
            rows = slice(start, start + self.batch_size)
            pred = self.model(as_dtype("validation", images[rows], self.model.dtype))
            tally.add(self.loss, self.loss(pred, targets[rows]), pred, targets[rows])
        return {"val_loss": tally.loss, "val_accuracy": tally.accuracy}

    # Checkpoints -------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint."""
        assert self.checkpoints is not None
        self.checkpoints.write(
            {
                "training": self.identity,
                "position": {
                    name: getattr(self, name) for name in ("steps", "batch", "seconds", "rate")
                },
                "tally": vars(self.tally),
                "stop": bool(self.about.stop),
                "history": self.about.history.to_dict(),
                "model": self.model.state_dict(),
                "frozen": frozen(self.model),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule and self.schedule.state_dict(),
                "generators": [rng.bit_generator.state for rng in self.generators()],
                "callbacks": [callback.state_dict() for callback in self.callbacks],
            },
            self.steps,
            forget=self.fresh,
        )
        self.fresh = False

    def load_position(self, folder: Path, state: dict[str, Any]) -> None:
        """Go where a checkpoint was written, if it is one, and of this training."""
        with naming(folder):
            check_state(state)
        left = {
            "optimizer": optimizer_of(state["optimizer"]["param_groups"]),
            "frozen": state["frozen"],
        }
        wrong = differences(state["training"], self.identity, left)
        if wrong:
            raise ValueError(
                f"checkpoint must be of this training, those in {str(folder.parent)!r} "
                "are of another; resume=False begins anew:\n  " + "\n  ".join(wrong)
            )
        batches = len(self.data) if isinstance(self.data, Arrays) else 0  # others may not know it
        parts = self.model, batches, self.schedule, self.generators(), len(self.callbacks)
        with naming(folder):
            check_parts(state, *parts)
        self.identity = state["training"]
        self.about.history = History.from_dict(state["history"])
        self.about.stop = state["stop"]
        for name, value in state["position"].items():
            setattr(self, name, value)
        vars(self.tally).update(state["tally"])

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

    def describe(self) -> dict[str, Any]:
        """Return what must be the same when training goes on."""
        return {
            **self.data.describe(),
            "validation": self.validation and list(map(fingerprint, self.validation)),
            "model": {name: f"{v.dtype} {v.shape}" for name, v in self.model.state_dict().items()},
            "frozen": frozen(self.model),
            "loss": made_of(self.loss),
            **describe_steps(self.optimizer, self.schedule, self.model),
            "clip_norm": self.clip_norm,
            "augment": None if self.augment is None else type(self.augment).__name__,
            "generators": [type(g.bit_generator).__name__ for g in self.generators()],
            "callbacks": [type(callback).__name__ for callback in self.callbacks],
        }

    def generators(self) -> list[Generator]:
        """Return all generators that layers hold, such as those of `Dropout`."""
        values = (value for module in self.model.modules() for value in vars(module).values())
        return list({id(g): g for g in values if isinstance(g, Generator)}.values())


@contextmanager
def _first_layer_without_input_grad(model: Module) -> Iterator[None]:
    """Save the gradient of the images, which nobody reads."""
    layer: Any = model
    while _goes_back_as(layer, Sequential) and len(layer):
        layer = layer[0]
    spared = _goes_back_as(layer, Conv2d, ConvTranspose2d, Linear) and layer.input_grad
    if spared:
        layer.input_grad = False
    try:
        yield
    finally:
        if spared:
            layer.input_grad = True


def _goes_back_as(layer: Module, *kinds: type[Module]) -> bool:
    """Return whether `backward` is that of one of these: a subclass's own may need the gradient."""
    own = vars(layer).get("backward", type(layer).backward)
    return any(own is kind.backward for kind in kinds)


@contextmanager
def _polite_interrupts() -> Iterator[list[int]]:
    """Note Ctrl-C for the end of the batch; a second one interrupts at once."""
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield asked
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
