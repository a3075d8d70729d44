"""The parts of a study file that come from the kind: [task], its own [training] keys, what may be searched there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ralr_tune.commands.check import list_studies
from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.search.tasks import Tasks
from ralr_tune.studyfile import StudySpec, parse_study, registry
from ralr_tune.studyfile.changes import changes
from ralr_tune.studyfile.contradictions import corners
from ralr_tune.studyfile.imports import imports
from tests.studies import simulated, simulated_text
from tests.studyfile.design_file import DESIGN, complaints

SEARCHED = DESIGN.but('model = "small_cnn"', 'model = { choices = ["small_cnn", "resnet20"] }')


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(StudyFileError) as caught:
        parse_study(text)
    return caught.value.problems


@pytest.fixture
def own_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with a kind and other objects, which writes a file when it is imported."""
    code = f"""
open({str(tmp_path / "ran")!r}, "w").close()
from ralr_tune.kinds.simulated.kind import SimulatedKind
class Kind(SimulatedKind):
    name = "mine"
nothing = 3
"""
    (tmp_path / "mykinds.py").write_text(code)
    (tmp_path / "broken_kinds.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mykinds", "broken_kinds"):
        sys.modules.pop(name, None)
    registry.find.cache_clear()


# ---------------------------------------------------------------- which kind


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ('kind = "simulatd"', "task.kind = \"simulatd\": did you mean 'simulated'?"),
        (
            'kind = "tracking"',
            'task.kind = "tracking": allowed: classification, command, detection, function, simulated',
        ),
        ("kind = 3", "task.kind = 3: must be a string in quotes"),
        ("", "task.kind is missing; allowed: classification, command, detection, function, simulated"),
    ],
)
def test_an_unknown_kind_is_reported_with_all_other_problems(table: str, line: str) -> None:
    text = simulated_text(training={"epochs": -1}, study={"baseline": "nobody"})
    reported = problems(text.replace('kind = "simulated"', table))
    assert any(each.endswith(line) for each in reported), reported
    assert any("training.epochs = -1" in each for each in reported)
    assert any("study.baseline" in each for each in reported)
    assert len(reported) == 3


def test_a_kind_by_its_import_path(own_kind: Path) -> None:
    spec = simulated(task={"kind": "mykinds:Kind"})
    assert spec.kind.name == "mine"
    assert [found.key for found in imports(spec.kind, spec.task)] == ["task.kind"]
    assert Tasks(spec, device="cpu").only() is not None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no_such_module_at_all:Kind", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("mykinds:Nothing", "AttributeError: module 'mykinds' has no attribute 'Nothing'"),
        ("mykinds:nothing", "mykinds:nothing is a int; must be a ralr_tune Kind"),
        ("broken_kinds:Kind", "ZeroDivisionError: division by zero"),
        ("mykinds:", "AttributeError"),
        (":Kind", "ValueError: Empty module name"),
    ],
)
def test_an_import_path_that_is_not_a_kind(own_kind: Path, kind: str, reason: str) -> None:
    (line,) = problems(simulated_text(task={"kind": kind}))
    assert "task.kind" in line
    assert reason in line


def test_without_imports_nothing_is_imported(own_kind: Path) -> None:
    text = simulated_text(task={"kind": "mykinds:Kind"})
    with pytest.raises(UsageError, match=r'task\.kind = "mykinds:Kind" runs code .*; --no-imports forbids that'):
        parse_study(text, imports=False)
    assert not (own_kind / "ran").exists()


def test_a_list_of_studies_imports_nothing(own_kind: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_kind / "studies").mkdir()
    (own_kind / "studies" / "mine.toml").write_text(simulated_text(task={"kind": "mykinds:Kind"}))
    monkeypatch.chdir(own_kind)
    (line,) = (line for line in list_studies() if line.startswith("mine "))
    assert "its task kind is imported code" in line
    assert not (own_kind / "ran").exists()


# ---------------------------------------------------------------- own keys


