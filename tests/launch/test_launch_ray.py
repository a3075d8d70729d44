"""The Ray launcher: what it asks of the cluster, and what it concludes from tasks. A real cluster: tests/engines."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Ending, Job
from ralr_tune.launch.ray import Ray
from ralr_tune.launch.registry import make_launcher
from tests.launch import fake_ray
from tests.launch.fake_ray import FakeRay, RayError
from tests.waiting import until

SECRET = "postgresql://me:s3cret@127.0.0.1/tuning"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    return fake_ray.install(monkeypatch, GPU=2.0, accelerator=1.0)


def launcher(**options: object) -> Ray:
    made = make_launcher("ray", options)
    assert isinstance(made, Ray)
    return made


class Sleeping(Job):
    """A job whose worker runs a shell command."""

    def command(self, place: Place) -> list[str]:
        return ["bash", "-c", COMMANDS[self.study], "worker", str(place.index)]


COMMANDS: Mapping[str, str] = {
    "sleeps": "trap 'echo stopped; exit 130' TERM; echo ready; for _ in {1..600}; do sleep 0.1; done",
    "ends": "env; exit 0",
    "fails": "echo 'error: no such study'; exit 1",
}


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"ray is not installed; type: \S+ -m pip install 'ralr-tune\[ray\]'"):
        launcher().places("auto", 1)


@pytest.mark.parametrize(
    ("options", "devices", "message"),
    [
        ({"address": "127.0.0.1:1"}, "auto", r"address=127.0.0.1:1: no Ray cluster can be reached: Could not find any"),
        ({"cpus": "9"}, "auto", r"each worker needs 9 CPU, and the whole cluster has 4"),
        ({"resource": "tpu=1"}, "auto", r"each worker needs 1 tpu, and the whole cluster has 0"),
        ({}, "cuda:0", r"--devices cuda:0: with --launcher ray, allowed: auto, cpu"),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_created(
    fake: FakeRay, options: Mapping[str, str], devices: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        launcher(**options).places(devices, 2)


@pytest.mark.parametrize("options", [{"cpus": "0"}, {"gpus": "-1"}, {"resource": "tpu"}, {"resource": "tpu=many"}])
def test_wrong_options(options: Mapping[str, str]) -> None:
    with pytest.raises(UsageError, match="--launcher-option"):
        launcher(**options)


@pytest.mark.parametrize(
    ("options", "devices", "expected"),
    [
        ({}, "auto", [Place(index, "cpu", 1) for index in range(4)]),
        ({"cpus": "2"}, "auto", [Place(index, "cpu", 2) for index in range(2)]),
        ({"gpus": "1"}, "auto", [Place(index, "cuda:0", 1) for index in range(2)]),
        ({"gpus": "0.5"}, "auto", [Place(index, "cuda:0", 1, sharing=2) for index in range(4)]),
        ({"gpus": "0.5"}, "cpu", [Place(index, "cpu", 1) for index in range(4)]),
        ({"resource": "accelerator=1"}, "auto", [Place(0, "cpu", 1)]),
    ],
)
def test_as_many_workers_as_the_cluster_has_room_for(
    fake: FakeRay, options: Mapping[str, str], devices: str, expected: list[Place]
) -> None:
    assert launcher(**options).places(devices, None) == expected


def test_a_task_asks_for_the_place_and_holds_no_secret(fake: FakeRay, tmp_path: Path) -> None:
    made = launcher(gpus="0.5", resource=["accelerator=0.1"])
    made.start(Sleeping("ends", SECRET, tmp_path), made.places("auto", 1)[0])
    until(lambda: made.poll() == {0: 0}, "it ends")
    (options,) = fake.submitted
    assert "s3cret" not in str(options)
    asked = {key: options[key] for key in ("num_cpus", "num_gpus", "resources", "max_retries")}
    assert asked == {"num_cpus": 1, "num_gpus": 0.5, "resources": {"accelerator": 0.1}, "max_retries": -1}
    assert f"RALR_TUNE_LAUNCHER={os.getpid()}" in made.tail(0, 1000)


def test_cancelled_tasks_end_their_workers_in_order(fake: FakeRay, tmp_path: Path) -> None:
    made, job = launcher(), Sleeping("sleeps", SECRET, tmp_path)
    for place in made.places("auto", 2):
        made.start(job, place)
    until(lambda: "ready" in made.tail(0) and "ready" in made.tail(1), "both run")
    made.stop(60)
    assert made.poll() == {0: 130, 1: 130}
    assert made.tail(0).splitlines()[-1] == "stopped"


def test_a_task_that_fails_was_killed(fake: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> int:
        raise RayError("The node died.\nMore.")

    monkeypatch.setattr("ralr_tune.launch.ray.run_worker", crash)
    made = launcher()
    made.start(Sleeping("ends", SECRET, tmp_path), made.places("auto", 1)[0])
    until(lambda: made.poll()[0] is not None, "it ends")
    assert made.ending(made.poll()[0] or 0) is Ending.killed


def test_the_log_of_a_failed_worker(fake: FakeRay, tmp_path: Path) -> None:
    made = launcher()
    made.start(Sleeping("fails", SECRET, tmp_path), made.places("auto", 1)[0])
    until(lambda: made.poll() == {0: 1}, "it ends")
    assert made.tail(0).splitlines()[-1] == "error: no such study"


def test_what_ray_says_of_a_lost_node_is_one_line_of_the_log_and_nothing_on_stdout(
    fake: FakeRay, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher().places("cpu", 1)
    message = "Raylet is terminated. Termination is unexpected. Last lines:\n    [state-dump] NodeManager:"
    fake._private.worker.print_to_stdstream({"lines": [message], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert caplog.messages == ["Ray: Raylet is terminated"]
    assert capsys.readouterr().out == ""
