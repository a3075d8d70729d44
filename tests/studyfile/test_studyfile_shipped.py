"""The shipped study files are valid and state their purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.studyfile import parse_study

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_starts_with_a_description(path: Path) -> None:
    text = path.read_text()
    spec = parse_study(text, source=path.name)
    assert spec.name == path.stem
    assert text.startswith("# ")
    assert spec.study.baseline == "monotone"
    assert spec.arms["ralr"].amplify is not None


def test_the_papers_headline_recipe() -> None:
    spec = parse_study(next(path for path in STUDIES if path.stem == "cifar100_resnet110").read_text())
    assert spec.task.model == "resnet110"
    assert spec.file.training.augment == ("crop", "flip")
    assert spec.confirm.seeds == 4


def test_complementarity_is_a_two_by_two() -> None:
    """The arms without regularisation override everything on the marked lines; nothing else differs."""
    spec = parse_study(next(path for path in STUDIES if path.stem == "complementarity").read_text())
    names = [name for row in (("monotone", "ralr"), ("regularised", "ralr_regularised")) for name in row]
    assert list(spec.arms) == names
    plain, amplified, other, both = (spec.settings(name) for name in names)
    amplification = {key: value for key, value in amplified.items() if key.startswith("amplify.")}
    assert amplification
    assert amplified == plain | amplification
    assert both == other | amplification
    assert {key for key in other if other[key] != plain[key]} == {"augment", "label_smoothing"}
