"""`preview`: draw the learning rates that a study would train with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ralr_tune.commands.check import load
from ralr_tune.commands.files import write_text
from ralr_tune.errors import UsageError
from ralr_tune.report.figures import Figure
from ralr_tune.report.images import write_images
from ralr_tune.report.preview import Trace, draw_preview
from ralr_tune.search.design import sobol_point, unit_params
from ralr_tune.search.samplers import start_recipe
from ralr_tune.search.tasks import Tasks
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration, StudySpec


def preview_study(
    study: str, *, count: int, output: Path | None, storage: str | None = None, out: Path | None = None
) -> Path:
    """Draw `count` configurations of every arm; returns the path of the written file.

    The first are the user's own recipes, the others are spread evenly over the space (the sampler of `run` adapts to
    its results, so its configurations differ); the amplification is drawn with the study's first seeds. Raises
    UsageError if the output is not .html, .png or .svg, RalrTuneError if an image needs a browser and there is none.
    """
    spec = load(study, storage=storage, out=out)
    path = output or (out or Path("runs") / spec.name) / "preview.html"
    if path.suffix not in (".html", ".png", ".svg"):
        raise UsageError(f"--output {path}: must end in .html, .png or .svg")
    traces = {arm: [_trace(spec, arm, ordinal) for ordinal in range(count)] for arm in spec.arms}
    plot = draw_preview(spec.name, traces)
    if path.suffix == ".html":
        write_text(path, plot.to_html(include_plotlyjs=True, full_html=True))
        return path
    (written,) = write_images(
        [Figure("rates", path.stem, plot)], path.parent, ["png" if path.suffix == ".png" else "svg"]
    )
    return written


def _trace(spec: StudySpec, arm: str, ordinal: int) -> Trace:
    configuration = spec.configuration(arm, _params(spec, arm, ordinal))
    steps = _steps(spec, configuration)
    seed = derive_seed("amplify", derive_seed("trial", spec.study.seed, 1, ordinal))
    rate = configuration.learning_rate(steps, seed)
    plain = configuration.model_copy(update={"amplify": None, "noise": None}).learning_rate(steps, seed)
    numbers = range(configuration.training.epochs)
    rates, base = (np.concatenate([each.rates(epoch) for epoch in numbers]) for each in (rate, plain))
    starts = [epoch + np.arange(count) / count for epoch, count in zip(numbers, steps, strict=True)]
    epochs = np.append(np.concatenate(starts), len(numbers))
    label = f"configuration {ordinal}, base rate {configuration.training.lr:.3g}"
    return Trace(label, epochs.tolist(), _with_last_repeated(rates.tolist()), _with_last_repeated(base.tolist()))


def _with_last_repeated(rates: Sequence[float]) -> list[float]:
    """Repeat the last rate, so that a step plot also shows the last step."""
    return [*rates, rates[-1]]


def _params(spec: StudySpec, arm: str, ordinal: int) -> dict[str, object]:
    columns, space = spec.columns(), spec.space(arm)
    point = sobol_point(max(len(columns), 1), ordinal, derive_seed("design", spec.study.seed, 1))
    spread = unit_params(space, {name: float(point[columns[name]]) for name in space})
    return spread | start_recipe(spec, arm, ordinal)


def _steps(spec: StudySpec, configuration: Configuration) -> list[int]:
    """Steps of each epoch; 1, without loading the data, if the rates only change between epochs."""
    epochs = range(configuration.training.epochs)
    perturbation = configuration.amplify or configuration.noise
    if configuration.schedule.granularity == "epoch" and (perturbation is None or perturbation.granularity == "epoch"):
        return [1 for _ in epochs]
    return spec.kind.steps_per_epoch(Tasks(spec, device="cpu").of(configuration.task), configuration)
