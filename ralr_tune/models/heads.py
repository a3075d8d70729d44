"""The head of a classification network: the layer whose outputs are the classes. The rest is its trunk."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ralr_tune.errors import UsageError

CONTRACT = (
    "the head is what the network's get_classifier() returns, if it has that method, as timm's networks do; otherwise "
    "its last layer with weights, which must be linear or a convolution with one output per class"
)


def trunk_and_head(model: nn.Module, classes: int) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of trunk and head. Raises UsageError if the head cannot be told, or if there is no trunk."""
    head = [weight for layer in head_layers(model, classes) for weight in layer.parameters()]
    own = {id(weight) for weight in head}
    trunk = [weight for weight in model.parameters() if id(weight) not in own]
    if not trunk:
        raise UsageError("task.model: has no trunk: all its weights are in its head")
    return trunk, head


def head_layers(model: nn.Module, classes: int) -> Sequence[nn.Module]:
    """The layers of the head. Raises UsageError if it cannot be told (see CONTRACT)."""
    for module in model.modules():
        if callable(found := getattr(module, "get_classifier", None)):
            layers = found()
            return list(layers) if isinstance(layers, tuple | list) else [layers]
    last = None
    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)):
            last = module
    if _outputs(last) != classes:
        what = "it has no weights" if last is None else f"its last layer with weights is {type(last).__name__}"
        raise UsageError(f"task.model: cannot tell its head of {classes} outputs: {what}; {CONTRACT}")
    assert last is not None
    return [last]


def _outputs(layer: nn.Module | None) -> int | None:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) else None
