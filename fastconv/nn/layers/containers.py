"""Compositions of layers: sequence, branches, residual block, depthwise separable convolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import Array, as_numbers
from fastconv.core.geometry import IntPair, Padding, as_int
from fastconv.nn.fusion import Branches, Chain, run
from fastconv.nn.layer_arguments import RngLike, as_floats, as_generator
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.module import Module


class _Named(Module):
    """Layers with names: `Sequential` and `Concat`."""

    _layers: dict[str, Module]

    def _name(self, layers: tuple[Module | Mapping[str, Module], ...]) -> None:
        """Take layers, or one mapping of names to layers."""
        self._layers = {}
        first = layers[0] if len(layers) == 1 else None
        named = first if isinstance(first, Mapping) else {str(i): m for i, m in enumerate(layers)}
        for name, layer in named.items():
            self._add(name, layer)

    def _add(self, name: str, layer: Any) -> None:
        """Add a layer, or replace the one of that name."""
        if not isinstance(layer, Module):
            hint = f": did you mean {layer.__name__}()?" if isinstance(layer, type) else ""
            if isinstance(layer, list | tuple):
                hint = f": layers are given one by one, {type(self).__name__}(*layers)"
            raise TypeError(f"layer {name!r} must be a Module, got {layer!r}{hint}")
        others = [pair for pair in self.named_children() if pair[0] != name]
        _each_once(
            ("", self),
            *(pair for key, other in others for pair in other.named_modules(key)),
            *layer.named_modules(name),
        )
        self._layers[name] = layer

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers with their names, then modules that a subclass has as attributes."""
        yield from self._layers.items()
        yield from super().named_children()

    def stages(self) -> list[Module]:
        """Return the layers."""
        return list(self._layers.values())

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.stages())

    def __getitem__(self, index: Any) -> Module:
        return self._layers[index] if isinstance(index, str) else self.stages()[index]

    def __setitem__(self, index: int | str, layer: Module) -> None:
        name = index if isinstance(index, str) else list(self._layers)[index]
        if name not in self._layers:
            names = ", ".join(map(repr, self._layers))
            raise KeyError(f"there is no layer {name!r} to replace, only {names}")
        self._add(name, layer)

    def __getattr__(self, name: str) -> Any:
        layer = vars(self).get("_layers", {}).get(name)
        return super().__getattr__(name) if layer is None else layer  # type: ignore[misc]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self).get("_layers", ()):
            self[name] = value
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self._layers if name.isidentifier())]


class Sequential(_Named, Chain):
    """Layers one after another.

    In evaluation, `BatchNorm2d`, an activation and 2 x 2 `MaxPool2d` after a `Conv2d` are fused
    with it, and an activation after a `Residual` with its sum. The numbers are the same up to
    rounding. Plans are made at the first call with an input shape, and when parameters change.

    In training, a `ReLU` is fused with the `Conv2d` or `BatchNorm2d` before it, or the
    `MaxPool2d` after it, whose `backward` is then that of both. If you call the layers'
    `backward` one by one, call that of both.

    Parameters
    ----------
    *layers : Module
        Or one mapping of names to modules. The default names are "0", "1", and so on. The name ""
        adds nothing to the names of the parameters below it.

    Raises
    ------
    TypeError, ValueError
        If a layer is not a module, or the same one is given twice, which is refused because a
        layer keeps the values for one `backward`.

    Examples
    --------
    >>> model = Sequential(Conv2d(1, 4, 3, rng=0), Conv2d(4, 2, 3, rng=1))
    >>> list(model.state_dict())
    ['0.weight', '0.bias', '1.weight', '1.bias']
    >>> model(np.ones((1, 1, 6, 6), np.float32)).shape
    (1, 2, 2, 2)
    >>> len(model.append(Conv2d(2, 1, 1))), model[0].out_channels
    (3, 4)

    A layer is found, and replaced, by its number or name:

    >>> model = Sequential({"features": Conv2d(1, 4, 3), "head": Conv2d(4, 2, 3)})
    >>> model.head = Conv2d(4, 5, 1)  # or model["head"], or model[1]
    >>> model(np.ones((1, 1, 6, 6), np.float32)).shape
    (1, 5, 4, 4)
    """

    def __init__(self, *layers: Module | Mapping[str, Module]) -> None:
        self._name(layers)

    def append(self, layer: Module) -> Sequential:
        """Add a layer at the end, named by its index; return the module.

        Where the layer is refused, the module stays as it was.
        """
        name = str(len(self))
        if name in dict(self.named_children()):
            raise ValueError(
                f"layer must have a name of its own, got a second {name!r}, the number of layers "
                "before it: name all of them in a mapping, Sequential({'name': layer, ...})"
            )
        self._add(name, layer)
        return self

    @overload
    def __getitem__(self, index: int | str) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | str | slice) -> Module:
        if isinstance(index, slice):
            part = Sequential(*self.stages()[index])
            part.training, part.keeping = self.training, self.keeping
            return part
        return super().__getitem__(index)


