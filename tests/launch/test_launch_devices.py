from __future__ import annotations

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.launch import devices
from ralr_tune.launch.devices import Place, places


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_cores", lambda: 8)
    monkeypatch.setattr(devices, "_detected", lambda: ["cpu"])


def test_a_cpu_gets_one_single_threaded_worker_per_core() -> None:
    assert places("auto", None) == [Place(index, "cpu", 1) for index in range(8)]


@pytest.mark.parametrize(("workers", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_workers_share_the_cores(workers: int, threads: int) -> None:
    assert {place.threads for place in places("cpu", workers)} == {threads}


def test_each_gpu_gets_a_worker_and_further_workers_are_assigned_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_detected", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [place.device for place in places("auto", None)] == ["cuda:0", "cuda:1"]
    assert [place.device for place in places("auto", 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [place.device for place in places("cuda:1, cpu", 2)] == ["cuda:1", "cpu"]


@pytest.mark.parametrize("given", ["gpu", "cuda:x", "", "cpu,,cuda:0"])
def test_unknown_devices_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match="--devices"):
        places(given, None)


def test_zero_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="--workers 0"):
        places("cpu", 0)


def test_the_error_names_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert places("cuda:0", 1) == [Place(0, "cuda:0", 8)]
    with pytest.raises(UsageError, match="cuda:3 is not available: torch sees 1 GPUs"):
        places("cuda:0,cuda:3", 1)


def test_a_place_knows_how_many_processes_share_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_detected", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [place.sharing for place in places("auto", None)] == [1, 1]
    assert [place.sharing for place in places("auto", 3)] == [2, 1, 2]
    assert [place.sharing for place in places("cuda:1", 4)] == [4, 4, 4, 4]
    assert [(place.device, place.sharing) for place in places("cuda, cuda:0", 2)] == [("cuda:0", 2)] * 2


def test_workers_on_a_cpu_share_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert [place.sharing for place in places("cpu", 4)] == [1] * 4
    assert [place.sharing for place in places("cpu,cuda:0", 4)] == [1, 2, 1, 2]
