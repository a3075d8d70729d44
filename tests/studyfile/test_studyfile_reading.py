"""Reads a file into a study, or reports why that is impossible."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.errors import StudyFileError, UsageError
from ralr_tune.studyfile import load_study_file, parse_study
from ralr_tune.studyfile.reading import MAX_BYTES
from tests.studyfile.design_file import DESIGN


def refusal(path: str | Path) -> str:
    with pytest.raises(StudyFileError) as caught:
        load_study_file(path)
    (problem,) = caught.value.problems
    assert problem.isprintable()
    return problem


def test_a_file_is_its_text(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(DESIGN.encode())
    assert load_study_file(str(file)) == parse_study(DESIGN)
    assert load_study_file(file).text == DESIGN


def test_the_text_alone_builds_the_study_again() -> None:
    spec = DESIGN.study()
    assert parse_study(spec.text).fingerprint == spec.fingerprint


@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_files_of_other_editors(tmp_path: Path, head: bytes, end: str) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(head + DESIGN.replace("\n", end).encode())
    assert load_study_file(file).fingerprint == DESIGN.study().fingerprint


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.toml") == f"{tmp_path}/x.toml: no such file"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read as UTF-8 text: ")


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert "cannot be read" in refusal(tmp_path / "x" / "y.toml")


def test_an_impossible_path() -> None:
    assert "cannot be read" in refusal("a\0b")
    assert "cannot be read" in refusal("a" * 5000)


def test_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(DESIGN.but("# share of train", "# für train").encode("latin-1"))
    assert refusal(file).startswith(f"{file}: cannot be read as UTF-8 text: ")


def test_too_large(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(DESIGN.encode().ljust(MAX_BYTES, b"\n"))
    assert load_study_file(file).name == "digits"
    file.write_bytes(DESIGN.encode().ljust(MAX_BYTES + 1, b"\n"))
    assert refusal(file) == f"{file}: too large: at most {MAX_BYTES} bytes"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file here")
def test_endless() -> None:
    assert "too large" in refusal("/dev/zero")


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("[task]", "[task", "(at line 7, column 6)"),
        ("seed = 0", "seed = ", "(at line 5, column 8)"),
        ("seed = 0", "seed = 0\nseed = 1", "(at line 6, column 9)"),
        ("[task]", "[study]", "(at line 7, column 7)"),
        ('model = "small_cnn"', "model = small_cnn", "(at line 10, column 9)"),
    ],
)
def test_syntax_errors_name_the_line(tmp_path: Path, old: str, new: str, where: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(DESIGN.but(old, new))
    problem = refusal(file)
    assert problem.startswith(f"{file}: not valid TOML: ")
    assert problem.endswith(where)


def test_every_line_names_the_file() -> None:
    with pytest.raises(StudyFileError) as caught:
        parse_study("a = 1\nb = 2", source="some where.toml")
    assert len(caught.value.problems) > 2
    assert all(line.startswith("some where.toml: ") for line in caught.value.problems)
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_the_error_is_wrong_usage() -> None:
    assert issubclass(StudyFileError, UsageError)
    assert StudyFileError.exit_code == 2


def test_parsing_a_text_reads_no_file() -> None:
    text = DESIGN.but('data = { source = "digits" }', 'data = { source = "arrays", path = "nowhere.npz" }')
    assert parse_study(text).task.data.path == "nowhere.npz"  # type: ignore[attr-defined]
