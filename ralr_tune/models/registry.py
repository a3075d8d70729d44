"""Networks by name.

small_cnn, resnet20, wrn_28_10, ...     this package's own (see `names.NAMES` and `names.FAMILIES`)
torchvision:NAME                        any classification network of torchvision
timm:NAME                               any network of timm, an optional package
package.module:callable                 the user's own: called as callable(num_classes=..., **options) (see contract.py)
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from ralr_tune.errors import UsageError
from ralr_tune.models.cifar_resnet import CifarResNet
from ralr_tune.models.contract import CALLED
from ralr_tune.models.densenet import DenseNetBC
from ralr_tune.models.names import CIFAR_DEPTHS, family, unknown_network
from ralr_tune.models.preactivation import preresnet, wide_resnet
from ralr_tune.models.small_cnn import SmallCNN
from ralr_tune.models.weight_files import load_weights

Builder = Callable[..., Any]


def _cifar_resnet(
    depth: int, *, classes: int, channels: int, size: int, stochastic_depth_prob: float = 0.0
) -> nn.Module:
    del size  # unused: the network ends in global average pooling
    return CifarResNet(classes=classes, channels=channels, depth=depth, stochastic_depth_prob=stochastic_depth_prob)


def _preresnet(depth: int, *, classes: int, channels: int, size: int, stochastic_depth_prob: float = 0.0) -> nn.Module:
    del size
    return preresnet(depth, classes=classes, channels=channels, stochastic_depth_prob=stochastic_depth_prob)


def _wide_resnet(
    depth: int,
    widen: int,
    *,
    classes: int,
    channels: int,
    size: int,
    dropout: float = 0.0,
    stochastic_depth_prob: float = 0.0,
) -> nn.Module:
    del size
    regularised = {"dropout": dropout, "stochastic_depth_prob": stochastic_depth_prob}
    return wide_resnet(depth, widen, classes=classes, channels=channels, **regularised)


def _densenet_bc(
    depth: int,
    growth: int,
    *,
    classes: int,
    channels: int,
    size: int,
    dropout: float = 0.0,
    memory_efficient: bool = False,
) -> nn.Module:
    del size
    return DenseNetBC(
        classes=classes,
        channels=channels,
        depth=depth,
        growth=growth,
        dropout=dropout,
        memory_efficient=memory_efficient,
    )


_SINGLE: Mapping[str, Builder] = {
    "small_cnn": SmallCNN,
    **{f"resnet{depth}": partial(_cifar_resnet, depth) for depth in CIFAR_DEPTHS},
}
_FAMILIES: Mapping[str, Builder] = {
    "preresnet": _preresnet,
    "wide_resnet": _wide_resnet,
    "densenet_bc": _densenet_bc,
}


def builder(name: str) -> Builder | None:
    """This package's network of that name, called as callable(classes=..., channels=..., size=..., **options).

    None for a name that is none of this package's.
    """
    if name in _SINGLE:
        return _SINGLE[name]
    found = family(name)
    return None if found is None else partial(_FAMILIES[found[0]], *found[1])


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    size: int,
    options: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    weights: str | None = None,
) -> nn.Module:
    """A new network that maps images (N, channels, size, size) to logits (N, classes).

    Its weights are drawn from torch's global generator, which the caller seeds, or are its `pretrained` ones, or those
    of the file `weights`; a head of other classes is drawn in any case. Raises UsageError, which names what is allowed,
    if the name, an option, `pretrained` or `weights` is impossible, or if an import path does not lead to a network.
    """
    if pretrained and weights is not None:
        raise UsageError(f"task.pretrained = true and task.weights = {weights!r}: give one of the two")
    model = _built(name, {"classes": classes, "channels": channels, "size": size}, options or {}, pretrained)
    if weights is not None:
        load_weights(model, weights, classes)
    return model


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation per channel, as shares of white, for which pretrained weights of the network are
    made; None if its images should be normalised by the training data."""
    source = _pretrainable(name)
    return None if source is None else source.normalisation(name.partition(":")[2])


def weights_classes(name: str) -> int | None:
    """The number of classes of the network's pretrained weights; None if unknown."""
    source = _pretrainable(name)
    return None if source is None else source.weights_classes(name.partition(":")[2])


def weights_file(name: str) -> Path | None:
    """Where the network's pretrained weights are or will be; None if unknown. Raises UsageError if it has none."""
    source = _pretrainable(name)
    return None if source is None else source.weights_file(name.partition(":")[2])


def fetch(name: str) -> None:
    """Downloads the network's pretrained weights unless they are here. Raises UsageError if that fails or if they are
    damaged; nothing for a network without any, which `build` refuses."""
    if (source := _pretrainable(name)) is not None:
        source.fetch(name.partition(":")[2])


def _pretrainable(name: str) -> Any:
    """The module that builds the networks with this name's prefix; None for networks without pretrained weights."""
    if name.startswith("torchvision:"):
        from ralr_tune.models import torchvision_models  # the others need no torchvision: 0.1 s of a worker's start

        return torchvision_models
    if name.startswith("timm:"):
        from ralr_tune.models import timm_models

        return timm_models
    return None


def _built(name: str, shape: Mapping[str, int], options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    if (source := _pretrainable(name)) is not None:
        source_build = partial(source.build, name.partition(":")[2])
        return _construct(name, source_build, {**shape, "options": options, "pretrained": pretrained}, {})
    if pretrained:
        raise UsageError(
            f"task.pretrained = true: task.model = {name!r} has no weights to download; use torchvision:NAME or "
            "timm:NAME, or a file in task.weights"
        )
    own = builder(name)
    if own is not None:
        return _construct(name, own, shape, options)
    if ":" in name:
        return _construct(name, _imported(name), {"num_classes": shape["classes"]}, options)
    raise UsageError(unknown_network(name))


def _construct(name: str, builder: Builder, shape: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    try:
        model = builder(**shape, **options)
    except SystemExit as error:
        raise UsageError(f"task.model = {name!r}: it tried to exit the program ({error})") from error
    except (TypeError, ValueError) as error:
        allowed = f"; its model_options: {_option_names(builder, shape)}" if options else ""
        called = f"; {CALLED}" if isinstance(error, TypeError) and "num_classes" in shape else ""
        raise UsageError(f"task.model = {name!r}: {error}{called}{allowed}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"task.model = {name!r}: returned {type(model).__name__}, not a torch.nn.Module")
    if any(map(is_lazy, model.parameters())):
        raise UsageError(f"task.model = {name!r}: has lazy layers; must have all its weights when it is built")
    return model


def _option_names(builder: Builder, shape: Mapping[str, Any]) -> str:
    try:
        parameters = inspect.signature(builder).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return "unknown"
    return ", ".join(key for key in parameters if key not in shape) or "none"


def _imported(name: str) -> Builder:
    module_name, _, path = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # an import runs the user's code, which may raise anything
        raise UsageError(
            f"task.model = {name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    try:
        found = reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise UsageError(f"task.model = {name!r}: {error}") from error
    if not callable(found):
        raise UsageError(f"task.model = {name!r}: {path!r} is {type(found).__name__}, not callable")
    return found
