"""What a study file with a function must not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.check import check_study
from ralr_tune.errors import StudyFileError, UsageError
from tests.kinds.function.conftest import FUNCTION, Write


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"target": "known_answer"}, 'task.target = "known_answer": not an import path package.module:callable'),
        ({"target": "known answer:train"}, "not an import path package.module:callable"),
        ({"target": "absent:train"}, 'task.target = "absent:train": no module absent in '),
        ({"files": ["src/*.py"]}, 'task.files[0] = "src/*.py": no such file (relative to'),
        ({"params": {"lr": 0.9}}, "lr: a key of [training] has this name"),
        ({"params": {"seed": 0}}, "seed: has another meaning"),
        ({"reuse": "yes"}, 'task.reuse = "yes": must be true or false'),
    ],
)  # fmt: skip
def test_wrong_tasks(study: Write, task: dict[str, Any], line: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        study(task=task)
    assert any(line in each for each in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import absent_module\n" + FUNCTION, 'task.target = "known_answer:train": cannot be imported: ModuleNotFound'),
        (
            FUNCTION.replace("def train(", "def fit("),
            "cannot be imported: AttributeError: module 'known_answer' has no",
        ),
        (
            FUNCTION + "\ntrain = 3\n",
            'task.target = "known_answer:train": is a int; must be a function of one argument',
        ),
        (FUNCTION.replace("def train(trial):", "def train(trial, more):"), "takes other arguments (missing a required"),
        (FUNCTION + "\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero"),
        (FUNCTION.replace("trial.factor(epoch) != 1", "True"), "its code does not apply the schedule, so all arms wo"),
    ],
)
def test_wrong_functions(study: Write, folder: Path, code: str, line: str) -> None:
    study()
    (folder / "known_answer.py").write_text(code)
    with pytest.raises(StudyFileError) as caught:
        check_study("own.toml")
    (found,) = caught.value.problems
    assert line in found


def test_the_check_names_the_code_and_no_imports_refuses_it(study: Write, folder: Path) -> None:
    study()
    assert f"runs code outside of ralr_tune: module known_answer, from {folder}" in check_study("own.toml")
    with pytest.raises(UsageError, match=r"task\.target = .*--no-imports forbids that"):
        check_study("own.toml", imports=False)
