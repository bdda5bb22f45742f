"""Callbacks after each epoch: early stopping, saving the best model, a CSV log."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.core.arguments import as_flag
from fastconv.core.geometry import as_int
from fastconv.nn.layer_arguments import as_number
from fastconv.nn.model_files import save
from fastconv.nn.module import Module
from fastconv.nn.training.history import History
from fastconv.nn.training.state_schema import COUNT, check
from fastconv.runtime.atomic_files import write_atomically


class Run:
    """The state of a training, passed to callbacks.

    Parameters
    ----------
    model : Module
        In evaluation mode after an epoch.
    history : History
        Up to the epoch that has just ended.
    validated : bool
        Whether there is validation.

    Attributes
    ----------
    epoch : int
        Number of epochs that have ended.
    stop : bool
        Set to True to end the training after this epoch.

    Examples
    --------
    >>> from fastconv import nn
    >>> def stop_soon(run):
    ...     run.stop = run.epoch == 2
    >>> options = {"epochs": 9, "callbacks": [stop_soon], "progress": "silent"}
    >>> len(nn.fit(nn.Linear(4, 2), [[0, 0, 0, 1]], [0], **options))
    2
    """

    def __init__(self, model: Module, history: History, validated: bool = False) -> None:
        self.model: Module = model
        self.history: History = history
        self.validated: bool = validated
        self.stop: bool = False

    @property
    def epoch(self) -> int:
        """Number of epochs that have ended."""
        return len(self.history)


class Callback:
    """Base class of callbacks of `fit`. Subclasses define `on_epoch_end`, and others if needed.

    Return in `state_dict` what is remembered from epoch to epoch, so that a resumed training goes
    on as if it had not been interrupted.

    Examples
    --------
    >>> from fastconv import nn
    >>> class Counting(nn.Callback):
    ...     epochs = 0
    ...
    ...     def on_begin(self, run):
    ...         print("trains", run.model)
    ...
    ...     def on_epoch_end(self, run):
    ...         self.epochs += 1
    ...
    ...     def on_end(self, run):
    ...         print("ends after epoch", run.epoch)
    ...
    ...     def state_dict(self):
    ...         return {"epochs": self.epochs}
    ...
    ...     def load_state_dict(self, state):
    ...         self.epochs = state["epochs"]
    >>> counting = Counting()
    >>> options = {"epochs": 3, "callbacks": [counting], "progress": "silent"}
    >>> history = nn.fit(nn.Linear(4, 2), [[0, 0, 0, 1]], [0], **options)
    trains Linear(in_features=4, out_features=2, bias=True)
    ends after epoch 3
    >>> counting.epochs
    3
    """

    def on_begin(self, run: Run) -> None:
        """Do something when training starts or resumes."""

    def on_epoch_end(self, run: Run) -> None:
        """Do something after an epoch."""

    def on_end(self, run: Run) -> None:
        """Do something after the last epoch, or an interruption."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: dicts, lists, arrays, numbers, text."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Called(Callback):
    """A plain function, called with the `Run` after each epoch."""

    def __init__(self, function: Callable[[Run], Any]) -> None:
        self.function = function

    def on_epoch_end(self, run: Run) -> None:
        """Call the function."""
        self.function(run)


class _Best(Callback):
    """Tracks the smallest validation loss; without validation, the smallest loss."""

    min_delta: float = 0.0

    def __init__(self) -> None:
        self.best: float = math.inf
        self.best_epoch: int = 0
        self.waited: int = 0

    def on_begin(self, run: Run) -> None:
        """Forget earlier trainings."""
        if not run.epoch:
            _Best.__init__(self)

    def improved(self, run: Run) -> bool:
        """Return whether the last epoch was the best so far."""
        last = run.history.last
        value = last["val_loss"] if run.validated else last["loss"]
        if value < self.best - self.min_delta:
            self.best, self.best_epoch, self.waited = value, run.epoch, 0
            return True
        self.waited += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the best loss, its epoch, and the number of epochs since."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        numbers = {"best": float, "best_epoch": COUNT, "waited": COUNT}
        check(state, {**numbers, ...: object}, f"the state of {type(self).__name__}")
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.waited = state["waited"]


