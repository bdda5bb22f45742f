"""CNNClassifier is a scikit-learn estimator, and a good one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from checks import refused
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastconv import CNNClassifier, nn

Array = np.ndarray[Any, Any]


@parametrize_with_checks(
    [
        CNNClassifier(),
        CNNClassifier((8,), 0, batch_norm=False, early_stopping=True, batch_size=8, patience=10),
    ]
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def small(**options: Any) -> CNNClassifier:
    settings = {"filters": (4,), "dense": 8, "epochs": 3, "batch_size": 8, "random_state": 0}
    return CNNClassifier(**{**settings, **options})


def bright(samples: int = 80, shape: tuple[int, ...] = (5, 7)) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, samples)
    x = rng.standard_normal((samples, *shape))
    x += 3 * y.reshape(-1, *[1] * len(shape))
    return x, np.array(["dark", "grey", "light"])[y]


def test_digits() -> None:
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
    good = bad = 0
    for seed in range(3):
        score = CNNClassifier(random_state=seed).fit(X, y).score(X_test, y_test)
        good, bad = good + (score >= 0.985), bad + (score < 0.985)
        if 2 in (good, bad):  # what the median of three will be
            break
    assert good == 2


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (35,), (36,)])
def test_images_of_every_shape(shape: tuple[int, ...]) -> None:
    x, y = bright(shape=shape)
    classifier = small(epochs=15).fit(x, y)
    wanted = {(35,): (1, 1, 35), (36,): (1, 6, 6), (5, 7): (1, 5, 7)}.get(shape, shape)
    assert classifier.image_shape_ == wanted
    assert classifier.n_features_in_ == np.prod(shape)
    assert classifier.score(x, y) > 0.9
    assert classifier.score(x.reshape(len(x), -1), y) > 0.9  # flat, or not
    assert list(classifier.classes_) == ["dark", "grey", "light"]
    assert classifier.predict(x).dtype == y.dtype
    np.testing.assert_allclose(classifier.predict_proba(x).sum(axis=1), 1)
    shaped = classifier.model_((x[:4].reshape(-1, *wanted) - classifier.mean_[:, None, None]
        ).astype(np.float32) / classifier.scale_.astype(np.float32)[:, None, None])  # fmt: skip
    np.testing.assert_allclose(shaped, classifier.decision_function(x[:4]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("asked", [(5, 7), [1, 5, 7], (7, 5), (5, 1, 7)])
def test_image_shape(asked: Any) -> None:
    x, y = bright()
    classifier = small(image_shape=asked).fit(x.reshape(-1, 35), y)
    assert classifier.image_shape_ == ((1, *asked) if len(asked) == 2 else tuple(asked))


def test_same_state_same_bits() -> None:
    x, y = bright()
    first = small().fit(x, y).decision_function(x)
    assert np.array_equal(first, small().fit(x, y).decision_function(x))
    assert not np.array_equal(first, small(random_state=1).fit(x, y).decision_function(x))
    assert not np.array_equal(*(small(random_state=None).fit(x, y).predict_proba(x) for _ in "ab"))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_an_image_has_its_result_whatever_is_beside_it(batch_size: int) -> None:
    x, y = bright(shape=(3, 9, 9))
    classifier = small(filters=(4, 8), batch_size=batch_size, epochs=1).fit(x, y)
    whole = classifier.decision_function(x)
    assert whole.dtype == np.float32  # as it was trained, though x is float64
    for part in (slice(0, 1), slice(5, 25), slice(79, 80), slice(None, None, -3)):
        assert np.array_equal(classifier.decision_function(x[part]), whole[part])


def test_partial_fit_learns_and_is_pickled_half_way() -> None:
    x, y = bright(160)
    whole, parts = small(), small()
    for epoch in range(20):
        whole.partial_fit(x, y, classes=["light", "grey", "dark"])
        parts.partial_fit(x, y, classes=["light", "grey", "dark"])
        if epoch == 5:
            parts = pickle.loads(pickle.dumps(parts))
    assert len(whole.history_) == whole.n_iter_ == 20
    assert whole.score(x, y) > 0.9
    assert np.array_equal(whole.decision_function(x), parts.decision_function(x))
    whole.partial_fit(x[y == "dark"], y[y == "dark"])
    with refused("y", "blue"):
        whole.partial_fit(x[:1], ["blue"])
    with refused("classes", "blue"):
        whole.partial_fit(x, y, classes=["blue", "dark"])


def test_warm_start_goes_on() -> None:
    x, y = bright()
    classifier = small(warm_start=True)
    first = classifier.fit(x, y).history_.loss[0]
    model = classifier.model_
    assert classifier.fit(x, y).model_ is model
    assert classifier.history_.loss[0] < first
    assert small().fit(x, y).fit(x, y).history_.loss[0] == first


def test_early_stopping() -> None:
    x, y = bright(200)
    classifier = small(epochs=200, early_stopping=True, patience=3, learning_rate=0.05).fit(x, y)
    history = classifier.history_
    assert classifier.n_iter_ == len(history) < 200
    assert np.isfinite(history.val_loss).all()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_optimizers(optimizer: str) -> None:
    x, y = bright()
    assert small(optimizer=optimizer, weight_decay=1e-4, epochs=20).fit(x, y).score(x, y) > 0.9


def test_class_weight() -> None:
    x, y = bright(300)
    x += np.random.default_rng(1).standard_normal(x.shape) * 20  # hard to tell apart
    often = {
        weight: np.mean(small(class_weight={"dark": weight}).fit(x, y).predict(x) == "dark")
        for weight in (0.01, 1, 100)
    }
    assert often[0.01] < often[1] < often[100]
    small(class_weight="balanced").fit(x, y)


def test_it_works_with_the_rest_of_scikit_learn() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    pipeline = make_pipeline(StandardScaler(), small(epochs=15, filters=(8,)))
    search = GridSearchCV(pipeline, {"cnnclassifier__dense": [0, 16]}, cv=2, n_jobs=2)
    search.fit(x, y)
    assert search.best_score_ > 0.7
    copied = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(copied.predict_proba(x), search.predict_proba(x))
    assert clone(search.best_estimator_).get_params()["cnnclassifier__dense"] in (0, 16)


@pytest.mark.parametrize(
    ("name", "wrong", "shown"),
    [
        ("filters", (0,), 0),
        ("filters", 8, "(8,)"),
        ("filters", None, None),
        ("dense", -1, -1),
        ("epochs", 0, 0),
        ("batch_size", 2.5, 2.5),
        ("learning_rate", -1, -1),
        ("learning_rate", np.inf, np.inf),
        ("weight_decay", "some", "some"),
        ("weight_decay", np.inf, np.inf),
        ("dropout", 1.5, 1.5),
        ("batch_norm", "no", "no"),
        ("optimizer", "rmsprop", "rmsprop"),
        ("class_weight", "even", "even"),
        ("class_weight", {"dark": -2}, -2),
        ("augment", "flip", "flip"),
        ("validation_fraction", 1, 1),
        ("patience", 0, 0),
        ("image_shape", (5, 8), "(5, 8)"),
        ("image_shape", 35, 35),
        ("warm_start", 1, 1),
        ("random_state", -1, -1),
        ("verbose", "yes", "yes"),
    ],
)
def test_refusals_name_the_argument(name: str, wrong: Any, shown: Any) -> None:
    x, y = bright()
    classifier = small(**{name: wrong})  # as scikit-learn wants: no word before fit
    with refused(name, shown):
        classifier.fit(x, y)
    with refused(name, shown):
        classifier.partial_fit(x, y)
    assert not hasattr(classifier, "model_")


class Tensor:
    """An array of another library, as far as such are alike."""

    def __init__(self, array: Array) -> None:
        self.array, self.shape = array, array.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return it as NumPy's."""
        return np.asarray(self.array, dtype)


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7)])
def test_arrays_of_other_libraries(shape: tuple[int, ...]) -> None:
    x, y = bright(shape=shape)
    classifier = small().fit(Tensor(x), y)
    assert classifier.image_shape_ == (1, *shape)[-3:]
    assert np.array_equal(classifier.predict(Tensor(x)), small().fit(x, y).predict(x))


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (np.zeros((2, 1, 1, 5, 7)), "(2, 1, 1, 5, 7)"),
        (Tensor(np.zeros((2, 1, 1, 5, 7))), "(N, C, H, W)"),
        ([np.zeros((5, 7)), np.zeros((7, 5))], "different shapes"),
    ],
)
def test_images_that_are_none(x: Any, shown: str) -> None:
    with refused("X", shown):
        small().fit(x, [0, 1])


