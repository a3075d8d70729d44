"""The training loop that a user writes from Optuna's and Ray's PyTorch examples: torchvision's transforms on PIL
images, DataLoader, zero_grad, backward, step. Both peers use it.

Settings: `loader_workers` (DataLoader), `threads` (torch), `bfloat16` (autocast).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peers.case import MILESTONES, MOMENTUM, Data, Job
from ralr_tune.models import registry


class Pictures(Dataset[Any]):
    """Like torchvision's CIFAR10: an array of images; each access converts one to a PIL image and transforms it."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], transform: Callable[[Any], Any]) -> None:
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index])


def train(
    job: Job, data: Data, *, lr: float, weight_decay: float, trial: int, report: Callable[[float, int], None]
) -> float:
    """One trial; `report` gets (validation accuracy, epoch) and ends the trial by raising. Returns the last
    accuracy."""
    case, settings = job.case, job.settings
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(case.seed + trial)
    training, validation = loaders(job, data)
    channels, size = training.dataset[0][0].shape[:2]
    model = registry.build(case.model, classes=data.classes, channels=channels, size=size).to(case.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=weight_decay)
    milestones = [round(share * case.epochs) for share in MILESTONES]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    job.note("start", trial=trial)
    accuracy = 0.0
    for epoch in range(1, case.epochs + 1):
        one_epoch(model, optimizer, training, job)
        scheduler.step()
        accuracy = evaluated(model, validation, job)
        job.note("epoch", trial=trial, value=accuracy, images=len(training.dataset))  # type: ignore[arg-type]
        report(accuracy, epoch)
    return accuracy


def one_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any], job: Job) -> None:
    model.train()
    for batch in loader:
        images, labels = (part.to(job.case.device, non_blocking=True) for part in batch)
        optimizer.zero_grad()
        with autocast(job):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()


@torch.no_grad()
def evaluated(model: nn.Module, loader: DataLoader[Any], job: Job) -> float:
    model.eval()
    correct = 0
    for images, labels in loader:
        with autocast(job):
            outputs = model(images.to(job.case.device, non_blocking=True))
        correct += int((outputs.argmax(1).cpu() == labels).sum())
    return correct / len(loader.dataset)  # type: ignore[arg-type]


def autocast(job: Job) -> torch.autocast:
    enabled = bool(job.settings.get("bfloat16"))
    return torch.autocast(torch.device(job.case.device).type, dtype=torch.bfloat16, enabled=enabled)


def loaders(job: Job, data: Data) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Shuffled and augmented training batches, plain validation batches."""
    arrays, augment = data.arrays, job.case.augment
    images = arrays["train_images"]
    axes = tuple(range(images.ndim if images.ndim == 3 else 3))
    mean, std = (np.atleast_1d(figure / 255).tolist() for figure in (images.mean(axes), images.std(axes)))
    plain = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    size = images.shape[1]
    changes = {
        "crop": transforms.RandomCrop(size, padding=max(1, size // 8)),
        "flip": transforms.RandomHorizontalFlip(),
    }
    augmented = transforms.Compose([*(changes[name] for name in augment), *plain])
    workers = job.settings["loader_workers"]
    options: dict[str, Any] = {
        "batch_size": job.case.batch_size,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": job.case.device != "cpu",
    }
    train_set = Pictures(images, arrays["train_labels"], augmented)
    validation_set = Pictures(arrays["validation_images"], arrays["validation_labels"], transforms.Compose(plain))
    return DataLoader(train_set, shuffle=True, **options), DataLoader(validation_set, **options)