class EarlyStopping(_Best):
    """Stop when the validation loss (without validation, the loss) no longer improves.

    Parameters
    ----------
    patience : int
        Epochs without improvement after which to stop.
    min_delta : float
        The least decrease that counts as improvement.
    restore_best : bool
        Restore the weights of the best epoch at the end.

    Attributes
    ----------
    best : float
    best_epoch : int
        Counted from 1.

    Examples
    --------
    >>> from fastconv import nn
    >>> stopping = nn.EarlyStopping(patience=2, min_delta=10.0)
    >>> options = {"epochs": 9, "callbacks": [stopping], "progress": "silent"}
    >>> len(nn.fit(nn.Linear(4, 2), [[0, 0, 0, 1]], [0], **options))
    3
    """

    def __init__(
        self, patience: int = 5, min_delta: float = 0.0, restore_best: bool = True
    ) -> None:
        super().__init__()
        self.patience = as_int("patience", patience, 1)
        self.min_delta = as_number("min_delta", min_delta, 0)
        self.restore_best = as_flag("restore_best", restore_best)
        self._weights: dict[str, NDArray[Any]] | None = None

    def on_begin(self, run: Run) -> None:
        """Forget earlier trainings."""
        super().on_begin(run)
        if not run.epoch:
            self._weights = None

    def on_epoch_end(self, run: Run) -> None:
        """Note whether the epoch improved; stop after too many that did not."""
        if self.improved(run):
            if self.restore_best:
                self._weights = run.model.state_dict()
        elif self.waited >= self.patience:
            run.stop = True

    def on_end(self, run: Run) -> None:
        """Restore the weights of the best epoch."""
        if self.restore_best and self._weights is not None:
            run.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the best weights."""
        return {**super().state_dict(), "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        weights = None if state.get("weights") is None else {str: np.ndarray}
        check(state, {"weights": weights, ...: object}, "the state of EarlyStopping")
        self._weights = state["weights"]


class BestCheckpoint(_Best):
    """Save the model by `fastconv.nn.save` after every epoch that is the best so far.

    Parameters
    ----------
    path : str or path-like
        Of a safetensors file.

    Examples
    --------
    >>> from fastconv import nn
    >>> import tempfile
    >>> best = nn.BestCheckpoint(tempfile.mkdtemp() + "/best.safetensors")
    >>> options = {"epochs": 2, "callbacks": [best], "progress": "silent"}
    >>> history = nn.fit(nn.Linear(4, 2), [[0, 0, 0, 1]], [0], **options)
    >>> best.path.exists()
    True
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)

    def on_epoch_end(self, run: Run) -> None:
        """Save the model if it is the best so far."""
        if self.improved(run):
            save(run.model, self.path)


class CSVLog(Callback):
    """Write the history to a CSV file after every epoch; the file is complete at any moment.

    Parameters
    ----------
    path : str or path-like

    Examples
    --------
    >>> from fastconv import nn
    >>> import tempfile
    >>> log = nn.CSVLog(tempfile.mkdtemp() + "/log.csv")
    >>> options = {"epochs": 2, "callbacks": [log], "progress": "silent"}
    >>> history = nn.fit(nn.Linear(4, 2), [[0, 0, 0, 1]], [0], **options)
    >>> len(log.path.read_text().split())
    3
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_epoch_end(self, run: Run) -> None:
        """Rewrite the file."""
        columns = run.history.to_dict()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *columns])
        for number, row in enumerate(zip(*columns.values(), strict=True), 1):
            writer.writerow([number, *row])
        content = text.getvalue().encode()
        write_atomically(self.path, lambda file: file.write_bytes(content))
