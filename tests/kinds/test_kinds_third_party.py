"""A kind of task from another project: the complete example of docs/kinds.md, by its import path and installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ralr_tune import load_study_file, run
from ralr_tune.studyfile import registry

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/kinds.md").read_text()
(CODE,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
STUDY, ENTRY_POINTS = re.findall(r"```toml\n(.*?)```", DOCUMENT, flags=re.DOTALL)

METADATA = "Metadata-Version: 2.1\nName: ralr-tune-sine\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of sine.py and sine.toml, which is on sys.path."""
    (tmp_path / "sine.py").write_text(CODE)
    (tmp_path / "sine.toml").write_text(STUDY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("sine", None)
    registry.find.cache_clear()


def test_the_example_is_short() -> None:
    assert sum(bool(line.strip()) for line in CODE.splitlines()) <= 60


def test_the_example_runs_from_its_import_path_and_again_changes_nothing(example: Path) -> None:
    spec = load_study_file("sine.toml")
    assert (spec.metric.name, spec.metric.direction) == ("mse", "minimize")
    report = run(spec, workers=1, launcher="inprocess", out=example / "out")
    facts = report.as_json()
    for arm in facts["arms"].values():
        assert 0 < arm["confirm"]["mean"] < 1
        assert arm["best"]["params"]["task.width"] in (8, 16)
    exported = (example / "out/best/ralr.toml").read_text()
    assert re.search(r"^width = (8|16)$", exported, flags=re.MULTILINE)
    again = run(spec, workers=1, launcher="inprocess", out=example / "out").as_json()
    assert again["arms"] == facts["arms"]


def wheel(folder: Path) -> Path:
    """The example as a distribution that registers its kind; a wheel is a zip file with four text files."""
    declared = ENTRY_POINTS.replace('[project.entry-points."ralr_tune.kinds"]', "[ralr_tune.kinds]").replace('"', "")
    texts = {"METADATA": METADATA, "WHEEL": WHEEL, "entry_points.txt": declared, "RECORD": ""}
    path = folder / "ralr_tune_sine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sine.py", CODE)
        for name, text in texts.items():
            archive.writestr(f"ralr_tune_sine-1.0.dist-info/{name}", text)
    return path


def test_an_installed_distribution_registers_its_kind(tmp_path: Path) -> None:
    """In a separate environment that finds ralr_tune and its dependencies in this one."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = next((environment / "lib").glob("python*/site-packages"))
    here = sysconfig.get_path("purelib")
    (site / "here.pth").write_text(f"{ROOT}\nimport site; site.addsitedir({here!r})\n")
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", "-q"]
    subprocess.run([*pip, wheel(tmp_path)], check=True)
    text = STUDY.replace('kind = "sine:SineKind"', 'kind = "sine"')
    (tmp_path / "study.toml").write_text(text)
    clean = {name: value for name, value in os.environ.items() if name not in {"RALR_TUNE_STORAGE", "PYTHONPATH"}}

    def ralr_tune(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-m", "ralr_tune", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=clean | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )

    checked = ralr_tune("check", "study.toml", "--no-imports")
    assert checked.returncode == 0, checked.stderr  # an installed kind is trusted
    done = ralr_tune("run", "study.toml", "--workers", "1", "--devices", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metric"] == "mse"
