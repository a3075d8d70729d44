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
    """Where one worker runs."""

    index: int
    device: str
    """"cpu", "cuda:0", ...; for a worker on another machine also "auto": the worker detects it there."""
    threads: int
    """CPU threads for computing; N workers divide the cores instead of competing for them."""
    sharing: int = 1
    """Processes that share the GPU's memory, including this one. Always 1 on a CPU."""


def places(devices: str, workers: int | None) -> list[Place]:
    """One place for each worker. `devices` is "auto" or a comma-separated list, assigned to workers in turn.

    Without a number of workers: one per GPU, or one per CPU core (two one-thread processes are faster than one process
    with two threads).
    Raises UsageError for an unknown device or fewer than one worker.
    """
    names = _detected() if devices == "auto" else _parsed(devices)
    cores = available_cores()
    if workers is None:
        workers = len(names) if names != ["cpu"] else cores
    if workers < 1:
        raise UsageError(f"--workers {workers}: allowed: at least 1")
    threads = max(1, cores // workers)
    assigned = [names[index % len(names)] for index in range(workers)]
    sharing = {**Counter(assigned), "cpu": 1}
    return [Place(index, name, threads, sharing[name]) for index, name in enumerate(assigned)]


def _parsed(devices: str) -> list[str]:
    names = [name.strip() for name in devices.split(",")]
    _check_names(devices, names)
    names = ["cuda:0" if name == "cuda" else name for name in names]  # as in torch; each GPU has one name
    if any(name != "cpu" for name in names):
        _check_present(devices, names)
    return names


def _check_present(devices: str, names: list[str]) -> None:
    import torch

    gpus = torch.cuda.device_count()
    for name in names:
        if name != "cpu" and (torch.device(name).index or 0) >= gpus:
            raise UsageError(f"--devices {devices}: {name} is not available: torch sees {gpus} GPUs on this machine")


def _check_names(devices: str, names: list[str]) -> None:
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise UsageError(f"--devices {devices}: {name!r} is not a device; allowed: auto, cpu, cuda:0, cuda:1, ...")


def _detected() -> list[str]:
    if not Path("/dev/nvidiactl").exists():  # saves the launcher an import of torch if there is no GPU
        return ["cpu"]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
