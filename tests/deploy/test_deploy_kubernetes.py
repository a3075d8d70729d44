"""deploy/kubernetes: every item fits the schema of Kubernetes, and every container's very command works by hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import kubernetes_validate
import pytest
import yaml

from ralr_tune.search.stages import pending_stage
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import parse_study
from tests.faults.servers import _free_port
from tests.studies import simulated_text
from tests.waiting import LONG_S, until

MANIFEST = Path(__file__).parents[2] / "deploy/kubernetes/study.yaml"
ITEMS: dict[str, Any] = {
    f"{item['kind']} {item['metadata']['name']}": item for item in yaml.safe_load(MANIFEST.read_text())["items"]
}
WORKERS = "Job ralr-tune-workers"


@pytest.mark.parametrize("version", ["1.33", "1.36"])
@pytest.mark.parametrize("name", ITEMS)
def test_every_item_fits_the_schema(name: str, version: str) -> None:
    kubernetes_validate.validate(ITEMS[name], version, strict=True)


def test_a_wrong_key_would_be_noticed() -> None:
    wrong = ITEMS[WORKERS] | {"spec": ITEMS[WORKERS]["spec"] | {"completionMoed": "Indexed"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


def test_names_agree() -> None:
    """What an item refers to is an item, or what the head of the file creates."""
    text = MANIFEST.read_text()
    created = set(re.findall(r"kubectl create (?:secret generic|configmap) (\S+)", text))
    names = created | {item["metadata"]["name"] for item in ITEMS.values()}
    for item in (each for each in ITEMS.values() if each["kind"] in ("Job", "Deployment")):
        pod = item["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            (source,) = (value for key, value in volume.items() if key != "name")
            assert set(source.values()) & names or source == {}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_workers_may_be_stopped_and_evicted_without_using_up_their_attempts() -> None:
    spec = ITEMS[WORKERS]["spec"]
    ignored = [rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert [rule["onExitCodes"]["values"] for rule in ignored if "onExitCodes" in rule] == [[130]]
    assert any("onPodConditions" in rule for rule in ignored)
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]


class Cluster:
    """Runs containers as processes: mounted folders are folders of a test, and the database is the test's."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url, self.port = folder, url, _free_port()
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, item: str, **fields: str) -> subprocess.Popen[bytes]:
        """`fields`: what Kubernetes sets besides, such as the index of a Job."""
        (container,) = ITEMS[item]["spec"]["template"]["spec"]["containers"]
        environment = self._environment(container, fields)
        words = [re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word) for word in container["args"]]
        words = [str(self.port) if word == "8080" else self._here(word) for word in words]
        with (self._folder / f"{len(self.running)}.log").open("wb") as log:
            made = subprocess.Popen(
                [sys.executable, "-m", "ralr_tune", *words], env=environment, stdout=log, stderr=log, cwd=self._folder
            )
        self.running.append(made)
        return made

    def _environment(self, container: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RALR_TUNE_", "PG"))}
        (source,) = (each["configMapRef"]["name"] for each in container["envFrom"])
        settings = ITEMS[f"ConfigMap {source}"]["data"] | {"STUDY": "sim", "RALR_TUNE_STORAGE": self._url}
        own = {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}
        return clean | {name: self._here(value) for name, value in (settings | own).items()} | dict(fields)

    def _here(self, value: str) -> str:
        return value.replace("/srv/ralr/", f"{self._folder}/").replace("/run/secrets/ralr-tune/", f"{self._folder}/")

    def logs(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self._folder.glob("*.log")))


@pytest.fixture
def cluster(new_database: Callable[..., str], tmp_path: Path) -> Iterator[Cluster]:
    for folder in ("study", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "study/study.toml").write_text(simulated_text())
    (tmp_path / "database_password").write_text("none\n")
    (tmp_path / "dashboard_token").write_text("a-long-enough-token-for-the-dashboard\n")
    made = Cluster(tmp_path, new_database("postgresql"))
    yield made
    for process in made.running:
        process.kill()
        process.wait()


def test_the_containers_run_a_study(cluster: Cluster, tmp_path: Path) -> None:
    early = cluster.start(WORKERS, NODE_NAME="node-a", JOB_COMPLETION_INDEX="0")
    assert early.wait(LONG_S) == 1  # the study does not exist yet: the Job starts it again
    assert cluster.start("Job ralr-tune-init").wait(LONG_S) == 0, cluster.logs()
    report = cluster.start("Job ralr-tune-report")
    workers = [cluster.start(WORKERS, NODE_NAME="node-b", JOB_COMPLETION_INDEX=str(index)) for index in (3, 4)]
    assert [worker.wait(LONG_S) for worker in workers] == [0, 0], cluster.logs()
    assert report.wait(LONG_S) == 0, cluster.logs()
    assert (tmp_path / "runs/sim/report.html").exists()
    rows = Ledger(open_storage(cluster._url), "sim").rows()
    assert pending_stage(parse_study(simulated_text()), rows) is None
    places = {(owner.split(":")[0], owner.split(":")[2]) for row in rows if (owner := row.owner)}
    assert places <= {("node-b", "3"), ("node-b", "4")}
    cluster.start("Deployment ralr-tune-dashboard")
    probe = ITEMS["Deployment ralr-tune-dashboard"]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    address = f"http://127.0.0.1:{cluster.port}{probe['httpGet']['path']}"
    assert until(lambda: answered(address), "the dashboard is ready") == 200


def answered(address: str) -> int | None:
    try:
        with urlopen(address, timeout=5) as answer:
            return int(answer.status)
    except OSError:
        return None