def test_the_scale_of_images_does_not_matter() -> None:
    x, y = bright()
    wanted = small().fit(x, y).decision_function(x)
    for scale in (2.0**600, 2.0**-600):
        assert np.array_equal(small().fit(x * scale, y).decision_function(x * scale), wanted)
    with refused("X", "float32"):
        small().fit(x, y).predict(np.full_like(x, 1e200))


def test_no_images_at_all() -> None:
    x, y = bright()
    classifier = small().fit(x, y)
    for predict in (classifier.predict, classifier.predict_proba):
        with pytest.raises(ValueError, match="minimum of 1 is required"):
            predict(x[:0])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        small().fit(x[:, :0], y)


def test_other_images_than_in_fit() -> None:
    x, y = bright()
    with refused("X", (1, 7, 5)):
        small().fit(x, y).predict(x.transpose(0, 2, 1))
    with refused("image_shape", (7, 5)):
        small(image_shape=(7, 5)).fit(x, y)


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = bright()
    for verbose in (0, 1):
        small(verbose=verbose).fit(x, y)
        assert capsys.readouterr().out.count("epoch") == 3 * verbose


def test_augment() -> None:
    x, y = bright(shape=(9, 9))
    seen: list[tuple[int, ...]] = []

    def note(images: Array, rng: Any) -> Array:
        seen.append(images.shape)
        return images

    plain = small(augment=note).fit(x, y).decision_function(x)
    assert set(seen) == {(8, 1, 9, 9)}
    assert np.array_equal(plain, small(augment=False).fit(x, y).decision_function(x))
    moved = small().fit(x, y).decision_function(x)
    assert not np.array_equal(plain, moved)
    assert np.array_equal(moved, small(augment=True).fit(x, y).decision_function(x))
    assert isinstance(small().fit(x, y).history_, nn.History)


