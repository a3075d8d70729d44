"""One trial of a study as a file to train it again: TOML (which `train` reads), JSON, YAML, or a Python script."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any, Literal, get_args

from ralr_tune.analysis.rows import scores
from ralr_tune.errors import UsageError
from ralr_tune.records import Row, Stage, StudyRecord
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.exported import Exported, Provenance, Scores, exported_model
from ralr_tune.studyfile.values import one_of

Form = Literal["toml", "json", "yaml", "python"]
FORMS: tuple[Form, ...] = get_args(Form)

_NO_PACKAGES = frozenset({"device", "machine", "threads"})
"""What a study's environment records besides versions."""


def exported(record: StudyRecord, spec: StudySpec, arm: str, row: Row) -> Exported:
    """The configuration of `row`, a complete search row of `arm`, with its full provenance.

    A pure function of the stored study: exporting twice gives the same file.
    """
    configuration = spec.configuration(arm, row.params)
    return exported_model(spec.kind)(
        task=spec.resolved_task(configuration.task),
        training=configuration.training,
        schedule=configuration.schedule,
        amplify=configuration.amplify,
        noise=configuration.noise,
        provenance=_provenance(record, spec, arm, row),
    )


def _provenance(record: StudyRecord, spec: StudySpec, arm: str, row: Row) -> Provenance:
    if row.trial is None or row.value is None:
        raise ValueError(f"row {row.id} is {row.outcome or row.state}; allowed: a complete search row")
    return Provenance(
        study=record.name,
        arm=arm,
        block=row.block,
        trial=row.trial,
        metric=record.metric.name,
        value=row.value,
        confirmed=_scores(record, arm, row, "judge"),
        tested=_scores(record, arm, row, "test"),
        study_seed=spec.study.seed,
        seed=row.seed,
        created=datetime.fromtimestamp(row.finished or record.created, UTC).date(),
        fingerprint=record.fingerprint,
        packages={name: text for name, text in record.environment.items() if name not in _NO_PACKAGES},
        files={file.name: file.digests for file in record.identity.files if file.digests} if record.identity else {},
    )


def _scores(record: StudyRecord, arm: str, row: Row, stage: Stage) -> Scores | None:
    found = scores(record.arms[arm], stage, "best", (row.block, row.trial)) if row.trial is not None else {}
    if not found:
        return None
    values = list(found.values())
    return Scores(mean=fmean(values), std=stdev(values) if len(values) > 1 else None, seeds=tuple(found))


def render(configuration: Exported, form: str) -> str:
    """The text of the file, in one of FORMS. Raises UsageError for another form, and if a script cannot
    express the configuration."""
    if form == "toml":
        return _toml(configuration)
    if form == "json":
        return json.dumps(_tables(configuration), indent=2, ensure_ascii=False, default=str) + "\n"
    if form == "yaml":
        return _yaml(configuration)
    if form == "python":
        return configuration.kind.script(configuration)
    raise UsageError(f"--format {form}: {one_of(FORMS, form)}")


def _toml(configuration: Exported) -> str:
    import tomli_w

    text = tomli_w.dumps(_tables(configuration))
    # tomli_w puts every list item on its own line. No string holds a line break (they are escaped), so these are only
    # lists.
    for pattern, joined in ((r"\[\n +", "["), (r",\n *\]", "]"), (r",\n +", ", ")):
        text = re.sub(pattern, joined, text)
    how = "Train it on train + validation and test it once:  python -m ralr_tune train THIS_FILE"
    return _comment(configuration, how) + text


def _yaml(configuration: Exported) -> str:
    import yaml

    # PyYAML writes 1.0e-05 with a point; without it, it would read a string. ASCII only, since PyYAML reads its own
    # output for a next-line character (U+0085) as a space.
    return _comment(configuration) + yaml.safe_dump(_tables(configuration), sort_keys=False)


def _comment(configuration: Exported, *more: str) -> str:
    return "".join(f"# {line}\n" for line in (*configuration.lines(), *more)) + "\n"


def _tables(configuration: Exported) -> dict[str, Any]:
    """The file's tables without unset values (None) and without empty options."""
    tables = configuration.model_dump(exclude_none=True)
    return {name: {key: value for key, value in table.items() if value != {}} for name, table in tables.items()}
