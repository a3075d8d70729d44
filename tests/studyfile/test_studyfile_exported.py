from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from ralr_tune.errors import StudyFileError
from ralr_tune.invocation import command
from ralr_tune.report.export import render
from ralr_tune.studyfile import load_study_file
from ralr_tune.studyfile.exported import Scores, load_exported, parse_exported
from tests.exports import configuration, tables
from tests.fuzz import AT_RANDOM, cases, chance, damaged, soon
from tests.metrics import ACCURACY, LOSS

AMPLIFY = {"probability": 0.3, "lower": 1.5, "width": 2.0}
SGD = {"optimizer": "sgd", "options": {"momentum": 0.9}}
STEPS = {"name": "multistep", "options": {"milestones": [0.5, 6], "gamma": 0.1}}


def text(**changes: dict[str, Any] | None) -> str:
    return tomli_w.dumps(tables(**changes))


def dated(raw: str) -> str:
    """With the date in TOML format."""
    return raw.replace('"2026-01-31"', "2026-01-31")


def problems(**changes: dict[str, Any] | None) -> tuple[str, ...]:
    with pytest.raises(StudyFileError) as caught:
        parse_exported(dated(text(**changes)), source="best/ralr.toml")
    return caught.value.problems


def test_a_configuration_for_training() -> None:
    parsed = parse_exported(dated(text(training=SGD, schedule=STEPS, amplify=AMPLIFY)))
    assert parsed == configuration(training=SGD, schedule=STEPS, amplify=AMPLIFY)
    assert parsed.task.model_dump() == {
        "kind": "classification", "data": {"source": "digits", "limit": None, "classes": None}, "model": "small_cnn",
        "model_options": {}, "pretrained": False, "validation": 0.2,
    }  # fmt: skip
    found = parsed.configuration()
    assert found.amplify is not None
    assert found.amplify.upper == 3.5
    assert found.training.options == {"momentum": 0.9}
    assert found.schedule.options["milestones"] == (0.5, 6)
    assert found.learning_rate(1, seed=0).curve.factor(5) == pytest.approx(0.1)


def test_optional_tables_may_be_missing() -> None:
    parsed = parse_exported(dated(text(schedule=None)))
    assert parsed.schedule.name == "constant"
    assert parsed.amplify is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"provenance": None}, "provenance is missing"),
        ({"training": {"lr": {"low": 0.1, "high": 1.0}}}, "training.lr = {"),
        ({"training": {"lr": -1.0}}, "training.lr = -1.0: must be above 0"),
        ({"training": {"momentum": 0.9}}, "training.momentum = 0.9: unknown key"),
        ({"training": {"optimizer": "sdg"}}, 'training.optimizer = "sdg"'),
        ({"training": {"options": {"betas": [0.9, 0.99]}}}, "training.options.betas = [0.9, 0.99]: unknown key"),
        ({"training": {"options": {"momentum": "much"}}}, 'training.options.momentum = "much": must be a number'),
        ({"training": {"options": {"momentum": 1.5}}}, "training.options.momentum = 1.5: must be below 1"),
        ({"training": {"options": {"momentum": {"low": 0.1, "high": 0.9}}}}, "must be one value, not a range"),
        ({"schedule": {"name": "cosin"}}, "schedule.name = \"cosin\": unknown base curve; did you mean 'cosine'?"),
        ({"schedule": {"name": "cosine", "options": {"gamma": 0.1}}}, "schedule.options.gamma = 0.1: unknown key"),
        ({"schedule": {"name": "step"}}, "schedule: step_size is missing"),
        ({"schedule": {"name": "multistep", "options": {"milestones": [9]}}}, "schedule: milestones = 9"),
        ({"schedule": {"warmup": 8.0}}, "schedule: warmup = 8.0"),
        (
            {"amplify": AMPLIFY, "noise": {"std": 0.5}},
            "amplify and noise: a configuration can have only one of the two",
        ),
        ({"amplify": AMPLIFY | {"lower": 0.5}}, "amplify.lower = 0.5: must be 1"),
        ({"noise": {"law": "uniform", "std": 0.5}}, "noise: std = 0.5"),
        ({"task": {"kind": "segmentation"}}, 'task.kind = "segmentation"'),
        ({"provenance": {"seed": 2**48}}, "provenance.seed"),
        ({"provenance": {"arm": "../up"}}, 'provenance.arm = "../up": not a valid name'),
        ({"provenance": {"created": "yesterday"}}, "provenance.created"),
        ({"extra": {"x": 1}}, "extra = "),
    ],
)
def test_problems_are_reported_with_their_key(changes: dict[str, Any], line: str) -> None:
    found = problems(**changes)
    assert len(found) == 1
    assert found[0].startswith("best/ralr.toml: ")
    assert line in found[0]


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        training={"lr": 0.0, "batch_size": "many", "options": {"beta": 1}},
        schedule={"name": "cosine", "options": {"end_factor": 2.0}},
        noise={"amplitude": 3.0},
        provenance={"value": "good"},
    )
    for key in (
        "training.lr",
        "training.batch_size",
        "training.options.beta",
        "schedule.options.end_factor",
        "noise.amplitude",
        "provenance.value",
    ):
        assert any(f": {key} = " in line for line in found), (key, found)
    assert len(found) == 6


