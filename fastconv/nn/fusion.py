"""Which layers fuse (`FUSIONS`), and how a sequence of layers runs: in training, and in evaluation.

In evaluation a convolution and the layers fused with it are one plan. Batch normalization with
fixed statistics multiplies a channel by a number and adds another, so it is folded into weights and
bias. Activation, the sum of a residual block and 2 x 2 max pooling are in the plan's epilogue.
Padding other than zeros is copied before the plan runs (`Conv2d.padded`).

A convolution keeps its plans for a few input shapes. Each is stored with the versions of the
parameters that it was made from, which every write changes (see `Parameter`), and with the running
statistics; both are compared at every use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastconv.api.conv2d import plan_conv2d
from fastconv.convolution.fused_max_pool import SIDE
from fastconv.core.activation import ActivationLike, as_activation
from fastconv.core.arguments import Array, as_numbers
from fastconv.nn.layer_arguments import as_floats
from fastconv.nn.layers.activation_layers import Hardswish, Hardtanh, LeakyReLU, ReLU
from fastconv.nn.layers.batch_norm import BatchNorm1d, BatchNorm2d
from fastconv.nn.layers.conv_layers import Conv2d
from fastconv.nn.layers.dropout_layers import Dropout
from fastconv.nn.layers.pooling_layers import MaxPool2d
from fastconv.nn.layers.rearranging_layers import Identity
from fastconv.nn.layers.smooth_activations import SiLU
from fastconv.nn.module import Module
from fastconv.select.choice import circumstances
from fastconv.select.plan import Conv2dPlan

Kind = type[Module] | None

# Input shapes for which a convolution keeps plans: a batch, the last smaller batch, single images.
_SHAPES = 4


class Chain(Module):
    """Layers that run one after another. A subclass says which: `stages`."""

    _steps: Steps | None = None

    def stages(self) -> Sequence[Module]:
        """Return the layers in their order."""
        raise NotImplementedError

    def forward(self, x: ArrayLike) -> Array:
        """Run all layers on `x`; in evaluation, fused where that is possible."""
        y = as_floats(self, x)
        if self.training or self.keeping:
            return run_keeping(self.stages(), y)
        return self.steps().run(y)

    def backward(self, grad: Array) -> Array | None:
        """Run `backward` of all layers in reverse; return the input's gradient."""
        return run_back(self.stages(), grad)

    def steps(self) -> Steps:
        """Return the steps of evaluation: those found before, if nothing has changed since."""
        stages, known = self.stages(), self._steps
        if known is None or not known.hold(stages):
            known = self._steps = Steps(stages)
        return known

    def forget(self) -> None:
        """Forget the steps of evaluation."""
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


class Fusion(NamedTuple):
    """How a layer fuses with the one before it."""

    #: The field of the first layer's `Step` that holds the second one.
    evaluation: Literal["norm", "activation", "pooling"] | None = None
    #: Which of the two computes both by `forward_relu`; its `backward` is then that of both.
    training: Literal["first", "second"] | None = None


_ACTIVATIONS: tuple[type[Module], ...] = (ReLU, LeakyReLU, SiLU, Hardtanh, Hardswish)
#: All pairs of layers that fuse. In training, ReLU before max pooling is computed after it, on
#: fewer elements: no number changes thereby. In evaluation, `_SKIPPED` layers do not count.
FUSIONS: dict[tuple[Kind, Kind], Fusion] = {
    (Conv2d, BatchNorm2d): Fusion(evaluation="norm"),
    (Conv2d, MaxPool2d): Fusion(evaluation="pooling"),
    **{
        (kind, activation): Fusion(evaluation="activation")
        for kind in (Conv2d, Branches)
        for activation in _ACTIVATIONS
    },
    (Conv2d, ReLU): Fusion(evaluation="activation", training="first"),
    (BatchNorm2d, ReLU): Fusion(training="first"),
    (BatchNorm1d, ReLU): Fusion(training="first"),
    (ReLU, MaxPool2d): Fusion(training="second"),
}
_SKIPPED = (Dropout, Identity)
_NO_FUSION = Fusion()
# In the order in which a plan computes them.
_PARTS = ("norm", "activation", "pooling")
_KINDS = (*dict.fromkeys(kind for pair in FUSIONS for kind in pair if kind), *_SKIPPED, Chain)


