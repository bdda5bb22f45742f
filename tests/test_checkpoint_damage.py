"""Whatever a checkpoint's files hold: training goes on, or one kind of error names the file."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as safetensors
from checkpoint_mutations import NESTED, places, read, spoil, spoil_arrays, write

from fastconv import nn
from fastconv.nn.training import checkpoint_files

BEFORE, STEP = "step-00000004", "step-00000006"


class Stop(Exception):
    """Ends a training in the middle of an epoch."""


def go(folder: Path, *, stop: bool = False) -> tuple[nn.Module, nn.History]:
    """Train, with one of everything that has a state; `stop` in the second of two epochs."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 1, 3, 3), dtype=np.float32), rng.integers(0, 2, 32)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2, rng=0),
        nn.BatchNorm2d(2),
        nn.Flatten(),
        nn.Linear(8, 2, rng=1),
        nn.Dropout(0.2, rng=np.random.Generator(np.random.MT19937(2))),
        nn.Dropout(0.2, rng=np.random.Generator(np.random.Philox(2))),
        nn.Dropout(0.2, rng=3),
    )
    optimizer = nn.Adam(model.parameters())

    def augment(images: Any, rng: Any) -> Any:
        calls.append(1)
        if stop and len(calls) > 6:
            raise Stop
        return images

    calls: list[int] = []
    history = nn.fit(
        *(model, x, y),
        optimizer=optimizer,
        schedule=nn.OneCycleLR(optimizer, 0.01, 8),
        epochs=2,
        batch_size=8,
        validation=(x[:8], y[:8]),
        augment=augment,
        callbacks=[nn.EarlyStopping(3)],
        progress="silent",
        checkpoint=nn.Checkpoints(folder, every=2),
    )
    return model, history


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a training that ended in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.raises(Stop):
        go(folder, stop=True)
    return folder / STEP


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: these files are needed for milliseconds."""
    for module in ("checkpoint_files", "checkpoints"):
        monkeypatch.setattr(f"fastconv.nn.training.{module}.sync", lambda path: None)


def assert_goes_on_or_tells(folder: Path, what: str) -> str:
    """Ask that training goes on, or that the error is the documented one; return which."""
    error: Exception | None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _, history = go(folder)
        except Exception as raised:
            error = raised
        else:
            error = None
    if isinstance(error, FloatingPointError):  # wrong numbers of the right kind
        return str(error)
    if error is not None:
        assert isinstance(error, ValueError), f"{what}: {error!r}"
        assert str(folder) in str(error), what
        assert "resume=False begins anew" in str(error), what
        return str(error)
    assert len({len(column) for column in history.to_dict().values()}) == 1, what
    return "went on"


@pytest.mark.usefixtures("no_disk")
@pytest.mark.parametrize("seed", range(6))
def test_states_of_any_form(original: Path, tmp_path: Path, seed: int) -> None:
    dice, (tree, arrays) = random.Random(seed), read(original)
    outcomes = []
    for number in range(100):
        folder, content = tmp_path / str(number), safetensors.save(arrays)
        if number % 4:
            changed, what = spoil(tree, dice)
        else:
            changed = tree
            fewer, what = spoil_arrays(arrays, dice)
            content = safetensors.save(fewer)
        write(folder / STEP, changed, content)
        outcomes.append(assert_goes_on_or_tells(folder, what))
        shutil.rmtree(folder)
    assert sum("holds no state" in outcome for outcome in outcomes) > 20
    assert "went on" in outcomes


@pytest.mark.usefixtures("no_disk")
def test_every_part_of_a_state_that_is_gone(original: Path, tmp_path: Path) -> None:
    tree, arrays = read(original)
    content = safetensors.save(arrays)
    # The first part, a description of the training, is compared and not used.
    paths = (path for path in places(tree) if len(path) <= 7 and path[:2] != ("dict", 0))
    for number, path in enumerate(paths):
        changed = json.loads(json.dumps(tree))
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        del parent[path[-1]]
        folder = tmp_path / str(number)
        write(folder / STEP, changed, content)
        assert assert_goes_on_or_tells(folder, f"{path} is gone") != "went on", path
        shutil.rmtree(folder)


@pytest.mark.usefixtures("no_disk")
def test_manifests_of_any_form(original: Path, tmp_path: Path) -> None:
    dice = random.Random(0)
    whole = {"format": 2, "checkpoints": [BEFORE, STEP]}
    wanted, _ = go(tmp_path / "whole")
    for number in range(60):
        folder = tmp_path / str(number)
        shutil.copytree(original.parent, folder)
        changed, what = spoil(whole, dice)
        (folder / "manifest.json").write_text(json.dumps(changed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, _ = go(folder)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, wanted.state_dict()[name], what)
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["manifest.json", f"{STEP}/state.json"])
@pytest.mark.parametrize("depth", [70, 300, 100_000])
def test_deep_nesting(original: Path, tmp_path: Path, name: str, depth: int) -> None:
    folder = tmp_path / "deep"
    shutil.copytree(original.parent, folder)
    (folder / name).write_text("[" * depth + "]" * depth)
    with pytest.warns(UserWarning, match=name.rpartition("/")[2]):
        model, _ = go(folder)
    assert model.state_dict().keys() == go(tmp_path / "whole")[0].state_dict().keys()


def test_deep_states_are_neither_read_nor_written(tmp_path: Path) -> None:
    deep: Any = 0
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested at most 64 levels deep"):
        nn.Checkpoints(tmp_path).write({"deep": deep}, 1)
    write(tmp_path / STEP, {"dict": [["deep", NESTED]]}, safetensors.save({}))
    with pytest.raises(ValueError, match="nested more than 64 levels"):
        checkpoint_files.read(tmp_path / STEP)
    for wrong in ({(1, 2): 0}, {"a": np.array(["text"])}, {"a": np.ones(1, complex)}):
        with pytest.raises(TypeError, match="a state must"):
            nn.Checkpoints(tmp_path / "other").write(wrong, 1)  # type: ignore[arg-type]
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("missing", ["step-00000009", BEFORE])
def test_a_missing_step_hides_no_other(original: Path, tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "some"
    shutil.copytree(original.parent, folder)
    names = [BEFORE, STEP]
    if missing in names:
        shutil.rmtree(folder / missing)
    (folder / "manifest.json").write_text(json.dumps({"format": 2, "checkpoints": [missing]}))
    checkpoints = nn.Checkpoints(folder)
    assert checkpoints.names() == [name for name in names if name != missing]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        state = checkpoints.read()
    assert state is not None
    assert state["position"]["steps"] == 6
    # Only what was looked at is told of.
    assert [f"{missing}' is missing" in str(warning.message) for warning in told] == (
        [True] if missing > STEP else []
    )
    checkpoints.write(state, 8)
    assert checkpoints.names() == [STEP, "step-00000008"]


def test_all_that_is_missing_or_damaged_is_told(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    shutil.copytree(original.parent, folder)
    (folder / BEFORE / "state.json").write_text("{")
    (folder / STEP / "tensors.safetensors").unlink()
    (folder / STEP / "tensors.safetensors").mkdir()
    manifest = {"format": 2, "checkpoints": [STEP, "step-00000010"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with (
        pytest.warns(UserWarning, match="using the one before it"),
        pytest.raises(ValueError, match="resume=False begins anew") as caught,
    ):
        go(folder)
    assert [line.split(" (")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "step-00000010 is missing",
        f"{STEP} is damaged",
        f"{BEFORE} is damaged",
    ]


def test_what_callbacks_cannot_load_is_told(tmp_path: Path) -> None:
    class Picky(nn.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"a": 1}

        def load_state_dict(self, state: Any) -> None:
            state["b"].append(1)

    x, y, model = np.ones((4, 3), np.float32), np.zeros(4, int), nn.Linear(3, 2, rng=0)
    options: dict[str, Any] = {"checkpoint": tmp_path, "callbacks": [Picky()], "progress": "silent"}
    nn.fit(model, x, y, epochs=1, **options)
    before = model.state_dict()
    model.weight.data[...] = 7
    with pytest.raises(ValueError, match=r"step-00000001'.*KeyError: 'b'"):
        nn.fit(model, x, y, epochs=2, **options)
    assert (model.weight.value == 7).all()
    assert before.keys() == model.state_dict().keys()


def test_numbers_of_numpy_are_whole_states_too(tmp_path: Path) -> None:
    class Own(nn.MSELoss):
        def forward(self, pred: Any, target: Any) -> Any:
            self.total_weight = np.float32(2)
            return np.float32(super().forward(pred, target))

    class Halving(nn.Schedule):
        per_batch = np.True_  # type: ignore[assignment]

        def rate(self, base_lr: float, step: int) -> float:
            return np.float32(base_lr / 2**step)  # type: ignore[return-value]

    def stop(run: nn.Run) -> None:
        run.stop = np.bool_(run.epoch == 3)  # type: ignore[assignment]

    x, y, model = np.ones((8, 3), np.float32), np.zeros((8, 2)), nn.Linear(3, 2, rng=0)
    for epochs in (1, 2, 5):
        optimizer = nn.SGD(model.parameters(), lr=np.float64(0.1))  # type: ignore[arg-type]
        checkpoint = nn.Checkpoints(tmp_path, every=1)
        history = nn.fit(
            *(model, x, y),
            loss=Own(),
            optimizer=optimizer,
            schedule=Halving(optimizer),
            batch_size=4,
            epochs=epochs,
            callbacks=[stop],
            checkpoint=checkpoint,
            progress="silent",
        )
        assert len(history) == min(epochs, 3)
