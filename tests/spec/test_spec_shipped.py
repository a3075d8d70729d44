"""The study files that ship say what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.spec import parse_study

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_opens_with_what_it_is(path: Path) -> None:
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