def _kind(layer: Module, *, keeping: bool = False) -> Kind:
    """Return as which of `_KINDS` a layer runs; None for one that computes otherwise.

    With `keeping`, that is for layers which keep what `backward` needs, else for evaluation.
    """
    if layer.keeping is not keeping or (layer.training and not keeping):
        return None
    own = vars(layer)
    if "forward" in own or (keeping and "backward" in own):
        return None
    exact = type(layer)
    if exact in _KINDS:
        return exact
    names = ("forward", "__call__", "backward") if keeping else ("forward", "__call__")
    for kind in _KINDS:
        if isinstance(layer, kind) and all(getattr(exact, n) is getattr(kind, n) for n in names):
            return kind
    return None


def activation_of(layer: Module | None) -> ActivationLike:
    """Return the activation that a layer computes, as plans take it."""
    return None if layer is None else layer.activation  # type: ignore[attr-defined]


def same_shape(shortcut: Array, wanted: tuple[int, ...]) -> Array:
    """Return the output of the shortcut, if the body's can be added to it."""
    if shortcut.shape != wanted:
        raise ValueError(
            f"shortcut must return the shape of the body of a Residual, {wanted}, got "
            f"{shortcut.shape}: a 1x1 Conv2d with the body's channels and stride does"
        )
    return shortcut


# Evaluation ------------------------------------------------------------------------------


@dataclass
class Step:
    """A layer, its kind, and the layers fused with it."""

    layer: Module
    kind: Kind
    norm: BatchNorm2d | None = None
    activation: Module | None = None
    pooling: MaxPool2d | None = None

    def fuse(self, layer: Module, kind: Kind) -> bool:
        """Fuse the layer that follows, if possible; return whether it was."""
        part = FUSIONS.get((self.kind, kind), _NO_FUSION).evaluation
        if part is None or any(vars(self)[p] is not None for p in _PARTS[_PARTS.index(part) :]):
            return False
        setattr(self, part, layer)
        if not self.holds():
            setattr(self, part, None)
        return getattr(self, part) is layer

    def holds(self) -> bool:
        """Return whether the fused layers, as they are now, can be computed by a plan."""
        if self.norm is not None and self.norm.num_features != self.layer.out_channels:  # type: ignore[attr-defined]
            return False
        return self.pooling is None or _pools_2x2(self.pooling)

    def run(
        self, x: Array, residual: Array | None = None, activation: ActivationLike = None
    ) -> Array:
        """Return the output for `x`, with the residual added and an activation after that."""
        layer = self.layer
        if self.kind is None and residual is None:
            return layer(x)
        # A plan adds the residual before its own activation and pooling.
        closed = self.activation is not None or self.pooling is not None
        if self.kind is Conv2d and (residual is None or not closed):
            assert isinstance(layer, Conv2d)
            images, _ = layer.padded(x)
            if self.norm is not None and images.ndim == 3:
                return self.norm(layer(x))  # which refuses an image without a batch axis
            side = None if self.pooling is None else SIDE
            own = activation_of(self.activation) or activation
            plan = plan_of(layer, self.norm, own, images.shape, side)
            if residual is not None:
                same_shape(residual, plan.output_shape)
            return plan(images, residual=residual)
        whole = self._run_whole if closed or self.kind is Branches else layer
        return _summed(whole(x), residual, activation)

    def _run_whole(self, x: Array) -> Array:
        """Run a layer, to which nothing is added before its activation or pooling."""
        if isinstance(self.layer, Branches):
            block = self.layer
            shortcut = x if block.shortcut is None else run(block.shortcut, x)
            return run(block.body, x, shortcut, activation_of(self.activation))
        return self.run(x)


class Steps:
    """The steps of a sequence of layers, each a layer and those fused with it.

    Finding them takes longer than a small layer; so a chain keeps them until a layer changes.
    """

    def __init__(self, layers: Sequence[Module]) -> None:
        self._layers, self._inner = list(layers), list[tuple[Chain, list[Module]]]()
        # Layers that fuse as long as they run as their class does.
        self._plain: list[tuple[Module, Any]] = []
        self._lasting = True
        self._steps: list[Step] = []
        for layer, kind in self._flat(layers):
            if kind not in _SKIPPED and not (self._steps and self._steps[-1].fuse(layer, kind)):
                self._steps.append(Step(layer, kind))
        self._fused = [step for step in self._steps if step.norm or step.pooling]

    def _flat(self, layers: Iterable[Module]) -> Iterator[tuple[Module, Kind]]:
        """Yield layers and their kinds; those of inner chains instead of the chains."""
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
        unchanged = all(chain.stages() == inner for chain, inner in self._inner)
        return unchanged and all(step.holds() for step in self._fused)

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
    steps = layer.steps() if _kind(layer) is Chain else Steps([layer])  # type: ignore[attr-defined]
    return steps.run(x, residual, activation)


