"""How layers in a row run: one plan for a convolution and what follows it, and what training fuses.

Batch normalization with fixed statistics multiplies a channel by a number and adds another, so it
goes into the weights and the bias of the convolution before it. A rectifier goes into the plan's
store, and so does the sum of a residual block, or the maxima of 2 x 2 outputs. Padding that is
not zeros is a step of its own before the plan, which then pads nothing (`Conv2d.padded`).

Plans are kept by the convolution, for a few input shapes. Each bears a stamp of all it was made
from, which is compared at every use: the versions of the parameters, which any write changes (see
`Parameter`), and the running statistics themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.api.conv2d import plan_conv2d
from fastconv.convolution.fused_max_pool import SIDE
from fastconv.core.activation import ActivationLike, as_activation
from fastconv.core.arguments import as_numbers
from fastconv.nn.layer_arguments import as_floats
from fastconv.nn.layers.activation_layers import Dropout, LeakyReLU, ReLU, SiLU
from fastconv.nn.layers.batch_norm import BatchNorm2d
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.layers.pooling_layers import MaxPool2d
from fastconv.nn.module import Module
from fastconv.nn.parameter import Parameter
from fastconv.select.plan import Conv2dPlan, circumstances

Array = NDArray[Any]
M = TypeVar("M", bound=Module)

# Input shapes for which a convolution keeps plans: a batch, the last smaller batch, single images.
_SHAPES = 4


class Chain(Module):
    """Layers that run one after another. A subclass says which: `stages`."""

    _steps: Steps | None = None

    def stages(self) -> Sequence[Module]:
        """Return the layers in their order."""
        raise NotImplementedError

    def forward(self, x: ArrayLike) -> Array:
        """Send `x` through all layers; in evaluation, fused where that is possible."""
        y = as_floats(self, x)
        if self.training or self.keeping:
            return run_keeping(self.stages(), y)
        return self.steps().run(y)

    def steps(self) -> Steps:
        """Return what evaluation runs: the steps found before, if nothing changed since."""
        stages, known = self.stages(), self._steps
        if known is None or not known.hold(stages):
            known = self._steps = Steps(stages)
        return known

    def forget(self) -> None:
        """Forget which steps evaluation takes."""
        self._steps = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: no steps."""
        return {**super().__getstate__(), "_steps": None}


class Branches(Module):
    """``body(x) + shortcut(x)``, with x itself where there is no shortcut."""

    body: Module
    shortcut: Module | None

    def forward(self, x: ArrayLike) -> Array:
        """Return the sum; in evaluation, fused where that is possible."""
        array = as_floats(self, x)
        if not self.training and not self.keeping:
            return run(self, array)
        y, other = self.body(array), array if self.shortcut is None else self.shortcut(array)
        return np.asarray(y + same_shape(other, y.shape))


def same_shape(shortcut: Array, wanted: tuple[int, ...]) -> Array:
    """Return what the shortcut gave, if the body's output can be added to it."""
    if shortcut.shape != wanted:
        raise ValueError(
            f"shortcut must give what the body of a Residual gives, shape {wanted}, got "
            f"{shortcut.shape}: a 1x1 Conv2d with the body's channels and stride does"
        )
    return shortcut


@dataclass
class Step:
    """A layer, as what it runs, and what was taken into it."""

    layer: Module
    kind: type[Module] | None
    norm: BatchNorm2d | None = None
    activation: ActivationLike = None
    activating: tuple[Module, type[Module]] | None = None
    pooling: MaxPool2d | None = None

    def take(self, layer: Module, kind: type[Module] | None) -> bool:
        """Take in the layer that follows, if it can be; return whether it was."""
        if self.pooling is not None or self.kind is None or kind is None:
            return False
        if self.kind is Conv2d and kind is MaxPool2d and _pools_squares(layer):
            self.pooling = layer  # type: ignore[assignment]
        if self.activation is not None or kind is MaxPool2d:
            return self.pooling is layer
        if self.kind is Conv2d and kind is BatchNorm2d and self.norm is None:
            if layer.num_features == self.layer.out_channels:  # type: ignore[attr-defined]
                self.norm = layer  # type: ignore[assignment]
            return self.norm is layer
        if self.kind in (Conv2d, Branches):
            self.activation, self.activating = _activation(layer, kind), (layer, kind)
        return self.activation is not None

    def holds(self) -> bool:
        """Return whether what was taken in would be taken in again, as it is."""
        if self.norm is not None and self.norm.num_features != self.layer.out_channels:  # type: ignore[attr-defined]
            return False
        if self.pooling is not None and not _pools_squares(self.pooling):
            return False
        return self.activation is None or self.activation == _activation(*self.activating)  # type: ignore[misc]

    def run(
        self, x: Array, residual: Array | None = None, activation: ActivationLike = None
    ) -> Array:
        """Return the output for `x`, with the residual added and an activation after that."""
        layer = self.layer
        if self.kind is None and residual is None:
            return layer(x)
        closed = self.activation is not None or self.pooling is not None
        if self.kind is Conv2d and (residual is None or not closed):
            assert isinstance(layer, Conv2d)
            images, _ = layer.padded(x)
            if self.norm is not None and images.ndim == 3:
                return self.norm(layer(x))  # which refuses what has no batch axis
            side = None if self.pooling is None else SIDE
            plan = plan_of(layer, self.norm, self.activation or activation, images.shape, side)
            if residual is not None:
                same_shape(residual, plan.output_shape)
            return plan(images, residual=residual)
        whole = self._run_whole if closed or self.kind is Branches else layer
        return _summed(whole(x), residual, activation)

    def _run_whole(self, x: Array) -> Array:
        """Run a layer to which nothing is added before its activation or its maxima."""
        if isinstance(self.layer, Branches):
            block = self.layer
            shortcut = x if block.shortcut is None else run(block.shortcut, x)
            return run(block.body, x, shortcut, self.activation)
        return self.run(x)


