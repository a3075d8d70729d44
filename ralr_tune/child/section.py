"""What the [task] tables of kinds whose trials are programs have in common."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from ralr_tune.metric import Direction, Metric, UnitName
from ralr_tune.studyfile.sections import Name, TaskSection, TrainingKeys
from ralr_tune.studyfile.values import Frozen, NonNegative, Positive, SearchableOptions, problem

OTHER_VALUES = ("seed", "epochs", "first_epoch", "checkpoint", "device", "folder", "stage", "split")
"""What a program gets besides the keys of [training] and its own parameters."""

_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _parameters(table: dict[str, Any]) -> dict[str, Any]:
    for name in table:
        if not _PARAMETER.fullmatch(name):
            raise problem(f"{name}: not a valid name: letters, digits and '_', no digit first")
        if name in TrainingKeys.model_fields:
            raise problem(f"{name}: a key of [training] has this name; set it there, or choose another name")
        if name in OTHER_VALUES:
            raise problem(f"{name}: has another meaning (the program gets it anyway); choose another name")
    return table


Parameters = Annotated[SearchableOptions, AfterValidator(_parameters)]
Words = Annotated[tuple[str, ...], Field(strict=False)]
SomeWords = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class MetricTable(Frozen):
    """task.metric: what the program reports, and how it is compared."""

    name: Name
    """Its name in the report."""
    direction: Direction
    """Whether larger or smaller values are better."""
    worst: float | None = None
    """The value of a diverged trial; None: the worst finite value so far."""
    unit: UnitName = "plain"
    """A share is shown as percent and points."""
    margin: NonNegative = 0.0
    """Differences below it count as equivalent; 0: nothing is called equivalent."""
    tolerance: NonNegative = 0.01
    """Values this close to the best count as close to it; for a plain metric, as a fraction of the best."""

    def metric(self) -> Metric:
        """As the rest of the program uses it."""
        return Metric(self.name, self.direction, self.unit, self.worst, self.tolerance, self.margin)


class ProgramSection(TaskSection):
    """Keys that all kinds of program have."""

    metric: MetricTable
    """What the program reports."""
    params: Parameters = {}
    """The program's own parameters, fixed or searched."""
    variables: Words = ()
    """Variables of schedulers (SLURM_*, RAY_*) that the program gets nevertheless."""
    report_timeout: Positive | None = None
    """Seconds without a report after which the program counts as stuck; None: no limit."""
    grace: NonNegative = 10.0
    """Seconds that the program has to leave before SIGTERM, and then before SIGKILL."""

    epoch_metrics: Annotated[dict[Name, Direction], Field(max_length=5)] = {}
    """Further metrics that every report contains in `metrics`, and whether they are to be maximized or minimized:
    `search.prune_metric` may name one of them."""

    @model_serializer(mode="wrap")
    def _as_without_epoch_metrics(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Same JSON as in releases without `epoch_metrics`, so that fingerprints do not change."""
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key != "epoch_metrics" or value}

    def patterns(self) -> tuple[str, ...]:
        """Names and patterns of files that belong to the program."""
        return ()
