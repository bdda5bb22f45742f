"""A parameter: a learned array, its gradient, and a version that changes with every write."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastconv.core.arguments import Array, as_array

# One counter for all parameters: no version is ever used twice.
_versions = itertools.count()


class Parameter:
    """A learned array and its gradient.

    Parameters
    ----------
    data : array-like of float32 or float64
        Copied.

    Attributes
    ----------
    data : ndarray
        To read and to write. Every access counts as a change, because the array may then be
        written to. Assigning copies; shape and dtype must stay.
    value : ndarray
        The same array, read-only: reading it is no change.
    grad : ndarray or None
        Sum of the gradients since the last ``zero_grad()``.
    version : int
        Another number after every possible change. A plan with packed weights is made again when
        the version differs.

    Raises
    ------
    TypeError
        If `data` is neither float32 nor float64.

    Notes
    -----
    A plan made from a parameter *freezes* it: an earlier ``data`` becomes read-only, so that no
    change goes unnoticed; access ``data`` again to write. Only views made before, such as
    ``w = p.data[0]``, stay writable: after writing to one, call ``model.refresh()``.

    Examples
    --------
    >>> p = Parameter(np.ones(2, np.float32))
    >>> p.accumulate(np.array([1, 3], np.float32))
    >>> p.data -= 0.5 * p.grad
    >>> p.value
    array([ 0.5, -0.5], dtype=float32)
    >>> p.astype("float64")
    >>> p.dtype, p.grad
    (dtype('float64'), None)
    """

    __slots__ = ("__weakref__", "_data", "grad", "version")

    def __init__(self, data: ArrayLike) -> None:
        self._data = _as_floats(data)
        self.grad: Array | None = None
        self.version: int = next(_versions)

    @property
    def data(self) -> Array:
        """The array, writable: every access counts as a change."""
        self.thaw()
        return self._data

    @data.setter
    def data(self, value: ArrayLike) -> None:
        if value is not self._data:  # `p.data -= step` has written already
            array = as_array("data", value)
            if array.shape != self.shape:
                raise ValueError(
                    f"data must keep the parameter's shape {self.shape}, got {array.shape}"
                )
            if not np.can_cast(array.dtype, self.dtype, "same_kind"):
                raise TypeError(f"data must fit the parameter's {self.dtype}, got {array.dtype}")
            self._data = np.array(array, self.dtype, order="C")
        self.version = next(_versions)

    @property
    def value(self) -> Array:
        """The array, read-only."""
        view = self._data.view()
        view.setflags(False)  # type: ignore[call-arg]  # faster than with its name
        return view

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self._data.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._data.size

    def accumulate(self, grad: Array) -> None:
        """Add `grad` to the gradient, which may then be the same array."""
        if self.grad is None:
            self.grad = grad
        else:
            self.grad += grad

    def astype(self, dtype: DTypeLike) -> None:
        """Convert the array to float32 or float64; the gradient is dropped."""
        self._data = _as_floats(self._data.astype(dtype))
        self.grad = None
        self.version = next(_versions)

    def freeze(self) -> int:
        """Refuse writes until the next access to `data`; return the version."""
        self._data.flags.writeable = False
        return self.version

    def thaw(self) -> None:
        """Allow writes again, which counts as a change."""
        self._data.flags.writeable = True
        self.version = next(_versions)

    def __getstate__(self) -> tuple[Array, Array | None]:
        return self._data, self.grad

    def __setstate__(self, state: tuple[Array, Array | None]) -> None:
        data, self.grad = state
        self._data, self.version = np.array(data), next(_versions)

    def __repr__(self) -> str:
        return f"Parameter({self._data!r})"


def _as_floats(data: ArrayLike) -> Array:
    array = np.array(as_array("data", data), order="C")
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"data must be float32 or float64, got {array.dtype}")
    return array
