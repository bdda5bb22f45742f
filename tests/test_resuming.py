"""A training goes on from its checkpoints to the same bits, whatever happened meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_kills
from test_training import Array, Stream, data, network, same, small_problem, train

from fastconv import nn


def test_killed_trainings_end_in_the_same_bits(tmp_path: Path) -> None:
    assert training_kills.survive(8, 1, tmp_path) >= 1


def test_more_epochs_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    whole = train(epochs=5)[0]
    train(epochs=2, checkpoint=folder)
    model, history = train(epochs=5, checkpoint=folder)
    assert len(history) == 5
    assert same(model, whole)
    names = nn.Checkpoints(folder).names()
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", *names]
    assert names == ["step-00000024", "step-00000030"]
    # Finished is finished.
    again, history = train(epochs=5, checkpoint=folder)
    assert len(history) == 5
    assert same(again, whole)
    # Anew on request, with the old ones until there is a new one.
    other, history = train(epochs=1, checkpoint=folder, resume=False)
    assert len(nn.Checkpoints(folder).names()) == 1
    assert same(other, train(epochs=1)[0])


def test_on_from_the_last_batch_of_an_epoch(tmp_path: Path) -> None:
    def scheduled(**options: Any) -> tuple[nn.Module, nn.History]:
        model = network()
        optimizer = nn.Adam(model.parameters())
        schedule = nn.OneCycleLR(optimizer, 0.01, 18)
        # Of an iterable nobody knows that the batch is the last one.
        source = (Stream(),)
        return train(model, data=source, optimizer=optimizer, schedule=schedule, **options)

    def kill(run: nn.Run) -> None:
        if fail and run.epoch == 2:
            raise RuntimeError

    whole, wanted = scheduled()
    fail = True
    with pytest.raises(RuntimeError):
        scheduled(checkpoint=nn.Checkpoints(tmp_path, every=6), callbacks=[kill])
    fail = False
    model, history = scheduled(checkpoint=tmp_path, callbacks=[kill])
    assert history.learning_rate == wanted.learning_rate
    assert history.loss == wanted.loss
    assert same(model, whole)


def test_no_batch_is_written_twice(tmp_path: Path) -> None:
    steps = []

    class Noting(nn.Checkpoints):
        def write(self, state: dict[str, Any], step: int, **options: Any) -> None:
            steps.append(step)
            super().write(state, step, **options)

    train(epochs=2, checkpoint=Noting(tmp_path, every=3))  # an epoch has 6 batches
    assert steps == [3, 6, 9, 12]


@pytest.mark.parametrize("part", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_damaged_checkpoints_are_named(tmp_path: Path, part: str, damage: str) -> None:
    folder = tmp_path / "checkpoints"
    train(checkpoint=folder)
    newest = nn.Checkpoints(folder).names()[-1]

    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        if damage == "gone":
            path.unlink()
            return
        content[len(content) // 2] ^= 1
        size = {"cut": len(content) // 2, "flip": len(content), "empty": 0}[damage]
        path.write_bytes(content[:size])

    spoil(folder / newest / part)
    with pytest.warns(UserWarning, match=newest):
        model, history = train(checkpoint=folder)
    assert len(history) == 3
    assert same(model, train()[0])
    assert len(nn.Checkpoints(folder).names()) == 2
    for name in nn.Checkpoints(folder).names():
        spoil(folder / name / part)
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match="resume=False begins anew"),
    ):
        train(checkpoint=folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"checkpoints": ["../x"]}'])
def test_a_damaged_manifest(tmp_path: Path, text: str) -> None:
    train(checkpoint=tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.warns(UserWarning, match=r"manifest\.json"):
        model, _ = train(checkpoint=tmp_path)
    assert same(model, train()[0])


def test_what_a_kill_leaves_is_cleared(tmp_path: Path) -> None:
    train(checkpoint=tmp_path, epochs=1)
    (tmp_path / ".step-00000012.1.tmp").mkdir()
    (tmp_path / "step-00000012").mkdir()  # renamed, but never named by the manifest
    (tmp_path / ".manifest.json.1.tmp.json").write_text("")
    model, _ = train(checkpoint=tmp_path)
    assert same(model, train()[0])
    assert len(list(tmp_path.iterdir())) == 3


def test_checkpoints_of_another_training(tmp_path: Path) -> None:
    x, y = data()
    other = x.copy()
    other[7, 0, 0, 0] += 1

    def go(adam: Any = (), step_size: int = 2, **options: Any) -> nn.History:
        model = options.pop("model", None) or network()
        optimizer = nn.Adam(model.parameters(), **{"lr": 0.01, **dict(adam)})
        own = {
            "optimizer": optimizer,
            "schedule": nn.StepLR(optimizer, step_size),
            "loss": nn.CrossEntropyLoss([1, 2]),
            "clip_norm": 1.0,
            "validation": data(40),
            "checkpoint": tmp_path,
        }
        return train(model, **{**own, **options})[1]

    go(epochs=1)
    for options, words in (
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch_size": 8}, "batch_size was 16, is 8"),
        ({"data": data(64)}, "x was float32 of shape (96, 1, 6, 6) with"),
        ({"data": (other, y)}, "x was float32 of shape (96, 1, 6, 6) with"),
        ({"data": (x, 1 - y)}, "y was int64 of shape (96,) with"),
        ({"validation": None}, "is None"),
        ({"callbacks": [nn.EarlyStopping()]}, "callbacks was [], is ['EarlyStopping']"),
        ({"model": nn.Linear(36, 2)}, "model.5.bias was float32 (2,), is nothing"),
        ({"loss": nn.MSELoss()}, "loss was CrossEntropyLoss, is MSELoss"),
        ({"loss": nn.CrossEntropyLoss([1, 3])}, "loss.weight was [1, 2], is [1, 3]"),
        ({"clip_norm": None}, "clip_norm was 1, is None"),
        ({"schedule": None}, "schedule was StepLR, is None"),
        ({"step_size": 3}, "schedule.step_size was 2, is 3"),
        ({"adam": {"lr": 0.1}}, "optimizer.lr was 0.01, is 0.1"),
        ({"adam": {"betas": (0.8, 0.9)}}, "optimizer.betas was [0.9, 0.999], is [0.8, 0.9]"),
        ({"adam": {"weight_decay": 1}}, "optimizer.weight_decay was 0, is 1"),
    ):
        with pytest.raises(ValueError, match="resume=False begins anew") as caught:
            go(**options)
        named = str(caught.value).splitlines()[1:]
        assert any(words in line for line in named)
        assert len(named) == 1 or options.keys() & {"model", "data"}
    checkpoint = nn.Checkpoints(tmp_path, every=1, keep=5)
    assert len(go(epochs=2, progress="auto", checkpoint=checkpoint)) == 2


def test_a_training_goes_on_with_the_objects_it_had(tmp_path: Path) -> None:
    def broken(images: Array, rng: Any) -> Array:
        calls.append(1)
        if len(calls) == 9:  # in the second of three epochs
            raise OSError
        return images

    def go(**options: Any) -> None:
        cycle = nn.OneCycleLR(optimizer, 0.1, 18) if "anew" in options else schedule
        options.pop("anew", None)
        train(model, optimizer=optimizer, schedule=cycle, augment=broken, **options)

    results = []
    for start in (0, 9):
        calls = [1] * start
        model = network()
        optimizer = nn.Adam(model.parameters())
        schedule = nn.OneCycleLR(optimizer, 0.1, 18)
        if not start:
            with pytest.raises(OSError):
                go(checkpoint=tmp_path)
            go(checkpoint=tmp_path, epochs=2)
            go(checkpoint=tmp_path, anew=True)  # the cycle, of an optimizer that has begun one
        else:
            go()
        results.append(model)
    assert same(*results)


def test_frozen_layers_stay_frozen(tmp_path: Path) -> None:
    def unfreeze(run: nn.Run) -> None:
        if run.epoch == 1:
            run.model[4].train()

    def go(freeze: bool = True, **options: Any) -> nn.Module:
        model = network(0.5)
        if freeze:
            model[1].eval(keep=True)
            model[4].eval(keep=True)
        return train(model, validation=0.25, callbacks=[unfreeze], **options)[0]

    whole = go()
    go(epochs=1, checkpoint=tmp_path)
    go(epochs=2, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"frozen was \['1', '4'\], is \[\]"):
        go(freeze=False, checkpoint=tmp_path)
    model = go(checkpoint=tmp_path)
    assert same(model, whole)
    norm = model[1]
    assert (norm.num_batches_tracked, *norm.running_mean, *norm.running_var) == (0,) * 5 + (1,) * 4
    assert np.any(norm.weight.value != 1)
    assert [layer.training for layer in model.train()] == [True, False, True, True, True, True]
    assert norm.train().training
    assert all(layer.training for layer in model.eval(keep=True).train())


def test_states_return_as_they_were(tmp_path: Path) -> None:
    state = {
        "a": {1: (0.1, float("inf"), None), "b": [True, "text", 2**100]},
        "x": np.arange(6, dtype=np.int8).reshape(2, 3).T,
        "x.y": np.float32(0.1),
        "empty": np.zeros((0, 3)),
        "scalar": np.array(7),
    }
    checkpoints = nn.Checkpoints(tmp_path / "deep" / "folder")
    assert checkpoints.read() is None
    for step in range(3):
        checkpoints.write({**state, "step": step}, step)
    found = checkpoints.read()
    assert found is not None
    assert found.pop("step") == 2
    assert repr(found) == repr(state)
    assert checkpoints.names() == ["step-00000001", "step-00000002"]
    with pytest.raises(TypeError, match="object"):
        checkpoints.write({"a": object()}, 3)
    assert checkpoints.names() == ["step-00000001", "step-00000002"]
    assert json.loads((checkpoints.folder / "manifest.json").read_text())["format"] == 2


def test_checkpoints_remove_nothing_but_checkpoints(tmp_path: Path) -> None:
    model, x, y = small_problem()
    for name in ("step-by-step-photos", ".step-mine.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture").write_text("dear")
    nn.fit(model, x, y, epochs=4, checkpoint=tmp_path, progress="silent")
    assert (tmp_path / "step-by-step-photos" / "picture").read_text() == "dear"
    assert (tmp_path / ".step-mine.tmp" / "picture").read_text() == "dear"
    assert len(list(tmp_path.glob("step-0*"))) == 2


@pytest.mark.parametrize("names", ["step", [], ["..", "step-00000001"], [3], {}])
def test_a_damaged_list_of_checkpoints_hides_none(tmp_path: Path, names: object) -> None:
    model, x, y = small_problem()
    nn.fit(model, x, y, epochs=2, checkpoint=tmp_path, progress="silent")
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 2, "checkpoints": names}))
    with pytest.warns(UserWarning, match="is damaged"):
        history = nn.fit(small_problem()[0], x, y, epochs=2, checkpoint=tmp_path, progress="silent")
    assert len(history) == 2


def test_a_disk_that_does_not_answer_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = small_problem()
    nn.fit(model, x, y, epochs=2, checkpoint=tmp_path, progress="silent")

    def refuse(folder: Path) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("fastconv.nn.training.checkpoint_files.read", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        nn.fit(small_problem()[0], x, y, epochs=3, checkpoint=tmp_path, progress="silent")
    assert len(list(tmp_path.glob("step-0*"))) == 2
