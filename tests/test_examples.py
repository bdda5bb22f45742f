"""The programs in docs/examples run, print what their pages show and draw their pictures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"

PICTURES = {
    "convolution_layer": ["im2col.png", "layer_filters.png"],
    "edge_detection": ["edges.png", "own_kernels.png"],
}
PRINTS = {
    "convolution_layer": [
        "output   (8, 5, 64, 64)",
        "parameters  = K * C * R * S + K = 5 * 3 * 3 * 3 + 5 = 140",
        "products    = N * K * OH * OW * C * R * S = 4,423,680",
        "all agree with a convolution in float64",
    ],
    "edge_detection": [
        " [0 0 4 4 0 0]]",
        "photograph (427, 640, 3) -> gray (427, 640) -> edges (425, 638)",
    ],
}


@pytest.mark.parametrize("name", PICTURES)
def test_examples(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for line in PRINTS[name]:
        assert line in done.stdout
    # The page shows what the program prints; times and the folder differ.
    page = (EXAMPLES / f"{name}.md").read_text(encoding="utf-8")
    for line in done.stdout.splitlines():
        if not re.search(r"GFLOP/s|^how fast|^wrote", line):
            assert line in page
    assert sorted(file.name for file in folder.iterdir()) == PICTURES[name]
    for picture in PICTURES[name]:
        assert f"](images/{picture})" in page
        with (
            Image.open(folder / picture) as drawn,
            Image.open(EXAMPLES / "images" / picture) as old,
        ):
            assert min(drawn.size) > 200
            assert drawn.size == old.size


def test_every_example_has_a_page_and_is_tested() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} >= set(PICTURES)
    for name in PICTURES:
        assert (EXAMPLES / f"{name}.md").exists()
