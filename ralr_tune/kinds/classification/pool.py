"""The images of a task in one tensor, on its device if they fit, and the positions of each split in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ralr_tune.errors import DataError
from ralr_tune.kinds.classification.decoded import load
from ralr_tune.kinds.classification.samples import Samples, Source, hold_out
from ralr_tune.kinds.classification.stratify import Rows
from ralr_tune.machine.sharing import free_on, is_cuda
from ralr_tune.seeds import derive_seed


@dataclass(frozen=True)
class Pool:
    """Images (N, C, H, W) uint8 and labels (N,) int64, both on the same device."""

    images: Tensor
    labels: Tensor


def pool_and_rows(
    source: Source, validation: float, seed: int, device: str, decoded: Path | None
) -> tuple[Pool, dict[str, Tensor]]:
    """All images except the test split in one pool, and the positions of each split in it."""
    if source.validation is None:
        pool = make_pool([source.train], device, decoded)
        held_out, train = hold_out(source.train.labels, validation, seed)
    else:
        check_not_empty(source.validation, "validation")
        pool = make_pool([source.train, source.validation], device, decoded)
        train, held_out = np.split(np.arange(len(pool.labels)), [len(source.train)])
    rows = {"train": train, "validation": held_out, "train+validation": np.sort(np.concatenate([train, held_out]))}
    rows["probe"] = _probe(train, len(held_out), seed)
    return pool, {split: torch.from_numpy(some).to(pool.images.device) for split, some in rows.items()}


def _probe(train: Rows, wanted: int, seed: int) -> Rows:
    shuffled = np.random.Generator(np.random.PCG64(derive_seed("probe", seed))).permutation(train)
    return np.sort(shuffled[:wanted])


def check_not_empty(samples: Samples, split: str) -> None:
    if len(samples) == 0:
        raise DataError(f"data: the {split} split has no images of the chosen classes")


def make_pool(parts: Sequence[Samples], device: str, decoded: Path | None) -> Pool:
    images = torch.from_numpy(load(parts, decoded))
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
    home = device if _fits_on_device(images.nbytes, device) else "cpu"
    return Pool(images.to(home), labels.to(home))


def _fits_on_device(size: int, device: str) -> bool:
    """Whether data of `size` bytes take at most half of the memory that this process may use on the device."""
    return not is_cuda(device) or size <= free_on(device) / 2
