"""A network as its steps of training call it: each batch normalisation one with the sum and the ReLU behind it.

Found by tracing (torch.fx); the new network has the very layers of the old one, so both train the same weights. What
tracing would get wrong, code that decides by numbers or draws from Python's generator, is for the caller to keep away
(see recording.unknown).
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ralr_tune.models.pixels import every, global_average
from ralr_tune.training.kernels.normalise import Norm, normalised

logger = logging.getLogger(__name__)

RELUS = (F.relu, torch.relu, torch.relu_)
SUMS = (operator.add, operator.iadd, torch.add)

NormOf = Callable[[nn.Module], Norm | None]
"""What a layer normalises by; None where it does something else."""


def of_layer(layer: nn.Module) -> Norm | None:
    """torch's own layer, in training, with a moving average."""
    if type(layer) is not nn.BatchNorm2d or not layer.training or layer.momentum is None:
        return None
    if layer.running_mean is None or layer.running_var is None:
        return None
    return Norm(layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.momentum, layer.eps)


class Joined(nn.Module):
    """relu(norm(x) + other), the ReLU and the sum where there are."""

    def __init__(self, layer: nn.Module, norm_of: NormOf, *, relu: bool) -> None:
        super().__init__()
        self.layer, self._norm_of, self._relu = layer, norm_of, relu

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        norm = self._norm_of(self.layer)
        if norm is None:  # it no longer trains
            y: Tensor = self.layer(x)
            y = y if other is None else y + other
            return F.relu(y) if self._relu else y
        self.layer.num_batches_tracked.add_(1)  # type: ignore[operator]
        return normalised(x, norm, other, relu=self._relu)


class _Tracer(fx.Tracer):
    """Looks into containers alone, and not into functions that decide by how a tensor lies in memory."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(every, global_average))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or not any(True for _ in m.children())


def joined(model: nn.Module, norm_of: NormOf = of_layer) -> nn.Module:
    """The network for training; itself where it cannot be traced or has nothing to join."""
    try:
        graph = _Tracer().trace(model)
        network = fx.GraphModule(model, graph)
        layers = [
            node for node in graph.nodes if node.op == "call_module" and norm_of(network.get_submodule(node.target))
        ]
        for node in layers:
            _join(network, node, norm_of)
        graph.lint()
        network.recompile()
    except Exception as error:  # torch.fx has no list of what it raises on code that it does not follow
        logger.info("normalisation as torch has it: this network cannot be traced: %s", error)
        return model
    return network if layers else model


def _join(network: fx.GraphModule, node: fx.Node, norm_of: NormOf) -> None:
    """One layer, with what follows it and nothing else uses."""
    chain, other, after = [node], None, _only_user(node)
    if after and _is_sum(after) and (relu := _only_user(after)) and _is_relu(network, relu):
        chain, other = [node, after, relu], next(each for each in after.args if each is not node)
    elif after and _is_relu(network, after):
        chain = [node, after]
    name = f"joined_{node.name}"
    layer = network.get_submodule(str(node.target))
    network.add_submodule(name, Joined(layer, norm_of, relu=len(chain) > 1))
    with network.graph.inserting_before(chain[-1]):
        new = network.graph.call_module(name, (node.args[0],) if other is None else (node.args[0], other))
    chain[-1].replace_all_uses_with(new)
    for old in reversed(chain):
        network.graph.erase_node(old)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_sum(node: fx.Node) -> bool:
    """Of two tensors, not of one and itself."""
    terms = node.args
    plain = len(terms) == 2 and all(isinstance(each, fx.Node) for each in terms) and not node.kwargs
    return node.op == "call_function" and node.target in SUMS and plain and terms[0] is not terms[1]


def _is_relu(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.ReLU
    return (node.op == "call_function" and node.target in RELUS) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )
