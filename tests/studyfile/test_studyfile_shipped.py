"""The shipped study files are valid and state their purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.kinds.classification.section import ClassificationSection, TorchvisionData
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.sections import AmplifySection

STUDIES = sorted((Path(__file__).parents[2] / "studies").rglob("*.toml"))
CLASSIFICATION = [path for path in STUDIES if path.stem.startswith(("cifar10_", "cifar100_", "fine_grained"))]
PAPER = [path for path in CLASSIFICATION if path.parent.name == "paper" and not path.stem.endswith("_small")]
ABLATIONS = [path for path in STUDIES if path.stem.startswith("ablation_")]


def read(name: str) -> StudySpec:
    return parse_study(next(path for path in STUDIES if path.stem == name).read_text())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_starts_with_a_description(path: Path) -> None:
    text = path.read_text()
    spec = parse_study(text, source=path.name)
    assert spec.name == path.stem
    assert text.startswith("# ")
    assert spec.study.baseline == "monotone"
    assert any(arm.amplify is not None for arm in spec.arms.values())


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_study_of_the_paper_has_its_protocol_and_a_small_variant(path: Path) -> None:
    spec, small = read(path.stem), read(f"{path.stem}_small")
    assert isinstance(spec.task, ClassificationSection)
    assert isinstance(small.task, ClassificationSection)
    assert spec.confirm.seeds == small.confirm.seeds == 4
    if path.stem.startswith("cifar"):
        assert spec.file.training.augment == small.file.training.augment == ("crop", "flip")
        assert isinstance(spec.task.data, TorchvisionData)
        assert path.stem == f"{spec.task.data.dataset.lower()}_{spec.task.model}"
        assert spec.schedule("ralr").milestones == small.schedule("ralr").milestones
        assert small.search.start == spec.search.start != ()


@pytest.mark.parametrize("name", ["translation_multi30k", "translation_iwslt"])
def test_translation_is_judged_by_bleu_and_pruned_on_the_loss(name: str) -> None:
    spec = read(name)
    assert (spec.metric.name, spec.prune_metric and spec.prune_metric.name) == ("bleu", "loss")
    assert spec.schedule("monotone").name == spec.schedule("ralr").name == "inverse_sqrt"
    assert "task.dropout" in spec.space("ralr")


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_the_arms_of_an_ablation_differ_in_one_parameter(path: Path) -> None:
    spec = read(path.stem)
    tables = [arm.amplify for name, arm in spec.arms.items() if name != "monotone" and arm.amplify]
    assert len(tables) == len(spec.arms) - 1 >= 2
    values = [table.model_dump() | {"width": width(table)} for table in tables]
    differing = {key for key in values[0] if key != "upper" and len({str(each[key]) for each in values}) > 1}
    assert differing == {path.stem.removeprefix("ablation_")}


def width(table: AmplifySection) -> float:
    if isinstance(table.width, float):
        return table.width
    assert isinstance(table.upper, float)
    assert isinstance(table.lower, float)
    return table.upper - table.lower


def test_rivals_has_six_schedules_in_eight_blocks() -> None:
    spec = read("rivals")
    names = {arm: spec.schedule(arm).name for arm in spec.arms}
    assert names == {
        "monotone": "multistep",
        "ralr": "multistep",
        "noise": "multistep",
        "sgdr": "sgdr",
        "one_cycle": "one_cycle",
        "cyclic": "cyclic",
    }
    assert spec.search.blocks == 8


def test_complementarity_is_a_two_by_two() -> None:
    """The arms without regularisation override everything on the marked lines; nothing else differs."""
    spec = read("complementarity")
    names = [name for row in (("monotone", "ralr"), ("regularised", "ralr_regularised")) for name in row]
    assert list(spec.arms) == names
    plain, amplified, other, both = (spec.settings(name) for name in names)
    amplification = {key: value for key, value in amplified.items() if key.startswith("amplify.")}
    assert amplification
    assert amplified == plain | amplification
    assert both == other | amplification
    assert {key for key in other if other[key] != plain[key]} == {"augment", "label_smoothing"}
