"""A study with a space-filling sampler and no pruner gives the same numbers wherever its trials run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ralr_tune.records import Row
from tests.engines import slurm_cluster, test_engines_ray
from tests.engines.running import Running
from tests.waiting import until

pytestmark = pytest.mark.slow

STUDY = {
    "study": {"name": "same", "baseline": "monotone"},
    "task": {"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn"},
    "training": {"epochs": 2, "batch_size": 64, "lr": {"low": 0.01, "high": 0.5, "log": True}, "augment": ["crop"]},
    "schedule": {"name": "cosine", "granularity": "step"},
    "arms": {"monotone": {}, "ralr": {"amplify": {"probability": {"low": 0.1, "high": 0.6}, "upper": 3.0}}},
    "search": {"trials": 5, "sampler": "qmc", "pruner": "none"},
    "confirm": {"top": 2, "seeds": 3},
}


@contextmanager
def slurm(folder: Path) -> Iterator[list[str]]:
    if reason := slurm_cluster.obstacle():
        pytest.skip(f"no Slurm here: {reason}")
    with slurm_cluster.cluster(folder):
        yield ["--launcher", "slurm", "--launcher-option", "poll-s=0.5"]


@contextmanager
def ray(folder: Path) -> Iterator[list[str]]:
    if find_spec("ray") is None:
        pytest.skip('no Ray here; pip install "ralr-tune[ray]"')
    with test_engines_ray.cluster(folder) as nodes:
        yield test_engines_ray.launcher(nodes)


@contextmanager
def local(folder: Path) -> Iterator[list[str]]:
    yield []


def finished(url: str, out: Path, launcher: list[str], workers: int) -> Running:
    run = Running(tomli_w.dumps(STUDY), url, out, *launcher, workers=workers)
    until(run.ended, "run ends", within_s=580)
    assert run.process.returncode == 0, run.log()
    return run


def numbers(run: Running) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Of every row: configuration, seed, and the values of all epochs. Optuna's numbers follow the order of claims."""
    return {key(row): (row.params, row.seed, row.value, row.train_value, values(row)) for row in run.finished_rows}


def key(row: Row) -> tuple[Any, ...]:
    return row.arm, row.stage, row.block, row.ordinal, row.role


def values(row: Row) -> list[tuple[float, ...]]:
    """Of test rows none: of two with equal configurations, only the one that is claimed first trains."""
    shown = () if row.stage == "test" else row.curve
    return [(each.epoch, each.value, each.train_loss, each.lr, each.factor) for each in shown]


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    folder, cores = tmp_path_factory.mktemp("one"), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # one thread, as each of several workers has
    try:
        return numbers(finished(f"sqlite:///{folder}/study.db", folder / "out", [], 1))
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize(("engine", "workers"), [(local, 8), (slurm, 3), (ray, 3)])
def test_workers_and_engines_give_the_numbers_of_one_worker(
    one_worker: dict[tuple[Any, ...], tuple[Any, ...]],
    engine: Callable[[Path], Any],
    workers: int,
    new_database: Callable[..., str],
    tmp_path: Path,
) -> None:
    """Equal threads, on one kind of CPU: the numbers of these are in every bit the same."""
    with engine(tmp_path) as launcher:
        found = numbers(finished(new_database("postgresql"), tmp_path / "out", launcher, workers))
    assert len(one_worker) > 2 * 5 + 2 * 3
    assert found == one_worker
