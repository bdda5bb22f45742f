"""Image data: data sets, folders, mini-batches and augmentation.

Every loader returns images (N, C, H, W) of float32 in [0, 1] and labels (N,) of int64. Loading
executes nothing from a file. A damaged file raises a `DataError` that names it; sizes in a header
are compared with the size of the file before memory is allocated.

>>> from fastconv import data
>>> images, labels = data.load_digits()
>>> x, x_test, y, y_test = data.train_test_split(images, labels)
>>> x.shape, x_test.shape
((1437, 1, 8, 8), (360, 1, 8, 8))
"""

from fastconv.core.public_names import public_names
from fastconv.data.augment import Augment, flip, shift
from fastconv.data.data_errors import DataError
from fastconv.data.folders import load_image_folder
from fastconv.data.idx import load_idx, read_idx
from fastconv.data.samples import fetch_openml, load_digits
from fastconv.data.split import batches, train_test_split

__all__ = [
    "Augment",
    "DataError",
    "batches",
    "fetch_openml",
    "flip",
    "load_digits",
    "load_idx",
    "load_image_folder",
    "read_idx",
    "shift",
    "train_test_split",
]


def __dir__() -> list[str]:
    return public_names(globals())
