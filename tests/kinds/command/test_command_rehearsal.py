"""What a rehearsal measures of a program; tests/kinds/function has the items one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.commands.rehearse import RehearsalFailed, rehearse
from tests.kinds.command.conftest import PROGRAM, Write


def test_a_good_program(study: Write, folder: Path) -> None:
    study()
    lines = list(rehearse("own.toml"))
    assert [line.split()[0] for line in lines[1:-1]] == ["ok"] * 8
    assert any(line.endswith("resume: exact: 1 epoch, a kill and 1 epoch equal 2 epochs") for line in lines)
    assert (folder / "runs/own/rehearsal.json").exists()


def test_a_program_that_does_not_multiply_its_rate_and_leaves_too_early(study: Write, folder: Path) -> None:
    study(task={"grace": 0.5})
    (folder / "program.py").write_text(PROGRAM.replace("(trial.factor(epoch) != 1)", "0"))
    with pytest.raises(RehearsalFailed, match=r"own\.toml: the rehearsal found 1 to fix: amplification"):
        list(rehearse("own.toml"))
    (folder / "program.py").write_text(PROGRAM.replace("if trial.stage ==", "if False and trial.stage =="))
    with pytest.raises(RehearsalFailed, match="the rehearsal found 1 to fix: trains"):
        list(rehearse("own.toml"))
