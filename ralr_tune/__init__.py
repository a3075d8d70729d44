"""ralr_tune: does amplifying the learning rate at random (RALR) help on your task, and can the answer be trusted?

The parts that serve people who keep their own training loop and their own Optuna study:

    RandomAmplifyLR(optimizer, base_scheduler, probability=0.3, lower=1.0, upper=4.0, seed=0)
    plot_preview(scheduler.preview(steps))
    suggest_amplification(trial)
    analysis.compare(studies, others), analysis.importance(study)
    load_study_file(path), run(spec, ...)
    def train(trial: Trial): ...; train(trial(lr=0.1))          a function of one's own, in a study or by itself

Names are imported when they are first used: `import ralr_tune` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ralr_tune import analysis as analysis
    from ralr_tune.commands.run import run as run
    from ralr_tune.commands.run.options import RunOptions as RunOptions
    from ralr_tune.own.alone import trial as trial
    from ralr_tune.own.trial import Trial as Trial
    from ralr_tune.report.preview import plot_preview as plot_preview
    from ralr_tune.schedules.scheduler import RandomAmplifyLR as RandomAmplifyLR
    from ralr_tune.schedules.suggest import suggest_amplification as suggest_amplification
    from ralr_tune.studyfile import load_study_file as load_study_file

__version__ = "0.1.0"

_HOMES = {
    "analysis": "ralr_tune.analysis",
    "RunOptions": "ralr_tune.commands.run.options",
    "RandomAmplifyLR": "ralr_tune.schedules.scheduler",
    "Trial": "ralr_tune.own.trial",
    "load_study_file": "ralr_tune.studyfile",
    "plot_preview": "ralr_tune.report.preview",
    "run": "ralr_tune.commands.run",
    "suggest_amplification": "ralr_tune.schedules.suggest",
    "trial": "ralr_tune.own.alone",
}

__all__ = [
    "RandomAmplifyLR",
    "RunOptions",
    "Trial",
    "analysis",
    "load_study_file",
    "plot_preview",
    "run",
    "suggest_amplification",
    "trial",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = import_module(_HOMES[name])
        return home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