class Steps:
    """What a row of layers runs, each convolution with what follows it.

    Finding out takes longer than a small layer; so a chain keeps it, with all that it depends on.
    """

    def __init__(self, layers: Sequence[Module]) -> None:
        self._layers, self._inner = list(layers), list[tuple[Chain, list[Module]]]()
        # Layers that fuse while they run as their class does.
        self._plain: list[tuple[Module, Any]] = []
        self._lasting = True
        self._steps: list[Step] = []
        for layer, kind in self._flat(layers):
            if kind is not Dropout and not (self._steps and self._steps[-1].take(layer, kind)):
                self._steps.append(Step(layer, kind))
        self._taken = [s for s in self._steps if s.norm or s.activation or s.pooling]

    def _flat(self, layers: Iterable[Module]) -> Iterator[tuple[Module, type[Module] | None]]:
        """Yield layers and as what they run, chains within them opened."""
        for layer in layers:
            kind = _kind(layer)
            if kind is not None:
                self._plain.append((layer, type(layer).forward))
            elif isinstance(layer, _KINDS):
                self._lasting = False  # it may fuse another time
            if kind is Chain:
                inner = layer.stages()  # type: ignore[attr-defined]
                self._inner.append((layer, list(inner)))  # type: ignore[arg-type]
                yield from self._flat(inner)
            else:
                yield layer, kind

    def hold(self, layers: Sequence[Module]) -> bool:
        """Return whether these layers, as they are now, run in the same steps."""
        if not self._lasting or self._layers != [*layers]:
            return False
        for layer, forward in self._plain:
            if layer.training or layer.keeping or "forward" in layer.__dict__:
                return False
            if type(layer).forward is not forward:
                return False
        for chain, inner in self._inner:
            if chain.stages() != inner:
                return False
        return all(step.holds() for step in self._taken)

    def run(
        self, x: Array, residual: Array | None = None, activation: ActivationLike = None
    ) -> Array:
        """Return ``activation(layers(x) + residual)``."""
        if not self._steps:
            return _summed(x, residual, activation)
        for step in self._steps[:-1]:
            x = step.run(x)
        return self._steps[-1].run(x, residual, activation)


def run(
    layer: Module, x: Array, residual: Array | None = None, activation: ActivationLike = None
) -> Array:
    """Return ``activation(layer(x) + residual)``, fused where that is possible."""
    known = layer.steps() if _kind(layer) is Chain else Steps([layer])  # type: ignore[attr-defined]
    return known.run(x, residual, activation)


def _summed(y: Array, residual: Array | None, activation: ActivationLike) -> Array:
    """Return ``activation(y + residual)`` in a new array, or `y` itself without a residual."""
    if residual is None:
        return y
    total = np.asarray(y + same_shape(residual, y.shape))
    as_activation(activation).apply(total)
    return total


def _kind(layer: Module) -> type[Module] | None:
    """Return as which of `_KINDS` a layer in evaluation runs; None for a way of its own."""
    if layer.training or layer.keeping or "forward" in vars(layer):
        return None
    exact = type(layer)
    if exact in _KINDS:
        return exact
    for kind in _KINDS:
        as_it_is = exact.forward is kind.forward and exact.__call__ is kind.__call__
        if isinstance(layer, kind) and as_it_is:
            return kind
    return None


_KINDS = (Conv2d, BatchNorm2d, ReLU, LeakyReLU, SiLU, MaxPool2d, Dropout, Chain, Branches)