def _summed(y: Array, residual: Array | None, activation: ActivationLike) -> Array:
    """Return ``activation(y + residual)`` in a new array, or `y` itself without a residual."""
    if residual is None:
        return y
    total = np.asarray(y + same_shape(residual, y.shape))
    as_activation(activation).apply(total)
    return total


def _pools_2x2(layer: MaxPool2d) -> bool:
    """Return whether a layer is the pooling that plans compute."""
    sizes = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    same = (size in (n, (n, n)) for size, n in zip(sizes, (SIDE, SIDE, 0, 1), strict=True))
    return all(same) and not layer.ceil_mode and not layer.return_indices


# Training --------------------------------------------------------------------------------


def run_keeping(layers: Sequence[Module], x: Array) -> Array:
    """Return the output of the layers, each of which keeps what its `backward` needs."""
    rest: Any = iter(zip(layers, _training_fusions(layers), strict=True))
    for layer, fusion in rest:
        if fusion == "first":
            x = layer.forward_relu(x)
            next(rest)[0].fuse(x, x)
        elif fusion == "second":
            layer.fuse(x, None)
            x = next(rest)[0].forward_relu(x)
        else:
            x = layer(x)
    return x


def _training_fusions(layers: Sequence[Module]) -> list[str | None]:
    """Return for each layer which computes both, it or the one after it; None for separately."""
    kinds = [_kind(layer, keeping=True) for layer in layers]
    found = [FUSIONS.get(pair, _NO_FUSION).training for pair in pairwise(kinds)]
    fusions: list[str | None] = [None] * len(layers)
    for i in reversed(range(len(found))):
        if found[i] == "second" and layers[i + 1].return_indices:  # type: ignore[attr-defined]
            continue  # which the other order of ReLU and maximum would change
        if fusions[i + 1] is None:
            fusions[i] = found[i]
    return fusions


def run_back(layers: Sequence[Module], grad: Array) -> Array | None:
    """Return the input's gradient of a sequence of layers; each adds to its parameters'."""
    current: Any = as_numbers("grad", grad)
    for i, layer in reversed(list(enumerate(layers))):
        if current is None:
            raise RuntimeError(
                f"{type(layer).__name__}.backward needs the gradient of the layer after it, whose "
                "input_grad is False: that is for the first layer only"
            )
        # Whoever runs the layer before the first one may not know that this one is fused.
        fused = i and isinstance(layer, ReLU) and _kind(layer, keeping=True) is ReLU
        current = layer.backward_fused(current) if fused else layer.backward(current)  # type: ignore[attr-defined]
    return current  # type: ignore[no-any-return]


# Plans -----------------------------------------------------------------------------------


def plan_of(
    conv: Conv2d,
    norm: BatchNorm2d | None,
    activation: ActivationLike,
    shape: tuple[int, ...],
    max_pool: int | None = None,
) -> Conv2dPlan:
    """Return a plan for images of that shape: the one made before, if nothing has changed since."""
    key = (shape, norm, activation, max_pool, conv.geometry, circumstances())
    stamp = _stamp(conv, norm)
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
        conv.plans.pop(next(iter(list(conv.plans)), None), None)  # other threads remove plans too
    conv.plans[key] = (stamp, plan)
    return plan


def folded(conv: Conv2d, norm: BatchNorm2d | None) -> tuple[Array, Array | None]:
    """Return weights and bias of one convolution that computes `conv` and `norm`."""
    weight = conv.weight.value
    bias = None if conv.bias is None else conv.bias.value
    if norm is None:
        return weight, bias
    scale, shift = norm.scale_and_shift()
    if bias is not None:
        shift = shift + scale * bias
    dtype = weight.dtype
    return (weight * scale[:, None, None, None]).astype(dtype), shift.astype(dtype)


def _stamp(conv: Conv2d, norm: BatchNorm2d | None) -> Any:
    """Return what a plan was made from: versions of parameters, and running statistics."""
    parts: tuple[Any, ...] = (conv.weight, conv.bias)
    statistics: tuple[Any, ...] = ()
    if norm is not None:
        parts += norm.weight, norm.bias
        statistics = norm.running_mean.tobytes(), norm.running_var.tobytes(), norm.eps
    return *(part if part is None else part.version for part in parts), *statistics
