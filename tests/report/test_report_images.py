from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.errors import RalrTuneError
from ralr_tune.report.figures import panel_figures
from ralr_tune.report.images import write_images


def test_png_and_svg_of_each_figure(browser_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", browser_path)
    drawn = panel_figures(study_facts(make_record()))[:1]
    written = write_images(drawn, tmp_path / "figures")
    assert [path.name for path in written] == ["importance.png", "importance.svg"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in written)
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert "Which parameters matter, compared with chance?" in written[1].read_text(encoding="utf-8")


def test_without_a_browser_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(RalrTuneError, match=r"nowhere.*not a file; install one \(apt install chromium\)"):
        write_images(panel_figures(study_facts(make_record())), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_browser_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "browser"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(broken))
    with pytest.raises(RalrTuneError, match="the browser failed") as raised:
        write_images(panel_figures(study_facts(make_record())), tmp_path / "figures")
    assert "\n" not in str(raised.value)
