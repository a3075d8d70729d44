"""`report`: a study's results as one HTML page, as JSON, and as configuration files to train again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.card import Card, make_card
from ralr_tune.analysis.card import as_json as card_json
from ralr_tune.analysis.comparison import Comparison
from ralr_tune.analysis.evaluators import study_importances
from ralr_tune.analysis.facts import Facts, as_json, study_facts
from ralr_tune.analysis.next_step import Typed
from ralr_tune.analysis.notes import urgent_sentences
from ralr_tune.analysis.recipe import Recipe, recipe
from ralr_tune.analysis.twins import Amplified, Twin
from ralr_tune.commands.export import export_best
from ralr_tune.commands.locate import again, find_file, is_packaged
from ralr_tune.errors import DataError, StorageError
from ralr_tune.invocation import command, relative_to_cwd
from ralr_tune.machine.files import encoded, write, writing
from ralr_tune.records import StudyRecord
from ralr_tune.report.card import card_text, notebook_html
from ralr_tune.report.data import Data
from ralr_tune.report.examples import ShownExamples
from ralr_tune.report.figures import figures
from ralr_tune.report.images import Format, write_images
from ralr_tune.report.page import write_report
from ralr_tune.report.panels import write_panels
from ralr_tune.report.trials import trials_data
from ralr_tune.search import rehearsal
from ralr_tune.search.budget import budget_sentence
from ralr_tune.search.examples import fetch_examples, load_examples
from ralr_tune.search.interim import plan_of
from ralr_tune.secrecy import MASK
from ralr_tune.store import studies
from ralr_tune.store.address import PASSWORD_VARIABLE, Address, parse_address, sqlite_url
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.location import DATABASE
from ralr_tune.store.reading import read_study, stored_spec
from ralr_tune.store.record_file import Examples, read_record_file
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.imports import imports_of

log = logging.getLogger(__name__)

MAX_WARNINGS = 3  # on a terminal; the page shows all
STUDY_COPY = "study.toml"
"""In OUT: the stored text of the study file, if the file is unknown or belongs to the installed package."""


@dataclass(frozen=True, repr=False)
class Report:
    """The results of a study, and the files that `run` and `report` wrote. In a notebook it shows the verdict card.

    report = ralr_tune.run("digits")
    report.answer                          # the verdict in sentences
    report.best["ralr"].params             # the best recipe of each arm
    report.verdicts                        # every comparison: difference, interval, n, verdict
    report.trials()                        # every finished search trial, as a pandas.DataFrame
    report.figures["importance"].show()    # the figures of report.html, as plotly figures
    """

    study: str
    """The study's name."""
    facts: Facts
    """Everything that the page says or draws, as plain values."""
    card: Card
    """The verdict, the interval that decides it, the recipe, the cost, and the next step."""
    page: Path
    """report.html."""
    best: Mapping[str, Recipe]
    """By arm: its best configuration so far; `command` trains it."""
    files: Mapping[str, Path]
    """By arm: the file best/ARM.toml, which `train` reads."""
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    """The figures of the page by name, as plotly figures: "scores", "importance", ...; those with enough trials."""
    images: Sequence[Path] = ()
    """Figures written as PNG or SVG files."""
    address: Address | None = None
    """Of the database that it was made from; None: of a file."""
    table: Data | None = None
    """Every finished search trial; see `trials`."""

    @property
    def answer(self) -> str:
        """The verdict, and what it does not say, in sentences."""
        return " ".join(self.card.sentences)

    @property
    def verdicts(self) -> tuple[Comparison | Twin | Amplified, ...]:
        """Every comparison: arms and configurations with the baseline, configurations with and without amplification.

        Each has `arm`, `difference`, `interval`, `n` and `verdict` ("better", "worse", "equivalent", "inconclusive").
        """
        return (*self.facts.comparisons, *self.facts.twins, *self.facts.amplified)

    def trials(self) -> Any:
        """Every finished search trial with its numbers and parameters.

        A `pandas.DataFrame` if pandas is installed, otherwise a list of dicts.
        """
        columns, rows = ((), ()) if self.table is None else (self.table.columns, self.table.rows)
        try:
            from pandas import DataFrame
        except ImportError:
            return [dict(zip(columns, row, strict=True)) for row in rows]
        return DataFrame([list(row) for row in rows], columns=list(columns))

    @property
    def notes(self) -> list[str]:
        """The most important warnings: what to fix before relying on the answer."""
        urgent = urgent_sentences(self.facts)
        rest = len(urgent) - MAX_WARNINGS
        more = [f"{rest} more like {'this' if rest == 1 else 'these'} in the report."] if rest > 0 else []
        return [*urgent[:MAX_WARNINGS], *more]

    def as_text(self) -> str:
        """The card and the warnings, for a terminal."""
        return "\n".join([card_text(self.card), *([""] if self.notes else []), *self.notes])

    def as_json(self) -> dict[str, Any]:
        """The contract of `report --json`."""
        return as_json(self.facts) | {"card": card_json(self.card)}

    def next_steps(self) -> Iterator[str]:
        """What else to open or type, one line each."""
        yield f"Open {self.page}"
        if self.images:
            yield f"Figures: {len(self.images)} files in {self.images[0].parent}"
        for arm, found in self.best.items():
            if found.command and (self.card.recipe is None or arm != self.card.recipe.arm):
                yield f"Train {arm}'s recipe: {found.command}"
        if self.address is None:
            return
        browse = again("dashboard", self.study, self.address, self.page.parent)
        yield f"Browse it: {browse}"
        if MASK in browse:
            yield f"({MASK} is the password: write it there, or set {PASSWORD_VARIABLE})"

    def __repr__(self) -> str:
        return f"<Report of {self.study}: {self.card.verdict} {self.page}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return notebook_html(self.card)


