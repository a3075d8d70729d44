"""Checkpoint files that are damaged, foreign, invalid or no regular files: ignored, with a warning."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ralr_tune.records import EpochRecord
from ralr_tune.training.checkpoint import MAGIC, Checkpoints, Unusable, curve_to_dicts, read_curve
from ralr_tune.training.start import start
from tests.training.trials import run, timeless

Make = Callable[..., Any]


class Text:
    """Accepts any text of at most 1,000 bytes that does not begin with "odd"."""

    limit = 1000

    def read(self, content: bytes) -> str:
        if content.startswith(b"odd"):
            raise Unusable("odd")
        return content.decode()


# ---------------------------------------------------------------- files of attempts


def test_what_is_saved_is_found(tmp_path: Path) -> None:
    saved = Checkpoints("me", tmp_path / "a" / "b.ckpt")
    assert saved.first(Text()) is None
    assert saved.last(Text()) is None
    saved.save(b"one")
    saved.save(b"two")
    assert saved.last(Text()) == "two"
    assert Checkpoints("me", tmp_path / "a" / "b.ckpt").first(Text()) == "two"


def test_without_a_file_the_state_is_kept_in_memory(tmp_path: Path) -> None:
    saved = Checkpoints("me", None)
    assert saved.first(Text()) is None
    saved.save(b"one")
    assert saved.last(Text()) == "one"


def test_a_missing_file_is_not_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Checkpoints("me", tmp_path / "none", [tmp_path / "nor this"]).first(Text()) is None
    assert not caplog.text


def test_the_first_usable_file_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / name for name in ("own", "missing", "foreign", "damaged", "odd", "good", "older")]
    own, _, foreign, damaged, odd, good, older = files
    for path, owner, content in [
        (foreign, "you", b"x"),
        (odd, "me", b"odd"),
        (good, "me", b"good"),
        (older, "me", b"o"),
    ]:
        Checkpoints(owner, path).save(content)
    damaged.write_bytes(good.read_bytes()[:-1])
    checkpoints = Checkpoints("me", own, files[1:])
    assert checkpoints.first(Text()) == "good"
    assert checkpoints.last(Text()) == "good"
    warnings = [record.getMessage() for record in caplog.records]
    assert [warning.split(f"{tmp_path}/")[1] for warning in warnings] == [
        "foreign ignored: belongs to another trial",
        "damaged ignored: damaged: the content does not match its digest",
        "odd ignored: odd",
    ]
    checkpoints.save(b"mine")
    assert Checkpoints("me", own, files[1:]).first(Text()) == "mine"
    assert Checkpoints("me", good).first(Text()) == "good"  # files of earlier attempts are not changed


def test_a_header_with_another_trials_content_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A torn write may end anywhere, also between the two digests."""
    Checkpoints("me", tmp_path / "mine").save(b"mine")
    Checkpoints("you", tmp_path / "yours").save(b"yours")
    place = len(MAGIC) + 32
    torn = (tmp_path / "mine").read_bytes()[:place] + (tmp_path / "yours").read_bytes()[place:]
    (tmp_path / "mine").write_bytes(torn)
    assert Checkpoints("me", tmp_path / "mine").first(Text()) is None
    assert "damaged" in caplog.text


def test_without_a_usable_file_training_starts_with_the_first_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Checkpoints("you", tmp_path / "foreign").save(b"x")
    assert Checkpoints("me", None, [tmp_path / "foreign"]).first(Text()) is None
    assert caplog.records[-1].getMessage() == "no usable checkpoint: starting with the first epoch"


# ---------------------------------------------------------------- damaged


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.trace}'",))


def test_the_bomb_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


