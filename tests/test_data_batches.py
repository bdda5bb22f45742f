"""Dividing and augmenting images: random, but for a seed always the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from checks import assert_identical, refused
from sklearn import model_selection
from test_data import rng

from fastconv import data

# Dividing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("size", [0.2, 0.33, 0.5, 25, 100])
@pytest.mark.parametrize("seed", [0, 42, 7])
def test_splits_are_those_of_scikit_learn(size: float, seed: int, stratify: bool) -> None:
    labels = rng(seed).integers(0, 7, 211)
    images = np.arange(211 * 2).reshape(211, 2)
    ours = data.train_test_split(images, labels, size, seed, stratify)
    theirs = model_selection.train_test_split(
        images,
        labels,
        test_size=size,
        random_state=seed,
        stratify=labels if stratify else None,
    )
    for one, other in zip(ours, theirs, strict=True):
        assert_identical(one, other, other.dtype)


def test_splits_refused() -> None:
    four = np.arange(4)
    for size in (0, 4, 1.0, -0.5, 0.99, float("nan")):
        with refused("test_size", size):
            data.train_test_split(four, four, size)
    with refused("test_size", True):
        data.train_test_split(four, four, True)
    with refused("labels", "4 and 3"):
        data.train_test_split(four, four[:3])
    with refused("labels", "once"):
        data.train_test_split(four, [0, 0, 1, 2], stratify=True)
    with refused("test_size", 1):
        data.train_test_split(four, [0, 0, 1, 1], 1, stratify=True)


def test_batches() -> None:
    images, labels = np.arange(10) * 10, np.arange(10)
    parts = list(data.batches(images, labels, 4))
    assert [part.tolist() for _, part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert np.shares_memory(parts[0][0], images)
    assert len(list(data.batches(images, labels, 4, drop_last=True))) == 2
    assert len(list(data.batches(images, labels, 5, drop_last=True))) == 2
    generator = rng()
    first, second = (list(data.batches(images, labels, 4, generator)) for _ in range(2))
    for epoch in (first, second):
        assert all((part == 10 * own).all() for part, own in epoch)
        assert sorted(np.concatenate([own for _, own in epoch])) == list(range(10))
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    again = list(data.batches(images, labels, 4, rng()))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))


def test_batches_refused_at_once() -> None:
    with refused("batch_size", 0):
        data.batches([1], [1], 0)
    with refused("batch_size", 1.5):
        data.batches([1], [1], 1.5)
    with refused("rng", 42):
        data.batches([1], [1], 1, 42)
    with refused("images", "2 and 1"):
        data.batches([1, 2], [1], 1)


# Augmentation -------------------------------------------------------------------------------------


def test_shift_moves_each_image_by_itself() -> None:
    images = rng().random((200, 2, 6, 7), np.float32)
    before = images.copy()
    moved = data.shift(images, (1, 2), rng())
    np.testing.assert_array_equal(images, before)
    assert moved.dtype == np.float32
    seen = set()
    for old, new in zip(images, moved, strict=True):
        for down in range(-1, 2):
            for right in range(-2, 3):
                expected = np.zeros_like(old)
                top, left = max(down, 0), max(right, 0)
                part = old[:, max(-down, 0) : 6 - top, max(-right, 0) : 7 - left]
                expected[:, top : top + part.shape[1], left : left + part.shape[2]] = part
                if np.array_equal(new, expected):
                    seen.add((down, right))
    assert len(seen) == 15
    np.testing.assert_array_equal(data.shift(images, 0, rng()), images)


def test_flip() -> None:
    images = rng().random((400, 2, 3, 4))
    before = images.copy()
    flipped = data.flip(images, rng())
    np.testing.assert_array_equal(images, before)
    mirrored = (flipped == images[..., ::-1]).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250
    np.testing.assert_array_equal(data.flip(images, rng(), 0), images)
    np.testing.assert_array_equal(data.flip(images, rng(), 1), images[..., ::-1])
    assert not np.shares_memory(data.flip(images, rng(), 0), images)


def test_augment_is_its_steps() -> None:
    images = rng().random((20, 1, 8, 8))
    augment = data.Augment([partial(data.shift, most=2), data.flip])
    generator = rng(5)
    expected = data.flip(data.shift(images, 2, generator), generator)
    np.testing.assert_array_equal(augment(images, rng(5)), expected)
    assert not np.shares_memory(data.Augment([])(images, rng()), images)
    assert "shift" in repr(augment)


def test_augmentation_refused() -> None:
    images = np.zeros((2, 1, 4, 5))
    with refused("most", 4):
        data.shift(images, 4, rng())
    with refused("most", -1):
        data.shift(images, -1, rng())
    with refused("p", 1.5):
        data.flip(images, rng(), 1.5)
    with refused("rng", 3):
        data.flip(images, 3)
    with refused("images", "(1, 4, 5)"):
        data.flip(images[0], rng())
    with refused("steps", "'flip'"):
        data.Augment(["flip"])
    with pytest.raises(ValueError, match="must return 2 images"):
        data.Augment([lambda images, rng: images[:1]])(images, rng())
