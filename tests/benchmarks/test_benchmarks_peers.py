"""The benchmark against the peers is fair in its parts, and runs in its smallest form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from benchmarks.peers import driver, limit, ours
from benchmarks.peers.case import VALIDATION, Case, Data, Job
from benchmarks.peers.driver import PROFILES, Run, different, made_case, table
from benchmarks.peers.rows import Row
from benchmarks.peers.rows import ours as rows_of
from ralr_tune.studyfile import parse_study
from ralr_tune.training import precision
from tests.studies import loaded_task


@pytest.fixture
def case(tmp_path: Path) -> Case:
    profile = PROFILES["tiny"]
    made, what = made_case(profile.sizes[0], profile, tmp_path, None, False)
    assert what.startswith("300 digits of 8x8, batch 64")
    return made


def test_peers_train_on_the_images_that_ours_trains_on(case: Case) -> None:
    spec = parse_study(ours.study(case, {}))
    task = loaded_task(spec)
    arrays = Data(case.data, case.seed).arrays
    assert task.size("train") == len(arrays["train_labels"]) == round(300 * (1 - VALIDATION))  # type: ignore[attr-defined]
    batches = task.batches("validation", seed=0, epoch=0, batch_size=1000)  # type: ignore[attr-defined]
    labels = np.concatenate([batch.labels.numpy() for batch in batches])
    assert sorted(labels) == sorted(arrays["validation_labels"])
    assert len(arrays["validation_labels"]) == task.size("validation")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_makes_its_cases(name: str, tmp_path: Path) -> None:
    profile = PROFILES[name]
    for size in profile.sizes:
        made, _ = made_case(replace(size, images=min(size.images, 400)), profile, tmp_path, None, False)
        spec = parse_study(ours.study(made, {}))
        assert (spec.search.trials, spec.search.pruner) == (size.trials, "none")


@pytest.fixture
def no_matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that trains small images in float32."""
    monkeypatch.setattr(precision, "has_matrix_units", lambda: False)


@pytest.mark.usefixtures("no_matrix_units")
def test_an_accelerator_that_is_off_by_itself_is_not_switched_off_again(case: Case) -> None:
    assert different(case, Row("ours", "ours", {"options": ["--slots", "auto"]}))
    assert not different(case, Row("float32", "ours", {"training": {"precision": "float32"}}))  # 8x8: as it is
    assert different(case, Row("bfloat16", "ours", {"training": {"precision": "bfloat16"}}))
    assert not different(case, Row("auto", "ours", {"training": {"precision": "auto"}}))
    assert not different(case, Row("slots off", "ours"))  # two trials: "auto" does not put any side by side
    assert different(replace(case, trials=16), Row("slots off", "ours"))
    assert different(case, Row("off", "ours", {"training": {"compile": False}}))
    assert different(case, Row("on", "ours", {"training": {"compile": True}}))