def damage(file: Path, kind: str) -> None:
    good, trace = file.read_bytes(), file.with_name("trace")
    file.unlink()
    contents = {
        "empty": b"",
        "garbage": b"garbage " * 1000,
        "zeroed": bytes(len(good)),
        "truncated": good[: len(good) // 2],
        "almost whole": good[:-1],
        "longer": good + b"\0",
        "one bit": good[:-5000] + bytes([good[-5000] ^ 1]) + good[-4999:],
        "second half zeroed": good[: len(good) // 2] + bytes(len(good) - len(good) // 2),
        "pickled bomb": pickle.dumps(Bomb(trace)),
        "json": b'{"identity": "me"}',
        "header alone": good[: len(MAGIC) + 64],
        "of the first release": good[len(MAGIC) + 64 :],
    }
    if kind in contents:
        file.write_bytes(contents[kind])
    elif kind == "torch bomb":
        torch.save({"format": 1, "bomb": Bomb(trace)}, file)
    elif kind == "huge":
        with file.open("wb") as huge:
            huge.truncate(2**40)  # sparse: it uses no disk space
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "endless":
        file.symlink_to("/dev/zero")
    else:
        file.symlink_to(file)  # a link to itself


DAMAGES = [
    "empty", "garbage", "zeroed", "truncated", "almost whole", "longer", "one bit", "second half zeroed", "json",
    "pickled bomb", "torch bomb", "header alone", "of the first release", "huge", "folder", "pipe", "endless", "link",
]  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoints_are_ignored(
    make_images: Make,
    configure: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    kind: str,
) -> None:
    file = tmp_path / "trial.ckpt"
    next(start(make_images(), configure(), seed=0, checkpoint=file).epochs())
    shutil.copy(file, tmp_path / "good")
    damage(file, kind)
    trial = start(make_images(), configure(), seed=0, checkpoint=file)
    assert trial.curve == []
    assert f"checkpoint {file} ignored" in caplog.text
    assert "starting with the first epoch" in caplog.text
    assert not (tmp_path / "trace").exists()
    assert not recwarn.list
    taken_up = start(make_images(), configure(), seed=0, checkpoint=file, earlier=[tmp_path / "good"])
    assert len(taken_up.curve) == 1
    if kind != "folder":  # a folder cannot be replaced: DiskError
        next(trial.epochs())
        assert len(start(make_images(), configure(), seed=0, checkpoint=file).curve) == 1


def test_a_huge_file_is_not_read_and_the_limit_is_logged(
    make_images: Make, configure: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "trial.ckpt").open("wb") as huge:
        huge.truncate(2**40)
    start(make_images(), configure(), seed=0, checkpoint=tmp_path / "trial.ckpt")
    assert "1,099,511,627,776 bytes; allowed: at most 1," in caplog.text


def test_an_unreadable_file_is_ignored(
    make_images: Make,
    configure: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tests may run as root, for whom permissions do not apply: the system's error is simulated."""
    next(start(make_images(), configure(), seed=0, checkpoint=tmp_path / "trial.ckpt").epochs())

    def refused(self: Path, *arguments: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refused)
    assert start(make_images(), configure(), seed=0, checkpoint=tmp_path / "trial.ckpt").curve == []
    assert "ignored: cannot be read: Permission denied" in caplog.text


@pytest.mark.parametrize("change", ["seed", "configuration", "split", "task"])
def test_foreign_checkpoints_are_ignored(
    make_images: Make, configure: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    file = tmp_path / "trial.ckpt"
    task = make_images()
    next(start(task, configure(), seed=0, checkpoint=file).epochs())
    if change == "task":
        task.identity = "another"
    trial = start(
        task,
        configure(lr=0.2 if change == "configuration" else 0.1),
        seed=1 if change == "seed" else 0,
        split="train+validation" if change == "split" else "train",
        checkpoint=file,
    )
    assert trial.curve == []
    assert "belongs to another trial" in caplog.text


# ---------------------------------------------------------------- the curve


def curve(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    good = {"value": 0.5, "train_loss": 1.0, "lr": 0.1, "factor": 1.0, "seconds": 2.0}
    return [{"epoch": number, **good, **change} for number, change in enumerate(changes, 1)]


def test_a_curve_is_read_unchanged(make_images: Make, configure: Make) -> None:
    trained = run(start(make_images(), configure(), seed=0)).curve
    assert read_curve(curve_to_dicts(trained), 4) == trained
    assert read_curve([], 4) == []
    assert timeless(trained) != trained


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, "its curve is not a list of at most 3 epochs"),
        ({"epoch": 1}, "its curve is not a list"),
        (curve({}, {}, {}, {}), "its curve is not a list of at most 3 epochs"),
        ([3], "its curve: "),
        ([{"epoch": 1}], "missing 5 required positional arguments"),
        (curve({"more": 1.0}), "unexpected keyword argument 'more'"),
        (curve({}, {"epoch": 3}), "epoch 3 instead of epoch 2"),
        (curve({"epoch": 0}), "epoch 0 instead of epoch 1"),
        (curve({"epoch": True}), "epoch True instead of epoch 1"),
        (curve({"epoch": 1.0}), r"epoch 1\.0 instead of epoch 1"),
        (curve({}, {"value": float("nan")}), "not all numbers of epoch 2 are finite"),
        (curve({"lr": float("inf")}), "not all numbers of epoch 1 are finite"),
        (curve({"lr": "0.1"}), "not all numbers of epoch 1 are finite"),
        (curve({"seconds": 10**400}), "not all numbers of epoch 1 are finite"),
        (curve({"train_loss": None}), "not all numbers of epoch 1 are finite"),
    ],
)
def test_invalid_curves_are_refused(stored: Any, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        read_curve(stored, 3)


def test_records_are_records() -> None:
    assert isinstance(read_curve(curve({}), 3)[0], EpochRecord)
