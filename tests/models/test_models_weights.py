"""The file of pretrained weights is known before it is downloaded, and identified by its content afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ralr_tune.errors import UsageError
from ralr_tune.models import torchvision_models
from ralr_tune.records import SourceFile
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.code import source_files
from tests.studies import simulated_text


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def files(**task: object) -> tuple[SourceFile, ...]:
    given = {"kind": "classification", "data": {"source": "digits"}, "pretrained": True} | task
    spec = parse_study(simulated_text(task=given))
    return source_files(spec)


def test_weights_are_identified_by_their_content_once_they_are_there(hub: Path) -> None:
    (before,) = files(model="torchvision:resnet18")
    assert (before.key, before.digests) == ("task.pretrained", ())
    assert before.name.startswith("weights resnet18-")
    file = hub / before.name.removeprefix("weights ")
    assert file == torchvision_models.weights_file("resnet18")
    file.write_bytes(b"one")
    (one,) = files(model="torchvision:resnet18")
    file.write_bytes(b"two")
    (two,) = files(model="torchvision:resnet18")
    assert one.name == two.name == before.name
    assert len({one.digests, two.digests, ()}) == 3


def test_every_searched_network_has_its_own_weights_and_others_have_none(hub: Path) -> None:
    both = files(model={"choices": ["torchvision:resnet18", "torchvision:alexnet"]})
    assert [file.name.partition("-")[0] for file in both] == ["weights alexnet", "weights resnet18"]
    assert files(model="torchvision:resnet18", pretrained=False) == ()


def test_a_network_without_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_models.torchvision.models, "get_model_weights", lambda name: ())
    with pytest.raises(UsageError, match="torchvision has no weights for torchvision:mine"):
        torchvision_models.weights_file("mine")
