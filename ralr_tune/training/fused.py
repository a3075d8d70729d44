"""K networks of one architecture as one network, each in its own channels.

Images (N, K * C, H, W), slot after slot, go through grouped convolutions and through batch normalisation over K * C
channels; operations without weights (ReLU, pooling, sums) are unchanged; linear layers become K matrix products. This
is the fusion of HFTA (Wang et al., MLSys 2021, section 3). `torch.func.vmap` over stacked weights supports more kinds
of layers, but was slower in every case, in some even slower than separate networks (LOG.md, 2026-11-26).

Whether the fused network computes the same is not inferred from its code but tested on noise (see `check`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ralr_tune.models.stochastic_depth import StochasticDepth
from ralr_tune.training.kernels.joining import joined
from ralr_tune.training.kernels.normalise import Norm

TOLERANCE = 1e-3
"""Difference allowed between outputs of the fused and of the separate networks, in float32 on noise, relative to the
largest output or to 1: those of an untrained preresnet110 in evaluation are as large as 10^6."""

PROBE_SAMPLES = 4


class Unfusable(Exception):
    """This network cannot be fused. The message gives the reason; it appears only in the log."""


class Stack:
    """Weights (K, P) and buffers (K, ...) of K networks, one row per slot. The gradient is one tensor (K, P), too.

    The tensors keep their addresses: networks are copied in and out.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.weights = _weights(models).requires_grad_()
        self.buffers = _buffers(models)
        self.generators: Sequence[Generator] = ()
        """One per slot, for dropout."""
        self._shapes = {name: weight.shape for name, weight in models[0].named_parameters()}
        self._parts: dict[str, Tensor] = {}

    @property
    def slots(self) -> int:
        return len(self.weights)

    @torch.no_grad()
    def copy_from(self, models: Sequence[nn.Module]) -> None:
        """Copies in the weights and buffers of other networks, of the same number and architecture."""
        self.weights.copy_(_weights(models))
        for name, buffer in _buffers(models).items():
            self.buffers[name].copy_(buffer)

    def part(self, name: str) -> Tensor:
        """The weight with this name of all slots, (K, ...)."""
        return self._parts[name]

    @contextmanager
    def named_weights(self) -> Iterator[None]:
        """Inside the block, `part` returns the weights by name."""
        parts = torch.split(self.weights, [shape.numel() for shape in self._shapes.values()], dim=1)
        named = zip(self._shapes.items(), parts, strict=True)
        self._parts = {name: part.view(len(part), *shape) for (name, shape), part in named}
        try:
            yield
        finally:
            self._parts = {}

    def per_weight(self, rows: Tensor, slot: int) -> list[Tensor]:
        """The row of one slot in a tensor (K, P), copied into tensors with the shapes of the weights."""
        parts = torch.split(rows[slot].detach(), [shape.numel() for shape in self._shapes.values()])
        return [part.view(shape).clone() for part, shape in zip(parts, self._shapes.values(), strict=True)]

    @torch.no_grad()
    def copy_to(self, models: Sequence[nn.Module]) -> None:
        """Copies its weights and buffers into every network."""
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
    """As many networks like `model` as the stack has slots; every call gets the stack.

    A module without weights that depends on the number of networks has an attribute `slots`, which is set here.

    Raises Unfusable for a layer with weights that has no fused form.
    """

    def __init__(self, model: nn.Module) -> None:
        self._stack: Stack | None = None
        self._network = copy.deepcopy(model)
        for path, module in list(self._network.named_modules()):
            if (form := _fused_form(module)) is not None:
                parent, _, name = path.rpartition(".")
                self._network.get_submodule(parent).register_module(name, form(module, path, self._current))
        self._joined_networks: dict[bool, nn.Module] = {}
        self._slot_modules: list[Any] = [module for module in self._network.modules() if hasattr(module, "slots")]
        if any(True for _ in self._network.parameters()) or any(True for _ in self._network.buffers()):
            raise Unfusable("a weight is shared by two layers or does not belong to a layer")

    def __call__(self, stack: Stack, images: Tensor, *, training: bool = True, kernels: bool = False) -> Tensor:
        """Images (N, K * C, H, W) to outputs (N, K, classes); `kernels`: use this package's where they fit."""
        self._stack = stack
        if self._network.training != training:  # train() visits every layer
            self._network.train(training)
        for module in self._slot_modules:
            module.slots = stack.slots
        try:
            with stack.named_weights():
                outputs: Tensor = (self._joined(training) if kernels else self._network)(images)
        finally:
            self._stack = None  # it may be large and is no longer needed
        return outputs.view(len(outputs), stack.slots, -1)

    def _joined(self, training: bool) -> nn.Module:
        if training not in self._joined_networks:
            network = joined(self._network, lambda layer: layer.norm() if isinstance(layer, _Normalisation) else None)
            self._joined_networks[training] = network
        return self._joined_networks[training]

    def _current(self) -> Stack:
        assert self._stack is not None
        return self._stack


