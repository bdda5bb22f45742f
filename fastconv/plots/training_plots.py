"""Plots of training histories, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_numbers
from fastconv.plots.canvas import BLUE, INK, MUTED, RULE, VERMILLION, new_figure, on_color

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TRAINING = {"color": BLUE, "marker": "o", "linestyle": "-"}
_VALIDATION = {"color": VERMILLION, "marker": "s", "linestyle": "--"}
_MAX_CLASSES = 100
_VALIDATION_WORDS = ("val", "valid", "validation", "test")


def history(history: Any, title: str | None = None) -> Figure:
    """Draw losses and accuracies over the epochs, of training and validation.

    Parameters
    ----------
    history : dict of sequences, or an object with ``to_dict()`` or ``epochs``
        Such as ``{"loss": [...], "accuracy": [...], "val_loss": [...], "val_accuracy": [...]}``;
        names with "loss" or "acc" are drawn, those with "val", "valid", "validation" or "test"
        as validation. ``epochs`` may also be a sequence of records, one per epoch. Accuracies are
        fractions of 1; None and NaN are omitted.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        An axis of losses and one of accuracies, or one of the two.

    Raises
    ------
    TypeError, ValueError
        If there is neither.

    Examples
    --------
    >>> figure = history({"loss": [2.3, 0.9, 0.4], "val_loss": [1.6, 1.0, 0.8]})
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['training', 'validation']
    """
    series = {name: np.array(values, float) for name, values in _columns(history).items()}
    kinds = {"Loss": "loss", "Accuracy": "acc"}
    panels = {
        label: found
        for label, word in kinds.items()
        if (found := {name: values for name, values in series.items() if word in name.lower()})
    }
    if not panels:
        raise ValueError(
            "history must hold losses or accuracies, such as 'loss' or 'val_accuracy', got "
            f"{sorted(series)}"
        )
    figure = new_figure(5.2 * len(panels), 3.7, title or "Training")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (label, found) in zip(axes, panels.items(), strict=True):
        _draw_series(axis, label, found)
    return figure


def _draw_series(axis: Any, label: str, found: dict[str, Array]) -> None:
    share = label == "Accuracy"
    longest = max(len(values) for values in found.values())
    for name, values in found.items():
        validation = bool(set(name.lower().replace("-", "_").split("_")) & set(_VALIDATION_WORDS))
        style = _VALIDATION if validation else _TRAINING
        epochs = np.arange(1, len(values) + 1)
        there = np.isfinite(values)
        size = 4.5 if longest <= 40 else 0
        axis.plot(
            epochs[there],
            values[there] * (100 if share else 1),
            label="validation" if validation else "training",
            linewidth=1.8,
            markersize=size,
            **style,
        )
    axis.set_title(label + (", %" if share else ""), loc="left", fontsize=10, color=INK)
    axis.set_xlabel("epoch", fontsize=9, color=MUTED)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.margins(x=0.04)
    if longest == 1:
        axis.set_xlim(0, 2)
    if not share:
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axis.grid(axis="y", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9, labelcolor=MUTED, color=RULE)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(RULE)
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)


def _columns(history: Any) -> dict[str, Any]:
    """Return ``{name: one value per epoch}`` of any accepted history."""
    if not isinstance(history, Mapping):
        if hasattr(history, "to_dict"):
            return _columns(history.to_dict())
        if hasattr(history, "epochs"):
            return _columns({"epochs": history.epochs})
        raise TypeError(
            "history must be a dict of lists, or have to_dict() or epochs, got "
            f"{type(history).__name__}"
        )
    found = {
        str(name): values
        for name, values in history.items()
        if isinstance(values, Sequence | np.ndarray)
        and all(value is None or np.isscalar(value) for value in values)
        and not isinstance(values, str)
    }
    records = history.get("epochs")
    if isinstance(records, Sequence) and not isinstance(records, str):
        rows = [_record(record) for record in records]
        names = dict.fromkeys(name for row in rows for name in row)
        found |= {name: [row.get(name) for row in rows] for name in names}
    return {
        name: values
        for name, values in found.items()
        if not any(isinstance(value, str) for value in values)
    }


def _record(record: Any) -> dict[str, Any]:
    """Return the values of one epoch; none for a bare number."""
    if not isinstance(record, Mapping):
        record = record._asdict() if hasattr(record, "_asdict") else getattr(record, "__dict__", {})
    return {
        str(name): value for name, value in record.items() if value is None or np.isscalar(value)
    }


def confusion(
    matrix_or_labels: ArrayLike,
    predictions: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw a confusion matrix.

    Parameters
    ----------
    matrix_or_labels : array-like, (classes, classes) or (N,)
        Numbers of images by true class (rows) and predicted class (columns); or, together with
        `predictions`, the true class of every image.
    predictions : array-like, (N,), optional
        The predicted class of every image, an integer.
    classes : sequence of str, optional
        The names of the classes.

    Returns
    -------
    matplotlib.figure.Figure
        Numbers of images; darker cells have a larger share of their row.

    Raises
    ------
    TypeError, ValueError
        For counts or classes below zero, and arrays that do not fit together.

    Examples
    --------
    >>> figure = confusion([0, 0, 1, 1], [0, 1, 1, 1], classes=["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '', '2']
    """
    matrix = _counts(matrix_or_labels, predictions, None if classes is None else len(classes))
    size = len(matrix)
    names = [str(i) for i in range(size)] if classes is None else [str(name) for name in classes]
    if len(names) != size:
        raise ValueError(f"classes must name {size} classes, got {len(names)}")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    total = int(matrix.sum())
    correct = int(np.trace(matrix))
    share = f" ({correct / total:.1%})" if total else ""
    cell = min(0.5, 8.5 / size)
    side = max(size * cell, 2.4)
    figure = new_figure(side + 1.1, side + 1.25, f"{correct:,} of {total:,} correct{share}")
    axis = figure.subplots()
    drawn = axis.imshow(shares, "Blues", vmin=0, vmax=1)
    axis.set_xticks(range(size), names)
    if max(map(len, names)) > 4:
        for label in axis.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(size), names)
    axis.set_xlabel("predicted class", fontsize=10, color=MUTED)
    axis.set_ylabel("true class", fontsize=10, color=MUTED)
    axis.tick_params(length=0, labelsize=min(9, 26 * cell), labelcolor=INK)
    axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.2)
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(matrix):
        color = on_color(*drawn.to_rgba(shares[i, j])[:3])
        color = VERMILLION if i != j and shares[i, j] < 0.3 else color
        style: dict[str, Any] = {"fontsize": min(9, 20 * cell), "color": color}
        axis.text(j, i, f"{int(value)}" if value else "", ha="center", va="center", **style)
    return figure


