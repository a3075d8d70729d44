"""A password in the study file is only used to connect: the text is stored and shown in reports, without it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ralr_tune.errors import StudyFileError
from ralr_tune.studyfile import load_study_file, parse_study
from tests.studies import simulated, simulated_text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p%40%22x@h/d", "postgresql://me:***@h/d"),
        ("mysql://me:a b'{0}@h/d", "mysql://me:***@h/d"),
        ("postgresql://me@h/d?password=quiet", "postgresql://me@h/d?password=***"),
        ("postgresql://me@h/d", "postgresql://me@h/d"),
    ],
)
def test_the_text_is_kept_without_the_password(tmp_path: Path, url: str, shown: str) -> None:
    text = simulated_text(storage={"url": url})
    (tmp_path / "x.toml").write_text(text)
    for spec in (parse_study(text), load_study_file(tmp_path / "x.toml")):
        assert spec.storage.url == url
        assert tomllib.loads(spec.text)["storage"]["url"] == shown
        assert parse_study(spec.text).fingerprint == spec.fingerprint == simulated().fingerprint
        assert (url in repr(spec)) == (url == shown)


def test_a_password_that_cannot_be_found_in_the_text_is_refused() -> None:
    text = simulated_text(storage={"url": "postgresql://me:hush@h/d"}).replace("hush", r"h\u0075sh")
    with pytest.raises(StudyFileError, match=r"storage\.url: contains a password") as raised:
        parse_study(text)
    assert "hush" not in str(raised.value)
