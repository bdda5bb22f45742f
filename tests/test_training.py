"""nn.fit: it learns, tells, stops, goes on to the same bits, and its errors teach."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import refused

from fastconv import nn
from fastconv.data import shift
from fastconv.nn.training.mini_batches import Arrays

Array = np.ndarray[Any, Any]


def data(samples: int = 96) -> tuple[Array, Array]:
    """Return images whose upper or lower half is brighter."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, 1, 6, 6), dtype=np.float32)
    y = rng.integers(0, 2, samples)
    x[y == 0, :, :3] += 1
    return x, y


def network(dropout: float = 0.2) -> nn.Sequential:
    rng = np.random.default_rng(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, rng=rng),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(144, 2, rng=rng),
    )


def train(model: nn.Module | None = None, **options: Any) -> tuple[nn.Module, nn.History]:
    model = model or network()
    x, y = data()
    settings = {"epochs": 3, "batch_size": 16, "progress": "silent", **options}
    source = settings.pop("data", (x, y))
    return model, nn.fit(model, *source, **settings)


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(p.tobytes() == q.tobytes() for p, q in pairs)


def test_it_learns_and_tells() -> None:
    x, y = data()
    model = network()
    optimizer = nn.Adam(model.parameters(), lr=0.01)
    _, history = train(
        model, optimizer=optimizer, epochs=8, validation=data(40), augment=partial(shift, most=1)
    )
    assert len(history) == 8
    assert history.last["accuracy"] > 0.9
    assert history.last["val_accuracy"] > 0.9
    assert history.loss[-1] < history.loss[0]
    assert history.learning_rate == [0.01] * 8
    assert all(seconds > 0 for seconds in history.seconds)
    assert sorted(history.to_dict()) == sorted(history.last)
    assert not history.interrupted
    assert "8 epochs" in repr(history)
    assert not any(module.training for module in model.modules())
    assert model[0].input_grad is True
    # Validation is what the model itself says.
    x, y = data(40)
    loss = nn.CrossEntropyLoss()
    assert history.last["val_loss"] == pytest.approx(loss(model(x), y), rel=1e-5)


def test_fit_is_the_loop_one_would_write() -> None:
    x, y = data()
    model, history = train(shuffle=False, epochs=2, clip_norm=0.5)
    by_hand, loss, losses = network(), nn.CrossEntropyLoss(), []
    optimizer = nn.Adam(by_hand.parameters())
    for _ in range(2):
        values = []
        for start in range(0, len(x), 16):
            values.append(loss(by_hand(x[start : start + 16]), y[start : start + 16]))
            by_hand.zero_grad()
            by_hand.backward(loss.backward())
            nn.clip_grad_norm_(by_hand.parameters(), 0.5)
            optimizer.step()
        losses.append(np.mean(values))
    assert same(model, by_hand.eval())
    np.testing.assert_allclose(history.loss, losses, rtol=1e-6)
    assert np.isnan(history.val_loss).all()


def test_the_seed_decides() -> None:
    models = [train(seed=seed, validation=0.25)[0] for seed in (0, 0, 1)]
    assert same(*models[:2])
    assert not same(*models[1:])


def test_batches_hold_every_sample_once() -> None:
    x, y = data(33)
    for size, count in ((16, 2), (32, 1), (1, 33), (64, 1), (10, 4)):
        source = Arrays(x, y, size, True, 0)
        orders = [list(source.epoch(number)) for number in (0, 1)]
        assert len(source) == len(orders[0]) == count
        for batches in orders:
            together = np.concatenate([images for images, _ in batches])
            assert sorted(map(bytes, together)) == sorted(map(bytes, x))
        assert not np.array_equal(orders[0][0][0], orders[1][0][0])
        for skip in range(count):
            rest = list(source.epoch(0, skip))
            assert len(rest) == count - skip
            assert np.array_equal(rest[0][0], orders[0][skip][0])


class Stream:
    """Batches from elsewhere, of other kinds of numbers."""

    def __init__(self) -> None:
        self.x, self.y = data()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(self.x), 16):
            yield self.x[start : start + 16].astype(float), self.y[start : start + 16].tolist()


def test_batches_may_come_from_anywhere() -> None:
    assert same(train(shuffle=False)[0], train(data=(Stream(),))[0])
    with refused("x", "second epoch"):
        train(data=(iter(Stream()),))
    train(data=(iter(Stream()),), epochs=1)
    train(data=([*Stream()],), validation=data())