def make_report(
    storage: Storage, study: str, out: Path, *, images: Sequence[Format] = (), file: str | None = None
) -> Report:
    """Write OUT/report.html, OUT/best/ARM.toml, the dashboard's panels, and figures as `images` ("png", "svg").

    `file`: the study file as `run` takes it (a path, or a name in studies/), for the next step; None: unknown.

    Raises StorageError if the storage holds no such study, DiskError if a file cannot be written, RalrTuneError if
    `images` needs a browser and there is none.
    """
    record = read_study(storage, study)
    spec = stored_spec(record)
    own = _study_file(record, out, file)
    shown = {**record.environment, **rehearsed(spec, storage.address, out, own.typed)}
    record = replace(record, environment=shown)
    found = stored_examples(storage, record, out)
    made = _make(record, spec, found, storage.address, out, own, images)
    _write_panels(storage, made.facts, made.card, spec)
    return made


def make_report_from_file(path: Path, out: Path | None = None, *, images: Sequence[Format] = ()) -> Report:
    """The same from a file that `export --record` wrote; `out`: None is runs/STUDY. No database is needed or changed.

    Raises UsageError if it is no such file.
    """
    stored = read_record_file(path)
    record = stored.record(str(relative_to_cwd(path)))
    folder = out or Path("runs") / record.name
    address = parse_address(sqlite_url((folder / DATABASE).absolute()))  # where its commands would keep the study
    own = _study_file(record, folder, None)
    return replace(_make(record, stored_spec(record), stored.examples, address, folder, own, images), address=None)


def _make(
    record: StudyRecord,
    spec: StudySpec,
    found: Examples,
    address: Address,
    out: Path,
    own: _StudyFile,
    images: Sequence[Format],
) -> Report:
    """Writes the files and returns the report; `found`: the examples of the networks."""
    facts = study_facts(record, plan=plan_of(spec))
    drawn = figures(record, facts)
    page, folder = out / "report.html", out / "figures"
    files = export_best(record, spec, out)
    typed = _typed(spec, address, out, own, files)
    card = make_card(facts, typed)
    shown = replace(record, environment={**record.environment, **_budget(spec)})
    with writing(page):
        write_report(shown, facts, card, page, drawn, study_importances(record), _examples(spec, found, out))
    with writing(folder):
        return Report(
            study=record.name,
            facts=facts,
            card=card,
            page=page,
            best=_recipes(facts, typed),
            files=files,
            figures={figure.name: figure.plot for figure in drawn},
            images=write_images(drawn, folder, images) if images else (),
            address=address,
            table=trials_data(record, facts),
        )


