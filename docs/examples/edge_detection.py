"""Edge detection: what five small kernels make of a photograph."""

from __future__ import annotations

import numpy as np
from common import options, picture
from sklearn.datasets import load_sample_image

import fastconv

SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])


def main() -> None:
    """Show the arithmetic on a tiny image, then the edges of a real one."""
    arguments = options(__doc__)
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

    if arguments.out:
        from fastconv import plots

        picture(plots.edges(photograph), arguments.out, "edges", dpi=80)
        own = {
            "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
            "one diagonal": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
        }
        figure = plots.edges(load_sample_image("flower.jpg"), own, "Kernels of one's own")
        picture(figure, arguments.out, "own_kernels", dpi=80)


if __name__ == "__main__":
    main()
