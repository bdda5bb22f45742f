"""Edge detection: what five small kernels make of a photograph.

Run it with ``python docs/examples/edge_detection.py [folder for pictures]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_image

import fastconv
from fastconv import plots

SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])


def main(folder: Path) -> None:
    """Show the arithmetic on a tiny image, then draw the pictures of a real one."""
    # A dark square left, a bright one right: one edge, from top to bottom.
    step = np.zeros((1, 1, 4, 8))
    step[..., 4:] = 1
    print("an image with an edge in its middle:")
    print(step[0, 0].astype(int))
    print("Sobel x answers where the edge is and with 0 where nothing changes:")
    print(fastconv.conv2d(step, SOBEL_X[np.newaxis, np.newaxis])[0, 0].astype(int))
    print("its transpose, Sobel y, sees nothing: no row differs from the next:")
    print(fastconv.conv2d(step, SOBEL_X.T[np.newaxis, np.newaxis])[0, 0].astype(int))
    print("the Laplacian answers with both signs, one on either side of the edge:")
    print(fastconv.conv2d(step, LAPLACIAN[np.newaxis, np.newaxis])[0, 0].astype(int))

    photograph = load_sample_image("china.jpg")  # (427, 640, 3), bytes
    gray = (photograph / 255) @ [0.299, 0.587, 0.114]
    kernels = np.stack([SOBEL_X, SOBEL_X.T])[:, np.newaxis] / 4
    x_edges, y_edges = fastconv.conv2d(gray[np.newaxis, np.newaxis], kernels)[0]
    magnitude = np.hypot(x_edges, y_edges)
    strong = magnitude > 0.25
    print(f"\nphotograph {photograph.shape} -> gray {gray.shape} -> edges {magnitude.shape}")
    print(f"{strong.mean():.1%} of the pixels lie on strong edges (magnitude above 0.25)")

    folder.mkdir(parents=True, exist_ok=True)
    plots.save(plots.edges(photograph), folder / "edges.png", dpi=80)
    own = {
        "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
        "one diagonal": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
    }
    figure = plots.edges(load_sample_image("flower.jpg"), own, "Kernels of one's own")
    plots.save(figure, folder / "own_kernels.png", dpi=80)
    print(f"wrote edges.png and own_kernels.png to {folder}")


if __name__ == "__main__":
    default = Path(__file__).parent / "images"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
