from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ralr_tune.errors import DataError, UsageError
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.logs import warnings_to_log
from ralr_tune.studyfile import TaskSpec
from ralr_tune.tasks.load import load_task, task_identity


def spec(**changes: Any) -> TaskSpec:
    given: dict[str, Any] = {"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn"}
    return TaskSpec(**(given | changes))


def loaded(task: TaskSpec, seed: int = 0) -> ClassificationTask:
    return cast(ClassificationTask, load_task(task, seed=seed, device="cpu"))


def test_digits_as_the_study_file_names_them() -> None:
    task = loaded(spec(model_options={"width": 4}))
    assert task.metric.name == "accuracy"
    assert (task.size("train"), task.size("validation"), task.size("test")) == (1150, 288, 359)
    assert task.input_shape == (1, 8, 8)
    assert task.build_model(0)(next(iter(task.batches("train", seed=0, epoch=0, batch_size=4))).images).shape == (4, 10)


def test_a_folder_trains_without_its_test_pictures(write_tree: Callable[..., Path]) -> None:
    root = write_tree({"train": ["a", "b"], "test": ["a", "b"]}, count=6, size=(8, 8))
    for file in (root / "test").rglob("*.png"):
        file.unlink()
    task = loaded(spec(data={"source": "folder", "path": str(root)}))
    model = task.build_model(0)
    batch = next(iter(task.batches("train", seed=0, epoch=0, batch_size=8, augment=("crop", "flip"))))
    task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
    task.evaluate(model, "validation")
    with pytest.raises(DataError, match="test: holds no images"):
        task.evaluate(model, "test")


def test_identity_tells_tasks_apart() -> None:
    tasks = [
        loaded(spec(data={"source": "digits", "limit": 100})),
        loaded(spec(data={"source": "digits", "limit": 100}), seed=1),
        loaded(spec(data={"source": "digits", "limit": 101})),
        loaded(spec(data={"source": "digits", "limit": 100}, model_options={"width": 4})),
    ]
    assert len({task.identity for task in tasks}) == 4
    assert tasks[0].identity == loaded(spec(data={"source": "digits", "limit": 100})).identity


def test_another_metric_than_the_default_is_another_task() -> None:
    def named(metric: str | None) -> TaskSpec:
        return spec(data={"source": "digits", "limit": 100}, metric=metric)

    tasks = {metric: loaded(named(metric)) for metric in (None, "loss", "balanced_accuracy")}
    assert [task.metric.name for task in tasks.values()] == ["accuracy", "loss", "balanced_accuracy"]
    assert len({task.identity for task in tasks.values()}) == 3
    before = "147e7e2adedc0a516850aff60bd78e3ba9c2d1e9f3196f86342ad7c2db3bbd02"
    assert task_identity(spec(), 0) == before, "checkpoints of earlier releases are foreign now"


def test_wrong_models_are_told_when_one_is_built() -> None:
    with pytest.raises(UsageError, match="did you mean 'small_cnn'"):
        loaded(spec(model="small_cn")).build_model(0)


def test_wrong_kinds_are_told() -> None:
    with pytest.raises(UsageError, match=r"task\.kind = 'detection': allowed: classification, simulated"):
        loaded(spec(kind="detection"))


def test_warnings_go_to_the_log(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    with caplog.at_level("INFO"), warnings_to_log():
        warnings.warn("something old", FutureWarning, stacklevel=1)
    assert "something old" in caplog.text
    assert not recwarn.list
