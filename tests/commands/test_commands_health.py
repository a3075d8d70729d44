"""The verdict of each check, for machines other than this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ralr_tune.commands.health import devices, folder, storage
from ralr_tune.commands.health.browser import browser_check
from ralr_tune.commands.health.check import Check, make_check
from ralr_tune.commands.health.devices import Probe, data_check, device_checks, nvidia_driver
from ralr_tune.commands.health.folder import Speed, folder_checks, measure, needed_bytes, space_check, speed_check
from ralr_tune.commands.health.machine import (
    cores_check,
    files_check,
    kernels_check,
    memory_check,
    shared_memory_check,
    terminal_check,
)
from ralr_tune.commands.health.packages import package_checks, pair_check, python_check, required_check
from ralr_tune.commands.health.storage import (
    answer_check,
    clock_check,
    connections_check,
    file_check,
    storage_checks,
)
from ralr_tune.invocation import python
from ralr_tune.store.address import parse_address
from ralr_tune.store.probing import Answer, Connections
from tests.studies import simulated, simulated_text
from tests.waiting import LONG_S

GIB = 2**30


def test_a_line_says_verdict_name_finding_and_fix() -> None:
    line = str(make_check("space", "1 B free", problem="make room", warning="?"))
    assert line == "problem  space           1 B free -> make room"
    assert make_check("space", "", warning="make room").verdict == "warning"
    assert make_check("space", "") == Check("space", "ok", "")


# ---------------------------------------------------------------- packages


def test_this_environment_meets_the_requirements() -> None:
    assert {(check.name, check.verdict) for check in package_checks()} == {
        ("python", "ok"), ("packages", "ok"), ("torch pair", "ok")
    }  # fmt: skip


def test_an_old_python_is_a_problem() -> None:
    found = python_check(SpecifierSet(">=3.11"), "3.9.2")
    assert (found.verdict, found.fix) == ("problem", "install Python >=3.11, and ralr_tune with it")
    assert python_check(SpecifierSet(">=3.11"), "3.15.0rc1").verdict == "ok"


def test_packages_that_are_missing_or_old_are_named_with_the_command() -> None:
    versions = {"optuna": "4.9", "torch": "2.15.0+cpu"}

    def installed(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    required = [Requirement("optuna>=5,<6"), Requirement("torch>=2.11"), Requirement("rich>=13")]
    found = required_check(required, installed)
    assert found.verdict == "problem"
    assert found.found == "optuna 4.9, needs <6,>=5; rich is missing, needs >=13"
    assert found.fix == f'{python("-m", "pip")} install "optuna<6,>=5" "rich>=13"'


@pytest.mark.parametrize(
    ("torch", "asks", "verdict"),
    [
        ("2.15.0", ["numpy", "torch==2.15.0"], "ok"),
        ("2.15.0+cpu", ["torch (==2.15.0)"], "ok"),
        ("2.14.1", ["torch==2.15.0"], "problem"),
        ("2.14.1", [], "ok"),
    ],
)
def test_torchvision_needs_its_own_torch(torch: str, asks: list[str], verdict: str) -> None:
    found = pair_check({"torch": torch, "torchvision": "0.29"}.__getitem__, lambda name: asks)
    assert found.verdict == verdict
    assert found.found.startswith(f"torch {torch} with torchvision 0.29")


# ---------------------------------------------------------------- machine


@pytest.mark.parametrize(
    ("found", "starts_with", "fix"),
    [
        (cores_check(4, 8, None, None), "4 of 8 available", ""),
        (cores_check(1, 8, 1.5, None), "1 of 8 available, the container may use 1.5", ""),
        (cores_check(2, 2, 4.0, "2"), "2 available, the container may use 4; OMP_NUM_THREADS=2", ""),
        (cores_check(2, 2, None, "64"), "2 available; OMP_NUM_THREADS=64", "unset OMP_NUM_THREADS"),
        (memory_check(64 * GIB, 60 * GIB, None, GIB), "64.0 GiB, 60.0 GiB free", ""),
        (
            memory_check(64 * GIB, 60 * GIB, 2 * GIB, GIB),
            "64.0 GiB, 60.0 GiB free; the container may use 2.0 GiB",
            "run with --workers 1",
        ),
        (memory_check(4 * GIB, GIB, None, GIB), "4.0 GiB, 1.0 GiB free", "run with --workers 1"),
        (files_check(256), "at most 256", "run `ulimit -n 1024`"),
        (files_check(-1), "unlimited", ""),
        (shared_memory_check(64 * 2**20), "64.0 MiB in /dev/shm", "code of your own"),
        (
            terminal_check(io.TextIOWrapper(io.BytesIO(), "utf-8")),
            "not a terminal: `run` prints plain lines, utf-8",
            "",
        ),
        (
            terminal_check(io.TextIOWrapper(io.BytesIO(), "latin-1")),
            "not a terminal: `run` prints plain lines, ",
            "set",
        ),
    ],
)
def test_numbers_and_verdicts_of_a_machine(found: Check, starts_with: str, fix: str) -> None:
    assert found.found.startswith(starts_with)
    assert found.fix.startswith(fix)
    assert (found.verdict == "ok") == (not fix)


def test_a_missing_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = kernels_check()
    assert (found.verdict, found.found) == ("warning", "no C++ compiler found: no-such-compiler")
    assert found.fix.endswith("install g++, or set CXX")


def test_a_missing_browser_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    found = browser_check()
    assert found.verdict == "warning"
    assert found.found == f"BROWSER_PATH is {str(tmp_path / 'none')!r}, which is not a file"
    assert "apt install chromium" in found.fix


def test_a_browser_that_does_not_start_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\nexit 3\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    assert browser_check().verdict == "warning"
    assert "does not start" in browser_check().found
    browser.write_text("#!/bin/sh\necho Chromium 1.2\n")
    assert browser_check() == Check("browser", "ok", f"Chromium 1.2 ({browser})")


# ---------------------------------------------------------------- devices and data, as the probe finds them

FACTS: dict[str, Any] = {
    "threads": 2, "bfloat16": True, "torchvision": "", "cuda": "13.0", "cuda_error": "no driver", "gpus": [],
    "data": None,
}  # fmt: skip
H200 = {"name": "NVIDIA H200", "free": 138 * GIB, "total": 140 * GIB, "capability": "9.0", "bfloat16": True}


def verdicts(facts: dict[str, Any] | str, driver: str = "") -> dict[str, str]:
    return {check.name: check.verdict for check in device_checks(facts, driver)}


def test_devices_and_their_verdicts() -> None:
    assert verdicts(FACTS) == {"torch": "ok", "gpu": "ok"}
    assert (
        verdicts(FACTS | {"torchvision": "RuntimeError: operator torchvision::nms does not exist"})["torch"]
        == "problem"
    )
    assert verdicts("ModuleNotFoundError: No module named 'torch'") == {"torch": "problem"}
    assert verdicts(FACTS, "570.1") == {"torch": "ok", "gpu": "problem"}
    assert verdicts(FACTS | {"cuda": None}, "570.1") == {"torch": "ok", "gpu": "problem"}
    busy = H200 | {"free": GIB}
    assert verdicts(FACTS | {"gpus": [H200, busy]}, "570.1") == {"torch": "ok", "cuda:0": "ok", "cuda:1": "warning"}


def test_a_gpu_is_shown_with_memory_driver_and_cuda() -> None:
    (_, gpu) = device_checks(FACTS | {"gpus": [H200]}, "570.86.15")
    assert gpu.found == (
        "NVIDIA H200, 140.0 GiB (138.0 GiB free), compute capability 9.0, bfloat16; driver 570.86.15, "
        "torch for CUDA 13.0"
    )


def test_the_driver_version_is_read_if_there_is_a_driver(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert nvidia_driver(file) == ""
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC\n")
    assert nvidia_driver(file) == "570.86.15"


@pytest.mark.parametrize(
    ("found", "verdict", "fix"),
    [
        ({"found": "10 images", "weights": 2048}, "ok", ""),
        ({"error": "data.path = 'x': no such file", "fetched": False}, "problem", "put the data there"),
        ({"error": "MNIST: not found", "fetched": True}, "warning", "`run` downloads the data"),
    ],
)
def test_data_and_their_verdicts(found: dict[str, Any], verdict: str, fix: str) -> None:
    check = data_check(found)
    assert check.verdict == verdict
    assert check.fix.startswith(fix)


def test_a_probe_without_an_answer_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen

    def instead(script: str) -> Any:
        return lambda command, **options: popen([sys.executable, "-c", script], **options)

    for script, said in (
        ("import time; time.sleep(60)", "no answer within 0.5 s: try again when the machine is less loaded"),
        ("import os; os.abort()", "exited with code -6"),
        ("raise ImportError('libcudart.so: cannot open')", "ImportError: libcudart.so: cannot open"),
    ):
        monkeypatch.setattr(devices.subprocess, "Popen", instead(script))
        probe = Probe(None)
        assert probe.facts(timeout_s=0.5 if "sleep" in script else LONG_S) == said
        assert probe._process.returncode is not None


# ---------------------------------------------------------------- folder


def test_a_folder_is_measured_with_an_unnamed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no file stays behind, however the process ends."""
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(folder.os, "fsync", lambda number: (seen.append(list(tmp_path.iterdir())), fsync(number)))
    speed = measure(tmp_path)
    assert speed.bytes_per_s > 0
    assert speed.fsync_s > 0
    assert len(seen) == 1 + folder.FSYNCS
    assert seen == [[]] * len(seen)