def test_a_batch_of_one_has_no_pairs() -> None:
    augment = ["crop", "cutmix"]
    (found,) = problems(training={"batch_size": 1, "augment": augment})
    assert found.endswith("training.batch_size = 1: cutmix mixes pairs of images; needs a batch size of 2 or more")
    assert (
        len(problems(training={"batch_size": "many", "augment": augment})) == 1
    )  # an unknown batch size is not checked


def test_a_curve_over_unknown_epochs_is_not_checked() -> None:
    found = problems(training={"epochs": "x"}, schedule=STEPS)
    assert len(found) == 1
    assert "training.epochs" in found[0]


@pytest.mark.parametrize("raw", ["", "[training", "x = 1", "[task]\nkind = 3", "training = 1", "\0", "a" * 100])
def test_a_file_that_is_something_else(raw: str) -> None:
    with pytest.raises(StudyFileError):
        parse_exported(raw)


def test_a_file_is_read_and_named(tmp_path: Path) -> None:
    file = tmp_path / "ralr.toml"
    file.write_text(dated(text()))
    assert load_exported(file) == configuration()
    assert load_exported(file.rename(tmp_path / "ralr.conf")) == configuration()
    with pytest.raises(StudyFileError, match=r"none\.toml: no such file"):
        load_exported(tmp_path / "none.toml")


SPOILT = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2))


@settings(deadline=None, max_examples=cases(200), derandomize=not AT_RANDOM, database=None)
@given(data=st.data())
def test_a_broken_file_never_gives_a_traceback(data: st.DataObject) -> None:
    broken: dict[str, Any] = copy.deepcopy(tables(training=SGD, schedule=STEPS, amplify=AMPLIFY))
    for _ in range(data.draw(st.integers(1, 3))):
        table = broken[data.draw(st.sampled_from(sorted(broken)))]
        key = data.draw(st.sampled_from([*sorted(table), "odd"]))
        value = data.draw(SPOILT)
        table.pop(key, None)
        if value is not None:
            table[key] = value
    try:
        parse_exported(dated(tomli_w.dumps(broken)))
    except StudyFileError as refused:
        reported = refused.problems
    else:
        reported = ("nothing, it was fine",)
    assert all(reported)
    assert all(line.isprintable() for line in reported)


def test_broken_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    draw, path = chance(), tmp_path / "x.toml"
    whole = [dated(text(training=SGD, schedule=STEPS, amplify=AMPLIFY)).encode(), dated(text()).encode()]
    for _ in range(cases(500)):
        path.write_bytes(damaged(draw.choice(whole), draw))
        with soon():
            reported = problems_of(path)
        assert all(line.isprintable() and line.startswith(f"{path}: ") for line in reported)