def test_a_kind_can_require_keys() -> None:
    assert complaints(DESIGN.but("batch_size = 64", "")) == ["training.batch_size is missing"]
    text = simulated_text()
    assert "batch_size = 32" in text
    parse_study(text.replace("batch_size = 32\n", ""))


def test_keys_of_another_kind_are_unknown(own_kind: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ralr_tune.kinds.simulated.kind import SimulatedKind
    from ralr_tune.studyfile.kind import NoKeys

    class Plain(SimulatedKind):
        training = NoKeys

    monkeypatch.setattr(sys.modules.setdefault("mykinds", __import__("mykinds")), "Kind", Plain)
    (line,) = problems(simulated_text(task={"kind": "mykinds:Kind"}, training={"augment": ["crop"]}))
    assert "training.augment" in line
    assert "unknown key" in line
    (line,) = problems(simulated_text(task={"model": "small_cnn"}))
    assert "task.model" in line


# ---------------------------------------------------------------- values of [task] that are searched


def found(text: str, **params: object) -> tuple[StudySpec, object]:
    spec = parse_study(text)
    arm = "monotone"
    return spec, spec.configuration(arm, next(corners(spec.space(arm), ())) | params)


def test_a_network_may_be_searched() -> None:
    spec, small = found(SEARCHED)
    _, large = found(SEARCHED, **{"task.model": "resnet20"})
    assert "task.model" in spec.parameters
    assert list(spec.task_space) == ["model"]
    assert [spec.resolved_task(each.task).model for each in (small, large)] == ["small_cnn", "resnet20"]
    assert spec.task_identity(small.task) != spec.task_identity(large.task)
    assert small.identity(0) != large.identity(0)


def test_a_resolved_task_equals_that_of_a_file_with_fixed_values() -> None:
    """Its checkpoints and identity do not depend on whether it was searched."""
    fixed = parse_study(DESIGN)
    spec, configuration = found(SEARCHED)
    assert spec.resolved_task(configuration.task) == fixed.task
    assert spec.task_identity(configuration.task) == fixed.task_identity({})


def test_options_of_the_network_and_sizes_of_images_may_be_searched() -> None:
    options = "model_options = { width = { low = 4, high = 8 }, dropout = { low = 0.0, high = 0.5 } }"
    spec, configuration = found(DESIGN.but('model = "small_cnn"', f'model = "small_cnn"\n{options}'))
    assert list(spec.task_space) == ["model_options.width", "model_options.dropout"]
    assert type(spec.task_space["model_options.width"].low) is int
    assert spec.resolved_task(configuration.task).model_options == {"width": 4, "dropout": 0.0}
    assert configuration.number("task.model_options.width") == 4


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("{ low = 2, high = 1 }", "low must be below high"),
        ("{ low = 1 }", "high"),
        ("{ choices = [] }", "choices"),
    ],
)
def test_impossible_options_are_reported(option: str, line: str) -> None:
    (reported,) = complaints(
        DESIGN.but('model = "small_cnn"', f'model = "small_cnn"\nmodel_options = {{ width = {option} }}')
    )
    assert reported.startswith("task.model_options")
    assert line in reported


def test_a_wider_choice_of_networks_is_refused() -> None:
    more = SEARCHED.replace('"resnet20"]', '"resnet20", "resnet32"]')
    (change,) = changes(parse_study(SEARCHED), parse_study(more))
    assert (change.key, change.applied) == ("task.model", False)
    assert "one list of choices" in str(change)
    (change,) = changes(parse_study(DESIGN), parse_study(SEARCHED))
    assert not change.applied


def test_two_tasks_of_the_same_data_share_them() -> None:
    spec, small = found(SEARCHED)
    _, large = found(SEARCHED, **{"task.model": "resnet20"})
    tasks = Tasks(spec, device="cpu")
    one, other = tasks.of(small.task), tasks.of(large.task)
    assert tasks.only() is None
    assert one is tasks.of(small.task)
    assert one._pool is other._pool  # type: ignore[attr-defined]
    assert type(one.build_model(0)) is not type(other.build_model(0))  # type: ignore[attr-defined]
    assert one.identity != other.identity
