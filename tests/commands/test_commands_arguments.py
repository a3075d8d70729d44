from __future__ import annotations

import pytest

from ralr_tune.commands.arguments import conceal, given_words

URL, MASKED = "postgresql://me:s3cr3t@h/d", "postgresql://me:***@h/d"


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles set for the process list."""
    titles: list[str] = []
    monkeypatch.setattr("setproctitle.setproctitle", titles.append)
    return titles


@pytest.mark.parametrize(
    ("arguments", "shown", "warned"),
    [
        (["run", "x", "--storage", URL], f"run x --storage {MASKED}", ["--storage"]),
        (["run", "x", f"--storage={URL}"], f"run x --storage={MASKED}", ["--storage"]),
        (["run", URL], f"run {MASKED}", []),
        (["dashboard", "x", "--token", "s3cr3t"], "dashboard x --token ***", ["--token"]),
        (["--token=s3cr3t", "--storage", URL], f"--token=*** --storage {MASKED}", ["--storage", "--token"]),
    ],
)
def test_secrets_are_masked_in_the_process_list(
    titles: list[str], arguments: list[str], shown: str, warned: list[str]
) -> None:
    warnings = list(conceal(arguments))
    assert titles == [shown]
    assert [warning.split()[1] for warning in warnings] == warned
    assert "s3cr3t" not in "".join(warnings)


@pytest.mark.parametrize("arguments", [[], ["run", "digits"], ["run", "x", "--storage", "postgresql://me@h/d"]])
def test_without_a_secret_nothing_changes(titles: list[str], arguments: list[str]) -> None:
    assert list(conceal(arguments)) == []
    assert titles == []


def test_options_as_words() -> None:
    options = {
        "--trials": 8,
        "--hours": None,
        "--force": False,
        "--no-confirm": True,
        "--launcher-option": ["a=1", "b"],
    }
    words = ["--trials", "8", "--no-confirm", "--launcher-option", "a=1", "--launcher-option", "b"]
    assert list(given_words(options)) == words
