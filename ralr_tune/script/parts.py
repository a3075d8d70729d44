"""Parts of a script that do not depend on the kind of task: its origin, optimizer and learning rate."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch.optim import Optimizer

from ralr_tune.errors import UsageError
from ralr_tune.schedules.weight_decay import WeightDecay
from ralr_tune.script.text import OTHER_FORMATS, arguments, is_identifier, literal, wrapped
from ralr_tune.studyfile.configuration import TrainingConfig
from ralr_tune.studyfile.exported import Exported
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.training.optimizer import optimizer_options, optimizers

_ORIGIN = """\
Written by `python -m ralr_tune export --format python`. This configuration and its training come first. Below them is
ralr_tune's own source (MIT license), as far as they use it, so that the script draws what ralr_tune draws and runs
without it."""


def docstring(configuration: Exported) -> str:
    """What the script does, its configuration, and where its code comes from."""
    what = "Trains one configuration on train + validation data, saves its weights and tests it once."
    return "\n".join([what, "", *configuration.lines(), "", _ORIGIN])


def optimizer_call(configuration: Exported) -> str:
    """The expression for the optimizer of `model`, with learning rate LR."""
    training = configuration.training
    given = ["model.parameters()", "lr=LR", *arguments(optimizer_options(training))]
    if is_imported(training.optimizer):
        _, *inner = training.optimizer.partition(":")[2].split(".")
        return f"{'.'.join(['ImportedOptimizer', *inner])}({', '.join(given)})"
    chosen = optimizers()[training.optimizer]
    prefix = "" if _is_own(chosen) else "torch.optim."
    return f"{prefix}{chosen.__name__}({', '.join(given)})"


def optimizer_imports(configuration: Exported) -> list[str]:
    """The import statements that `optimizer_call` needs, besides torch."""
    name = configuration.training.optimizer
    if is_imported(name):
        module, _, path = name.partition(":")
        if not all(is_identifier(part) for part in (*module.split("."), *path.split("."))):
            raise UsageError(f"training.optimizer = {name!r}: not an import path package.module:Class; {OTHER_FORMATS}")
        return [f"from {module} import {path.partition('.')[0]} as ImportedOptimizer"]
    chosen = optimizers()[name]
    return [import_of(chosen)] if _is_own(chosen) else []


def _is_own(chosen: type[Optimizer]) -> bool:
    return chosen.__module__.partition(".")[0] == __name__.partition(".")[0]


def rate_call(configuration: Exported) -> tuple[str, list[str]]:
    """The expression for the LearningRate of a run from EPOCHS, LR, SEED and `steps_per_epoch`; and its imports."""
    rate = configuration.configuration().learning_rate(1, seed=0)
    call = construction(
        rate,
        lr="LR",
        curve=construction(rate.curve, epochs="EPOCHS"),
        epochs="EPOCHS",
        steps_per_epoch="steps_per_epoch",
        perturbation="None" if rate.perturbation is None else construction(rate.perturbation),
        seed='derive_seed("amplify", SEED)',
    )
    made = [each for each in (rate, rate.curve, rate.perturbation) if each is not None]
    return call, [import_of(type(each)) for each in made]


def train_call(training: TrainingConfig, decay: WeightDecay) -> dict[str, str]:
    """The call that trains, and what makes the weight decay of its steps."""
    given = ["model", "optimizer", "rate", "batches", "loss", "seed=SEED"]
    given += [f"clip_norm={literal(training.clip_norm)}"] if training.clip_norm is not None else []
    given += ["weight_decays=decay.values"] if decay.varies else []
    given += ["after_step=lambda: average.update(model)"] if training.ema_decay else []
    made = f"    decay = {construction(decay, rate='rate')}\n" if decay.varies else ""
    return {"train": wrapped(f"train({', '.join(given)})", indent=4), "decay": made}


def averaging(training: TrainingConfig) -> dict[str, str]:
    """The lines that make the average of the weights before the optimizer, and judge it after the training."""
    if not training.ema_decay:
        return {"average": "", "judged": ""}
    return {
        "average": f"    average = WeightAverage(model, {literal(training.ema_decay)})\n",
        "judged": "    model = average.network\n",
    }


def precision_call(training: TrainingConfig, shape: str) -> str:
    """The expression for the Precision of `device`; `shape`: the expression for the shape of a sample."""
    wanted = training.precision, training.channels_last
    if "auto" not in wanted:
        return f'Precision({wanted[0] == "bfloat16"}, {wanted[1]}, "as asked")'
    return f"choose_precision({', '.join(map(literal, wanted))}, device=device, input_shape={shape})"


def construction(made: Any, **given: str) -> str:
    """The call that builds this dataclass instance. `given`: expressions for fields; other defaults are omitted."""
    values = {field.name: literal(getattr(made, field.name)) for field in fields(made) if field.name not in given}
    changed = {field.name for field in fields(made) if getattr(made, field.name) != field.default}
    chosen = {field.name: (given | values)[field.name] for field in fields(made) if field.name in changed | set(given)}
    return f"{type(made).__name__}({', '.join(f'{name}={value}' for name, value in chosen.items())})"


def import_of(definition: Any) -> str:
    """The statement that imports a class or function of this package."""
    return f"from {definition.__module__} import {definition.__name__}"
