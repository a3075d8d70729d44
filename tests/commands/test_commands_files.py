from __future__ import annotations

import os
from pathlib import Path

import pytest

from ralr_tune.commands.files import write_bytes, write_text
from ralr_tune.errors import UsageError


def test_a_file_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "best" / "new" / "x.toml", "ü\n")
    assert (tmp_path / "best" / "new" / "x.toml").read_bytes() == b"\xc3\xbc\n"
    write_bytes(tmp_path / "best" / "new" / "x.toml", b"again")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "best" / "new").iterdir()] == [("x.toml", b"again")]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text("old")
    (tmp_path / "link.toml").symlink_to("real.toml")
    write_text(tmp_path / "link.toml", "new")
    assert (tmp_path / "link.toml").is_symlink()
    assert (tmp_path / "real.toml").read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("place", ["file/x.toml", "folder"])
def test_a_file_that_cannot_be_written_gives_the_reason(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=f"{place}: cannot be written: "):
        write_text(tmp_path / place, "x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"