class _Layer(nn.Module):
    """A layer whose weights are in the stack, under the layer's path."""

    def __init__(self, layer: nn.Module, path: str, stack: Callable[[], Stack]) -> None:
        super().__init__()
        self._layer = {"layer": layer}  # in a dict, so that its weights are not registered in the network
        self._path, self._stack = path, stack

    def _weight(self, name: str) -> Tensor | None:
        """(K, ...); None if the layer has no weight of this name."""
        return None if getattr(self._layer["layer"], name) is None else self._stack().part(f"{self._path}.{name}")

    def _concatenated(self, name: str) -> Tensor | None:
        """The weight of all slots, concatenated along its first dimension: (K * first, ...)."""
        weight = self._weight(name)
        return None if weight is None else weight.flatten(0, 1)


class _Convolution(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        layer = self._layer["layer"]
        assert isinstance(layer, nn.Conv2d)
        weight = self._concatenated("weight")
        assert weight is not None
        padding, groups = layer.padding, layer.groups * self._stack().slots
        return F.conv2d(x, weight, self._concatenated("bias"), layer.stride, padding, layer.dilation, groups)


class _Normalisation(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm()
        if self.training:
            self.num_batches_tracked.add_(1)
        mean, variance, (weight, bias) = norm.running_mean, norm.running_variance, norm[:2]
        return F.batch_norm(x, mean, variance, weight, bias, self.training, norm.momentum, norm.epsilon)

    def norm(self) -> Norm:
        """The parameters of the normalisation of all slots' channels, concatenated."""
        layer, buffers = self._layer["layer"], self._stack().buffers
        assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        assert layer.momentum is not None
        mean, variance = (buffers[f"{self._path}.running_{name}"].view(-1) for name in ("mean", "var"))
        weight, bias = self._concatenated("weight"), self._concatenated("bias")
        return Norm(weight, bias, mean, variance, layer.momentum, layer.eps)

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
        """Each slot draws from its own generator; on a CPU, before a linear layer, the same as without fusion."""
        layer, stack = self._layer["layer"], self._stack()
        assert isinstance(layer, nn.Dropout)
        if not self.training or not stack.generators or layer.p == 0:
            return x
        parts = x.chunk(stack.slots, dim=1)
        kept = [torch.empty_like(part).bernoulli_(1 - layer.p, generator=one)
                for part, one in zip(parts, stack.generators, strict=True)]  # fmt: skip
        return x * torch.cat(kept, dim=1) / (1 - layer.p)


class _StochasticDepth(_Layer):
    def forward(self, x: Tensor) -> Tensor:
        """Each slot draws from its own generator; on a CPU the same as without fusion."""
        layer, stack = self._layer["layer"], self._stack()
        assert isinstance(layer, StochasticDepth)
        if not self.training or not stack.generators:
            return x
        shape = len(x), 1, 1, 1
        kept = [torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1 - layer.p, generator=one)
                for one in stack.generators]  # fmt: skip
        channels = x.shape[1] // stack.slots
        return x * torch.cat(kept, dim=1).repeat_interleave(channels, dim=1) / (1 - layer.p)


_FUSED_FORMS: dict[type[nn.Module], type[_Layer]] = {
    nn.Conv2d: _Convolution,
    nn.BatchNorm1d: _Normalisation,
    nn.BatchNorm2d: _Normalisation,
    nn.Linear: _Linear,
    nn.Dropout: _Dropout,
    StochasticDepth: _StochasticDepth,
}


def _fused_form(layer: nn.Module) -> type[_Layer] | None:
    """The fused form of a layer; None if it stays as it is. Subclasses have no fused form: they may differ."""
    form = _FUSED_FORMS.get(type(layer))
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
    """Raises Unfusable unless networks of one architecture, on the CPU, compute the same fused as separately.

    Tested on noise, in evaluation and in training without dropout and stochastic depth. Every weight must also have a
    gradient, since an optimizer does not change one without. Changes the networks' buffers.
    """
    if len(input_shape) != 3:
        raise Unfusable(f"samples of shape {input_shape} are not images")
    fused, stack = FusedNetwork(models[0]), Stack(models)
    noise = [torch.randn(PROBE_SAMPLES, *input_shape, generator=Generator().manual_seed(k)) for k in range(len(models))]
    for training in (False, True):
        for model in models:
            model.train(training)
            for each in model.modules():
                if type(each) in (nn.Dropout, StochasticDepth):
                    each.eval()
        alone = torch.stack([model(images) for model, images in zip(models, noise, strict=True)], dim=1)
        try:
            fused_outputs = fused(stack, torch.cat(noise, dim=1), training=training)
            same = torch.allclose(fused_outputs, alone, rtol=0, atol=TOLERANCE * max(1.0, alone.abs().max().item()))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise Unfusable(f"its fused form fails: {str(error).partition(chr(10))[0]}") from error
        if not same:
            raise Unfusable("its fused form has different outputs")
    alone.sum().backward()  # type: ignore[no-untyped-call]
    if any(weight.grad is None for model in models for weight in model.parameters()):
        raise Unfusable("it has weights without a gradient")
