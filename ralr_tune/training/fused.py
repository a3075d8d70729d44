"""K networks of one shape as one network, each in channels of its own.

Images (N, K * C, H, W), slot after slot, go through grouped convolutions and through batch normalisation over K * C
channels; what has no weights (ReLU, pooling, sums) passes as it is, and linear layers become K products of matrices.
That is the fusion of HFTA (Wang et al., MLSys 2021, section 3). `torch.func.vmap` over stacked weights serves more
kinds of layers and was slower than this in every case, than separate networks even in some (LOG.md, 2026-11-26).

Whether a network means the same in this form is not guessed from its code: it is tried, on noise (see `check`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ralr_tune.training.kernels.joining import joined
from ralr_tune.training.kernels.normalise import Norm

TOLERANCE = 1e-3
"""Relative and absolute, between outputs of a fused network and of its slots by themselves, in float32 on noise."""

PROBE_SAMPLES = 4


class Unfusable(Exception):
    """This network cannot be fused; the message says why, and never leaves the log."""


class Stack:
    """Weights (K, P) and buffers (K, ...) of K networks, one row a slot. The gradient is one tensor (K, P), too.

    They stay in their places in memory, whatever is taken in and handed out.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.weights = _weights(models).requires_grad_()
        self.buffers = _buffers(models)
        self.generators: Sequence[Generator] = ()
        """One a slot, for dropout."""
        self._shapes = {name: weight.shape for name, weight in models[0].named_parameters()}
        self._parts: dict[str, Tensor] = {}

    @property
    def slots(self) -> int:
        return len(self.weights)

    @torch.no_grad()
    def take(self, models: Sequence[nn.Module]) -> None:
        """Weights and buffers of other networks, as many and of the same shape."""
        self.weights.copy_(_weights(models))
        for name, buffer in _buffers(models).items():
            self.buffers[name].copy_(buffer)

    def part(self, name: str) -> Tensor:
        """A weight of all slots, (K, ...)."""
        return self._parts[name]

    @contextmanager
    def spread(self) -> Iterator[None]:
        """Inside, the weights can be had by name."""
        parts = torch.split(self.weights, [shape.numel() for shape in self._shapes.values()], dim=1)
        named = zip(self._shapes.items(), parts, strict=True)
        self._parts = {name: part.view(len(part), *shape) for (name, shape), part in named}
        try:
            yield
        finally:
            self._parts = {}

    def per_weight(self, rows: Tensor, slot: int) -> list[Tensor]:
        """The row of one slot in a tensor (K, P), as copies in the shapes of the weights."""
        parts = torch.split(rows[slot].detach(), [shape.numel() for shape in self._shapes.values()])
        return [part.view(shape).clone() for part, shape in zip(parts, self._shapes.values(), strict=True)]

    @torch.no_grad()
    def hand_out(self, models: Sequence[nn.Module]) -> None:
        """Every network gets its weights and buffers."""
        for slot, model in enumerate(models):
            for weight, found in zip(model.parameters(), self.per_weight(self.weights, slot), strict=True):
                weight.copy_(found)
            for name, buffer in model.named_buffers():
                buffer.copy_(self.buffers[name][slot])


def _weights(models: Sequence[nn.Module]) -> Tensor:
    return torch.stack([torch.cat([weight.detach().flatten() for weight in model.parameters()]) for model in models])


