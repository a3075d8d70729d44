"""timm's networks by name, optionally with their pretrained weights. The package is optional (extra `timm`)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from ralr_tune.errors import UsageError
from ralr_tune.invocation import install
from ralr_tune.nearest import nearest

MISSING = "needs the package timm, which is not installed; type: "


def build(
    name: str, *, classes: int, channels: int, size: int, options: Mapping[str, Any], pretrained: bool
) -> nn.Module:
    """The network `name` of timm with `classes` outputs; timm adapts the first layer to any number of channels.

    `pretrained`: timm's weights for it, downloaded once; the head is new unless it has the same classes. Raises
    UsageError without timm, for an unknown name, images of another size than it is made for, or weights that cannot be
    loaded; TypeError and ValueError as the network's own constructor does.
    """
    timm = _timm(name)
    _check(timm, name, size, options)
    arguments = {"num_classes": classes, "in_chans": channels, **options}
    if not pretrained:
        return _module(timm.create_model(name, pretrained=False, **arguments))
    try:
        return _module(timm.create_model(name, pretrained=True, **arguments))
    except (TypeError, ValueError):
        raise
    except Exception as error:  # from the hub, the network and torch, which share no base class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"task.pretrained = true: the weights of timm:{name} cannot be loaded ({reason}); without a network, set "
            "task.weights to a file of them"
        ) from error


def fetch(name: str) -> None:
    """Downloads the pretrained weights unless they are here. Raises UsageError."""
    timm = _timm(name)
    if timm.is_model(name) and weights_file(name) is None:
        size = _config(timm, name).input_size[-1]
        build(name, classes=2, channels=3, size=size, options={}, pretrained=True)


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, as shares of white, with which timm trained the network's weights."""
    config = _config(_timm(name), name)
    return tuple(config.mean), tuple(config.std)


def weights_classes(name: str) -> int | None:
    """The number of classes of the pretrained weights."""
    count = _config(_timm(name), name).num_classes
    return None if count is None else int(count)


def weights_file(name: str) -> Path | None:
    """The downloaded file of the pretrained weights; None if it is not here."""
    config = _config(_timm(name), name)
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:  # without it, timm downloads nothing
        return None
    if not config.hf_hub_id:
        return None

    for file in (config.hf_hub_filename or "model.safetensors", "model.safetensors", "pytorch_model.bin"):
        if isinstance(found := try_to_load_from_cache(config.hf_hub_id, file), str):
            return Path(found)
    return None


def _timm(name: str) -> Any:
    if find_spec("timm") is None:
        raise UsageError(f"task.model = 'timm:{name}': {MISSING}{install('timm')}")
    import timm

    return timm


def _check(timm: Any, name: str, size: int, options: Mapping[str, Any]) -> None:
    if not timm.is_model(name):
        near = nearest(name.partition(".")[0], timm.list_models(), count=3, cutoff=0.4)
        raise UsageError(
            f"task.model = 'timm:{name}': timm has no such network"
            f"; similar names: {', '.join(f'timm:{other}' for other in near) or 'none'}"
        )
    config = _config(timm, name)
    needed = config.input_size[-1]
    if config.fixed_input_size and size != needed and "img_size" not in options:
        raise UsageError(
            f"task.model = 'timm:{name}': made for images of {needed}x{needed} pixels, these are {size}x{size}; set "
            f"task.data.size or task.train_size to {needed}, or task.model_options to {{ img_size = {size} }}"
        )


def _config(timm: Any, name: str) -> Any:
    """What timm knows of the network's weights; a default for networks without any."""
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def _module(built: Any) -> nn.Module:
    assert isinstance(built, nn.Module)
    return built
