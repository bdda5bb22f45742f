"""Models in files: complete or not there, refused if damaged or foreign, never run."""

from __future__ import annotations

import json
import os
import pickle
import random
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_mutations import spoil
from nn_cases import scramble, small_net
from reference import Array

from fastconv import nn

safetensors = pytest.importorskip("safetensors.numpy")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    model = small_net()
    scramble(model, np.random.default_rng(1))
    nn.save(model, path)
    return path


def assert_refused(path: Path, *words: str, strict: bool = True) -> None:
    """Ask that a file is refused, with these words, and the model is as it was."""
    model = small_net()
    before = model.state_dict()
    with pytest.raises(ValueError, match=path.name) as caught:
        nn.load(model, path, strict)
    for word in words:
        assert word in str(caught.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def state_in(path: Path) -> dict[str, Array]:
    return dict(safetensors.load_file(path))


def test_there_and_back(path: Path) -> None:
    model = nn.load(small_net(5), str(path))
    for name, value in state_in(path).items():
        np.testing.assert_array_equal(model.state_dict()[name], value)
    assert model.state_dict()["1.num_batches_tracked"] == 7
    nn.save(model.astype("float64"), path)
    nn.load(small_net(6).astype("float64"), path)
    assert_refused(path, "0.weight must be float32 of shape (8, 3, 3, 3), got float64")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, 0.999])
def test_truncated_files(path: Path, kept: float) -> None:
    content = path.read_bytes()
    size = int(kept * len(content)) if isinstance(kept, float) else kept
    path.write_bytes(content[:size])
    assert_refused(path, "damaged")


def test_changed_bytes_of_the_header(path: Path) -> None:
    content = path.read_bytes()
    for place in range(0, 60):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        assert_refused(path)


def test_headers_of_any_form(path: Path) -> None:
    dice, content = random.Random(0), path.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8:size]), content[size:]
    refusals = []
    for _ in range(300):
        changed, what = spoil(header, dice)
        text = json.dumps(changed).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
        try:
            nn.load(small_net(), path)
        except ValueError as error:
            refusals.append((what, str(error)))
    assert len(refusals) > 200
    assert [what for what, message in refusals if path.name not in message] == []


@pytest.mark.parametrize("dtype", ["bool", "int32", "float64", "complex64", "uint64"])
def test_arrays_of_other_types(path: Path, dtype: str) -> None:
    state = state_in(path)
    safetensors.save_file({**state, "1.bias": state["1.bias"].astype(dtype)}, path)
    assert_refused(path, f"1.bias must be float32 of shape (8,), got {dtype}")


class Bomb:
    """What makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def test_pickles_are_refused_and_not_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    for protocol in range(2, 6):
        path.write_bytes(pickle.dumps({"0.weight": Bomb()}, protocol))
        assert_refused(path, "is a pickle", "torch.load(path, weights_only=True)")
    assert not Path("exploded").exists()
    path.write_text("not a model")
    assert_refused(path, "damaged")


@pytest.mark.parametrize("new", [True, False])
def test_files_of_pytorch_are_refused_with_the_way_to_convert_them(path: Path, new: bool) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value) for name, value in small_net().state_dict().items()}
    torch.save(state, path, _use_new_zipfile_serialization=new)
    assert_refused(path, "is a pickle, as torch.save writes it", "safetensors.torch.save_file(")


def test_a_header_that_begins_like_a_pickle_is_read(path: Path) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    longer = next(
        n for n in range(size, size + 2**17) if n.to_bytes(8, "little")[:2] == b"\x80\x02"
    )
    header = content[8 : 8 + size].ljust(longer)
    path.write_bytes(longer.to_bytes(8, "little") + header + content[8 + size :])
    nn.load(small_net(), path)


def test_other_models(path: Path) -> None:
    state = state_in(path)
    safetensors.save_file({**state, "extra.weight": state["1.bias"]}, path)
    assert_refused(path, "not in this Sequential: extra.weight")
    short = dict(state)
    del short["1.bias"], short["4.shortcut.0.weight"]
    safetensors.save_file(short, path)
    assert_refused(path, "missing: 1.bias", "missing: 4.shortcut.0.weight")
    safetensors.save_file({**state, "1.bias": np.zeros(9, np.float32)}, path)
    assert_refused(path, "1.bias must be float32 of shape (8,), got float32 of shape (9,)")
    safetensors.save_file({**state, "1.bias": np.zeros(8, np.float16)}, path)
    assert_refused(path, "1.bias", "got float16", strict=False)
    safetensors.save_file({}, path)
    assert_refused(path, "missing: 0.weight", "missing: 10.bias")


def test_parts_of_a_state(path: Path) -> None:
    model = small_net()
    before, state = model.state_dict(), state_in(path)
    safetensors.save_file({"0.weight": state["0.weight"], "head": state["1.bias"]}, path)
    nn.load(model, path, strict=False)
    np.testing.assert_array_equal(model.state_dict()["0.weight"], state["0.weight"])
    np.testing.assert_array_equal(model.state_dict()["1.weight"], before["1.weight"])
    keys = model.load_state_dict({"head": [1.0]}, strict=False)
    assert keys.unexpected_keys == ("head",)
    assert keys.missing_keys == tuple(before)


def test_a_file_is_replaced_at_once_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OSError, match="no space left"):
                nn.save(small_net(3), path)
        assert path.read_bytes() == content
        assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="links and folders on the disk are POSIX's")
def test_links_are_written_through_and_the_disk_is_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = path.parent / "link"
    link.symlink_to(path.name)
    folders = []
    monkeypatch.setattr(os, "fsync", lambda h: folders.append(stat.S_ISDIR(os.fstat(h).st_mode)))
    nn.save(small_net(3), link)
    assert link.is_symlink()
    np.testing.assert_array_equal(state_in(path)["0.weight"], small_net(3).state_dict()["0.weight"])
    assert folders == [False, True]  # the file, then its name


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX's")
def test_a_pipe_is_no_file_to_replace(path: Path) -> None:
    pipe = path.parent / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    nn.save(nn.Linear(2, 2), pipe)
    assert safetensors.load(os.read(reader, 10**4))["weight"].shape == (2, 2)
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_permissions_are_those_of_any_new_file(path: Path) -> None:
    plain = path.parent / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    nn.save(small_net(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nn.load(small_net(), tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        nn.save(small_net(), tmp_path / "none" / "model")
