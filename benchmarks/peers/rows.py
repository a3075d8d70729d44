"""The rows of the table: which script runs, with which settings. A new accelerator is one more line in OURS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Settings = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One script with its settings."""

    name: str
    script: str
    settings: Settings = field(default_factory=dict)


SLOTS = {"options": ["--slots", "auto"]}
"""Off by default: the last bits of a curve depend on which trials share a network, and no run reproduces that."""

OURS: dict[str, Settings] = {
    "ours": SLOTS,
    "ours, slots off": {},
    "ours, float32 only": {**SLOTS, "training": {"precision": "float32"}},
    "ours, channels_last off": {**SLOTS, "training": {"channels_last": False}},
    "ours, steps as Python has them": {**SLOTS, "training": {"compile": False}},
}
"""Each accelerator off in turn. One that is off by default gets no row (see driver.different)."""

MORE: dict[str, dict[str, Settings]] = {
    "cpu": {"ours, one worker": {"options": [*SLOTS["options"], "--workers", "1"]}},
    "cuda": {
        "ours, compiled": {**SLOTS, "training": {"compile": True}},
        "ours, 16 slots": {"options": ["--slots", "16"]},
        "ours, 4 workers on the card": {"options": ["--workers", "4"]},
    },
}
"""On one kind of device: a core more or less; what "auto" skips in runs as short as these, and the options for networks
that cannot be fused."""

EXAMPLE = Row(
    "plain Optuna, as its example",
    "plain",
    {"jobs": 1, "threads": CORES, "loader_workers": CORES},
)
"""`study.optimize` in one process, DataLoader with one worker per core: what most users would write and keep."""


def peers(device: str) -> dict[str, list[Row]]:
    """The settings that each peer may choose from, by its name; the fastest on a short part of the case is its row.

    Optuna's pages name one process, threads and several processes (threads share one interpreter, and are left out);
    Ray's a number of CPUs and GPUs for each trial. PyTorch's name DataLoader workers. The likely ones come first.
    """
    plain, ray = (_on_cpu if device == "cpu" else _on_gpu)()
    return {
        "plain Optuna": [Row(_named("plain Optuna", each), "plain", each) for each in plain],
        "Ray Tune": [Row(_named("Ray Tune", each), "ray_tune", {"cores": CORES, **each}) for each in ray],
    }


def _on_cpu() -> tuple[list[Settings], list[Settings]]:
    plain = [
        {"jobs": CORES, "threads": 1, "loader_workers": 0},
        {"jobs": 1, "threads": CORES, "loader_workers": 0},
        {"jobs": 1, "threads": CORES, "loader_workers": CORES},
        {"jobs": CORES, "threads": 1, "loader_workers": 1},
    ]
    ray = [
        {"cpus": 1, "threads": 1, "loader_workers": 0},
        {"cpus": CORES, "threads": CORES, "loader_workers": CORES},
        {"cpus": 1, "threads": 1, "loader_workers": 1},
    ]
    return plain, ray


def _on_gpu() -> tuple[list[Settings], list[Settings]]:
    """Several trials on one card, as many as the cores can feed."""
    many = max(2, CORES // 4)
    shares = [(many, CORES // many), (2, CORES // 2), (1, CORES)]
    plain = [
        {"jobs": jobs, "threads": 1, "loader_workers": max(1, workers - 1), "bfloat16": half}
        for jobs, workers in shares
        for half in (True, False)
    ]
    ray = [
        {"cpus": cores, "gpus": 1 / jobs, "threads": 1, "loader_workers": max(1, cores - 1), "bfloat16": half}
        for jobs, cores in shares
        for half in (True, False)
    ]
    return plain, ray


def _named(peer: str, settings: Settings) -> str:
    parts = [f"{settings[key]:g} {word}" for key, word in _WORDS.items() if key in settings]
    return f"{peer} ({', '.join(parts)})"


_WORDS = {
    "jobs": "processes",
    "cpus": "CPUs a trial",
    "gpus": "GPUs a trial",
    "threads": "threads",
    "loader_workers": "loader workers",
}


def ours(device: str) -> Iterator[Row]:
    for name, settings in (OURS | MORE[device]).items():
        yield Row(name, "ours", settings)
