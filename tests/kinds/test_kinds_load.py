from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import DataError, UsageError
from ralr_tune.kinds.classification.kind import KIND
from ralr_tune.kinds.classification.options import ClassificationOptions as Options
from ralr_tune.kinds.classification.section import ClassificationSection
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.logs import warnings_to_log
from ralr_tune.studyfile import registry
from ralr_tune.studyfile.sections import TaskSection


def spec(**changes: Any) -> ClassificationSection:
    given: dict[str, Any] = {"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn"}
    return ClassificationSection.model_validate(given | changes)


def loaded(task: ClassificationSection, seed: int = 0) -> ClassificationTask:
    return KIND.load(task, metric=KIND.default_metric, seed=seed, device="cpu")


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
    batch = next(iter(task.batches("train", seed=0, epoch=0, batch_size=8, options=Options(("crop", "flip")))))
    task.loss(model, batch).backward()  # type: ignore[no-untyped-call]
    task.evaluate(model, "validation")
    with pytest.raises(DataError, match="test: contains no images"):
        task.evaluate(model, "test")


def test_identity_distinguishes_tasks() -> None:
    tasks = [
        loaded(spec(data={"source": "digits", "limit": 100})),
        loaded(spec(data={"source": "digits", "limit": 100}), seed=1),
        loaded(spec(data={"source": "digits", "limit": 101})),
        loaded(spec(data={"source": "digits", "limit": 100}, model_options={"width": 4})),
    ]
    assert len({task.identity for task in tasks}) == 4
    assert tasks[0].identity == loaded(spec(data={"source": "digits", "limit": 100})).identity


def test_another_metric_than_the_default_is_another_task() -> None:
    small = spec(data={"source": "digits", "limit": 100})
    tasks = [KIND.load(small, metric=metric, seed=0, device="cpu") for metric in KIND.metrics.values()]
    assert [task.metric.name for task in tasks] == list(KIND.metrics)
    assert len({task.identity for task in tasks}) == len(tasks)


@pytest.mark.parametrize(
    ("section", "identity"),
    [
        (spec(model_options={"width": 4}), "38729a62374f0153e1e29bfeedb2852fac1499ffe83d2d5ff0c2b08f4bb0c1ea"),
        (
            registry.find("simulated").section.model_validate({"kind": "simulated"}),
            "b5b041822e6c061022aba800e1740b17e5287313f30237d65aa1cb931e8b3aaa",
        ),
    ],
)
def test_identities_equal_those_of_the_previous_release(section: TaskSection, identity: str) -> None:
    """Otherwise its checkpoints could not be used."""
    kind = registry.find(section.kind)
    assert kind.identity(section, seed=0, metric=kind.default_metric) == identity


def test_wrong_models_are_reported_when_built() -> None:
    with pytest.raises(UsageError, match="did you mean 'small_cnn'"):
        loaded(spec(model="small_cn")).build_model(0)


def test_warnings_go_to_the_log(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    with caplog.at_level("INFO"), warnings_to_log():
        warnings.warn("something old", FutureWarning, stacklevel=1)
    assert "something old" in caplog.text
    assert not recwarn.list