def problems_of(path: Path) -> tuple[str, ...]:
    """The problems of a file; empty if it is a valid configuration."""
    try:
        load_exported(path).configuration()
    except StudyFileError as error:
        return error.problems
    return ()


def test_scores_as_text() -> None:
    several, one = Scores(mean=0.97, std=0.0031, seeds=(1, 2)), Scores(mean=0.97, seeds=(1,))
    assert several.text(ACCURACY.format) == "97.00% +- 0.31 points over 2 seeds"
    assert several.text(LOSS.format) == "0.97 +- 0.0031 over 2 seeds"
    assert one.text(ACCURACY.format) == "97.00% over 1 seed"


def test_provenance_as_text() -> None:
    confirmed = {"mean": 0.97, "std": 0.0031, "seeds": [1, 2]}
    lines = configuration(provenance={"block": 2, "confirmed": confirmed}).lines()
    assert lines[0] == "Found by ralr_tune: study digits, arm ralr, trial 17 of block 2."
    assert lines[2] == "On fresh seeds: validation accuracy 97.00% +- 0.31 points over 2 seeds."
    assert len(lines) == 3


def test_the_metric_is_one_of_the_kinds() -> None:
    assert configuration(provenance={"metric": "loss"}).metric.direction == "minimize"
    (line,) = problems(provenance={"metric": "los"})
    assert line == "best/ralr.toml: provenance.metric = \"los\": did you mean 'loss'?"


# ---------------------------------------------------------------- forms, and files that are something else


@pytest.mark.parametrize(
    ("form", "ending"),
    [
        ("toml", ".toml"),
        ("json", ".json"),
        ("json", ".JSON"),
        ("json", ""),
        ("yaml", ".yaml"),
        ("yaml", ".yml"),
        ("toml", ""),
    ],
)
def test_every_form_that_export_writes_is_read(tmp_path: Path, form: str, ending: str) -> None:
    given = configuration(training=SGD | {"weight_decay": 1e-05}, schedule=STEPS, amplify=AMPLIFY)
    path = tmp_path / f"best{ending}"
    path.write_text(render(given, form))
    assert load_exported(path) == given


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("x.json", "{", "not valid JSON: Expecting property name"),
        ("x.json", "[" * 100_000, "not valid JSON: "),
        ("x.json", "[1]", "not an exported configuration: its JSON is no table"),
        ("x.json", '{"task": NaN, "training": 1}', "task = NaN: must be a table"),
        ("x.yaml", "a: b: c", "not valid YAML: mapping values are not allowed here"),
        ("x.yaml", "!!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        ("x.yaml", "1: 2", "not an exported configuration: its YAML is no table"),
        ("x.yaml", "a: &a [*a]", "nested deeper than 32 levels"),
        ("x.yml", "", "not an exported configuration: its YAML is no table"),
        ("x.png", "GIF89a", "is no exported configuration, which is a text file that `export` wrote"),
        ("x.py", "print()", "is a Python script, which trains by itself: "),
        ("x.toml", "[study]\nname = 'x'", "is a study file; `"),
        ("x.toml", "[arms.a]", "is a study file; `"),
        ("x.json", '{"study": {"name": "x"}}', "is a study file; `"),
    ],
)
def test_a_file_that_is_something_else_is_one_sentence(tmp_path: Path, name: str, content: str, line: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(StudyFileError) as caught:
        load_exported(path)
    assert caught.value.problems[0].startswith(f"{path}: ")
    assert line in caught.value.problems[0]
    assert len(caught.value.problems) == 1 or "NaN" in content


@pytest.mark.parametrize("form", ["toml", "json", "yaml"])
def test_an_exported_file_is_no_study_and_says_what_to_type(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"best.{form}"
    path.write_text(render(configuration(), form))
    with pytest.raises(StudyFileError) as caught:
        load_study_file(path)
    (line,) = caught.value.problems
    assert command("train", str(path)) in line
