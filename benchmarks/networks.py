"""Training steps and inference of two small networks, beside the same in PyTorch.

``python benchmarks/networks.py`` prints a row for each network and task: medians of one run in
which both libraries have their turns in random order, from the same weights on the same batch.
Before anything is timed, both take a few steps, and their losses and outputs are compared.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import fastconv
from fastconv import nn

Array = NDArray[Any]

CLASSES = 10
#: Losses after the steps that are compared, and outputs, may differ by this much of themselves.
STEPS, ALLOWED = 5, 1e-4


class Net(NamedTuple):
    """A network: image shape, filters of its convolutions, and whether they are normalized."""

    name: str
    image: tuple[int, int, int]
    filters: tuple[int, ...]
    norm: bool


NETS = (
    Net("28x28 conv8-conv16-fc128", (1, 28, 28), (8, 16), False),
    Net("32x32 conv32-conv64-conv128-fc128, BatchNorm", (3, 32, 32), (32, 64, 128), True),
)


def build(net: Net, library: Any) -> Any:
    """Return the network; layers have the same names and arguments in both libraries."""
    channels, height, width = net.image
    layers: list[Any] = []
    for count in net.filters:
        layers.append(library.Conv2d(channels, count, 3, padding=1))
        layers += [library.BatchNorm2d(count)] if net.norm else []
        layers += [library.ReLU(), library.MaxPool2d(2)]
        channels, height, width = count, height // 2, width // 2
    units = channels * height * width
    layers += [library.Flatten(), library.Linear(units, 128), library.ReLU()]
    return library.Sequential(*layers, library.Linear(128, CLASSES))


def ours(net: Net, state: dict[str, Any], x: Array, labels: Array) -> tuple[Any, Any]:
    """Return fastconv's training step, which returns the loss, and its forward pass."""
    model, loss = build(net, nn), nn.CrossEntropyLoss()
    model.load_state_dict(state)
    model[0].input_grad = False
    optimizer = nn.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> float:
        value = loss(model(x), labels)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return float(value)

    return step, model


def theirs(net: Net, model: Any, x: Array, labels: Array) -> tuple[Any, Any]:
    """Return the same of PyTorch."""
    images, classes = torch.from_numpy(x), torch.from_numpy(labels)
    loss = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> float:
        value = loss(model(images), classes)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step, model


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return seconds a call, blocks of about 50 ms taking turns in random order."""
    repeats, times = {}, {name: [] for name in calls}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(0.05 / (time.perf_counter() - start)))
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            start = time.perf_counter()
            for _ in range(repeats[name]):
                calls[name]()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def row(title: str, times: dict[str, list[float]]) -> str:
    """Return a row: median times, their spread (half of the samples), and the ratio."""
    cells = []
    for seconds in times.values():
        low, middle, high = statistics.quantiles(seconds, n=4)
        cells.append(f"{1e3 * middle:.2f} ms ±{(high - low) / middle / 2:.0%}")
    fast, slow = (statistics.median(seconds) for seconds in times.values())
    return f"| {title} | {' | '.join(cells)} | {slow / fast:.2f} x |"


def compare(net: Net, rounds: int) -> list[str]:
    """Return the rows of one network."""
    torch.manual_seed(0)
    peer = build(net, torch.nn)
    state = {name: value.numpy().copy() for name, value in peer.state_dict().items()}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, *net.image), np.float32)
    labels = rng.integers(0, CLASSES, 64)
    step, model = ours(net, state, x, labels)
    other, _ = theirs(net, peer, x, labels)
    losses = np.array([(step(), other()) for _ in range(STEPS)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=ALLOWED)
    rows = [
        row(f"{net.name}: training step, batch 64", interleaved(both(step, other), rounds)),
    ]
    peer.load_state_dict({k: torch.from_numpy(v) for k, v in model.state_dict().items()})
    model.eval()
    peer.eval()
    for batch in (1, 64):
        part = x[:batch]
        images = torch.from_numpy(part)
        with torch.inference_mode():
            truth = peer(images).numpy()
            np.testing.assert_allclose(model(part), truth, atol=ALLOWED * np.abs(truth).max())
            calls = both(lambda part=part: model(part), lambda images=images: peer(images))
            rows.append(row(f"{net.name}: inference, batch {batch}", interleaved(calls, rounds)))
    return rows


def both(first: Callable[[], Any], second: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """Name the two."""
    return {"fastconv": first, "PyTorch": second}


def main() -> None:
    """Compare all networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(fastconv.get_num_threads())
    print(f"{fastconv.get_num_threads()} threads, float32, PyTorch {torch.__version__}\n")
    print("| network | fastconv | PyTorch | ratio |\n| --- | --- | --- | --- |")
    for net in NETS:
        for line in compare(net, rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
