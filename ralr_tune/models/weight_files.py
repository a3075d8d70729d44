"""Pretrained weights from files: verified by the hash in their name, and loaded without executing anything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ralr_tune.errors import UsageError
from ralr_tune.models.heads import head_layers

WRAPPERS = ("state_dict", "model")
"""Keys under which training programs store the weights in a larger table."""


def check_hash(file: Path) -> None:
    """Raises UsageError unless the content of an existing file has the hash in its name, as torch.hub's have
    (resnet18-f37072fd.pth): torchvision checks it only after a download."""
    found = re.search(r"-([0-9a-f]{8,})\.", file.name)
    if found is None or not file.exists():
        return
    status = file.stat()
    digest = _sha256(file, status.st_size, status.st_mtime_ns)
    if not digest.startswith(found[1]):
        raise UsageError(
            f"weights {file}: damaged or changed: their SHA-256 begins with {digest[: len(found[1])]}, not with "
            f"{found[1]}; remove the file, and it is downloaded again"
        )


@cache
def _sha256(file: Path, size: int, modified_ns: int) -> str:
    """Computed once for each state of the file: every trial of a process builds its network."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def load_weights(model: nn.Module, path: str, classes: int) -> None:
    """Loads the weights in a .safetensors file, or in one that torch.save wrote, into the network.

    Its head stays as it is if the file's has other shapes. Raises UsageError if the file cannot be read, or if any
    other weight is missing, unknown or of another shape.
    """
    model = _without_grey(model)
    found, own = _read(Path(path)), model.state_dict()
    head = _names_in_head(model, classes)
    fits = {name for name in own if name in found and found[name].shape == own[name].shape}
    wrong = sorted((own.keys() | found.keys()) - fits - head)
    if wrong:
        first = wrong[0]
        what = "not in the file" if first not in found else "not in the network" if first not in own else "other shape"
        raise UsageError(
            f"task.weights = {path!r}: not of this network: {len(wrong)} weights differ, the first is {first} ({what})"
        )
    model.load_state_dict({name: found[name] for name in fits}, strict=False)


def _without_grey(model: nn.Module) -> nn.Module:
    """torchvision's network itself if the model is one that also takes grey images (see torchvision_models.Grey)."""
    grey = isinstance(model, nn.Sequential) and type(model[0]).__name__ == "Grey"
    return model.get_submodule("1") if grey else model


def _names_in_head(model: nn.Module, classes: int) -> frozenset[str]:
    layers = {id(layer) for layer in head_layers(model, classes)}
    places = [name for name, module in model.named_modules() if id(module) in layers]
    return frozenset(name for name in model.state_dict() if name.rpartition(".")[0] in places)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        table: Any
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            table = load_file(path)
        else:
            table = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # neither library documents what damaged bytes raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"task.weights = {str(path)!r}: cannot be read ({reason}); allowed: a .safetensors file, or one that "
            "torch.save wrote and that contains only tensors"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(table, dict) and isinstance(table.get(wrapper), dict):
            table = table[wrapper]
    if not isinstance(table, dict) or not all(isinstance(value, Tensor) for value in table.values()):
        raise UsageError(f"task.weights = {str(path)!r}: must contain a table of tensors by name (a state_dict)")
    return table
