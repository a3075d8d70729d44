"""`report`: a study's results as one HTML page, as JSON, and as configuration files to train again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ralr_tune.analysis.answer import answer, block_sentences, twin_sentences
from ralr_tune.analysis.cost import Cost, cost
from ralr_tune.analysis.evaluators import study_importances
from ralr_tune.analysis.facts import Facts, as_json, study_facts
from ralr_tune.analysis.notes import urgent_sentences
from ralr_tune.commands.export import export_best
from ralr_tune.commands.locate import again
from ralr_tune.errors import StorageError
from ralr_tune.invocation import command, relative_to_cwd
from ralr_tune.machine.files import writing
from ralr_tune.report.figures import figures
from ralr_tune.report.images import Format, write_images
from ralr_tune.report.page import write_report
from ralr_tune.report.panels import write_panels
from ralr_tune.search.interim import plan_of
from ralr_tune.secrecy import MASK
from ralr_tune.store import studies
from ralr_tune.store.address import PASSWORD_VARIABLE, Address
from ralr_tune.store.database import Storage
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.tasks.inventory import last_used

log = logging.getLogger(__name__)

MAX_WARNINGS = 3  # on a terminal; the page shows all


@dataclass(frozen=True)
class Report:
    """The results of a report, and the files that it wrote."""

    study: str
    facts: Facts
    page: Path
    best: Sequence[Path]
    cost: Cost
    images: Sequence[Path] = ()
    address: Address | None = None
    """Of the database that it was made from."""

    @property
    def answer(self) -> str:
        return answer(self.facts)

    @property
    def notes(self) -> list[str]:
        """Sentences after the answer: the effect of amplification alone, what to fix, what more blocks would cost."""
        twins, urgent = twin_sentences(self.facts), urgent_sentences(self.facts)
        rest = len(urgent) - MAX_WARNINGS
        more = [f"{rest} more like {'this' if rest == 1 else 'these'} in the report."] if rest > 0 else []
        return [*twins, *urgent[:MAX_WARNINGS], *more, *block_sentences(self.facts)]

    def as_json(self) -> dict[str, Any]:
        """The contract of `report --json`."""
        return as_json(self.facts)

    def next_steps(self) -> Iterator[str]:
        """What to open or type next, one line each."""
        yield f"Open {self.page}"
        if self.images:
            yield f"Figures: {len(self.images)} files in {self.images[0].parent}"
        for path in self.best:
            yield f"Train it: {command('train', relative_to_cwd(path))}"
        if self.address is None:
            return
        browse = again("dashboard", self.study, self.address, self.page.parent)
        yield f"Browse it: {browse}"
        if MASK in browse:
            yield f"({MASK} is the password: write it there, or set {PASSWORD_VARIABLE})"


def make_report(storage: Storage, study: str, out: Path, *, images: Sequence[Format] = ()) -> Report:
    """Write OUT/report.html, OUT/best/ARM.toml, the dashboard's panels, and figures as `images` ("png", "svg").

    Raises StorageError if the storage holds no such study, DiskError if a file cannot be written, RalrTuneError if
    `images` needs a browser and there is none.
    """
    record = replace(read_study(storage, study), inventory=last_used(out / "data"))
    spec = parse_study(record.spec_text, source=f"{study} (as stored)")
    facts = study_facts(record, plan=plan_of(spec))
    drawn = figures(record, facts)
    page, folder = out / "report.html", out / "figures"
    with writing(page):
        write_report(record, facts, page, drawn, study_importances(record))
    best = export_best(record, spec, out)
    _write_panels(storage, facts, spec)
    with writing(folder):
        return Report(
            study,
            facts,
            page,
            best,
            cost(record.rows()),
            write_images(drawn, folder, images) if images else (),
            storage.address,
        )


def _write_panels(storage: Storage, facts: Facts, spec: StudySpec) -> None:
    """The dashboard's panels, unless the database refuses them: on a read-only mount, a replica, a reader's account."""
    try:
        pages = {arm: studies.optuna_study(storage, studies.optuna_name(spec.name, arm)) for arm in spec.arms}
        write_panels(facts, pages)
    except StorageError as error:
        log.warning("the dashboard's panels were not written: %s", error)