class Concat(_Named):
    """The outputs of several branches, each of which gets the same input, one after another.

    Parameters
    ----------
    *branches : Module
        Or one mapping of names to modules, as in `Sequential`. `Identity` is the input itself.
    axis : int
        The axis along which outputs are joined: 1 is that of channels in a batch, -3 also in one
        image. Along the others they must have the same size.

    Raises
    ------
    TypeError, ValueError
        As in `Sequential`; in `forward`, if the shapes do not fit.

    References
    ----------
    C. Szegedy et al., "Going deeper with convolutions", arXiv:1409.4842.

    Examples
    --------
    >>> block = Concat(Conv2d(4, 2, 1, rng=0), Conv2d(4, 3, 3, padding=1, rng=1))
    >>> block(np.ones((1, 4, 6, 6), np.float32)).shape
    (1, 5, 6, 6)
    """

    def __init__(self, *branches: Module | Mapping[str, Module], axis: int = 1) -> None:
        self._name(branches)
        if not self._layers:
            raise ValueError("branches must be at least one Module, got none")
        self.axis = as_int("axis", axis, -32)

    def forward(self, x: ArrayLike) -> Array:
        """Return the outputs of all branches for `x`, joined."""
        array = as_floats(self, x)
        fused = not self.training and not self.keeping
        outputs = [run(each, array) if fused else each(array) for each in self]
        try:
            y = np.concatenate(outputs, self.axis)
        except ValueError:
            shapes = ", ".join(str(output.shape) for output in outputs)
            raise ValueError(
                "branches must return arrays that differ in size along "
                f"axis={self.axis} only, got shapes {shapes}"
            ) from None
        self.keep(y, [output.shape[self.axis] for output in outputs])
        return y

    def backward(self, grad: Array) -> Array | None:
        """Run `backward` of all branches; return the sum of their gradients."""
        grad, sizes = self.recall(grad)
        parts = np.split(grad, np.cumsum(sizes)[:-1], self.axis)
        found = [
            each.backward(np.ascontiguousarray(part))
            for each, part in zip(self, parts, strict=True)
        ]
        total = found[0]
        for other in found[1:]:
            if total is None or other is None:
                return None
            total = total + other
        return total


class Residual(Branches):
    """``body(x) + shortcut(x)``: the body learns the difference only.

    Put a `ReLU` after it in a `Sequential`, as in the original network: in evaluation it is
    fused with the sum.

    Parameters
    ----------
    body : Module
    shortcut : Module, optional
        Where the body changes the shape; without it, x itself is added.

    Raises
    ------
    ValueError
        In `forward`, if the two shapes differ.

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", arXiv:1512.03385.

    Examples
    --------
    >>> block = Residual(Sequential(Conv2d(4, 4, 3, padding=1, rng=0)))
    >>> block(np.ones((1, 4, 6, 6), np.float32)).shape
    (1, 4, 6, 6)
    """

    def __init__(self, body: Module, shortcut: Module | None = None) -> None:
        for name, part in (("body", body), ("shortcut", shortcut)):
            if not isinstance(part, Module) and not (name == "shortcut" and part is None):
                raise TypeError(f"{name} must be a Module, got {part!r}")
        self.body, self.shortcut = body, shortcut
        _each_once(*self.named_modules())

    def backward(self, grad: Array) -> Array | None:
        """Run `backward` of both branches; return the sum of their gradients."""
        array = as_numbers("grad", grad)
        of_body = self.body.backward(array)
        of_shortcut = array if self.shortcut is None else self.shortcut.backward(array)
        if of_body is None or of_shortcut is None:
            return None
        if np.may_share_memory(of_body, array):
            return np.asarray(of_body + of_shortcut)
        of_body += of_shortcut
        return of_body


class DepthwiseSeparableConv2d(Chain):
    """A depthwise convolution, then a 1x1 convolution that mixes the channels.

    It costs about ``1 / out_channels + 1 / (R * S)`` of a full convolution.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation
        Of the depthwise convolution, as in `Conv2d`.
    bias : bool
        Of both.
    rng : numpy.random.Generator or int, optional

    Attributes
    ----------
    depthwise, pointwise : Conv2d

    References
    ----------
    A. Howard et al., "MobileNets", arXiv:1704.04861.

    Examples
    --------
    >>> layer = DepthwiseSeparableConv2d(8, 16, 3, padding=1, rng=0)
    >>> layer(np.ones((1, 8, 6, 6), np.float32)).shape
    (1, 16, 6, 6)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        bias: bool = True,
        *,
        rng: RngLike = None,
    ) -> None:
        generator = as_generator(rng)
        self.depthwise = Conv2d(
            *(in_channels, in_channels, kernel_size, stride, padding, dilation, in_channels, bias),
            rng=generator,
        )
        self.pointwise = Conv2d(in_channels, out_channels, 1, bias=bias, rng=generator)

    def stages(self) -> list[Module]:
        """Return the two convolutions."""
        return [self.depthwise, self.pointwise]


def _each_once(*named: tuple[str, Module]) -> None:
    seen: dict[Module, str] = {}
    for name, module in named:
        if module in seen:
            first = repr(seen[module]) if seen[module] else "the whole"
            raise ValueError(
                f"layers must be distinct objects, got one {type(module).__name__} as "
                f"{first} and as {name!r}: make another one"
            )
        seen[module] = name
