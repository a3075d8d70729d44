"""The gallery's reports, made at every build from the stored results of real runs (results/STUDY.db.xz)."""

from __future__ import annotations

import lzma
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
MARK = re.compile(r"<!-- report of (\w+) -->")


class Made(NamedTuple):
    """A report as the command wrote and printed it."""

    page: str
    answer: str


@cache
def reports() -> Mapping[str, Made]:
    """By the name of the study."""
    return {path.name.removesuffix(".db.xz"): made(path) for path in sorted(RESULTS.glob("*.db.xz"))}


def made(results: Path) -> Made:
    """In a folder of its own and with the defaults, so that the commands in the report are those of a reader."""
    study = results.name.removesuffix(".db.xz")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "runs", study)
        out.mkdir(parents=True)
        (out / "study.db").write_bytes(lzma.decompress(results.read_bytes()))
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        environment = os.environ | {"PYTHONPATH": path, "PATH": programs}
        environment.pop("RALR_TUNE_STORAGE", None)
        command = [sys.executable, "-m", "ralr_tune", "report", study]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{results.name}: the report cannot be made: {done.stderr.strip()}")
        page = (out / "report.html").read_text()
        for machines in (folder, str(ROOT)):  # the report names its database, and the study file that a step changes
            page = page.replace(f"{Path(machines).resolve()}/", "")
        return Made(
            page,
            done.stdout.partition("\n\n")[0],
        )


def with_reports(markdown: str) -> str:
    """The text of a page, with the printed answer, a link and the report itself for each `<!-- report of STUDY -->`."""
    return MARK.sub(lambda match: shown(match[1]), markdown)


def shown(study: str) -> str:
    answer = "\n".join(f"> {line}" for line in reports()[study].answer.splitlines())
    page = f"gallery/{study}.html"
    frame = f'<iframe src="{page}" title="Report of the study {study}" loading="lazy"></iframe>'
    return f"{answer}\n\n[Open the report]({page})\n\n{frame}"
