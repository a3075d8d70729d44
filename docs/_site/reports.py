"""The gallery's reports, made at every build from the records of real runs (results/STUDY.json.gz)."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ralr_tune.commands.report import make_report_from_file
from ralr_tune.store.location import RECORD_SUFFIX, STORAGE_VARIABLE
from results.planned import ROOT, named

SHOWN = ("digits",)
"""Studies whose reports are part of the gallery's page; they are large, so the others are links."""


class Made(NamedTuple):
    """A report as the command writes and prints it."""

    page: str
    answer: str


@cache
def reports() -> Mapping[str, Made]:
    """By the name of the study."""
    records = sorted((ROOT / "results").glob(f"*{RECORD_SUFFIX}"))
    return {path.name.removesuffix(RECORD_SUFFIX): made(path) for path in records}


def made(record: Path) -> Made:
    """In a folder of its own and with the defaults, so that the commands in the report are those of a reader."""
    os.environ.pop(STORAGE_VARIABLE, None)
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        report = make_report_from_file(record)
        page = report.page.read_text()
        for machines in (folder, str(ROOT)):  # the report names its record, and the study file that a step changes
            page = page.replace(f"{Path(machines).resolve()}/", "")
        return Made(page, report.as_text().partition("\n\n")[0])


def gallery() -> str:
    """The sections of gallery.md, in the order of the studies; records of other studies come last."""
    order = sorted(reports(), key=lambda study: named(study) is None)
    return "\n".join(map(section, order))


def section(study: str) -> str:
    planned, page = named(study), f"gallery/{study}.html"
    about = f"{planned.about[0].upper()}{planned.about[1:]}.\n\n" if planned else ""
    answer = "\n".join(f"> {line}" for line in reports()[study].answer.splitlines())
    frame = f'\n<iframe src="{page}" title="Report of the study {study}" loading="lazy"></iframe>\n'
    return f"## {study}\n\n{about}{answer}\n\n[Open the report]({page})\n{frame if study in SHOWN else ''}"
