"""The parts of a script that do not depend on the kind of task: its origin, constants, optimizer, learning rate, number
format and the call of `train`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch.optim import Optimizer

from ralr_tune.errors import UsageError
from ralr_tune.schedules.weight_decay import WeightDecay
from ralr_tune.script.text import OTHER_FORMATS, arguments, is_identifier, literal, wrapped
from ralr_tune.studyfile.exported import Exported
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.training.averaging import WeightAverage
from ralr_tune.training.muon import MuonWithAdamW
from ralr_tune.training.optimizer import optimizer_options, optimizers

_ORIGIN = """\
Written by `python -m ralr_tune export --format python`. This configuration and its training come first. Below them is
the part of ralr_tune's own source (MIT license) that they use: the script draws what ralr_tune draws, without it."""

_CONSTANTS = {
    "seed": "  # of this training: first weights, order, augmentation, dropout, amplification",
    "study_seed": "  # of its study: which data are held out or left out",
    "epochs": "",
    "batch_size": "",
    "lr": "",
}
"""The comment of each."""


def common_parts(
    configuration: Exported,
    *,
    input_shape: str,
    model: str = "",
    matrix_products: bool = False,
    parameters: str = "model.parameters()",
    before_epoch: str = "",
    accumulate: int = 1,
) -> dict[str, str]:
    """Values for a script's template: docstring, constants, optimizer, rate, precision, average, compile, decay, train,
    judged.

    `input_shape`: the expression for the shape of one sample. `model`: that for the network, if its operations may
    determine the memory format (see training.precision). `matrix_products`: see tasks.base.Capabilities. `parameters`:
    see `optimizer_call`. `before_epoch`, `accumulate`: the expression and the value for those arguments of
    `train`.
    """
    training, decay = configuration.training, _weight_decay(configuration)
    average, given = training.ema_decay, ["model", "optimizer", "rate", "batches", "loss", "seed=SEED"]
    given += [f"accumulate={accumulate}"] if accumulate != 1 else []
    given += [f"clip_norm={literal(training.clip_norm)}"] if training.clip_norm is not None else []
    given += ["weight_decays=decay.values"] if decay.varies else []
    given += [f"before_epoch={before_epoch}"] if before_epoch else []
    given += ["after_step=lambda: average.update(model)"] if average else []
    values = {name: getattr(configuration.provenance, name, getattr(training, name, None)) for name in _CONSTANTS}
    return {
        "docstring": docstring(configuration),
        "constants": "\n".join(
            f"{name.upper()} = {literal(value)}{_CONSTANTS[name]}" for name, value in values.items()
        ),
        "optimizer": return_value(optimizer_call(configuration, parameters)),
        "rate": return_value(rate_call(configuration)),
        "precision": _precision(configuration, input_shape, model, matrix_products),
        "average": f"    average = WeightAverage(model, {literal(average)})\n" if average else "",
        "compile": "    model.compile()\n" if training.compile is True else "",
        "decay": f"    decay = {construction(decay, rate='rate')}\n" if decay.varies else "",
        "train": wrapped(f"train({', '.join(given)})", indent=4),
        "judged": "    model = average.network\n" if average else "",
    }


def common_imports(configuration: Exported) -> list[str]:
    """The import statements that these parts need, and those of the optimizer and of the learning rate."""
    imports = [*rate_imports(configuration), *optimizer_imports(configuration)]
    imports += [import_of(WeightAverage)] if configuration.training.ema_decay else []
    return imports + ([import_of(WeightDecay)] if _weight_decay(configuration).varies else [])


def return_value(expression: str) -> str:
    """The expression of a return statement in a function."""
    return wrapped(expression, indent=4, used=len("return "))


def _weight_decay(configuration: Exported) -> WeightDecay:
    made = configuration.configuration()
    return made.weight_decay(made.learning_rate(1, seed=0))


def _precision(configuration: Exported, input_shape: str, model: str, matrix_products: bool) -> str:
    wanted = configuration.training.precision, configuration.training.channels_last
    if "auto" not in wanted:
        return f'Precision({wanted[0] == "bfloat16"}, {wanted[1]}, "as asked")'
    given = [*map(literal, wanted), "device=device", f"input_shape={input_shape}"]
    given += [f"model={model}"] if model else []
    given += ["matrix_products=True"] if matrix_products else []
    return wrapped(f"choose_precision({', '.join(given)})", indent=4, used=len("precision = "))


def docstring(configuration: Exported) -> str:
    """What the script does, its configuration, and where its code comes from."""
    what = "Trains one configuration on train + validation data, saves its weights and tests it once."
    return "\n".join([what, "", *configuration.lines(), "", _ORIGIN])


def optimizer_call(configuration: Exported, parameters: str) -> str:
    """The expression for the optimizer with learning rate LR, of `parameters`: all weights of `model`, or groups."""
    training = configuration.training
    given = [parameters, "lr=LR", *arguments(optimizer_options(training))]
    if is_imported(training.optimizer):
        _, *inner = training.optimizer.partition(":")[2].split(".")
        return f"{'.'.join(['ImportedOptimizer', *inner])}({', '.join(given)})"
    chosen = optimizers()[training.optimizer]
    if chosen is MuonWithAdamW and parameters != "model.parameters()":
        given.append("order=model.parameters()")
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


def rate_call(configuration: Exported) -> str:
    """The expression for the LearningRate of a run from EPOCHS, LR, SEED and `steps_per_epoch`."""
    rate = configuration.configuration().learning_rate(1, seed=0)
    return construction(
        rate,
        lr="LR",
        curve=construction(rate.curve, epochs="EPOCHS"),
        epochs="EPOCHS",
        steps_per_epoch="steps_per_epoch",
        perturbation="None" if rate.perturbation is None else construction(rate.perturbation),
        seed='derive_seed("amplify", SEED)',
    )


def rate_imports(configuration: Exported) -> list[str]:
    """The import statements that `rate_call` needs."""
    rate = configuration.configuration().learning_rate(1, seed=0)
    return [import_of(type(each)) for each in (rate, rate.curve, rate.perturbation) if each is not None]


def construction(made: Any, **given: str) -> str:
    """The call that builds this dataclass instance. `given`: expressions for fields; other defaults are omitted."""
    values = {field.name: literal(getattr(made, field.name)) for field in fields(made) if field.name not in given}
    changed = {field.name for field in fields(made) if getattr(made, field.name) != field.default}
    chosen = {field.name: (given | values)[field.name] for field in fields(made) if field.name in changed | set(given)}
    return f"{type(made).__name__}({', '.join(f'{name}={value}' for name, value in chosen.items())})"


def import_of(definition: Any) -> str:
    """The statement that imports a class or function of this package."""
    return f"from {definition.__module__} import {definition.__name__}"
