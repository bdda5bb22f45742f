"""Pictures: the right axes, images, labels and numbers; no global state; never half a file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checks import refused
from matplotlib.figure import Figure
from PIL import Image

from fastconv import plots


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


def pixels(axis: Any) -> np.ndarray:
    """Return the one image of an axis; what is not drawn is NaN."""
    (image,) = axis.images
    return np.ma.filled(image.get_array().astype(float), np.nan)


def rendered(figure: Figure) -> np.ndarray:
    """Return a figure as it looks, (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


# Filters and feature maps -------------------------------------------------------------------------


def test_filters_share_one_symmetric_scale() -> None:
    weight = rng().standard_normal((5, 3, 3, 3))
    figure = plots.filters(weight, "conv1")
    axis, _bar = figure.axes
    assert figure.get_suptitle() == "conv1"
    limit = np.abs(weight).max()
    assert axis.images[0].get_clim() == (-limit, limit)
    # Every tap lies in its filter, channel, row and column.
    shown = pixels(axis)
    assert shown.shape == (5 * 10 - 1, 3 * 10 - 1)
    for (k, c, r, s), value in np.ndenumerate(weight):
        assert shown[10 * k + 3 * r + 1, 10 * c + 3 * s + 1] == value
    assert np.isnan(shown[9]).all()
    assert len(texts(axis)) == weight.size
    assert texts(axis)[0] == f"{weight[0, 0, 0, 0]:.2f}".replace("-", "−")  # noqa: RUF001
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2"]
    assert [label.get_text() for label in axis.get_yticklabels()] == list("01234")


def test_many_filters() -> None:
    figure = plots.filters(rng().standard_normal((100, 1, 7, 7)), most=20)
    axis = figure.axes[0]
    assert texts(axis) == []
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "0 to 7",
        "8 to 15",
        "16 to 19",
    ]
    assert figure.get_supxlabel() == "the first 20 of 100 filters"
    figure = plots.filters(rng().standard_normal((2, 40, 3, 3)))
    assert figure.get_supxlabel() == "the first 16 of 40 channels"
    assert plots.filters(np.zeros((1, 1, 1, 1))).axes[0].images[0].get_clim() == (-1, 1)


