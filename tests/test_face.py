"""What `import ralr_tune` alone offers: names and rooms that are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ralr_tune

PROBE = """
import sys, ralr_tune
before = {"torch", "plotly", "optuna", "numpy"} & sys.modules.keys()
assert ralr_tune.analysis.compare and ralr_tune.analysis.importance
after = {"torch", "plotly", "sqlalchemy"} & sys.modules.keys()
print(before, after)
"""


def test_analysis_is_an_attribute_and_brings_neither_torch_nor_plotly() -> None:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("set() set()\n", "")


@pytest.mark.parametrize("name", ralr_tune.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ralr_tune, name)
    assert name in dir(ralr_tune)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'ralr_tune' has no attribute 'nonsense'"):
        _ = ralr_tune.nonsense