def _budget(spec: StudySpec) -> Mapping[str, str]:
    """What `search.budget` was split into."""
    sentence = budget_sentence(spec)
    return {} if sentence is None else {"budget": sentence.removeprefix("budget of ")}


def rehearsed(spec: StudySpec, address: Address, out: Path, typed: str) -> Mapping[str, str]:
    """What a rehearsal of the study's own code has shown, by item; empty for a study without any."""
    if not imports_of(spec):
        return {}
    found = rehearsal.load(out / rehearsal.FILE)
    if found is None:
        rehearse = again("check", typed, address, out, name=spec.name, more=["--rehearse"])
        return {
            "rehearsal": f"none; to measure whether the code resumes, stops and uses what it gets, type: {rehearse}"
        }
    changed = "" if found.code == rehearsal.code_of(spec) else ", of an earlier state of the code"
    return {"rehearsal": f"{found.day}{changed}", **{f"– {each.item}": each.text for each in found.findings}}


def stored_examples(storage: Storage, record: StudyRecord, out: Path) -> Examples:
    """By arm: what `Kind.examples` returned, from the out folder or the store of artifacts."""
    key, rows = Ledger(storage, record.name).key, record.rows()
    fetch_examples(storage, record.name, out, key, rows)
    return load_examples(out, key, rows)


def _examples(spec: StudySpec, found: Examples, out: Path) -> ShownExamples | None:
    """What the kind shows of the arms' networks, if it shows anything."""
    order = sorted(found, key=lambda arm: arm != spec.study.baseline)
    try:
        shown = spec.kind.shown_examples(spec.task, {arm: found[arm] for arm in order}) if found else None
    except DataError as error:
        log.warning("the examples of %s cannot be shown in %s: %s", spec.name, out, error)
        return None
    return ShownExamples(shown, [arm for arm in spec.arms if arm not in found]) if shown else None


class _StudyFile(NamedTuple):
    typed: str
    """STUDY of `run`: a path or a name."""
    path: Path


def _study_file(record: StudyRecord, out: Path, file: str | None) -> _StudyFile:
    """The study's file, which a next step may change: the user's, or otherwise a copy of the stored text in OUT.

    A copy that is there stays as it is: the user may have changed it. Raises DiskError if none can be written.
    """
    typed = file or record.name
    path = find_file(typed)
    if path is not None and path.exists() and not is_packaged(path):
        return _StudyFile(typed, relative_to_cwd(path))
    path = relative_to_cwd(out / STUDY_COPY)
    if not path.exists():
        write(path, encoded(record.spec_text))
    return _StudyFile(str(path), path)


def _typed(spec: StudySpec, address: Address, out: Path, file: _StudyFile, files: Mapping[str, Path]) -> Typed:
    """The commands of the card's next step."""
    return Typed(
        run=again("run", file.typed, address, out, name=spec.name),
        status=again("status", spec.name, address, out),
        file=str(file.path),
        train={arm: command("train", relative_to_cwd(path)) for arm, path in files.items()},
        can_add_seeds=spec.confirm.seeds != "auto",
    )


def _recipes(facts: Facts, typed: Typed) -> dict[str, Recipe]:
    found = {name: recipe(arm, typed.train.get(name, "")) for name, arm in facts.arms.items()}
    return {name: each for name, each in found.items() if each is not None}


def _write_panels(storage: Storage, facts: Facts, card: Card, spec: StudySpec) -> None:
    """The dashboard's panels, unless the database refuses them: on a read-only mount, a replica, a reader's account."""
    ledger = Ledger(storage, spec.name)
    try:
        pages = {arm: studies.optuna_study(storage, ledger.optuna_name(arm)) for arm in spec.arms}
        write_panels(facts, card, pages)
    except StorageError as error:
        log.warning("the dashboard's panels were not written: %s", error)
