"""A convolutional network as a scikit-learn classifier."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from fastconv import nn
from fastconv.core.arguments import Array
from fastconv.data.augment import shift
from fastconv.estimator.classifier_network import mean_and_scale, shape_of, small_network
from fastconv.estimator.classifier_settings import OptimizerName, check_settings
from fastconv.nn.layer_arguments import as_dtype
from fastconv.nn.training.training_progress import ProgressKind
from fastconv.runtime.optional_packages import missing, stand_in

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state, compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    _what = missing("CNNClassifier", f"scikit-learn 1.6 or newer ({error})", "sklearn")
    ClassifierMixin, BaseEstimator = stand_in(_what), stand_in(_what)

_PROGRESS: tuple[ProgressKind, ...] = ("silent", "line", "bar")
# Images that are classified together; a single one takes the time of so many.
_MOST_AT_A_TIME = 64
# Images smaller than this are not shifted: a pixel would be too much of them.
_SHIFTED_FROM = 8


class CNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Convolutional network for images, with scikit-learn's interface.

    For every number in `filters` there is a 3x3 convolution, batch normalization, a ReLU and, where
    an axis has 8 pixels or more, max pooling over 2 of them; then a dense layer, dropout and one
    output for each class. It is trained by mini-batches with one cycle of learning rates.

    Parameters
    ----------
    filters : tuple of int
        Filters of each convolution.
    dense : int
        Units of the dense layer, 0 for none.
    epochs, batch_size : int
    learning_rate : float
        The largest of the cycle. `partial_fit` uses a tenth of it throughout.
    optimizer : {"adam", "adamw", "sgd"}
        "sgd" is with Nesterov's momentum of 0.9.
    weight_decay : float
    dropout : float
        Fraction of the dense layer's outputs that is dropped in training.
    batch_norm : bool
    class_weight : "balanced", dict or None
        How much each class counts.
    augment : "auto", bool or callable
        Whether to shift training images by up to a pixel; "auto" shifts images of 8 x 8 or larger.
        Or ``augment(images, rng)`` for images (N, C, H, W).
    early_stopping : bool
        Hold back `validation_fraction` of the samples, stop after `patience` epochs in which
        their loss has not fallen, and take the weights of the best one.
    validation_fraction : float
    patience : int
    image_shape : (int, int) or (int, int, int), optional
        (H, W) or (C, H, W) of 2-D input. Without it, rows whose length is a square number are
        square images, and others are images of one row.
    warm_start : bool
        Whether `fit` goes on from the last weights.
    random_state : int, RandomState or None
        Decides the first weights, the order of samples and all else that is random.
    verbose : int
        0 shows nothing, 1 a line an epoch, 2 a bar.

    Attributes
    ----------
    classes_ : ndarray
    n_features_in_ : int
        Numbers in one image.
    image_shape_ : (int, int, int)
        (C, H, W).
    model_ : fastconv.nn.Sequential
        It takes images minus `mean_`, divided by `scale_`.
    mean_, scale_ : ndarray, (C,)
        Mean and standard deviation of each channel.
    history_ : fastconv.nn.History
        Of the last `fit`, or of all `partial_fit`.
    n_iter_ : int
        Epochs.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Notes
    -----
    ``fit(X, y)`` takes X as (N, H, W), (N, C, H, W) or 2-D, and labels of any kind. Training and
    prediction compute in float32. Results are the same for a `random_state` every time, and those
    of an image are bitwise identical whichever others are predicted with it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = CNNClassifier(epochs=3, random_state=0).fit(X[:900], y[:900])
    >>> classifier.score(X[900:], y[900:]) > 0.9
    True
    >>> classifier.predict(X[900:903]), y[900:903]
    (array([4, 9, 0]), array([4, 9, 0]))
    >>> classifier.predict_proba(X[:2]).shape, classifier.decision_function(X[:2]).shape
    ((2, 10), (2, 10))
    >>> classifier.partial_fit(X[900:964], y[900:964]).n_iter_
    1
    """

    _partial: nn.Optimizer | None

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 64),
        dense: int = 64,
        *,
        epochs: int = 30,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        optimizer: OptimizerName = "adam",
        weight_decay: float = 0.0,
        dropout: float = 0.25,
        batch_norm: bool = True,
        class_weight: Literal["balanced"] | dict[Any, float] | None = None,
        augment: Literal["auto"] | bool | Callable[..., Array] = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 5,
        image_shape: tuple[int, ...] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.filters = filters
        self.dense = dense
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.class_weight = class_weight
        self.augment = augment
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.image_shape = image_shape
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn the classes `y` of the images `X`.

        Parameters
        ----------
        X : array-like, (N, H, W), (N, C, H, W) or (N, features)
        y : array-like, (N,)
            Labels: numbers or text.
        """
        check_settings(self.get_params())
        again = self.warm_start and hasattr(self, "model_")
        images, labels = self._training_data(X, y, first=not again)
        known = self.classes_ if again else np.unique(labels)
        weight = self._class_weight(labels, known)
        if again:
            self._same_layout()
        else:
            self._begin(known)
        targets = np.searchsorted(self.classes_, labels)
        validation = None
        callbacks = []
        if self.early_stopping:
            held, counts = self.validation_fraction * len(images), np.bincount(targets)
            fair = counts[counts > 0].min() > 1 and held >= np.count_nonzero(counts)
            parts = train_test_split(
                *(images, targets),
                test_size=self.validation_fraction,
                random_state=self._seed(),
                stratify=targets if fair else None,
            )
            images, targets, validation = parts[0], parts[2], (parts[1], parts[3])
            callbacks = [nn.EarlyStopping(self.patience)]
        optimizer = self._optimizer()
        steps = self.epochs * -(-len(images) // self.batch_size)
        schedule = nn.OneCycleLR(
            *(optimizer, self.learning_rate, max(4, steps)), cycle_momentum=self.optimizer != "sgd"
        )
        self.history_ = nn.fit(
            *(self.model_, images, targets),
            loss=nn.CrossEntropyLoss(weight),
            optimizer=optimizer,
            schedule=schedule,
            epochs=self.epochs,
            batch_size=self.batch_size,
            validation=validation,
            seed=self._seed(),
            augment=self._augment(),
            callbacks=callbacks,
            progress=self._progress(),
        )
        self.n_iter_ = len(self.history_)
        self._partial = None
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> Self:
        """Learn from these images for one epoch.

        Parameters
        ----------
        X : array-like, (N, H, W), (N, C, H, W) or (N, features)
        y : array-like, (N,)
        classes : array-like, optional
            All labels there will be: needed in the first call, unless `y` has them all.
        """
        check_settings(self.get_params())
        first = not hasattr(self, "model_")
        images, labels = self._training_data(X, y, first)
        known = np.unique(labels if classes is None else classes) if first else self.classes_
        if classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"classes must be those of the first call, {known}, got {classes}")
        weight = self._class_weight(labels, known)
        if first:
            self._begin(known)
        optimizer = self._partial
        if optimizer is None:
            self._partial = optimizer = self._optimizer()
            self.history_ = nn.History()
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate / 10
        history = nn.fit(
            *(self.model_, images, np.searchsorted(self.classes_, labels)),
            loss=nn.CrossEntropyLoss(weight),
            optimizer=optimizer,
            epochs=1,
            batch_size=self.batch_size,
            seed=self._seed(),
            augment=self._augment(),
            progress=self._progress(),
        )
        self.history_.append(**history.last)
        self.n_iter_ = len(self.history_)
        return self

    def decision_function(self, X: ArrayLike) -> Array:
        """Return the logits of every class, (N, classes); with two classes their difference."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the probability of every class, (N, classes)."""
        # In float64, so that they add up to 1; it takes no time for a few classes.
        return nn.Softmax(1).eval()(self._logits(X).astype(float))

    def predict(self, X: ArrayLike) -> Array:
        """Return the most probable class of every image."""
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    # Parts ------------------------------------------------------------------------------------

    def _logits(self, X: ArrayLike) -> Array:
        check_is_fitted(self, "model_")
        images = self._images(self._flat(X, first=False), self.image_shape_)
        model = copy.deepcopy(self.model_).eval()
        # Always as many at a time, the last ones filled up with empty images: so an image's result
        # is bitwise identical whichever others are beside it.
        step = min(self.batch_size, _MOST_AT_A_TIME)
        missing = -len(images) % step
        whole = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        parts = [model(whole[i : i + step]) for i in range(0, len(whole), step)]
        return np.concatenate(parts)[: len(images)]

    def _flat(self, X: Any, first: bool, y: Any = "no_validation") -> Any:
        """Return X, and y if there is one, checked, with one row for each image."""
        shape = shape_of(X)
        if len(shape) > 4:
            raise ValueError(
                f"X must be of shape (N, H, W), (N, C, H, W) or (N, features), got {shape}"
            )
        if len(shape) > 2:
            image = shape[1:] if len(shape) == 4 else (1, *shape[1:])
            if first:
                self._given_shape: tuple[int, ...] | None = image
            elif image != self.image_shape_:
                raise ValueError(
                    f"X must have images of shape {self.image_shape_} as in fit, got {image}"
                )
            X = np.asarray(X).reshape(shape[0], math.prod(shape[1:]))
        elif first:
            self._given_shape = None
        return validate_data(self, X, y, reset=first, dtype=[np.float32, np.float64])

    def _training_data(self, X: Any, y: Any, first: bool) -> tuple[Array, Array]:
        """Return images and labels."""
        rows, labels = self._flat(X, first, y)
        check_classification_targets(labels)
        if first:
            self.image_shape_ = self._find_shape(rows.shape[1])
            channels = rows.astype(float).reshape(len(rows), *self.image_shape_)
            self.mean_, self.scale_ = mean_and_scale(channels)
        return self._images(rows, self.image_shape_), labels

    def _find_shape(self, features: int) -> tuple[int, int, int]:
        given, chosen = self._given_shape, self.image_shape
        if chosen is not None:
            chosen = tuple(map(int, chosen))
            given = given or chosen
            wanted = chosen if len(chosen) == 3 else (1, *chosen)
            if math.prod(wanted) != features or (len(given) == 3 and given != wanted):
                raise ValueError(
                    f"image_shape must fit X, whose images have {features} numbers, got {chosen}"
                )
            return wanted  # type: ignore[return-value]
        if given is not None:
            return given  # type: ignore[return-value]
        side = math.isqrt(features)
        return (1, side, side) if side * side == features else (1, 1, features)

    def _images(self, rows: Array, shape: tuple[int, ...]) -> Array:
        apart = rows.reshape(-1, *shape) - self.mean_[:, None, None]
        apart /= self.scale_[:, None, None]
        return as_dtype("X", apart, np.dtype(np.float32))

    def _begin(self, classes: Array) -> None:
        """Make a new model for these classes."""
        self._architecture = self._layout()
        self.classes_ = classes
        self._random = np.random.default_rng(
            check_random_state(self.random_state).randint(2**31 - 1)
        )
        layout = {**self._architecture, "rng": self._random}
        self.model_ = small_network(self.image_shape_, len(classes), **layout)
        self._partial = None

    def _class_weight(self, labels: Array, known: Array) -> Array | None:
        """Return how much each of the known classes counts."""
        present = np.unique(labels)
        unknown = np.setdiff1d(present, known)
        if len(unknown):
            raise ValueError(
                f"y must hold only the classes known from before, {known}, got {unknown}"
            )
        if self.class_weight is None:
            return None
        weight = np.ones(len(known))
        weight[np.searchsorted(known, present)] = compute_class_weight(
            self.class_weight, classes=present, y=labels
        )
        return weight

    def _optimizer(self) -> nn.Optimizer:
        parameters, decay = list(self.model_.parameters()), self.weight_decay
        if self.optimizer == "sgd":
            return nn.SGD(parameters, momentum=0.9, nesterov=True, weight_decay=decay)
        return (nn.Adam if self.optimizer == "adam" else nn.AdamW)(parameters, weight_decay=decay)

    def _layout(self) -> dict[str, Any]:
        """Return the parameters that a model cannot change any more."""
        names = ("dense", "batch_norm", "dropout")
        return {"filters": tuple(self.filters)} | {name: getattr(self, name) for name in names}

    def _same_layout(self) -> None:
        for name, value in self._layout().items():
            if value != self._architecture[name]:
                raise ValueError(
                    f"{name} must stay {self._architecture[name]!r} for a model that goes on "
                    f"learning, got {value!r}: use warm_start=False to begin anew"
                )

    def _augment(self) -> Callable[..., Array] | None:
        if callable(self.augment):
            return self.augment
        large = min(self.image_shape_[1:]) >= _SHIFTED_FROM
        augment = partial(shift, most=1, edge=True)
        return augment if (large if self.augment == "auto" else self.augment) else None

    def _progress(self) -> ProgressKind:
        return _PROGRESS[min(2, int(self.verbose))]

    def _seed(self) -> int:
        return int(self._random.integers(2**31 - 1))
