"""MLflow: an experiment for each study, a run for each trial.

MLflow chooses the ids of runs, so that a run is found by a tag that is set when it is created.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ralr_tune.mirror.runs import STUDY_RUN, VERDICT, Point, TrackedRun, TrackedStudy
from ralr_tune.mirror.tracker import Sent, Tracker

ID_TAG = "ralr_tune.id"
OUTCOME_TAG = "ralr_tune.outcome"
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
_BATCH = 500
"""Points in one request; the server takes 1000."""
_TEXT = 4000
"""Characters of a tag; servers take 5000 or more."""
_PARAM = 500
"""Characters of a parameter; older servers take no more."""
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # the mirror itself tries again later; MLflow's own retries take minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Unless the user has set them."""


class MLflow(Tracker):
    """A tracking server or a database, by its URI."""

    kind = "mlflow"

    def __init__(self, study: TrackedStudy, uri: str) -> None:
        super().__init__(study)
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        self._uri = uri
        self._client: Any = None
        self._experiment = ""
        self._runs: dict[str, str] = {}
        """MLflow's ids by ours."""

    def open(self) -> None:
        self._connect()
        self.is_new = not self._runs

    def sent(self, run: TrackedRun) -> Sent:
        self._connect()
        number = self._runs.get(self.study.run_id(run.name))
        if number is None:
            return Sent()
        data = self._client.get_run(number).data
        found = Sent(outcome=data.tags.get(OUTCOME_TAG) or None)
        for metric in {point.metric for point in run.points}:
            if (key := _key(metric)) in data.metrics:
                found.steps[metric] = max(point.step for point in self._client.get_metric_history(number, key))
        return found

    def send(self, run: TrackedRun, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric, Param

        number = self._run(run.name, run.tags)
        params = [Param(_key(name), str(value)[:_PARAM]) for name, value in run.params.items()]
        self._client.log_batch(number, params=params)  # the same parameters again change nothing
        now = time.time()
        values = [Metric(_key(each.metric), each.value, int(1000 * (each.time or now)), each.step) for each in points]
        for start in range(0, len(values), _BATCH):
            self._client.log_batch(number, metrics=values[start : start + _BATCH])
        self._client.set_tag(number, OUTCOME_TAG, run.outcome or "")
        if run.message:
            self._client.set_tag(number, "ralr_tune.message", run.message[:_TEXT])
        if run.outcome is None:
            self._client.update_run(number, "RUNNING")
        else:
            self._client.set_terminated(number, _STATUS[run.outcome])

    def conclude(self, verdict: str, facts: Mapping[str, str]) -> None:
        self._connect()
        number = self._run(STUDY_RUN, {"study": self.study.key})
        texts = {"mlflow.note.content": verdict, VERDICT: verdict, **facts}
        for name, text in texts.items():
            self._client.set_tag(number, name, text[:_TEXT])
        self._client.set_experiment_tag(self._experiment, "mlflow.note.content", verdict[:_TEXT])
        self._client.set_terminated(number, "FINISHED")

    def _connect(self) -> None:
        """Find the experiment and its runs."""
        from mlflow import MlflowClient

        if self._client is not None:
            return
        client = MlflowClient(tracking_uri=self._uri)
        found = client.get_experiment_by_name(self.study.key)
        self._experiment = client.create_experiment(self.study.key) if found is None else found.experiment_id
        self._runs = {run.data.tags[ID_TAG]: run.info.run_id for run in _runs(client, self._experiment, self.study.id)}
        self._client = client

    def _run(self, name: str, tags: Mapping[str, str]) -> str:
        number = self.study.run_id(name)
        if number not in self._runs:
            known = {f"ralr_tune.{key}": value for key, value in tags.items()}
            marks = {ID_TAG: number, "ralr_tune.study_id": self.study.id, "mlflow.runName": name}
            self._client, client = None, self._client  # should the answer be lost, the run is looked for again
            self._runs[number] = client.create_run(self._experiment, tags=known | marks).info.run_id
            self._client = client
        return self._runs[number]


def _runs(client: Any, experiment: str, study: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`ralr_tune.study_id` = '{study}'", page_token=token)
        yield from page
        if not (token := page.token):
            return


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w .\-/]", "_", name)