@pytest.mark.parametrize("columns", [1, 3])
def test_targets_may_be_numbers(columns: int) -> None:
    x, _ = data()
    targets = x.sum(axis=(2, 3)) * np.ones(columns)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, columns, rng=0))
    optimizer = nn.Adam(model.parameters(), lr=0.01)
    options = {"data": (x, targets), "loss": nn.MSELoss(), "validation": (x, targets)}
    _, history = train(model, optimizer=optimizer, epochs=30, **options)
    assert history.loss[-1] < 0.1 * history.loss[0]
    assert np.isnan([history.accuracy, history.val_accuracy]).all()  # numbers are no classes


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_those_of_all_samples_at_once(reduction: str) -> None:
    model, x, y = small_problem()
    loss = nn.CrossEntropyLoss([5, 1, 0], reduction=reduction)
    wanted = loss(model(x), y) / (1 if reduction == "mean" else len(x))
    still = nn.SGD(model.parameters(), lr=0)
    _, history = train(
        *(model,), data=(x, y), loss=loss, optimizer=still, batch_size=5, validation=(x, y)
    )  # fmt: skip
    for losses in (history.loss, history.val_loss):
        assert losses == pytest.approx([wanted] * 3, rel=1e-6)


@pytest.mark.parametrize("kind", ["epochs", "batches", "cycle"])
def test_schedules_step_when_they_should(kind: str) -> None:
    model = network()
    optimizer = nn.SGD(model.parameters(), lr=1.0)
    schedule: Any = nn.StepLR(optimizer, 1, gamma=0.5)
    if kind == "cycle":
        schedule = nn.OneCycleLR(optimizer, 0.1, 3 * 6)
    elif kind == "batches":
        schedule.per_batch = True
    _, history = train(model, optimizer=optimizer, schedule=schedule)
    assert schedule.last_epoch == (3 if kind == "epochs" else 18)
    if kind == "epochs":
        assert history.learning_rate == [1.0, 0.5, 0.25]
    elif kind == "batches":
        assert history.learning_rate == [2.0**-5, 2.0**-11, 2.0**-17]


def test_early_stopping_restores_the_best() -> None:
    x, y = data(24)
    model, states = network(), []

    def note(run: nn.Run) -> None:
        states.append(run.model.state_dict())

    stopping = nn.EarlyStopping(patience=2)
    rng = np.random.default_rng(5)
    wrong = rng.standard_normal(x.shape, dtype=np.float32), rng.integers(0, 2, len(y))
    optimizer = nn.Adam(model.parameters(), lr=0.05)
    _, history = train(
        model, optimizer=optimizer, epochs=40, validation=wrong, callbacks=[note, stopping]
    )
    assert len(history) == stopping.best_epoch + 2 < 40
    assert stopping.best == min(history.val_loss)
    for name, value in states[stopping.best_epoch - 1].items():
        np.testing.assert_array_equal(model.state_dict()[name], value)


def test_the_best_model_and_the_table_are_files(tmp_path: Path) -> None:
    best, table = tmp_path / "best.safetensors", tmp_path / "log.csv"
    _, history = train(
        callbacks=[nn.BestCheckpoint(best), nn.CSVLog(table)], validation=0.25, seed=4
    )
    held = nn.load(network(), best).eval()
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == history.val_loss
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert np.isfinite(held(data()[0])).all()


