"""`--artifacts` as a text: what it means, and what is refused in one line without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.objects.url import StoreUrl, parse_store
from ralr_tune.secrecy import hidden


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", StoreUrl("s3", "bucket")),
        ("s3://bucket/team/tuning/", StoreUrl("s3", "bucket/team/tuning")),
        ("S3A://bucket/team", StoreUrl("s3", "bucket/team")),
        ("gs://my_bucket.example/p", StoreUrl("gs", "my_bucket.example/p")),
        ("gcs://bucket/p", StoreUrl("gs", "bucket/p")),
        ("/shared/artifacts/", StoreUrl("file", "/shared/artifacts")),
        ("file:///shared/arti facts", StoreUrl("file", "/shared/arti facts")),
        ("file://localhost/shared", StoreUrl("file", "/shared")),
    ],
)
def test_what_a_store_means(text: str, expected: StoreUrl) -> None:
    found = parse_store(text, remote=True)
    assert found == expected
    assert parse_store(str(found), remote=True) == found  # as it is recorded and shown


def test_a_relative_path_is_one_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_store("artifacts") == StoreUrl("file", f"{tmp_path}/artifacts")
    with pytest.raises(UsageError, match=r"--artifacts artifacts: workers on other machines need the full path"):
        parse_store("artifacts", remote=True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "not a text of 1 to 700 printable characters"),
        ("a\nb", "not a text of 1 to 700 printable characters"),
        ("s3://bucket/" + "x" * 700, "not a text of 1 to 700 printable characters"),
        ("ftp://host/p", "protocol 'ftp' is not supported; allowed: s3://BUCKET/PREFIX, gs://"),
        ("s4://bucket", "did you mean s3://?"),
        ("s3:/bucket", "s3: without //"),
        ("s3://", "'' is not the name of a bucket"),
        ("s3://x/p", "'x' is not the name of a bucket"),
        ("s3://bucket/a//b", "the prefix has an empty part"),
        ("s3://bucket/../b", "the prefix has an empty part, '.' or '..'"),
        ("file://host/p", "a host is not supported; write file:///FOLDER"),
        ("~nobody-of-this-name/x", "has no home folder"),
    ],
)
def test_what_is_refused(text: str, line: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_store(text)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAKEY:wJal/rXUt+nFEMI@bucket/p",
        "s3://AKIAKEY:wJal/rXUt+nFEMI",
        "s3://AKIAKEY@bucket/wJal/rXUt+nFEMI",
        "s3://bucket/p?secret=wJal/rXUt+nFEMI",
        "gs://u:wJal/rXUt+nFEMI@bucket",
    ],
)
def test_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match=r"holds credentials or options; write (s3|gs)://BUCKET/PREFIX and give") as e:
        parse_store(text)
    assert "wJal" not in str(e.value)
    assert "AKIAKEY" not in str(e.value)


def test_a_refused_password_is_masked_in_later_texts() -> None:
    with pytest.raises(UsageError):
        parse_store("s3://key:a-password-of-this-test@bucket")
    assert hidden("log: a-password-of-this-test") == "log: ***"
