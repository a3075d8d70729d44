"""The time of a step by operator: `python -m benchmarks.operators` prints the operators of each network that take most.

One table per case of benchmarks.peers, by torch.profiler, in the precision that `auto` chooses; with `--slots 8` for
eight trials as one network. Milliseconds of a core, or of the GPU's kernels with `--device cuda`, which records the
steps. The profiler itself takes time: the title gives the time of a step without it, and the sum of all rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from benchmarks.peers.case import VALIDATION, Case
from benchmarks.peers.driver import PROFILES, Profile, Size, made_case
from benchmarks.peers.ours import study
from ralr_tune.search.tasks import Tasks
from ralr_tune.studyfile import parse_study
from ralr_tune.training.fusion import FusedTrainer, steps_alone
from ralr_tune.training.loop import TorchTrial
from ralr_tune.training.memory import keep_freed
from ralr_tune.training.slot import SlotEpoch

WARM, TIMED, SETTLING, PROFILED = 3, 5, 4, 5
"""Steps, in total the full steps of an epoch of the digits. The profiler settles first: its records take memory that
the steps had freed, so for a few steps the system must allocate new memory."""
SHOWN, NAME = 14, 110
"""Rows, and characters of a name: kernel names are very long."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.operators", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed()
    found = PROFILES["cpu" if given.device == "cpu" else "gpu"]
    for size in found.sizes:
        if given.only in size.name:
            print("\n".join(_table(_short(size), found, given.slots)), flush=True)


def _short(size: Size) -> Size:
    steps = WARM + TIMED + SETTLING + PROFILED + 1
    return replace(size, images=round(size.batch_size * steps / (1 - VALIDATION) / size.classes + 1) * size.classes)


def _table(size: Size, found: Profile, slots: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        case, _ = made_case(size, found, Path(folder), None, False)
        steps = _steps(case, slots)
        for _ in range(WARM):
            next(steps)
        alone = median(_milliseconds(steps, case.device) for _ in range(TIMED))
        turns = schedule(wait=0, warmup=SETTLING, active=PROFILED)
        with profile(activities=_activities(case.device), schedule=turns, acc_events=True) as seen:
            for _ in range(SETTLING + PROFILED):
                _milliseconds(steps, case.device)
                seen.step()
    kernels = case.device == "cuda"  # operators launch them, so they would count twice
    events = [event for event in seen.key_averages() if (event.device_type == DeviceType.CUDA) is kernels]
    events = [event for event in events if not event.key.startswith("ProfilerStep")]
    times = sorted(((_own(event, case.device), event) for event in events), key=lambda each: -each[0])
    total = sum(spent for spent, _ in times)
    yield f"\n{size.name}, {slots} at once: {alone:.2f} ms per step; all rows {total:.2f} ms under the profiler\n"
    yield "| operator or kernel | calls per step | ms per step | share |"
    yield "|---|---|---|---|"
    for spent, event in times[:SHOWN]:
        yield f"| {event.key[:NAME]} | {event.count / PROFILED:.0f} | {spent:.2f} | {spent / total:.0%} |"


def _steps(case: Case, slots: int) -> Iterator[None]:
    """Steps of one epoch, of one trial or of several as one network."""
    spec = parse_study(study(case, {}))
    task: Any = Tasks(spec, device=case.device).of({})
    configuration = spec.configuration("monotone", {"lr": 0.1, "weight_decay": 1e-4})
    epoch = SlotEpoch(TorchTrial(task, configuration, seed=0))
    if slots == 1:
        return steps_alone(task, epoch, epoch.fresh_state())
    fusion = FusedTrainer(task, slots)
    if not fusion._prepare():
        raise SystemExit(f"{case.name}: this network cannot be fused")
    return fusion._fused_slots([epoch] * slots, [epoch.fresh_state() for _ in range(slots)]).steps()


def _milliseconds(steps: Iterator[None], device: str) -> float:
    """CPU time on a CPU, which other processes share; wall-clock time on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    next(steps)
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (clock() - began)


def _activities(device: str) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU] if device == "cpu" else [ProfilerActivity.CPU, ProfilerActivity.CUDA]


def _own(event: Any, device: str) -> float:
    """Milliseconds per step in the operator itself, without the operators that it calls."""
    microseconds = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
    return float(microseconds) / 1e3 / PROFILED


if __name__ == "__main__":
    main()
