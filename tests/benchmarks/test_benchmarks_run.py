"""The benchmarks run, in their smallest form, so that they cannot rot. No figure of theirs is looked at."""

from __future__ import annotations

import pytest

from benchmarks import accuracy, fusing, identity, large, networks, operators, orchestration, scaling
from ralr_tune.training import precision


def test_large_studies(capsys: pytest.CaptureFixture[str]) -> None:
    large.main(["--sizes", "10", "20", "--databases", "sqlite"])
    told = capsys.readouterr().out
    assert told.startswith("\nsqlite\n\n| | 10 trials | 20 trials | growth |\n")
    assert {"ask", "status", "report.html", "export", "study"} <= {line.split("|")[1].strip() for line in _rows(told)}


def test_orchestration(capsys: pytest.CaptureFixture[str]) -> None:
    orchestration.main(["--databases", "sqlite", "--trials", "2", "--repeats", "0"])
    assert len(_rows(capsys.readouterr().out)) == 4  # head, rule, short and long trials


def test_identity_of_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_empty_cache", lambda: False)
    identity.main(["--files", "120"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(row[1], row[3], float(row[2]) > 0) for row in rows] == [
        ("first", "-", True), ("again", "-", True), ("contents", "-", True),
    ]  # fmt: skip


def test_ways_to_fuse(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "NETWORKS", (fusing.Network("small_cnn", 8, 8),))
    monkeypatch.setattr(precision, "has_matrix_units", lambda: False)  # vmap takes no bfloat16
    fusing.main(["--slots", "2", "--turns", "3"])
    head, _, row = _rows(capsys.readouterr().out)
    assert head.split("|")[2:-1] == [f" {method} " for method in fusing.METHODS]
    assert row.split("|")[1].strip() == "2"
    assert row.count("x)") == 3  # the others are a GPU's alone


def test_accuracy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"source": "digits", "limit": 200}
    short = accuracy.Case("short", data, "small_cnn", {"epochs": 1, "batch_size": 20})
    monkeypatch.setattr(accuracy, "cases", lambda cifar: [short])
    accuracy.main(["--seeds", "3", "--without", "compiled"])
    rows = _rows(capsys.readouterr().out)[2:]
    ways = ["by itself", "bfloat16", "kernels", "bfloat16, kernels", "fused", "bfloat16, fused"]
    assert [row.split("|")[1].strip() for row in rows] == ways


def test_speed_of_networks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    several = networks.Network("small_cnn", 8, size=8), networks.Network("densenet_bc_10_4", 4, size=8)
    monkeypatch.setattr(networks, "NETWORKS", several)
    networks.main(["--compile"])
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in _rows(capsys.readouterr().out)]
    assert rows[0] == ["network", "batch", "precision", *networks.COLUMNS]
    assert [row[:2] for row in rows[2:]] == [["small_cnn", "8 of 8x8"], ["densenet_bc_10_4", "4 of 8x8"]]
    assert all(float(row[3]) > 0 and row[4].endswith((" (contiguous)", " (channels_last)")) for row in rows[2:])
    assert [row[-1] == "-" for row in rows[2:]] == [False, True]  # channels that are joined are not fused
    assert [row[-2] for row in rows[2:]] == ["", ""]


@pytest.mark.parametrize("slots", ["1", "3"])
def test_operators(capsys: pytest.CaptureFixture[str], slots: str) -> None:
    operators.main(["--only", "digits", "--slots", slots])
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in _rows(capsys.readouterr().out)[2:]]
    assert len(rows) == operators.SHOWN
    assert ["aten::convolution_backward", "2"] in [row[:2] for row in rows]


@pytest.mark.slow
def test_scaling(capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main(["--workers", "1", "2", "--trials", "2", "--epoch-s", "0.01", "--database", "sqlite"])
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in _rows(capsys.readouterr().out)]
    assert [row[0] for row in rows[2:]] == ["1", "2"]
    assert rows[2][4] == "100.0%"


@pytest.mark.slow
def test_a_start(capsys: pytest.CaptureFixture[str]) -> None:
    start = orchestration.start_of_digits()
    assert start.rows < start.claim <= start.epoch


def _rows(told: str) -> list[str]:
    return [line for line in told.splitlines() if line.startswith("|")]