@pytest.mark.parametrize("kind", ["auto", "bar", "line", "silent"])
def test_progress(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    train(progress=kind)
    shown = capsys.readouterr()
    if kind == "silent":
        assert shown.out + shown.err == ""
    elif kind == "bar":
        assert "epoch 3/3: 100%" in shown.err
        assert "accuracy" in shown.err
    else:
        assert [line.partition(":")[0] for line in shown.out.splitlines()] == [
            f"epoch {i}/3" for i in (1, 2, 3)
        ]


# Interruptions -------------------------------------------------------------------------------


def test_control_c_leaves_a_usable_model(tmp_path: Path) -> None:
    batches = []

    def interrupt(images: Array, rng: Any) -> Array:
        batches.append(1)
        if len(batches) == 10:  # in the second of three epochs
            signal.raise_signal(signal.SIGINT)
        return images

    model, history = train(augment=interrupt, checkpoint=tmp_path / "checkpoints")
    assert history.interrupted
    assert (len(history), len(batches)) == (1, 10)
    assert not model.training
    assert np.isfinite(model(data()[0])).all()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # And it goes on, from that very batch.
    state = nn.Checkpoints(tmp_path / "checkpoints").read()
    assert state is not None
    assert state["position"]["steps"] == 10
    again, history = train(augment=lambda x, rng: x, checkpoint=tmp_path / "checkpoints")
    assert not history.interrupted
    assert same(again, train(augment=lambda x, rng: x)[0])


def test_an_impatient_control_c() -> None:
    def interrupt(images: Array, rng: Any) -> Array:
        raise KeyboardInterrupt

    model, history = train(augment=interrupt)
    assert history.interrupted
    assert not model.training
    assert model[0].input_grad is True


def test_it_works_in_a_thread() -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(train()[0]))
    thread.start()
    thread.join(60)
    assert same(results[0], train()[0])


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("model", {"model": 3}),
        ("loss", {"loss": nn.MSELoss}),
        ("optimizer", {"optimizer": "adam"}),
        ("optimizer", {"optimizer": nn.SGD(network().parameters())}),
        ("schedule", {"schedule": nn.StepLR(nn.SGD(network().parameters()), 1)}),
        ("epochs", {"epochs": 1.5}),
        ("batch_size", {"batch_size": 0}),
        ("validation", {"validation": 1.0}),
        ("validation", {"validation": data()[0]}),
        ("validation", {"validation": 0.5, "data": (Stream(),)}),
        ("seed", {"seed": -1}),
        ("clip_norm", {"clip_norm": -1}),
        ("augment", {"augment": 2}),
        ("callbacks", {"callbacks": [nn.EarlyStopping]}),
        ("progress", {"progress": "loud"}),
        ("checkpoint", {"checkpoint": 7}),
        ("checkpoint", {"checkpoint": __file__}),
        ("checkpoint", {"checkpoint": f"{__file__}/below"}),
        ("clip_norm", {"clip_norm": float("nan")}),
        ("x", {"data": (data()[0].astype(float) * 1e200, data()[1])}),
        ("validation", {"validation": (data()[0].astype(float) * 1e200, data()[1])}),
        ("y", {"data": (data()[0],)}),
        ("y", {"data": (data()[0], data(20)[1])}),
        ("y", {"data": (data()[0], data()[1].astype(str))}),
        ("x", {"data": (data()[0][:0], data()[1][:0])}),
        ("x", {"data": (7,)}),
        ("x", {"data": ([1, 2],)}),
    ],
)
def test_refusals_name_the_argument(name: str, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{name} must"):
        train(**options)


def test_a_loss_that_is_no_number() -> None:
    x, y = data()
    x[40, 0, 0, 0] = np.nan
    model = network()
    with pytest.raises(FloatingPointError, match="epoch 1, batch 3"):
        train(model, data=(x, y), shuffle=False)
    # All is as it was before that batch: the running statistics too.
    assert same(model, train(data=(x[:32], y[:32]), shuffle=False, epochs=1)[0])
    assert not model.training


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["tqdm"] = sys.modules["safetensors"] = sys.modules["safetensors.numpy"] = None
import numpy as np
from fastconv import nn
x, y = np.zeros((4, 3), np.float32), [0, 1, 0, 1]
nn.fit(nn.Linear(3, 2), x, y, epochs=1, progress="silent")
for options in ({"progress": "bar"}, {"checkpoint": sys.argv[1], "progress": "silent"}):
    try:
        nn.fit(nn.Linear(3, 2), x, y, epochs=1, **options)
    except ImportError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.count('python -m pip install "fastconv[nn]"') == 2


def test_no_warning_on_the_way() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(validation=0.25)


# Rare cases ----------------------------------------------------------------------------------


def small_problem() -> tuple[nn.Sequential, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, rng=5))
    return model, rng.standard_normal((12, 1, 4, 4), np.float32), np.arange(12) % 3


def test_a_validation_loss_that_is_nan_is_no_improvement() -> None:
    model, x, y = small_problem()
    broken = x.copy()
    broken[0] = np.nan
    stopping = nn.EarlyStopping(2)
    history = nn.fit(
        *(model, x, y), validation=(broken, y), epochs=6, callbacks=[stopping], progress="silent"
    )
    assert stopping.best == np.inf
    assert len(history) < 6


def test_the_best_weights_survive_a_loss_that_breaks() -> None:
    model, x, y = small_problem()
    best = nn.EarlyStopping(9)

    def poison(run: nn.Run) -> None:
        if run.epoch == 2:
            run.model[1].weight.data[...] = np.nan

    with pytest.raises(FloatingPointError):
        nn.fit(model, x, y, epochs=5, callbacks=[best, poison], progress="silent")
    assert np.isfinite(model[1].weight.data).all()