def _counts(matrix_or_labels: ArrayLike, predictions: ArrayLike | None, least: int | None) -> Array:
    if predictions is None:
        matrix = as_numbers("matrix_or_labels", matrix_or_labels, 2)
        if matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise ValueError(
                f"matrix_or_labels must be a square matrix without predictions, got {matrix.shape}"
            )
        if matrix.min() < 0:
            raise ValueError(f"matrix_or_labels must hold counts, got {matrix.min()}")
        return matrix
    labels, predicted = (
        as_numbers(name, array, 1)
        for name, array in (("labels", matrix_or_labels), ("predictions", predictions))
    )
    if len(labels) != len(predicted) or not len(labels):
        raise ValueError(
            f"labels and predictions must be equally many and at least 1, got {len(labels)} and "
            f"{len(predicted)}"
        )
    both = np.concatenate([labels, predicted])
    if both.dtype.kind not in "iu" or both.min() < 0:
        raise ValueError("labels and predictions must be integers from 0")
    size = max(int(both.max()) + 1, least or 0)
    if size > _MAX_CLASSES:
        raise ValueError(f"labels and predictions must be below {_MAX_CLASSES}, got {size - 1}")
    flat = np.bincount(labels.astype(np.int64) * size + predicted, minlength=size * size)
    return flat.reshape(size, size)
