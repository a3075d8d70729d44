"""Weights as a safetensors file, which other programs can read; it contains a digest that detects damage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ralr_tune.errors import DataError
from ralr_tune.machine.files import opened, write

DIGEST = "ralr_tune.sha256"
"""Key of the file's metadata: `digest` of its tensors. The format itself does not detect a changed weight."""

HEADER_BYTES = 2**20
"""Allowed in addition to the weights; names and shapes of torchvision's largest networks need a tenth of it."""


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the model's weights and buffers atomically; equal weights give equal bytes. Raises DiskError."""
    tensors = _tensors(model)
    write(path, save(tensors, metadata={DIGEST: digest(tensors)}))  # one key: the order of several would be random


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads what `save_weights` wrote for the same network.

    Raises DataError, with the model unchanged, if the file is missing, damaged, unreadable or of another network.
    """
    own = _tensors(model)
    tensors = _read(path, limit=sum(tensor.nbytes for tensor in own.values()) + HEADER_BYTES)
    if {name: (t.dtype, t.shape) for name, t in tensors.items()} != {n: (t.dtype, t.shape) for n, t in own.items()}:
        raise DataError(f"{path}: not the weights of this network: other names, shapes or types")
    model.load_state_dict(tensors, strict=False)  # weights with two names are in the file once


def _read(path: Path, limit: int) -> Mapping[str, Tensor]:
    try:
        with opened(path, limit), safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
            stored_digest = (file.metadata() or {}).get(DIGEST)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not the weights of this network: {error}") from error
    if stored_digest != digest(tensors):
        raise DataError(f"{path}: not the weights of this network: damaged, or not written by this program")
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Contiguous, on the CPU; a tensor with two names is included once, since the format does not allow sharing."""
    found: dict[tuple[object, ...], str] = {}
    state = model.state_dict()
    for name, tensor in state.items():
        found.setdefault((tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,), name)
    return {name: state[name].to("cpu", copy=True, memory_format=torch.contiguous_format) for name in found.values()}