def _buffers(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    each = [dict(model.named_buffers()) for model in models]
    return {name: torch.stack([buffers[name] for buffers in each]) for name in each[0]}


class FusedNetwork:
    """Networks like `model`, as many as the stack has slots; the stack is given to every call.

    A module without weights that must know where one network's channels end has an attribute `slots`, and is told.

    Raises Unfusable on a layer that has weights and is none of those that are known here.
    """

    def __init__(self, model: nn.Module) -> None:
        self._stack: Stack | None = None
        self._network = copy.deepcopy(model)
        for path, module in list(self._network.named_modules()):
            if (form := _form(module)) is not None:
                parent, _, name = path.rpartition(".")
                self._network.get_submodule(parent).register_module(name, form(module, path, self._current))
        self._by_kernels: dict[bool, nn.Module] = {}
        self._told: list[Any] = [module for module in self._network.modules() if hasattr(module, "slots")]
        if any(True for _ in self._network.parameters()) or any(True for _ in self._network.buffers()):
            raise Unfusable("a weight stands in it twice, or outside of a layer")

    def __call__(self, stack: Stack, images: Tensor, *, training: bool = True, kernels: bool = False) -> Tensor:
        """Images (N, K * C, H, W) to outputs (N, K, classes); `kernels`: by our own, where they fit."""
        self._stack = stack
        if self._network.training != training:  # walks through all layers
            self._network.train(training)
        for module in self._told:
            module.slots = stack.slots
        try:
            with stack.spread():
                outputs: Tensor = (self._joined(training) if kernels else self._network)(images)
        finally:
            self._stack = None  # it may be large, and of no more use
        return outputs.view(len(outputs), stack.slots, -1)

    def _joined(self, training: bool) -> nn.Module:
        if training not in self._by_kernels:
            made = joined(self._network, lambda layer: layer.norm() if isinstance(layer, _Normalisation) else None)
            self._by_kernels[training] = made
        return self._by_kernels[training]

    def _current(self) -> Stack:
        assert self._stack is not None
        return self._stack


class _Layer(nn.Module):
    """A layer whose weights lie in the stack, under the layer's path."""

    def __init__(self, layer: nn.Module, path: str, stack: Callable[[], Stack]) -> None:
        super().__init__()
        self._layer = {"layer": layer}  # in a dict, so that its own weights are none of the network's
        self._path, self._stack = path, stack

    def _weight(self, name: str) -> Tensor | None:
        """(K, ...); None where the layer has none of this name."""
        return None if getattr(self._layer["layer"], name) is None else self._stack().part(f"{self._path}.{name}")

    def _joined(self, name: str) -> Tensor | None:
        """(K * first, ...)."""
        weight = self._weight(name)
        return None if weight is None else weight.flatten(0, 1)


class _Convolution(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        layer = self._layer["layer"]
        assert isinstance(layer, nn.Conv2d)
        weight = self._joined("weight")
        assert weight is not None
        padding, groups = layer.padding, layer.groups * self._stack().slots
        return F.conv2d(x, weight, self._joined("bias"), layer.stride, padding, layer.dilation, groups)


class _Normalisation(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm()
        if self.training:
            self.num_batches_tracked.add_(1)
        mean, variance, (weight, bias) = norm.running_mean, norm.running_variance, norm[:2]
        return F.batch_norm(x, mean, variance, weight, bias, self.training, norm.momentum, norm.epsilon)

    def norm(self) -> Norm:
        """Of the channels of all slots, side by side."""
        layer, buffers = self._layer["layer"], self._stack().buffers
        assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        assert layer.momentum is not None
        mean, variance = (buffers[f"{self._path}.running_{name}"].view(-1) for name in ("mean", "var"))
        return Norm(self._joined("weight"), self._joined("bias"), mean, variance, layer.momentum, layer.eps)

    @property
    def num_batches_tracked(self) -> Tensor:
        return self._stack().buffers[f"{self._path}.num_batches_tracked"]


class _Linear(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        """(N, K * features) to (N, K * outputs)."""
        weight, bias = self._weight("weight"), self._weight("bias")
        assert weight is not None
        features: Tensor = x.reshape(len(x), self._stack().slots, -1).transpose(0, 1)
        outputs = features @ weight.transpose(1, 2)
        outputs = outputs if bias is None else outputs + bias[:, None]
        return outputs.transpose(0, 1).flatten(1)


class _Dropout(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        """Each slot draws from its own generator, on a CPU what the slot would draw by itself before a linear layer."""
        layer, stack = self._layer["layer"], self._stack()
        assert isinstance(layer, nn.Dropout)
        if not self.training or not stack.generators or layer.p == 0:
            return x
        parts = x.chunk(stack.slots, dim=1)
        kept = [torch.empty_like(part).bernoulli_(1 - layer.p, generator=one)
                for part, one in zip(parts, stack.generators, strict=True)]  # fmt: skip
        return x * torch.cat(kept, dim=1) / (1 - layer.p)


_FORMS: dict[type[nn.Module], type[_Layer]] = {
    nn.Conv2d: _Convolution,
    nn.BatchNorm1d: _Normalisation,
    nn.BatchNorm2d: _Normalisation,
    nn.Linear: _Linear,
    nn.Dropout: _Dropout,
}


def _form(layer: nn.Module) -> type[_Layer] | None:
    """The fused form of a layer; None where it stays. Of a subclass nobody knows what it does."""
    form = _FORMS.get(type(layer))
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    if form is None and own:
        raise Unfusable(f"{type(layer).__name__} has weights and no fused form")
    if not all(weight.requires_grad for weight in layer.parameters(recurse=False)):
        raise Unfusable(f"{type(layer).__name__} has weights that are not trained")
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        raise Unfusable(f"a convolution with {layer.padding_mode} padding")
    if form is _Normalisation and (not list(layer.buffers()) or layer.momentum is None):
        raise Unfusable("batch normalisation without a moving average")
    return form


def check(models: Sequence[nn.Module], input_shape: tuple[int, ...]) -> None:
    """Raises Unfusable unless networks of one shape, on the CPU, give fused what each gives by itself.

    On noise, in evaluation and in training without dropout; and every weight must have a gradient, since an optimizer
    leaves alone one that has none. Changes the networks' buffers.
    """
    if len(input_shape) != 3:
        raise Unfusable(f"samples of shape {input_shape}, not images")
    fused, stack = FusedNetwork(models[0]), Stack(models)
    noise = [torch.randn(PROBE_SAMPLES, *input_shape, generator=Generator().manual_seed(k)) for k in range(len(models))]
    for training in (False, True):
        for model in models:
            model.train(training)
            for each in model.modules():
                if type(each) is nn.Dropout:
                    each.eval()
        alone = torch.stack([model(images) for model, images in zip(models, noise, strict=True)], dim=1)
        try:
            together = fused(stack, torch.cat(noise, dim=1), training=training)
            same = torch.allclose(together, alone, rtol=TOLERANCE, atol=TOLERANCE)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise Unfusable(f"its fused form fails: {str(error).partition(chr(10))[0]}") from error
        if not same:
            raise Unfusable("its fused form gives other outputs")
    alone.sum().backward()  # type: ignore[no-untyped-call]
    if any(weight.grad is None for model in models for weight in model.parameters()):
        raise Unfusable("it has weights without a gradient")
