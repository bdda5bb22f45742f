"""The forward pass of a network with two convolutions, one step at a time.

A digit of 28 x 28 pixels goes through

    Conv 3x3, 4 filters - ReLU - MaxPool 2 - Conv 3x3, 8 filters - ReLU - MaxPool 2 - Dense 10

and after every layer the program prints what came out and how many operations it took. Where
PyTorch is installed, it computes the same from the same weights and must agree at every step.
"""

import numpy as np
from common import SEED, options, picture, table

from fastconv import data, nn

ARGUMENTS = options(__doc__)
TOLERANCE = 1e-5  # float32 keeps seven digits, and sums are added up in another order


def build():
    """Return the network with random weights: nothing is learned here."""
    rng = np.random.default_rng(SEED)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 7 * 7, 10, rng=rng),
    )


def operations(layer, x, y):
    """Count the operations of a layer: a multiplication is one, an addition is one.

    Every number that a convolution puts out is a sum of C * R * S products; every number that a
    dense layer puts out is a sum of as many products as it has inputs. ReLU compares each number
    with zero, and pooling 2 x 2 compares four numbers, which takes three comparisons.
    """
    if isinstance(layer, nn.Conv2d):
        _, channels, height, width = layer.weight.shape
        return y.size * channels * height * width * 2
    if isinstance(layer, nn.Linear):
        return y.size * x.shape[1] * 2
    return {nn.ReLU: 1, nn.MaxPool2d: 3, nn.Flatten: 0}[type(layer)] * y.size


def in_pytorch(model, image):
    """Return what PyTorch computes after each layer, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    twin = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 7 * 7, 10),
    )
    # The weights have PyTorch's names and layouts, so they can be handed over as they are.
    twin.load_state_dict({name: torch.tensor(w) for name, w in model.state_dict().items()})
    results, x = [], torch.tensor(image)
    with torch.no_grad():
        for layer in twin:
            x = layer(x)
            results.append(x.numpy())
    return results


images, labels = data.load_digits(size=28)
image = images[:1]
model = build()
theirs = in_pytorch(model, image)

print(f"A {labels[0]}, scaled from 8 x 8 to 28 x 28 pixels, float32\n")
rows, maps, largest = [("input", image.shape, "", "", "")], {"input": image}, 0.0
x = image
for i, layer in enumerate(model):
    y = layer(x)
    difference = ""
    if theirs is not None:
        gap = float(np.abs(y - theirs[i]).max())
        largest, difference = max(largest, gap), f"{gap:.1e}"
    weights = sum(p.size for p in layer.parameters())
    name = type(layer).__name__
    rows.append((name, y.shape, f"{weights:,}", f"{operations(layer, x, y):,}", difference))
    if y.ndim == 4:
        maps[f"{i + 1}. {name}"] = y
    x = y
weights = sum(p.size for p in model.parameters())
total = sum(int(row[3].replace(",", "")) for row in rows[1:])
rows.append(("total", "", f"{weights:,}", f"{total:,}", ""))
table(("layer", "output", "weights", "operations", "off PyTorch"), rows)

probabilities = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
print("\nProbabilities of 0 to 9, which are near 1/10 as nothing is learned yet:")
print(" ".join(f"{p:.3f}" for p in probabilities[0]), f"(sum {probabilities.sum():.3f})")
if theirs is None:
    print("\nPyTorch is not installed: nothing to compare with")
else:
    if largest > TOLERANCE:
        raise SystemExit(f"PyTorch differs by {largest:.1e}")
    print(f"\nAll {len(theirs)} intermediate results equal PyTorch's: off by {largest:.1e} at most")

if ARGUMENTS.out:
    from fastconv import plots

    picture(plots.feature_maps(maps), ARGUMENTS.out, "forward_pass")