def test_a_missing_folder_is_not_created(tmp_path: Path) -> None:
    first, _ = folder_checks(tmp_path / "a" / "b", None)
    assert first.found.startswith(f"{tmp_path / 'a' / 'b'} (will be created in {tmp_path}): writes ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_writable_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folder.tempfile, "TemporaryFile", refuse)
    (found,) = folder_checks(tmp_path, None)
    assert (found.verdict, found.found) == (
        "problem",
        f"{tmp_path}: not writable: Read-only file system",
    )
    assert "--out" in found.fix


def test_a_slow_disk_is_a_warning() -> None:
    assert speed_check("runs", Speed(500e6, 0.001)).verdict == "ok"
    assert speed_check("runs", Speed(5e6, 0.001)).verdict == "warning"
    assert speed_check("runs", Speed(500e6, 0.5)).verdict == "warning"


@pytest.mark.parametrize(
    ("free", "inodes", "needed", "verdict"),
    [
        (50 * GIB, 10**6, None, "ok"),
        (GIB // 2, 10**6, None, "warning"),
        (50 * GIB, 10**6, 10 * GIB, "ok"),
        (15 * GIB, 10**6, 10 * GIB, "warning"),
        (5 * GIB, 10**6, 10 * GIB, "problem"),
        (50 * GIB, 10, None, "warning"),
    ],
)
def test_free_space_is_compared_with_what_checkpoints_need(
    free: int, inodes: int, needed: int | None, verdict: str
) -> None:
    stat = os.statvfs_result((4096, 4096, 0, 0, 0, 10**6, inodes, inodes, 0, 255))
    assert space_check(free, stat, needed).verdict == verdict


def test_space_that_checkpoints_need() -> None:
    spec = simulated()  # 3 seeds, one block, two arms, a twin and the other way round
    assert needed_bytes(spec, weights=1000, workers=2) == 1000 * (2 * 3 * 3 + 4 * 3)
    audited = simulated(search={"audit": 0.5})  # of four trials, in two arms
    assert needed_bytes(audited, weights=1000, workers=2) == 1000 * (2 * 3 * 3 + 4 * 3 + 4 * 3)


# ---------------------------------------------------------------- database

ANSWER = Answer(
    "PostgreSQL 16", read_s=0.001, write_s=0.002, ahead_s=0.0, connections=Connections(3, 100), journal=None
)


def test_numbers_and_verdicts_of_a_database() -> None:
    assert answer_check(ANSWER, "db").found == "PostgreSQL 16 at db: read 1 ms, write 2 ms (medians)"
    far = Answer("PostgreSQL 16", read_s=0.2, write_s=0.4, ahead_s=0.0, connections=None, journal=None)
    assert answer_check(far, "db").verdict == "warning"
    rollback = Answer("SQLite 3", read_s=0.001, write_s=0.001, ahead_s=None, connections=None, journal="delete")
    assert "journal_mode=WAL" in answer_check(rollback, "db").fix
    assert connections_check(Connections(3, 100)).found == "3 of 100 in use: enough for 97 workers"
    assert connections_check(Connections(95, 100)).verdict == "warning"
    assert clock_check(-0.004).found == "the database's is 4 ms behind this machine's"
    assert clock_check(3600.0).verdict == "warning"


@pytest.mark.parametrize(
    ("workers", "verdict", "numbers"),
    [
        (90, "ok", ""),
        (98, "warning", "98 workers, and 90 of"),
        (101, "problem", "101 workers, and"),
    ],
)
def test_connections_are_compared_with_the_workers_planned(workers: int, verdict: str, numbers: str) -> None:
    found = connections_check(Connections(10, 100), workers)
    assert (found.verdict, numbers in found.fix) == (verdict, True)
    assert ("max_connections" in found.fix) == (verdict != "ok")


def test_a_pooler_has_limits_of_its_own() -> None:
    assert connections_check(None, 1000).found.startswith("through a pooler")


def test_an_unreachable_database_is_one_problem_without_its_password() -> None:
    (found,) = storage_checks("postgresql://me:hush@127.0.0.1:1/db")
    assert (found.name, found.verdict) == ("database", "problem")
    assert "hush" not in str(found)
    assert "refused" in found.found


def test_a_url_that_cannot_be_read_is_a_problem() -> None:
    (found,) = storage_checks("oracle://db")
    assert (found.name, found.verdict) == ("database", "problem")


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    (found,) = storage_checks(f"sqlite:///{tmp_path}/a/study.db")
    assert (found.name, found.verdict) == ("database file", "ok")
    assert "not there yet" in found.found
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_a_network_file_system_is_a_problem(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "network_file_system", lambda path: "nfs4")
    found = file_check(parse_address(sqlite_url))
    assert found.verdict == "problem"
    assert "on a network file system (nfs4)" in found.found


def test_a_file_that_is_not_a_database_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("something else, longer than SQLite's header of a hundred bytes" * 9)
    _, found = storage_checks(f"sqlite:///{tmp_path}/x.db")
    assert found.verdict == "problem"
    assert "not a database" in found.found


def test_a_database_that_works(storage_url: str) -> None:
    checks = {check.name: check for check in storage_checks(storage_url)}
    sqlite = storage_url.startswith("sqlite")
    assert checks.keys() == ({"database file"} if sqlite else {"connections", "clock"}) | {"database", "tables"}
    assert checks["tables"].verdict == "ok"


def test_the_probe_inspects_this_machine(tmp_path: Path) -> None:
    """The real probe: torch and the data of a study, in a separate process."""
    text = simulated_text(task={"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn"})
    found = Probe(text).facts()
    assert isinstance(found, dict)
    assert found["torchvision"] == ""
    assert found["threads"] >= 1
    assert found["data"]["found"] == "1,438 training images, 10 classes, 1x8x8"
    assert found["data"]["weights"] > 1000
