"""Which device and how many threads each worker gets."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ralr_tune.errors import UsageError
from ralr_tune.machine.cores import available_cores

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Place:
    """Where one worker works."""

    index: int
    device: str
    """"cpu", "cuda:0", ...; of a worker on another machine also "auto": the worker looks there."""
    threads: int
    """CPU threads for computing; N workers share the cores without fighting over them."""
    sharing: int = 1
    """Processes that share the GPU's memory, this one included. On a CPU 1: there the system shares out."""


def places(devices: str, workers: int | None) -> list[Place]:
    """One place a worker. `devices` is "auto" or a comma-separated list; workers go round it.

    Without a number of workers: one a GPU, or one a CPU core (two one-thread processes beat one two-thread process).
    Raises UsageError for an unknown device or fewer than one worker.
    """
    names = _available() if devices == "auto" else _named(devices)
    cores = available_cores()
    if workers is None:
        workers = len(names) if names != ["cpu"] else cores
    if workers < 1:
        raise UsageError(f"--workers {workers}: at least 1")
    threads = max(1, cores // workers)
    taken = [names[index % len(names)] for index in range(workers)]
    sharing = {**Counter(taken), "cpu": 1}
    return [Place(index, name, threads, sharing[name]) for index, name in enumerate(taken)]


def _named(devices: str) -> list[str]:
    names = [name.strip() for name in devices.split(",")]
    _check_names(devices, names)
    names = ["cuda:0" if name == "cuda" else name for name in names]  # as torch has it; one card has one name
    if any(name != "cpu" for name in names):
        _check_there(devices, names)
    return names


def _check_there(devices: str, names: list[str]) -> None:
    import torch

    gpus = torch.cuda.device_count()
    for name in names:
        if name != "cpu" and (torch.device(name).index or 0) >= gpus:
            raise UsageError(f"--devices {devices}: no {name} here: this machine has {gpus} GPUs that torch can use")


def _check_names(devices: str, names: list[str]) -> None:
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise UsageError(f"--devices {devices}: {name!r} is no device; allowed: auto, cpu, cuda:0, cuda:1, ...")


def _available() -> list[str]:
    if not Path("/dev/nvidiactl").exists():  # spares the launcher an import of torch where there is no GPU
        return ["cpu"]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
