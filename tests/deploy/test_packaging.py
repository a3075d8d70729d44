"""The package as users install it: wheel, sdist, metadata, and the command from a folder without the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    import ralr_tune

    assert CITATION["version"] == PROJECT["version"] == ralr_tune.__version__
    assert CITATION["license"] == PROJECT["license"]
    (paper,) = CITATION["references"]
    assert any(url.endswith(paper["doi"]) for url in PROJECT["urls"].values())
    assert paper["doi"] in (ROOT / "ralr_tune/schedules/amplification.py").read_text()


def test_the_metadata_is_complete() -> None:
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (ROOT / "ralr_tune/py.typed").exists()
    versions = [name for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert versions[0].endswith(PROJECT["requires-python"].removeprefix(">="))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel that was built from the sdist, and of the sdist."""
    for package in ("build", "hatchling"):
        pytest.importorskip(package, reason=f"{package} is not installed, and tests download nothing")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", made, source]
    subprocess.run(command, check=True, capture_output=True, cwd=made)
    return made


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_should(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"ralr_tune/py.typed", "ralr_tune/studies/digits.toml", "ralr_tune/report/page.css"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"ralr_tune", f"ralr_tune-{PROJECT['version']}.dist-info"}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "studies/digits.toml",
        "tests/conftest.py",
    } <= inside


@pytest.mark.slow
def test_twine_accepts_the_metadata(built: Path) -> None:
    pytest.importorskip("twine", reason="twine is not installed")
    files = sorted(str(path) for path in built.iterdir())
    command = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_installed_wheel_runs_a_study(built: Path, tmp_path: Path) -> None:
    """In a separate environment, which finds the dependencies in this one, and from a folder without the sources."""
    environment, empty = tmp_path / "env", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin/python", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "-q", wheel], check=True)
    (site,) = (environment / "lib").glob("python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    (site / "others.pth").write_text("\n".join(others))
    clean = {name: value for name, value in os.environ.items() if name not in {"RALR_TUNE_STORAGE", "PYTHONPATH"}}

    def inside(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=empty, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = inside(environment / "bin/python", "-c", "import ralr_tune; print(ralr_tune.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    program = environment / "bin/ralr-tune"
    options = ("--trials", "1", "--no-confirm", "--workers", "1", "--devices", "cpu")
    answer = inside(program, "run", "digits", *options)
    assert "ralr" in answer
    assert (empty / "runs/digits/report.html").exists()
