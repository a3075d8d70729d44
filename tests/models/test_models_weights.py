"""The file of pretrained weights is known before it is downloaded, and identified by its content afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor

from ralr_tune.analysis.identity import differences
from ralr_tune.errors import UsageError
from ralr_tune.models import torchvision_models, weight_files
from ralr_tune.models.registry import build
from ralr_tune.records import Identity, SourceFile
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
    return tuple(file for file in source_files(spec) if file.name.startswith("weights"))


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


def test_a_study_normalised_by_its_data_is_told_from_one_normalised_as_the_weights_were(hub: Path) -> None:
    spec = parse_study(
        simulated_text(
            task={
                "kind": "classification",
                "data": {"source": "digits"},
                "model": "torchvision:resnet18",
                "pretrained": True,
            }
        )
    )
    now = Identity(None, source_files(spec))
    earlier = Identity(None, tuple(file for file in now.files if file.name.startswith("weights")))
    assert differences(earlier, now) == ["normalisation of torchvision:resnet18 (task.pretrained) is new"]
    assert differences(now, now) == []


def test_every_searched_network_has_its_own_weights_and_others_have_none(hub: Path) -> None:
    both = files(model={"choices": ["torchvision:resnet18", "torchvision:alexnet"]})
    assert [file.name.partition("-")[0] for file in both] == ["weights alexnet", "weights resnet18"]
    assert files(model="torchvision:resnet18", pretrained=False) == ()


def test_a_network_without_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_models.torchvision.models, "get_model_weights", lambda name: ())
    with pytest.raises(UsageError, match="torchvision has no weights for torchvision:mine"):
        torchvision_models.weights_file("mine")


# ---------------------------------------------------------------- the hash in a file's name


def _named_by_hash(file: Path) -> Path:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return file.rename(file.with_name(f"resnet18-{digest[:8]}.pth"))


def test_a_file_with_the_hash_in_its_name_passes(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"weights")
    file = _named_by_hash(tmp_path / "new")
    weight_files.check_hash(file)
    file.write_bytes(b"other")
    with pytest.raises(UsageError, match=r"damaged or changed: their SHA-256 begins with d9298a10, not with"):
        weight_files.check_hash(file)


def test_a_file_that_is_absent_or_has_no_hash_passes(tmp_path: Path) -> None:
    weight_files.check_hash(tmp_path / "resnet18-f37072fd.pth")
    (tmp_path / "mine.pth").write_bytes(b"")
    weight_files.check_hash(tmp_path / "mine.pth")


def _in_the_cache(hub: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Default weights of squeezenet1_1 with 1,000 classes, where torch.hub keeps them; returns them."""
    torch.manual_seed(5)
    state = build("torchvision:squeezenet1_1", classes=1000, channels=3, size=64).state_dict()
    torch.save(state, hub / "new")
    digest = hashlib.sha256((hub / "new").read_bytes()).hexdigest()
    file = (hub / "new").rename(hub / f"squeezenet1_1-{digest[:8]}.pth")
    default = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    monkeypatch.setattr(default, "_value_", dataclasses.replace(default.value, url=f"https://example.org/{file.name}"))
    return state


def test_weights_in_the_cache_are_loaded_without_a_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = _in_the_cache(hub, monkeypatch)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    model = build("torchvision:squeezenet1_1", classes=5, channels=1, size=64, pretrained=True).state_dict()
    for name, tensor in state.items():
        assert torch.equal(model[f"1.{name}"], tensor) is ("classifier.1" not in name)


def test_without_weights_and_network_the_file_and_its_folder_are_named(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        UsageError,
        match=rf"cannot be loaded \(no route to host\); without a network, put "
        rf"squeezenet1_1-\w+.pth from https://\S+ into {hub}",
    ):
        build("torchvision:squeezenet1_1", classes=5, channels=3, size=64, pretrained=True)


# ---------------------------------------------------------------- weights from a file of one's own

SHAPE: dict[str, Any] = {"channels": 1, "size": 16}


def _saved(folder: Path, form: str, classes: int = 4, **options: Any) -> tuple[str, dict[str, Tensor]]:
    torch.manual_seed(3)
    state = build("small_cnn", classes=classes, options={"width": 4} | options, **SHAPE).state_dict()
    file = folder / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save({"epoch": 3, "model": state} if form == "wrapped" else state, file)
    return str(file), state


def _loaded(file: str, classes: int = 4) -> dict[str, Tensor]:
    return build("small_cnn", classes=classes, options={"width": 4}, weights=file, **SHAPE).state_dict()


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped"])
@pytest.mark.parametrize("classes", [4, 6])
def test_weights_of_a_file_are_loaded_but_for_a_head_of_other_classes(tmp_path: Path, form: str, classes: int) -> None:
    file, state = _saved(tmp_path, form)
    found = _loaded(file, classes)
    for name, tensor in state.items():
        assert found[name].shape != tensor.shape or torch.equal(found[name], tensor)
    assert found["head.1.weight"].shape[0] == classes


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda state: state.pop("features.0.0.weight"),
            r"1 weights differ, the first is features.0.0.weight .not in the file",
        ),
        (lambda state: state.update(more=torch.zeros(1)), r"the first is more .not in the network"),
        (lambda state: state.update({"features.0.0.weight": torch.zeros(2)}), r"features.0.0.weight .other shape"),
        (lambda state: state.update({"features.0.0.weight": "x"}), r"must contain a table of tensors by name"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, spoil: Callable[[Any], Any], message: str) -> None:
    file, state = _saved(tmp_path, "pth")
    spoil(state)
    torch.save(dict(state), file)
    with pytest.raises(UsageError, match=message):
        _loaded(file)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_that_is_not_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(UsageError, match=r"task.weights = .*cannot be read .*allowed: a .safetensors file"):
        _loaded(str(tmp_path / name))


def test_weights_are_named_by_content_in_the_studys_identity(tmp_path: Path) -> None:
    file, _ = _saved(tmp_path, "pth")
    (found,) = files(model="small_cnn", pretrained=False, weights=file)
    assert (found.key, found.name) == ("task.weights", "weights weights.pth")
    assert found.digests == (hashlib.sha256(Path(file).read_bytes()).hexdigest(),)