def test_feature_maps() -> None:
    maps = {"conv": rng().random((1, 3, 8, 8)), "pool": rng().random((12, 4, 4)) - 0.5}
    figure = plots.feature_maps(maps)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["conv: 3 maps of 8 x 8", "pool: 12 maps of 4 x 4, the first 8"]
    for axis, layer in zip(figure.axes, (maps["conv"][0], maps["pool"]), strict=True):
        assert axis.images[0].get_clim() == (layer.min(), layer.max())
        shown = pixels(axis)
        assert np.nanmin(shown) >= layer.min()
        zoom = 56 // layer.shape[2]
        np.testing.assert_array_equal(shown[zoom // 2 :: zoom, zoom // 2 : 56 : zoom], layer[0])
    figure = plots.feature_maps([np.zeros((1, 2, 2))], ["dead"], most=1)
    rendered(figure)  # a map without any contrast
    assert figure.axes[0].get_title(loc="left") == "dead: 1 map of 2 x 2"


# Mistakes and confusion ---------------------------------------------------------------------------


def test_mistakes_are_the_most_confident_ones() -> None:
    images = rng().random((4, 1, 5, 5))
    shares = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    figure = plots.mistakes(images, [1, 1, 0, 0], shares, count=2, classes=["cat", "dog"])
    assert [axis.get_title() for axis in figure.axes] == [
        "predicted cat, 80%",
        "predicted dog, 70%",
    ]
    assert [axis.get_xlabel() for axis in figure.axes] == ["true dog", "true cat"]
    np.testing.assert_array_equal(pixels(figure.axes[0]), images[1, 0])
    assert figure.get_suptitle() == "3 mistakes among 4 images, the 2 most confident"
    none = plots.mistakes(images, shares.argmax(1), shares)
    assert (none.axes, none.get_suptitle()) == ([], "0 mistakes among 4 images")
    colored = plots.mistakes(rng().random((1, 3, 4, 4)), [0], [[0.0, 1.0]])
    assert pixels(colored.axes[0]).shape == (4, 4, 3)


def test_confusion() -> None:
    labels, said = [0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 0, 2]
    figure = plots.confusion(labels, said, classes=["ape", "bee", "cat"])
    (axis,) = figure.axes
    assert texts(axis) == ["2", "1", "", "", "1", "", "1", "", "1"]
    np.testing.assert_allclose(pixels(axis), [[2 / 3, 1 / 3, 0], [0, 1, 0], [0.5, 0, 0.5]])
    assert figure.get_suptitle() == "4 of 6 correct (66.7%)"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ape", "bee", "cat"]
    same = plots.confusion([[2, 1, 0], [0, 1, 0], [1, 0, 1]])
    assert texts(same.axes[0]) == texts(axis)
    # A class that never occurs has its row.
    assert len(texts(plots.confusion([0], [0], classes=["a", "b"]).axes[0])) == 4


# Histories ----------------------------------------------------------------------------------------

LOSS, VAL_LOSS = [2.0, 1.0, 0.5], [2.5, 1.5, 1.25]
ACCURACY, VAL_ACCURACY = [0.2, 0.5, 0.9], [0.1, 0.4, 0.8]
COLUMNS = {
    "loss": LOSS,
    "accuracy": ACCURACY,
    "val_loss": VAL_LOSS,
    "val_accuracy": VAL_ACCURACY,
    "seconds": [1, 1, 1],
}


@dataclass
class Epoch:
    """One epoch, as a record."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


EPOCHS = [
    Epoch(i, *values)
    for i, values in enumerate(zip(LOSS, ACCURACY, VAL_LOSS, VAL_ACCURACY, strict=True))
]
HISTORIES = {
    "dict": COLUMNS,
    "arrays": {name: np.array(values) for name, values in COLUMNS.items()},
    "to_dict": SimpleNamespace(to_dict=lambda: {**COLUMNS, "epochs": [1, 2, 3], "name": "run"}),
    "records": SimpleNamespace(epochs=EPOCHS),
    "dicts": SimpleNamespace(epochs=[vars(epoch) for epoch in EPOCHS]),
    "to_dict with dicts": SimpleNamespace(
        to_dict=lambda: {"epochs": [vars(epoch) for epoch in EPOCHS], "best": 2}
    ),
}


@pytest.mark.parametrize("kind", HISTORIES)
def test_histories_in_every_form(kind: str) -> None:
    figure = plots.history(HISTORIES[kind])
    losses, accuracies = figure.axes
    assert losses.get_title(loc="left") == "Loss"
    assert accuracies.get_title(loc="left") == "Accuracy, %"
    drawn = {
        (axis.get_title(loc="left"), line.get_label()): list(line.get_ydata())
        for axis in figure.axes
        for line in axis.get_lines()
    }
    percent = {"Loss": 1, "Accuracy, %": 100}
    expected = {
        ("Loss", "training"): LOSS,
        ("Loss", "validation"): VAL_LOSS,
        ("Accuracy, %", "training"): ACCURACY,
        ("Accuracy, %", "validation"): VAL_ACCURACY,
    }
    assert drawn.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(drawn[key], np.array(values) * percent[key[0]])
    assert list(losses.get_lines()[0].get_xdata()) == [1, 2, 3]


def test_histories_with_gaps() -> None:
    figure = plots.history({"loss": [1.0, float("nan"), 0.5], "val_loss": [None, 0.7, None]})
    training, validation = figure.axes[0].get_lines()
    assert list(training.get_xdata()) == [1, 3]
    assert list(validation.get_xdata()) == [2]
    assert len(figure.axes) == 1
    with refused("history", "['seconds']"):
        plots.history({"seconds": [1]})
    with refused("history", "int"):
        plots.history(5)


# All of them --------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    with refused("weight", "(3, 3)"):
        plots.filters(np.zeros((3, 3)))
    with refused("weight", "(0, 1, 3, 3)"):
        plots.filters(np.zeros((0, 1, 3, 3)))
    with refused("most", 0):
        plots.filters(np.zeros((1, 1, 3, 3)), most=0)
    with refused("maps", "(3, 3)"):
        plots.feature_maps([np.zeros((3, 3))])
    with refused("titles", "1 and 2"):
        plots.feature_maps([np.zeros((1, 3, 3))], ["a", "b"])
    with refused("probabilities", "2, 2 and 1"):
        plots.mistakes(np.zeros((2, 1, 3, 3)), [0, 1], [[1, 0]])
    with refused("classes", 1):
        plots.confusion([[1, 0], [0, 1]], classes=["a"])
    with refused("matrix_or_labels", "(1, 2)"):
        plots.confusion([[1, 0]])
    with refused("predictions", "2 and 1"):
        plots.confusion([0, 1], [0])
    with refused("labels", 10_000_000):
        plots.confusion([10_000_000], [0])


def test_save_is_atomic(tmp_path: Path) -> None:
    figure = plots.filters(np.ones((1, 1, 3, 3)))
    path = tmp_path / "filters.png"
    plots.save(figure, path, dpi=50)
    with Image.open(path) as picture:
        assert picture.size == tuple(np.floor(figure.get_size_inches() * 50).astype(int))
    before = path.read_bytes()

    def fail(file: Path, **_: object) -> None:
        Path(file).write_text("half")
        raise OSError("disk full")

    figure.savefig = fail
    with pytest.raises(OSError, match="disk full"):
        plots.save(figure, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["filters.png"]


def test_save_refuses_what_cannot_be(tmp_path: Path) -> None:
    figure = plots.filters(np.ones((1, 1, 3, 3)))
    with pytest.raises(ValueError, match=r"\.png.*filters\.doc"):
        plots.save(figure, tmp_path / "filters.doc")
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        plots.save(figure, tmp_path / "none" / "filters.png")
    plots.save(figure, tmp_path / "filters.svg")
    assert "<svg" in (tmp_path / "filters.svg").read_text()


def test_no_text_lies_outside_of_its_picture() -> None:
    m = np.diag(np.full(10, 300)) + 1
    images, shares = rng().random((30, 1, 8, 8)), rng().random((30, 10))
    figures = [
        plots.filters(rng().standard_normal((8, 1, 3, 3))),
        plots.filters(rng().standard_normal((16, 8, 3, 3)), "a title"),
        plots.feature_maps([rng().random((8, 14, 14)), rng().random((16, 7, 7))]),
        plots.edges(rng().random((40, 60, 3))),
        plots.history(COLUMNS),
        plots.confusion(m, classes=["a long name"] * 10),
        plots.mistakes(images, np.zeros(30, int), shares),
        plots.im2col(rng().integers(0, 10, (5, 5)), 3),
    ]
    for figure in figures:
        picture = rendered(figure)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (border == 255).all(), figure.get_suptitle()


def test_pyplot_is_never_loaded() -> None:
    program = """
import sys
import numpy as np
from fastconv import plots
assert "matplotlib" not in sys.modules
plots.filters(np.ones((1, 1, 3, 3)))
plots.edges(np.zeros((9, 9)))
plots.im2col(np.zeros((4, 4)))
plots.history({"loss": [1]})
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
print("right")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "right", done.stderr


def test_without_matplotlib() -> None:
    program = """
import sys
sys.modules["matplotlib"] = None
import numpy as np
from fastconv import plots
try:
    plots.filters(np.ones((1, 1, 3, 3)))
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == (
        'fastconv.plots needs matplotlib: python -m pip install "fastconv[plots]"'
    )
