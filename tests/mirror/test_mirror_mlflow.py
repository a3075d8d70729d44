"""An MLflow database, read back by MLflow and compared with the ledger value by value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands import mirror as commands
from ralr_tune.errors import RalrTuneError, UsageError
from ralr_tune.mirror.mlflow import ID_TAG, MLflow
from ralr_tune.mirror.targets import Target, parse_targets
from ralr_tune.store.database import Storage
from tests.mirror.studies import Values, expected, library, mirror, outcomes, parameters, tracked, whole

library("mlflow")


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path}/mlflow.db"


def target_of(uri: str, out: Path) -> Target:
    (target,) = parse_targets([f"mlflow={uri}"], out)
    return target


def check(storage: Storage, uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("sim")
    runs: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        assert run.info.run_name not in runs, "a run twice"
        runs[run.info.run_name] = run
    values: Values = {}
    for name, run in runs.items():
        for metric in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, metric)
            assert len({point.step for point in points}) == len(points), f"{name} {metric}: a point twice"
            values[name, metric] = {point.step: point.value for point in points}
    assert values == expected(storage)
    verdict = runs.pop("study").data.tags
    assert "ralr's recipe by" in verdict["verdict"]
    assert experiment.tags["mlflow.note.content"] == verdict["verdict"]
    assert {name: run.data.tags["ralr_tune.outcome"] for name, run in runs.items()} == outcomes(storage)
    statuses = {(run.data.tags["ralr_tune.outcome"], run.info.status) for run in runs.values()}
    assert statuses == {("complete", "FINISHED"), ("pruned", "KILLED")}
    for name, found in parameters(storage).items():
        assert runs[name].data.params == {key: str(value) for key, value in found.items()}
        assert runs[name].data.tags["ralr_tune.arm"] == name.partition("/")[0]


def test_a_study_through_killed_mirrors_on_two_machines(finished: Storage, uri: str, tmp_path: Path) -> None:
    tracker = MLflow(tracked(finished), uri)
    tracker.open()
    for count, run in enumerate(whole(finished)[:6]):
        if count % 2:
            tracker.send(run, run.points[:count])  # and was killed before it sent the rest
        else:
            tracker._run(run.name, run.tags)  # or once it had made the run
    for out in ("out", "out", "another"):
        mirror(finished, tmp_path / out, target_of(uri, tmp_path / out))
        check(finished, uri)


def test_a_run_whose_creation_was_not_answered_is_found_again(
    finished: Storage, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    create = MlflowClient.create_run
    run, tracker = whole(finished)[0], MLflow(tracked(finished), uri)

    def unanswered(client: Any, *arguments: Any, **more: Any) -> None:
        create(client, *arguments, **more)
        raise ConnectionError("reset")

    monkeypatch.setattr(MlflowClient, "create_run", unanswered)
    with pytest.raises(ConnectionError):
        tracker.update(run)
    monkeypatch.setattr(MlflowClient, "create_run", create)
    tracker.update(run)
    found = MlflowClient(tracking_uri=uri).search_runs([tracker._experiment])
    assert [each.data.tags[ID_TAG] for each in found] == [tracker.study.run_id(run.name)]


def test_a_server_that_is_away(
    finished: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing listens on port 9 of the loopback."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(commands, "PATIENCE_S", 0.0)
    with pytest.raises(RalrTuneError, match=r"mlflow=http://me:\*\*\*@127.0.0.1:9: \d+ not sent"):
        mirror(finished, tmp_path / "out", target_of("http://me:s3cret@127.0.0.1:9", tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"mlflow=http://me:\*\*\*@127.0.0.1:9: MlflowException: .*; the study goes on", line)
    assert "s3cret" not in line


def test_a_database_that_cannot_be_used_is_refused(finished: Storage, tmp_path: Path) -> None:
    (tmp_path / "torn.db").write_text("this is no database" * 100)
    with pytest.raises(UsageError, match=r"--to mlflow=sqlite:.*torn\.db: "):
        mirror(finished, tmp_path / "out", target_of(f"sqlite:///{tmp_path}/torn.db", tmp_path))
