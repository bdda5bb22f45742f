"""Trainings that are killed at random moments and go on must end in the same bits.

``python tests/training_kills.py --kills 100`` does it often; the test-suite does it a few times.
The program calls itself: ``train`` is the training that is killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import nn
from fastconv.data import shift

EPOCHS = 8


class Told(nn.Checkpoints):
    """Checkpoints that tell when one is finished."""

    def write(self, state: dict[str, Any], step: int, **options: Any) -> None:
        """Write it, then say so."""
        super().write(state, step, **options)
        print("wrote", step, flush=True)


def train(folder: str, result: str, every: int | None) -> None:
    """Use everything that has a state: dropout, Adam, one cycle, augmentation, early stopping."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((600, 1, 8, 8), dtype=np.float32)
    y = (np.abs(x[:, 0, :4]).sum(axis=(1, 2)) > np.abs(x[:, 0, 4:]).sum(axis=(1, 2))).astype(int)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, rng=rng),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2, rng=1),
        nn.Flatten(),
        nn.Linear(128, 16, rng=rng),
        nn.ReLU(),
        nn.Dropout(0.2, rng=np.random.Generator(np.random.MT19937(2))),
        nn.Linear(16, 2, rng=rng),
    )
    optimizer = nn.AdamW(model.parameters())
    history = nn.fit(
        *(model, x, y),
        optimizer=optimizer,
        schedule=nn.OneCycleLR(optimizer, 0.01, EPOCHS * 32),
        epochs=EPOCHS,
        batch_size=16,
        validation=0.15,
        seed=5,
        clip_norm=1.0,
        augment=partial(shift, most=1),
        callbacks=[nn.EarlyStopping(3)],
        progress="silent",
        checkpoint=Told(folder, every=every),
    )
    numbers = {f"history.{k}": np.array(v) for k, v in history.to_dict().items() if k != "seconds"}
    np.savez(f"{result}.part.npz", **model.state_dict(), **numbers)
    os.replace(f"{result}.part.npz", result)


def start(folder: Path, result: Path, every: int | None) -> subprocess.Popen[str]:
    arguments = ["train", str(folder), str(result), str(every or 0)]
    return subprocess.Popen(
        [sys.executable, "-W", "error", __file__, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def survive(kills: int, seed: int, work: Path) -> int:
    """Kill trainings so often; return how many of them ended. Raises if one is not the same."""
    dice = random.Random(seed)
    whole = work / "whole.npz"
    child = start(work / "whole", whole, 7)
    # The time that matters begins with the first checkpoint.
    assert child.stdout is not None
    assert child.stdout.readline().startswith("wrote"), child.communicate()[1]
    began = time.perf_counter()
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    length = time.perf_counter() - began
    with np.load(whole) as file:
        wanted = {name: file[name] for name in file.files}
    done = killed = 0
    while killed < kills:
        folder, result, newest = work / f"run{done}", work / f"run{done}.npz", 0
        # Other moments to write checkpoints at must not matter.
        every = dice.choice((None, 1, 5, 7))
        while not result.exists():
            child = start(folder, result, every)
            assert child.stdout is not None
            lines = []
            if killed < kills and dice.random() < 0.9:
                lines = [child.stdout.readline()]
                time.sleep(dice.uniform(0, 0.6 * length))
                child.send_signal(signal.SIGKILL)
            output, errors = child.communicate(timeout=120)
            lines += output.splitlines()
            told = [int(line.split()[1]) for line in lines if line.startswith("wrote")]
            if child.returncode == -signal.SIGKILL:
                killed += 1
            else:
                assert child.returncode == 0, errors
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                state = nn.Checkpoints(folder).read()
            assert state is not None or not told
            step = state["position"]["steps"] if state else 0
            assert step >= max([newest, *told]), "a finished checkpoint is lost"
            newest = step
        with np.load(result) as file:
            assert sorted(file.files) == sorted(wanted)
            for name in file.files:
                assert file[name].tobytes() == wanted[name].tobytes(), f"{name} differs"
        done += 1
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        done = survive(options.kills, options.seed, Path(work))
    print(f"{options.kills} kills, {done} trainings, all ended in the same bits")


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2], sys.argv[3], int(sys.argv[4]) or None)
    else:
        main()