def _pools_squares(layer: Module) -> bool:
    """Return whether a pooling gives the maxima that plans give."""
    assert isinstance(layer, MaxPool2d)
    sizes = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    same = (size in (n, (n, n)) for size, n in zip(sizes, (SIDE, SIDE, 0, 1), strict=True))
    return all(same) and not layer.ceil_mode and not layer.return_indices


def _activation(layer: Module, kind: type[Module]) -> ActivationLike:
    if kind is ReLU:
        return "relu"
    if kind is SiLU:
        return "silu"
    if kind is LeakyReLU:
        return ("leaky_relu", layer.negative_slope)  # type: ignore[attr-defined]
    return None


# In training -----------------------------------------------------------------------------


def run_keeping(layers: Sequence[Module], x: Array) -> Array:
    """Return the output of the layers, each of which keeps what its `backward` needs.

    A ReLU runs in one pass with the convolution or the normalization before it. Before a
    maximum it changes places with it, as no number changes thereby, and has less to do. Either
    way that other layer's `backward` is then that of both.
    """
    rest = list(layers)
    while rest:
        layer, following = rest.pop(0), rest[0] if rest else None
        if _kept(layer, ReLU) and _pools(following):
            layer.leave(x, None)
            x = following.rectified(x)
        elif (
            (_kept(layer, Conv2d) or _kept(layer, BatchNorm2d))
            and _kept(following, ReLU)
            and not (rest[1:] and _pools(rest[1]))
        ):
            x = layer.rectified(x)
            following.leave(x, x)
        else:
            x = layer(x)
            continue
        rest.pop(0)
    return x


def run_back(layers: Sequence[Module], grad: Array) -> Array | None:
    """Return the gradient that the layers of a chain pass on, each adding to its parameters'."""
    current: Any = as_numbers("grad", grad)
    for place, layer in reversed(list(enumerate(layers))):
        if current is None:
            raise RuntimeError(
                f"{type(layer).__name__}.backward needs the gradient of the layer after it, whose "
                "input_grad is False: that is for the first layer only"
            )
        # The first layer, of a part of a model, knows of none before it.
        back = layer.pass_on if place and _kept(layer, ReLU) else layer.backward
        current = back(current)
    return current  # type: ignore[no-any-return]


def _kept(layer: Module | None, kind: type[M]) -> TypeGuard[M]:
    """Return whether a layer keeps values and runs, both ways, as `kind` does."""
    return (
        isinstance(layer, kind)
        and layer.keeping
        and type(layer).forward is kind.forward
        and type(layer).backward is kind.backward
        and not {"forward", "backward"} & vars(layer).keys()
    )


def _pools(layer: Module | None) -> TypeGuard[MaxPool2d]:
    """Return whether a layer takes maxima whose indices nobody sees."""
    return _kept(layer, MaxPool2d) and not layer.return_indices


# Plans -----------------------------------------------------------------------------------


def plan_of(
    conv: Conv2d,
    norm: BatchNorm2d | None,
    activation: ActivationLike,
    shape: tuple[int, ...],
    max_pool: int | None = None,
) -> Conv2dPlan:
    """Return a plan for images of that shape: the one made before, if nothing changed since."""
    key = (shape, norm, activation, max_pool, conv.geometry, circumstances())
    stamp = (_version(conv.weight), _version(conv.bias), _stamp(norm))
    known = conv.plans.get(key)
    if known is not None and known[0] == stamp:
        return known[1]  # type: ignore[no-any-return]
    for parameter in (*conv.parameters(), *(norm.parameters() if norm else ())):
        parameter.freeze()
    weight, bias = folded(conv, norm)
    fused = {"activation": activation, "max_pool": max_pool}
    plan = plan_conv2d(shape, weight, bias, *conv.geometry, **fused)  # type: ignore[arg-type]
    conv.plans.pop(key, None)
    while len(conv.plans) >= _SHAPES:
        conv.plans.pop(next(iter(list(conv.plans)), None), None)  # threads may do so too
    conv.plans[key] = (stamp, plan)
    return plan


def folded(conv: Conv2d, norm: BatchNorm2d | None) -> tuple[Array, Array | None]:
    """Return weights and bias of the convolution that does what `conv` and `norm` do."""
    weight = conv.weight.value
    bias = None if conv.bias is None else conv.bias.value
    if norm is None:
        return weight, bias
    scale, shift = norm.scale_and_shift()
    if bias is not None:
        shift = shift + scale * bias
    dtype = weight.dtype
    return (weight * scale[:, None, None, None]).astype(dtype), shift.astype(dtype)


def _version(parameter: Parameter | None) -> int | None:
    return None if parameter is None else parameter.version


def _stamp(norm: BatchNorm2d | None) -> Any:
    if norm is None:
        return None
    statistics = norm.running_mean.tobytes(), norm.running_var.tobytes(), norm.eps
    return _version(norm.weight), _version(norm.bias), *statistics
