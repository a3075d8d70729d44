"""What a study file with a program must not say, and what the program gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.check import check_study
from ralr_tune.commands.plan import plan_study
from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.kinds.command.kind import KIND
from ralr_tune.kinds.command.placeholders import command_line
from ralr_tune.search.tasks import Tasks
from tests.kinds.command.conftest import PROGRAM, Write

LOOP = ["python3", "program.py", "--lr={lr}", "--width", "{width}"]


def problems(write: Write, **changes: dict[str, Any]) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        write(**changes)
    return [line.removeprefix("own.toml: ") for line in caught.value.problems]


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"command": [*LOOP, "{momentun}"]}, 'task.command[5] = "{momentun}": no key of [training] or task.params is'),
        ({"command": [*LOOP, "{widht}"]}, "did you mean 'width'?"),
        ({"command": LOOP[:3]}, "task.params.width: no placeholder {width} in task.command, so the program would not"),
        ({"command": [*LOOP[:2], *LOOP[3:]]}, "training.lr: no placeholder {lr} in task.command"),
        ({"command": [*LOOP, "{width:flag}"]}, "a flag must be true or false, or a choice of both"),
        ({"command": [*LOOP, "{"]}, 'task.command[5] = "{": { belongs to no placeholder; write {{ for a brace'),
        ({"resume": ["--x={resume}"]}, 'task.resume[0] = "--x={resume}": no key of'),
        ({"command": ["no-such-program"]}, 'task.command[0] = "no-such-program": no such program in PATH or in'),
        ({"command": []}, "task.command = []: must have 1 or more items"),
        ({"files": ["program.py", "src/**/*.py"]}, 'task.files[1] = "src/**/*.py": no such file (relative to'),
        ({"files": []}, "task.files = []: must have 1 or more items"),
        ({"params": {"momentum": 0.9}}, "momentum: a key of [training] has this name"),
        ({"params": {"seed": 0}}, "seed: has another meaning (the program gets it anyway)"),
        ({"params": {"a-b": 0}}, "a-b: not a valid name"),
        ({"metric": {"name": "loss"}}, "task.metric.direction is missing"),
        ({"metric": {"name": "loss", "direction": "down"}}, "task.metric.direction = \"down\": must be 'maximize' or"),
        ({"grace": -1.0}, "task.grace = -1.0: must be 0 or more"),
    ],
)  # fmt: skip
def test_wrong_tasks(study: Write, task: dict[str, Any], line: str) -> None:
    found = problems(study, task=task)
    assert any(line in each for each in found), found


def test_a_wrong_key_hides_no_other_problem(study: Write) -> None:
    found = problems(study, task={"metric": 3, "command": [*LOOP, "{x}"]}, study={"baseline": "absent"})
    assert len(found) == 3, found


def test_a_schedule_by_step_needs_a_program_that_asks_for_it(study: Write, folder: Path) -> None:
    study(schedule={"name": "cosine", "granularity": "step"})
    with pytest.raises(
        StudyFileError, match=r'schedule\.granularity = "step": none of the files .* asks for the sched'
    ):
        check_study("own.toml")
    (folder / "program.py").write_text(PROGRAM.replace("state = ", "trial.declare_steps(2)\nstate = "))
    assert "runs a program" in check_study("own.toml")


def test_a_program_that_does_not_read_the_schedule_is_refused(study: Write, folder: Path) -> None:
    study()
    assert "runs a program" in check_study("own.toml")
    (folder / "program.py").write_text(PROGRAM.replace("from ralr_tune import client", "import something"))
    with pytest.raises(StudyFileError, match="none of these files reads the schedule"):
        check_study("own.toml")
    (folder / "program.py").write_text("import ralr_tune\n\ntrain(ralr_tune.trial())\n")
    assert "runs a program" in check_study("own.toml")


def test_no_imports_refuses_the_program(study: Write) -> None:
    study()
    with pytest.raises(UsageError, match=r"task\.command = .* runs a program; --no-imports forbids that"):
        check_study("own.toml", imports=False)


def test_the_plan_does_not_guess_the_time(study: Write) -> None:
    study()
    plan = plan_study("own.toml", devices="cpu", workers=1)
    assert plan.expected_seconds is None
    assert "how long one takes is not known before the first trial" in plan.as_text()


def test_the_metric_of_the_task(study: Write) -> None:
    spec = study(task={"metric": {"name": "loss", "direction": "minimize", "margin": 0.1}})
    assert (spec.metric.name, spec.metric.worst, spec.metric.unit, spec.margin) == ("loss", None, "plain", 0.1)
    (line,) = problems(study, study={"name": "own", "baseline": "monotone", "metric": "accuracy"})
    assert line == 'study.metric = "accuracy": allowed: score'


def test_own_parameters_have_their_own_names(study: Write) -> None:
    spec = study()
    assert list(spec.space("monotone")) == ["lr", "params.width"]
    configuration = spec.configuration("monotone", {"lr": 0.1, "params.width": 2})
    assert configuration.task == {"params.width": 2}
    assert configuration.number("params.width") == 2


def test_what_the_program_gets(study: Write) -> None:
    words = ["sh", "{lr}", "{width}", "{nesterov:flag}", "{momentum}"]
    spec = study(
        task={"command": words, "resume": ["{checkpoint}"], "test": ["{stage}"]},
        training={"epochs": 3, "lr": 0.5, "nesterov": True, "momentum": 0.9},
        search={"trials": 1, "start": []},
    )
    configuration = spec.configuration("ralr", {"params.width": 1})
    task = Tasks(spec, device="cpu").of(configuration.task)
    plan = KIND.trial(task, configuration, seed=3)._plan
    assert plan.description["params"].items() >= {"lr": 0.5, "width": 1, "nesterov": True, "momentum": 0.9}.items()
    schedule = plan.schedule(1)
    base, factors, rates = ([each for (each,) in table] for table in vars(schedule).values())
    assert all(1.5 <= factor <= 2.0 for factor in factors)
    assert rates == pytest.approx([0.5 * one * other for one, other in zip(base, factors, strict=True)])
    assert base[0] == 1.0 > base[1] > base[2]
    assert plan.schedule(2).factors == [[each] * 2 for each in factors]
    twin = KIND.trial(task, configuration.without_amplification(), seed=3)._plan.schedule(1)
    assert (twin.base, twin.factors) == (schedule.base, [[1.0]] * 3)


def test_the_program_s_seed_is_one_that_numpy_accepts(study: Write) -> None:
    """Studies draw seeds of 48 bits; the schedule and the identity still follow from all of them."""
    spec = study(search={"trials": 1, "start": []}, training={"epochs": 3, "lr": 0.5})
    configuration = spec.configuration("ralr", {"params.width": 1})
    task = Tasks(spec, device="cpu").of(configuration.task)
    short, long = (KIND.trial(task, configuration, seed=seed)._plan for seed in (3, 2**40 + 3))
    assert short.description["seed"] == long.description["seed"] == 3
    assert short.schedule(1).factors != long.schedule(1).factors
    assert short.identity != long.identity


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a", "{x}", "--y={y}"], ["a", "0.001", "--y=two words"]),
        (["{on:flag}", "{off:flag}", "{off}"], ["--on", "false"]),
        (["{{x}}", "{none}"], ["{x}", ""]),
        (["{list}"], ["[0.9, 0.999]"]),
    ],
)
def test_placeholders(words: list[str], line: list[str]) -> None:
    values = {"x": 1e-3, "y": "two words", "on": True, "off": False, "none": None, "list": (0.9, 0.999)}
    assert command_line(words, values, in_shell=False) == line


def test_a_shell_gets_quoted_values() -> None:
    line = command_line(["echo {y} |", "cat"], {"y": "$(id); two words"}, in_shell=True)
    assert line == ["/bin/sh", "-c", "echo '$(id); two words' | cat"]
