"""The base class of layers: parameters, buffers, training and evaluation modes, state, children."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastconv.core.arguments import Array, as_flag, as_numbers
from fastconv.core.hints import Hinting
from fastconv.nn.layer_arguments import as_state_array
from fastconv.nn.parameter import Parameter
from fastconv.nn.summary import Summary, summarize


class Keys(NamedTuple):
    """How a state given to `Module.load_state_dict` differed: names missing, names unknown."""

    missing_keys: tuple[str, ...]
    unexpected_keys: tuple[str, ...]


class Module(Hinting):
    """A layer, or a composition of layers.

    A subclass writes `forward` and `backward`, and sets parameters and other modules as
    attributes (or lists of modules); everything else follows. `forward` calls
    ``self.keep(output, ...)`` with what `backward` will need, and `backward` begins with
    ``grad, ... = self.recall(grad)``.

    Nothing that is kept is copied. So do not write to an input between `forward` and `backward`;
    an output that a layer keeps, such as that of `ReLU`, becomes read-only (`keep_output`).

    Attributes
    ----------
    training : bool
        Batch normalization and dropout work differently in training and in evaluation.
    keeping : bool
        Whether `forward` keeps what `backward` needs.
    frozen : bool
        Whether `train` of an enclosing model leaves this module, and all in it, in evaluation
        mode: set by ``eval(keep=True)`` of this very module.
    buffer_names : tuple of str
        Names of attributes that are part of the state though they are not learned.
    shown, shown_if_changed : tuple of str, dict
        Attributes in the `repr`: those always shown, and defaults of those shown if they differ.

    Examples
    --------
    >>> from fastconv import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         self.factor = nn.Parameter(np.ones(1, np.float32))
    ...
    ...     def forward(self, x):
    ...         self.keep(x, x)
    ...         return x * self.factor.value
    ...
    ...     def backward(self, grad):
    ...         grad, x = self.recall(grad)
    ...         self.factor.accumulate(np.sum(grad * x, keepdims=True).reshape(1))
    ...         return grad * self.factor.value
    >>> layer = Scale()
    >>> layer(np.full((1, 2), 3, np.float32))
    array([[3., 3.]], dtype=float32)
    >>> layer.backward(np.ones((1, 2)))
    array([[1., 1.]], dtype=float32)
    >>> layer.factor.grad
    array([6.], dtype=float32)
    """

    training: bool = True
    keeping: bool = True
    frozen: bool = False
    buffer_names: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()
    shown_if_changed: ClassVar[Mapping[str, Any]] = {}
    #: Operations for one element of the output, for `summary`.
    flops_per_output: ClassVar[int] = 0

    _kept: tuple[Any, ...] | None = None

    def forward(self, x: Any) -> Array:
        """Return the output for `x`."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x)")

    def backward(self, grad: Array) -> Array | None:
        """Add to the parameters' gradients and return that of the input.

        Parameters
        ----------
        grad : ndarray
            Gradient of the loss with respect to what `forward` returned last, of its shape.

        Raises
        ------
        RuntimeError
            If `forward` was not called before, or kept nothing.
        TypeError, ValueError
            For other than real numbers, and for another shape.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward(grad)")

    def __call__(self, x: ArrayLike) -> Array:
        """Return the output for `x`."""
        return self.forward(x)

    # From forward to backward ------------------------------------------------------------

    def keep(self, output: Array, *values: Any) -> None:
        """Keep `values` for `backward`, if this layer keeps anything."""
        if self.keeping:
            self._kept = (output.shape, output.dtype, values)

    def keep_output(self, output: Array, *values: Any) -> None:
        """Keep the output itself, then `values`, for `backward`: it becomes read-only."""
        if self.keeping:  # a change by the caller would spoil the gradient
            output.setflags(False)  # type: ignore[call-arg]  # faster than with its name
            self.keep(output, output, *values)

    def recall(self, grad: Array) -> tuple[Any, ...]:
        """Return `grad`, checked against the last output, and the values kept, once."""
        name = type(self).__name__
        if self._kept is None:
            raise RuntimeError(
                f"{name}.backward needs a forward pass before it, one for each backward pass, "
                "whose values were kept: in training mode (train()), or after eval(keep=True)"
            )
        shape, dtype, values = self._kept
        array = as_numbers("grad", grad)
        if array.shape != shape:
            raise ValueError(
                f"grad must have shape {shape}, that of the last output of {name}, "
                f"got {array.shape}"
            )
        self._kept = None
        return np.ascontiguousarray(array, dtype), *values

    # Modes -------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Enter training mode, or with False evaluation mode; return the module.

        Modules inside it that ``eval(keep=True)`` has frozen stay frozen until `train` is called
        on them.
        """
        if not as_flag("mode", mode):
            return self.eval()
        self.frozen = False
        frozen = {id(m) for module in self.modules() if module.frozen for m in module.modules()}
        for module in self.modules():
            module.training, module.keeping = id(module) not in frozen, True
        return self.refresh()

    def eval(self, *, keep: bool = False) -> Self:
        """Enter evaluation mode and return the module.

        Batch normalization uses its running statistics and dropout does nothing. A convolution
        is fused with batch normalization, activation and 2 x 2 max pooling that follow it, and
        nothing is kept for `backward`.

        Parameters
        ----------
        keep : bool
            Keep what `backward` needs all the same, and fuse nothing: for gradients of the
            input, or for fine-tuning with layers frozen in this mode. After
            ``batch_norm.eval(keep=True)`` the running statistics no longer change, neither after
            ``model.train()`` nor in `fit`; weight and bias are still learned.

        Examples
        --------
        >>> from fastconv import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        >>> layer = model[1].eval(keep=True)
        >>> [module.training for module in model.train()]
        [True, False, True]
        >>> layer.train().training
        True
        """
        self.frozen = keep = as_flag("keep", keep)
        for module in self.modules():
            module.training, module.keeping = False, keep
            module._kept = None
        return self.refresh()

    def refresh(self) -> Self:
        """Forget everything made from the parameters; return the module.

        Needed only after writing to a *view* of an earlier ``Parameter.data``: all other changes
        are noticed.

        Examples
        --------
        >>> from fastconv import nn
        >>> x, model = np.ones((1, 1, 1), np.float32), nn.Sequential(nn.Conv2d(1, 1, 1)).eval()
        >>> view, y = model[0].weight.data[0], model(x)
        >>> view += 1
        >>> (model.refresh()(x) - y).round(4)
        array([[[1.]]], dtype=float32)
        """
        for module in self.modules():
            module.forget()
        for parameter in self.parameters():
            parameter.thaw()
        return self

    def forget(self) -> None:
        """Forget what this module itself, without its children, has made from its parameters."""

    # Children -------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules that are attributes, or in lists that are."""
        for name, value in vars(self).items():
            named = [(name, value)]
            if isinstance(value, list | tuple):
                named = [(f"{name}.{i}", item) for i, item in enumerate(value)]
            yield from ((key, item) for key, item in named if isinstance(item, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it, parents first."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(".".join(filter(None, (prefix, name))))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, parents first."""
        yield self
        for _, child in self.named_children():
            yield from child.modules()

    def _state(self) -> Iterator[tuple[str, Parameter | Array]]:
        """Yield every parameter and buffer, in PyTorch's order."""
        for prefix, module in self.named_modules():
            dot = f"{prefix}." if prefix else ""
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield dot + name, value
            for name in module.buffer_names:
                yield dot + name, getattr(module, name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter once, with its name in the state."""
        seen = set()
        for name, value in self._state():
            if isinstance(value, Parameter) and value not in seen:
                seen.add(value)
                yield name, value

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield every buffer: part of the state, but not learned."""
        for name, value in self._state():
            if not isinstance(value, Parameter):
                yield name, value

    def buffers(self) -> Iterator[Array]:
        """Yield every buffer: part of the state, but not learned."""
        return (buffer for _, buffer in self.named_buffers())

    def zero_grad(self) -> None:
        """Drop every parameter's gradient."""
        for module in self.modules():
            for value in vars(module).values():
                if isinstance(value, Parameter):
                    value.grad = None

    # dtype -------------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the parameters and of inputs; float32 without parameters."""
        return next((p.dtype for p in self.parameters()), np.dtype(np.float32))

    def astype(self, dtype: DTypeLike) -> Self:
        """Convert parameters and buffers to float32 or float64; return the module.

        Gradients are dropped. Make the optimizer afterwards.
        """
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
        for parameter in self.parameters():
            parameter.astype(dtype)
        for module in self.modules():
            for name in module.buffer_names:
                buffer = getattr(module, name)
                if buffer.dtype.kind == "f":
                    setattr(module, name, buffer.astype(dtype))
        return self

    # State -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by name: PyTorch's names and layouts."""
        return {name: _array(value).copy() for name, value in self._state()}

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> Keys:
        """Copy parameters and buffers from a state, all of them or none.

        Parameters
        ----------
        state : mapping of str to array-like
            As `state_dict` returns it, here or in PyTorch. Tensors on the CPU are arrays enough.
        strict : bool
            Whether missing and unknown names are an error.

        Returns
        -------
        Keys
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        TypeError
            If `state` is no mapping, or holds something that is no array.
        ValueError
            Naming every key that is missing, unknown, or of another shape or dtype. The module
            is then as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must map names to arrays, got {type(state).__name__}")
        own, strict = dict(self._state()), as_flag("strict", strict)
        given = {name: as_state_array(name, value) for name, value in state.items()}
        missing = tuple(name for name in own if name not in given)
        unexpected = tuple(name for name in given if name not in own)
        wrong = [f"missing: {name}" for name in missing if strict]
        wrong += [f"not in this {type(self).__name__}: {name}" for name in unexpected if strict]
        for name in own.keys() & given.keys():
            old, new = _array(own[name]), given[name]
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                wrong.append(
                    f"{name} must be {old.dtype} of shape {old.shape}, "
                    f"got {new.dtype} of shape {new.shape}"
                )
        if wrong:
            raise ValueError("state does not fit the model:\n  " + "\n  ".join(sorted(wrong)))
        for name, target in own.items():
            if name in given:
                array = target.data if isinstance(target, Parameter) else target
                array[...] = given[name]
        return Keys(missing, unexpected)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: all but the values kept for `backward`."""
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    # Inspection --------------------------------------------------------------------------

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return the operations of a forward pass, a multiplication and an addition being two."""
        return self.flops_per_output * int(np.prod(output_shape))

    def algorithm(self, input_shape: tuple[int, ...]) -> str:
        """Return the name of the algorithm that runs, empty where there is no choice."""
        return ""

    def summary(self, input_shape: tuple[int, ...]) -> Summary:
        """Return a table of the layers: output shapes, parameters, FLOPs, memory, algorithms.

        Parameters
        ----------
        input_shape : tuple of int
            With the batch, e.g. (1, 3, 32, 32). Zeros of that shape are sent through the model.

        Examples
        --------
        >>> from fastconv import nn
        >>> print(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).summary((1, 1, 2, 2)))
        layer  kind     output  parameters    MFLOP     KiB  algorithm
        0      Flatten  (1, 4)           0        0  0.0156
        1      Linear   (1, 2)          10  1.6e-05  0.0469
        total                           10  1.6e-05  0.0625
        """
        return summarize(self, input_shape)

    def extra_repr(self) -> str:
        """Return what `repr` shows of this layer's own arguments."""
        values = {name: getattr(self, name) for name in (*self.shown, *self.shown_if_changed)}
        usual = self.shown_if_changed
        return ", ".join(
            f"{name}={value}"
            for name, value in values.items()
            if name not in usual or value != usual[name]
        )

    def __repr__(self) -> str:
        children = list(self.named_children())
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {child!r}" if name else repr(child) for name, child in children]
        return f"{type(self).__name__}(\n  " + "\n".join(lines).replace("\n", "\n  ") + "\n)"


def _array(value: Parameter | Array) -> Array:
    return value.value if isinstance(value, Parameter) else value