def test_without_scikit_learn_it_is_named() -> None:
    program = """
import sys
sys.modules["sklearn"] = sys.modules["sklearn.base"] = None
import fastconv
fastconv.nn.Sequential
try:
    fastconv.CNNClassifier()
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert 'pip install "fastconv[sklearn]"' in done.stdout


def test_a_refused_beginning_leaves_no_model() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((12, 8, 8)), np.array(list("abc") * 4)
    classifier = CNNClassifier(filters=(2,), dense=4, epochs=1, random_state=0)
    with pytest.raises(ValueError, match="y must hold only the classes"):
        classifier.partial_fit(x, y, classes=["a", "b"])
    classifier.partial_fit(x, y, classes=["a", "b", "c"])
    wrong = CNNClassifier(optimizer="rocket")
    with pytest.raises(ValueError, match="optimizer must be one of"):
        wrong.fit(x, y)
    with pytest.raises(NotFittedError):
        wrong.predict(x)


def test_a_warm_start_keeps_the_layers_it_has() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((12, 8, 8)), np.arange(12) % 3
    classifier = CNNClassifier(filters=(2,), dense=4, epochs=1, warm_start=True, random_state=0)
    classifier.fit(x, y)
    classifier.set_params(epochs=2, filters=np.array([2])).fit(x, y)
    with pytest.raises(ValueError, match=r"filters must stay \(2,\)"):
        classifier.set_params(filters=(4, 4)).fit(x, y)
