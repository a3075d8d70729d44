"""Failing writes: the old file stays, no temporary file is left, and the error says what to do."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import DiskError
from ralr_tune.machine.files import opened, replacing, write
from ralr_tune.training.start import start

Make = Callable[..., Any]


def test_a_partial_file_never_replaces_a_complete_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("whole")
    with pytest.raises(ZeroDivisionError), replacing(file) as temporary:
        1 / (temporary.write_text("ha") - 2)
    assert file.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [file]


def test_parts_are_written_in_order_and_folders_created(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "file", b"one ", b"two")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"one two"


# ---------------------------------------------------------------- failing writes


@contextmanager
def full_disk(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real ENOSPC: the temporary file of `file` is /dev/full."""
    file.parent.mkdir(exist_ok=True)
    file.with_name(f".{file.name}.{os.getpid()}").symlink_to("/dev/full")
    yield


@contextmanager
def small_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real EFBIG: no file may be larger than 50 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def file_for_a_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real ENOTDIR or EEXIST: the folder is replaced by a file."""
    moved = file.parent.with_name("moved")
    if file.parent.exists():
        file.parent.rename(moved)
    file.parent.write_text("")
    yield
    file.parent.unlink()
    if moved.exists():
        moved.rename(file.parent)


def refusing(code: int) -> Callable[[Path, pytest.MonkeyPatch], Any]:
    @contextmanager
    def refuse(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Tests may run as root, for whom permissions do not apply: the system's error is simulated."""

        def refused(self: Path, *arguments: Any, **options: Any) -> Any:
            raise OSError(code, os.strerror(code), str(self))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", refused)
            yield

    return refuse


DISKS: dict[str, tuple[Any, str]] = {
    "full": (full_disk, "No space left on device; free disk space there"),
    "small files": (small_files, "File too large; raise the limit on the size of a file"),
    "no folder": (file_for_a_folder, "give another folder with --out"),
    "read-only": (refusing(errno.EROFS), "Read-only file system; make the folder writable, or give another with --out"),
    "forbidden": (refusing(errno.EACCES), "Permission denied; make the folder writable, or give another with --out"),
    "quota": (refusing(errno.EDQUOT), "Disk quota exceeded; free disk space there"),
    "broken": (refusing(errno.EIO), "Input/output error; give another folder with --out"),
}


@pytest.mark.parametrize("disk", DISKS)
def test_a_checkpoint_that_cannot_be_written(
    make_images: Make, configure: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    """The previous one stays complete; once writing works again, the trial continues from it."""
    refusal, message = DISKS[disk]
    file = tmp_path / "checkpoints" / "trial.ckpt"
    trial = start(make_images(), configure(), seed=0, checkpoint=file)
    epochs = trial.epochs()
    next(epochs)
    before = file.read_bytes()
    with refusal(file, monkeypatch), pytest.raises(DiskError) as caught:
        next(epochs)
    assert str(caught.value).startswith(f"{file}: cannot be written: ")
    assert message in str(caught.value)
    assert "run again: nothing is lost" in str(caught.value)
    assert len(trial.curve) == 1  # an epoch that is not on disk is not in the curve
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["trial.ckpt"]
    assert len(start(make_images(), configure(), seed=0, checkpoint=file).curve) == 1


@pytest.mark.parametrize("disk", DISKS)
def test_weights_that_cannot_be_written(
    make_images: Make, configure: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    refusal, message = DISKS[disk]
    trial = start(make_images(), configure(), seed=0)
    file = tmp_path / "weights" / "model.safetensors"
    with refusal(file, monkeypatch), pytest.raises(DiskError, match="cannot be written") as caught:
        trial.save_weights(file)
    assert message in str(caught.value)
    assert not file.exists()


def test_a_deleted_folder_is_created_again(make_images: Make, configure: Make, tmp_path: Path) -> None:
    file = tmp_path / "checkpoints" / "trial.ckpt"
    trial = start(make_images(), configure(), seed=0, checkpoint=file)
    epochs = trial.epochs()
    next(epochs)
    file.unlink()
    file.parent.rmdir()
    next(epochs)
    assert len(start(make_images(), configure(), seed=0, checkpoint=file).curve) == 2
    trial.save_weights(tmp_path / "elsewhere" / "model.safetensors")


# ---------------------------------------------------------------- reading


def test_only_regular_files_within_the_limit_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    with opened(tmp_path / "file", 5) as file:
        assert file.read() == b"12345"
    for name, limit, message in [
        ("file", 4, "5 bytes; allowed: at most 4"),
        ("pipe", 9, "not a file"),
        (".", 9, "not a file"),
        ("missing", 9, "No such file"),
    ]:
        with pytest.raises(OSError, match=message), opened(tmp_path / name, limit):
            pass
    with pytest.raises(OSError, match="not a file"), opened(Path("/dev/zero"), 9):
        pass