@pytest.mark.usefixtures("no_matrix_units")
def test_ratios_are_of_medians(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = [Run(1.0, span, 100, 2, [(3.0, 0.4), (span, 0.6)]) for span in (9.0, 10.0, 20.0)]
    fast = [Run(2.0, span, 100, 2, [(3.0, 0.5), (4.0, 0.7)]) for span in (4.0, 5.0, 6.0)]
    ray = [Run(2.0, 2.5, 100, 2, [(3.0, 0.6)])] * 3
    rows = [(Row("plain", "plain"), slow), (Row("Ray Tune", "ray_tune"), ray), (Row("ours", "ours"), fast)]
    monkeypatch.setattr(driver, "fastest_product", lambda device: limit.Limit("float32", 1e9))
    monkeypatch.setattr(driver, "operations", lambda model, **images: 1e7)
    lines = list(table("title", case, rows))
    assert lines[0] == "title; 3 rounds; accuracy 0.600"
    assert "| of the device's fastest product (float32) |" in lines[2]
    cells = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
    assert cells[:6] == ["ours", "float32", "2.00", "2.00", "0.50", "0.40"]  # 100 / 5 s to 100 / 10 s; 4 s to 10 s
    assert cells[6:] == ["20 (17-25)", "20%", "1,440 (1,200-1,800)", "4 s (4-4)", "2.0 s", "0.700"]


def test_operations_are_those_of_the_network() -> None:
    found = limit.operations("resnet20", channels=3, size=32, classes=10)
    forward = 2 * 40.55e6  # He et al. 2016, table 6: 0.27M weights; 40.55M multiplications and additions by hand
    first = 2 * 27 * 16 * 32 * 32  # whose input needs no gradient
    assert found == pytest.approx(forward * (3 + VALIDATION / (1 - VALIDATION)) - first, rel=1e-3)


def test_the_limit_is_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limit.SIDE, "cpu", 64)
    found = limit.fastest_product.__wrapped__("cpu")
    assert 1e6 < found.speed < 1e15


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.4e12, ("float32", 0.7e12)), (5e12, ("bfloat16", 5e12))])
def test_the_limit_is_the_faster_precision(
    bfloat16: float, expected: tuple[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bfloat16 units and without."""
    speeds = {torch.float32: 0.7e12, torch.bfloat16: bfloat16}
    monkeypatch.setattr(limit, "_speed", lambda device, dtype: speeds[dtype])
    assert limit.fastest_product.__wrapped__("cpu") == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_row_stands_twice(device: str) -> None:
    rows = [*rows_of(device)]
    assert len({(row.name, str(row.settings)) for row in rows}) == len({str(row.settings) for row in rows}) == len(rows)


@pytest.mark.slow
def test_a_run_that_is_too_slow_is_ended_and_counts_as_far_as_it_came(case: Case) -> None:
    plain = Row("plain", "plain", {"jobs": 2, "threads": 1, "loader_workers": 0})
    before = len(psutil.Process().children(recursive=True))
    done = driver.run(replace(case, epochs=10_000), plain, 25.0)
    assert len(psutil.Process().children(recursive=True)) == before
    assert done is not None
    assert done.cut
    assert 0 < done.trials < 1
    assert done.trials * 10_000 == len(done.accuracies)
    assert driver.run(case, plain, 0.5) is None


def test_a_row_that_does_nothing_in_time_is_left_out_unless_all_are_held_against_it(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, done = [Row("plain", "plain"), Row("ours", "ours")], Run(1.0, 2.0, 3, 1, [(2.0, 0.5)])
    profile = replace(PROFILES["tiny"], cut_s=7.0)
    monkeypatch.setattr(driver, "run", lambda case, row, cut_s: done if row.name == "plain" else None)
    assert driver.measured(case, rows, profile, 0.0) == [(rows[0], [done])]
    monkeypatch.setattr(driver, "run", lambda case, row, cut_s: done if row.name == "ours" else None)
    with pytest.raises(RuntimeError, match="plain: not one epoch in 7 s"):
        driver.measured(case, rows, profile, 0.0)


def test_events_are_lines(tmp_path: Path, case: Case) -> None:
    job = Job(case, {}, str(tmp_path / "events"))
    job.note("start", trial=0)
    job.note("epoch", trial=0, value=0.5, images=10, time=7.0)
    lines = (tmp_path / "events").read_text().splitlines()
    assert lines[1] == '{"kind": "epoch", "time": 7.0, "trial": 0, "value": 0.5, "images": 10}'


def test_data_that_are_not_there_are_missed_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        driver.main(["--cifar", str(tmp_path / "cifar100.npz")])
    assert "cifar100.npz: no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_smallest_profile_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    driver.main(["--profile", "tiny", "--out", str(tmp_path / "bench")])
    told = capsys.readouterr().out
    assert "| plain Optuna (" in told
    units = precision.has_matrix_units()
    assert f"| ours | {'bfloat16' if units else 'float32'} |" in told
    rows = [line.split("|")[1].strip() for line in (tmp_path / "bench.md").read_text().splitlines() if "| ours" in line]
    # without matrix units digits are in float32 anyway, and two trials are never put side by side
    off = [*(["float32 only"] if units else []), "channels_last off", "steps as Python has them", "one worker"]
    assert rows == ["ours", *(f"ours, {each}" for each in off)]
