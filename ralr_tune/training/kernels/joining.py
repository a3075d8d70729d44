"""Rewrites a network for this package's kernels: joins batch normalisations with the sum, ReLU and pooling after them.

The network is traced with torch.fx. The new network shares the layers of the old one, so both train the same weights.
It is fixed to the mode, training or evaluation, of the old one during tracing, since functions get the mode as a
constant. The caller must exclude code that tracing would get wrong: code that branches on numbers or draws from
Python's generator (see recording.varying_module).
"""

from __future__ import annotations

import logging
import operator
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ralr_tune.errors import RalrTuneError
from ralr_tune.models.pixels import global_average, subsample
from ralr_tune.training.kernels.normalise import Norm, normalised

logger = logging.getLogger(__name__)

RELUS = (F.relu, torch.relu, torch.relu_)
SUMS = (operator.add, operator.iadd, torch.add)

_TRACING_LOCK = threading.Lock()

NormOf = Callable[[nn.Module], Norm | None]
"""Returns the parameters of a layer's normalisation; None if the layer is something else."""


def norm_of_layer(layer: nn.Module) -> Norm | None:
    """The parameters of torch's own layer with a moving average."""
    if type(layer) is not nn.BatchNorm2d or layer.momentum is None:
        return None
    if layer.running_mean is None or layer.running_var is None:
        return None
    return Norm(layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.momentum, layer.eps)


class Joined(nn.Module):
    """pool(relu(norm(x) + other)); sum, ReLU and pooling are optional."""

    def __init__(self, layer: nn.Module, norm_of: NormOf, *, relu: bool, pool: bool) -> None:
        super().__init__()
        self.layer, self._norm_of, self._relu, self._pool = layer, norm_of, relu, pool

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        norm = self._norm_of(self.layer)
        assert norm is not None
        if self.layer.training:
            self.layer.num_batches_tracked.add_(1)  # type: ignore[operator]
        return normalised(x, norm, other, relu=self._relu, pool=self._pool, training=self.layer.training)


class _Tracer(fx.Tracer):
    """Traces into containers only, and not into functions that branch on a tensor's memory format."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(global_average, subsample))
        self._thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        slotted = hasattr(m, "slots")  # training.fused sets it at every call, so it must not become a constant
        return slotted or super().is_leaf_module(m, module_qualified_name) or not any(True for _ in m.children())

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """torch.fx patches the call of modules in all threads, so calls from other threads are passed on unchanged."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def joined(model: nn.Module, norm_of: NormOf = norm_of_layer) -> nn.Module:
    """The rewritten network, in the network's current mode; the network itself if it cannot be traced or has nothing to
    join."""
    try:
        with _TRACING_LOCK:
            graph = _Tracer().trace(model)
        network = fx.GraphModule(model, graph)
        layers = [
            node for node in graph.nodes if node.op == "call_module" and norm_of(network.get_submodule(node.target))
        ]
        for node in layers:
            _join(network, node, norm_of)
        graph.lint()
        network.recompile()
    except (RalrTuneError, MemoryError):
        raise
    except Exception as error:  # torch.fx does not document what it raises for code that it cannot trace
        logger.info("normalisation by torch: this network cannot be traced: %s", error)
        return model
    return network if layers else model


def _join(network: fx.GraphModule, node: fx.Node, norm_of: NormOf) -> None:
    """Joins a layer with the operations after it, as far as nothing else uses the intermediate results."""
    chain, other, after = [node], None, _only_user(node)
    if after and _is_sum(after, node) and (relu := _only_user(after)) and _is_relu(network, relu):
        chain, other = [node, after, relu], next(each for each in after.args if each is not node)
    elif after and _is_relu(network, after):
        chain = [node, after]
    pool = None if other or len(chain) == 1 else _only_user(chain[-1])
    if pool and _is_pool(network, pool):
        chain.append(pool)
    name = f"joined_{node.name}"
    layer = network.get_submodule(str(node.target))
    network.add_submodule(name, Joined(layer, norm_of, relu=len(chain) > 1, pool=chain[-1] is pool))
    with network.graph.inserting_before(chain[-1]):
        new = network.graph.call_module(name, (node.args[0],) if other is None else (node.args[0], other))
    chain[-1].replace_all_uses_with(new)
    for old in reversed(chain):
        network.graph.erase_node(old)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_sum(node: fx.Node, term: fx.Node) -> bool:
    """Whether a node adds two different tensors; if in place, then to `term`, which nothing else uses."""
    terms = node.args
    plain = len(terms) == 2 and all(isinstance(each, fx.Node) for each in terms) and not node.kwargs
    if node.op != "call_function" or node.target not in SUMS or not plain or terms[0] is terms[1]:
        return False
    return node.target is not operator.iadd or terms[0] is term


def _is_pool(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a layer that averages each 2x2 pixels."""
    layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if type(layer) is not nn.AvgPool2d or layer.ceil_mode or layer.divisor_override:
        return False
    return [layer.kernel_size, layer.stride, layer.padding] in ([2, 2, 0], [(2, 2), (2, 2), (0, 0)])


def _is_relu(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.ReLU
    return (node.op == "call_function" and node.target in RELUS) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )
