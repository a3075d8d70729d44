"""The content of a checkpoint is validated before it is used, even if its digest is correct."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ralr_tune.training.checkpoint import Unusable
from ralr_tune.training.memory import MemoryBudget
from ralr_tune.training.start import start
from ralr_tune.training.state import SavedState, StateReader
from tests.training.trials import configuration, images, run, same

Make = Callable[..., Any]


@pytest.fixture
def trained() -> tuple[bytes, StateReader]:
    """The content after two epochs, and its reader."""
    settings = configuration(epochs=2, optimizer="adam", lr=0.01, precision="auto")
    trial: Any = run(start(images(width=4), settings, seed=0))
    content = trial._checkpoints._last
    return content, StateReader(images(width=4).build_model(0), settings.training, "cpu")


def test_a_state_is_read_unchanged(trained: tuple[bytes, StateReader]) -> None:
    content, reader = trained
    state = reader.read(content)
    again = reader.read(state.encode())
    assert isinstance(again, SavedState)
    assert same(dict(again.model), dict(state.model))
    assert again.curve == state.curve
    assert (again.memory, again.precision, again.threads) == (MemoryBudget(), state.precision, 1)
    assert len(content) < reader.limit


@pytest.mark.parametrize("optimizer", [{"options": {"amsgrad": True}, "optimizer": "adam"}, {"optimizer": "asgd"}])
@pytest.mark.parametrize("model", [{"width": 1}, {"model": "resnet20", "size": 16}])
def test_the_limit_is_large_enough_for_a_networks_state(optimizer: dict[str, Any], model: dict[str, Any]) -> None:
    settings = configuration(epochs=1, lr=0.01, **optimizer)
    trial: Any = run(start(images(**model), settings, seed=0))
    limit = StateReader(trial.state.model, settings.training, "cpu").limit
    size = len(trial._checkpoints._last)
    assert 2 * size < limit < 16 * size + 2**23


def with_changes(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    stored = torch.load(io.BytesIO(content), weights_only=True)
    change(stored)
    return packed(stored)


def packed(stored: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    return buffer.getvalue()


WEIGHT = "head.1.weight"


def shortened(stored: dict[str, Any]) -> None:
    stored["model"][WEIGHT] = stored["model"][WEIGHT][:1]


def moved(stored: dict[str, Any]) -> None:
    stored["optimizer"][99] = stored["optimizer"].pop(0)


ODD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no model": (lambda stored: stored.pop("model"), "KeyError: 'model'"),
    "a weight too few": (lambda stored: stored["model"].pop(WEIGHT), "weights are not those of this network"),
    "a weight too many": (lambda stored: stored["model"].update(more=torch.ones(1)), "weights are not those"),
    "a shorter weight": (shortened, "weights are not those"),
    "double weights": (
        lambda stored: stored["model"].update({WEIGHT: torch.ones(4, 8).double()}),
        "weights are not those",
    ),
    "a number for a weight": (lambda stored: stored["model"].update({WEIGHT: 3}), "weights are not those"),
    "sparse": (lambda stored: stored["model"].update({WEIGHT: torch.ones(4, 8).to_sparse()}), "weights are not those"),
    "a list for the model": (lambda stored: stored.update(model=[1]), "model is a list"),
    "state of another weight": (moved, "state of weight 99"),
    "a name too few": (lambda stored: stored["optimizer"][0].pop("exp_avg"), "state of weight 0 is not one of adam"),
    "a name too many": (lambda stored: stored["optimizer"][0].update(more=1), "state of weight 0 is not one of adam"),
    "a shorter state": (lambda stored: stored["optimizer"][0].update(exp_avg=torch.ones(1)), "not one of adam"),
    "a number for a state": (lambda stored: stored["optimizer"][0].update(exp_avg=0.0), "not one of adam"),
    "a vector for a number": (lambda stored: stored["optimizer"][0].update(step=torch.ones(3)), "not one of adam"),
    "a list for a state": (lambda stored: stored["optimizer"].update({0: [1]}), "optimizer is a list"),
    "threads": (lambda stored: stored.update(threads="two"), "threads is a str, not a int"),
    "true threads": (lambda stored: stored.update(threads=True), "threads is a bool"),
    "torch": (lambda stored: stored.update(torch=2), "torch is a int, not a str"),
    "curve": (lambda stored: stored.update(curve=3), "its curve is not a list"),
    "precision": (lambda stored: stored.update(precision=["bfloat16", False]), "precision is a str"),
    "one precision": (lambda stored: stored.update(precision=[True]), "TypeError"),
    "room": (lambda stored: stored["room"].update(training=0, since=1), "room: training = 0"),
    "more room": (lambda stored: stored["room"].update(training=17, since=1), "room: training = 17"),
    "room since ever": (lambda stored: stored["room"].update(training=8), "since=None"),
    "room since later": (lambda stored: stored["room"].update(training=8, since=3), "room: since = 3"),
    "room of another kind": (lambda stored: stored.update(room={"more": 1}), "unexpected keyword argument 'more'"),
    "half a room": (lambda stored: stored["room"].update(evaluation=1.5), "evaluation is a float"),
}


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("name", ODD)
def test_invalid_states_are_refused(trained: tuple[bytes, StateReader], name: str) -> None:
    content, reader = trained
    change, message = ODD[name]
    with pytest.raises(Unusable, match=message):
        reader.read(with_changes(content, change))


@pytest.mark.parametrize("asked", [{"precision": "float32"}, {"channels_last": False}])
def test_another_precision_than_configured_is_refused(
    trained: tuple[bytes, StateReader], asked: dict[str, Any]
) -> None:
    settings = configuration(epochs=2, optimizer="adam", lr=0.01, **asked)
    reader = StateReader(images(width=4).build_model(0), settings.training, "cpu")
    with pytest.raises(Unusable, match="invalid: trained in bfloat16, channels_last = True; configured"):
        reader.read(with_changes(trained[0], lambda stored: stored.update(precision=[True, True])))


class Bomb:
    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.trace}'",))


def test_no_code_in_it_is_executed(trained: tuple[bytes, StateReader], tmp_path: Any) -> None:
    content, reader = trained
    for place in ("model", "optimizer", "curve", "room"):
        stored = {**torch.load(io.BytesIO(content), weights_only=True), place: Bomb(str(tmp_path / "trace"))}
        with pytest.raises(Unusable, match="cannot be read: UnpicklingError"):
            reader.read(packed(stored))
    assert not (tmp_path / "trace").exists()


def test_the_environment_cannot_allow_execution(
    trained: tuple[bytes, StateReader], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(Unusable):
        trained[1].read(packed({"model": Bomb(str(tmp_path / "trace"))}))
    assert not (tmp_path / "trace").exists()


def rezipped(content: bytes, *, compression: int = zipfile.ZIP_STORED, repeat: int = 1) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member) * repeat)
    return buffer.getvalue()


def test_compressed_members_are_refused_before_they_are_opened(trained: tuple[bytes, StateReader]) -> None:
    _, reader = trained
    bomb = rezipped(packed({"model": torch.zeros(10**7)}), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**5
    with pytest.raises(Unusable, match="contains compressed parts"):
        reader.read(bomb)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"PK\x05\x06" + bytes(18), b"[]"])
def test_content_that_torch_did_not_write_is_refused(trained: tuple[bytes, StateReader], content: bytes) -> None:
    with pytest.raises(Unusable, match="cannot be read"):
        trained[1].read(content)
