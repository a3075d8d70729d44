"""Weights files: other programs can read them, and damaged ones are detected."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn

from ralr_tune.errors import DataError
from ralr_tune.training.start import start
from ralr_tune.training.weights import load_weights, save_weights
from tests.training.trials import run, same, weights

Make = Callable[..., Any]


def test_weights_are_saved_and_loaded(make_images: Make, configure: Make, tmp_path: Path) -> None:
    trained = run(start(make_images(), configure(epochs=2, channels_last=True), seed=0))
    trained.save_weights(tmp_path / "out" / "model.safetensors")
    fresh = start(make_images(), configure(epochs=2), seed=9)
    assert fresh.evaluate("test") != trained.evaluate("test")
    fresh.load_weights(tmp_path / "out" / "model.safetensors")
    assert fresh.evaluate("test") == trained.evaluate("test")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_safetensors_itself_reads_them(make_images: Make, configure: Make, tmp_path: Path) -> None:
    trained = run(start(make_images(), configure(epochs=1, channels_last=True), seed=0))
    trained.save_weights(tmp_path / "model.safetensors")
    other = make_images().build_model(5)
    assert not any(load_model(other, tmp_path / "model.safetensors"))  # missing and unexpected names
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in weights(trained).items())


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.other = nn.Linear(3, 3)
        self.other.weight = self.one.weight


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    model, fresh = Tied(), Tied()
    save_weights(model, tmp_path / "weights")
    assert len(load_file(tmp_path / "weights")) == 3
    load_weights(fresh, tmp_path / "weights")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    assert not any(load_model(fresh, tmp_path / "weights"))


def damaged(file: Path, kind: str) -> None:
    """Writes a file that is not a weights file of the small network."""
    good = file.read_bytes()
    header = int.from_bytes(good[:8], "little")
    file.unlink()
    contents: dict[str, bytes] = {
        "empty": b"",
        "garbage": b"garbage",
        "zeroed": bytes(len(good)),
        "truncated": good[:-1],
        "half zeroed": good[: len(good) // 2] + bytes(len(good) - len(good) // 2),
        "one bit": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
        "endless header": (2**62).to_bytes(8, "little") + good[8:],
        "no text": good[:8] + b"\xff" * header + good[8 + header :],
        "renamed": good.replace(b"head.1.bias", b"head.2.bias"),
    }
    if kind in contents:
        file.write_bytes(contents[kind])
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "huge":
        with file.open("wb") as huge:
            huge.truncate(2**40)


KINDS = ["empty", "garbage", "zeroed", "truncated", "half zeroed", "one bit", "endless header", "no text", "renamed"]


@pytest.mark.parametrize("kind", [*KINDS, "folder", "pipe", "huge", "missing"])
def test_damaged_weights_are_refused_and_change_nothing(
    make_images: Make, configure: Make, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "model.safetensors"
    start(make_images(), configure(), seed=1).save_weights(file)
    damaged(file, kind)
    trial = start(make_images(), configure(), seed=0)
    before = weights(trial)
    with pytest.raises(DataError, match=r"model\.safetensors: not the weights of this network"):
        trial.load_weights(file)
    assert same(weights(trial), before)


def other_network(make_images: Make, configure: Make, file: Path) -> None:
    start(make_images(width=8), configure(), seed=0).save_weights(file)


def other_kind(make_images: Make, configure: Make, file: Path) -> None:
    start(make_images(model="resnet20"), configure(), seed=0).save_weights(file)


def without_digest(make_images: Make, configure: Make, file: Path) -> None:
    save_file({name: tensor.clone() for name, tensor in make_images().build_model(1).state_dict().items()}, file)


def half(make_images: Make, configure: Make, file: Path) -> None:
    save_weights(make_images().build_model(1).half(), file)


@pytest.mark.parametrize("foreign", [other_network, other_kind, without_digest, half])
def test_foreign_weights_are_refused_and_change_nothing(
    make_images: Make, configure: Make, tmp_path: Path, foreign: Callable[..., None]
) -> None:
    foreign(make_images, configure, tmp_path / "weights")
    trial = start(make_images(), configure(), seed=0)
    before: dict[str, Tensor] = weights(trial)
    with pytest.raises(DataError, match="weights: not the weights of this network"):
        trial.load_weights(tmp_path / "weights")
    assert same(weights(trial), before)


def test_the_digest_is_in_the_metadata(make_images: Make, configure: Make, tmp_path: Path) -> None:
    start(make_images(), configure(), seed=0).save_weights(tmp_path / "weights")
    content = (tmp_path / "weights").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"].keys() == {"ralr_tune.sha256"}


def test_equal_weights_are_equal_files(make_images: Make, configure: Make, tmp_path: Path) -> None:
    for name in ("one", "other"):
        start(make_images(), configure(), seed=0).save_weights(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
