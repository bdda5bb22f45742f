"""Checkpoints that somebody has tampered with: well-formed, rightly signed, and wrong."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy as safetensors

NESTED: Any = 0
for _ in range(90):
    NESTED = {"list": [NESTED]}

#: What stands where something else should. The last ones are what arrays and lists look like.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 2**31, 2**63, 10**400, -(10**400)),
    *(0.5, -1.0, 1e308, float("nan"), float("inf"), "", "x", "0.weight", "\ud800"),
    *([], {}, [[]], {"": None}, [["a", 1]], NESTED),
    *({"list": []}, {"dict": []}, {"tuple": [1, 2]}, {"dict": [["x", 1]]}, {"dict": [[[], 1]]}),
    *({"tensor": "none", "scalar": False}, {"tensor": 3}, {"tensor": "model.3.bias", "scalar": 1}),
    {"tensor": "model.3.bias", "scalar": False},
    {"list": [{"tensor": "model.3.bias", "scalar": False}]},
)

_CHANGES: tuple[Callable[[Any], Any], ...] = (
    lambda a: a.astype(np.float64),
    lambda a: a.astype(np.int8),
    lambda a: a.astype(bool),
    lambda a: a.astype(np.complex64),
    lambda a: a[..., None],
    lambda a: a.reshape(-1)[:-1],
    lambda a: a.reshape(-1)[0],
    lambda a: np.zeros((0, *a.shape), a.dtype),
    lambda a: np.full_like(a, -1 if a.dtype.kind != "u" else 255),
    lambda a: np.full(a.shape, np.nan, np.float32),
    lambda a: np.full(a.shape, 3e38, np.float32),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all nodes of a tree of JSON but the root."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += places(item, (*path, key))
    return found


def spoil(tree: Any, dice: random.Random) -> tuple[Any, str]:
    """Return a changed copy of a tree of JSON, and what was changed."""
    tree = copy.deepcopy(tree)
    paths = places(tree)
    # Lists of numbers would else be hit more often than all the rest.
    path = dice.choice([p for p in paths if len(p) <= dice.choice((4, 8, 12, 16, 20))])
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    kind = dice.choice(("strange", "strange", "strange", "gone", "twice", "other", "wrapped"))
    if kind == "gone":
        del parent[path[-1]]
    elif kind == "twice" and isinstance(parent, list):
        parent.insert(path[-1], copy.deepcopy(parent[path[-1]]))
    elif kind == "other":
        other: Any = tree
        for key in dice.choice(paths):
            other = other[key]
        parent[path[-1]] = copy.deepcopy(other)
    elif kind == "wrapped":
        parent[path[-1]] = dice.choice(({"list": [parent[path[-1]]]}, [parent[path[-1]]]))
    else:
        kind = f"strange {dice.choice(range(len(STRANGE)))}"
        parent[path[-1]] = copy.deepcopy(STRANGE[int(kind.split()[1])])
    return tree, f"{kind} at {'/'.join(map(str, path))}"


def spoil_arrays(arrays: dict[str, Any], dice: random.Random) -> tuple[dict[str, Any], str]:
    """Return arrays of which one has changed, and which."""
    name = dice.choice(sorted(arrays))
    if dice.random() < 0.1:
        return {key: array for key, array in arrays.items() if key != name}, f"{name} is gone"
    number = dice.choice(range(len(_CHANGES)))
    with np.errstate(all="ignore"):
        changed = np.ascontiguousarray(_CHANGES[number](arrays[name]))
    return {**arrays, name: changed}, f"change {number} of {name}"


def write(folder: Path, tree: Any, tensors: bytes) -> None:
    """Write a checkpoint whose digests are right."""
    text = json.dumps(tree)
    whole = {
        "format": 2,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "state_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "state": json.loads(text),
    }
    folder.mkdir(parents=True)
    (folder / "tensors.safetensors").write_bytes(tensors)
    (folder / "state.json").write_text(json.dumps(whole))


def read(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the tree and the arrays of a checkpoint."""
    whole = json.loads((folder / "state.json").read_text())
    return whole["state"], safetensors.load_file(folder / "tensors.safetensors")
