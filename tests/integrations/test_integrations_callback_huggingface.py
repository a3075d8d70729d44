"""Hugging Face's Trainer trains a trial through the callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Dropout, Linear, Sequential

from ralr_tune.own.trial import Trial
from tests.integrations.frameworks import data, framework, loss_of, rate
from tests.integrations.trials import (
    Worker,
    check_resume,
    check_stop,
    check_test_stage,
    checked_reports,
    run,
)

transformers = framework("transformers")
callbacks = framework("ralr_tune.integrations.huggingface")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STEPS = 4


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Sequential(Linear(3, 8), Dropout(0.5), Linear(8, 1))

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": loss_of(self.model, (inputs, labels)), "logits": self.model(inputs)}


class Rates(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
    """The rate of the first step of each epoch."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates

    def on_epoch_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self.rates.append(float(f"{rate(optimizer):.6g}"))


class Twice(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
    """Evaluates whenever the trainer did, as `on_evaluate` may be called twice for one step."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.callback.on_evaluate(args, state, control, {"eval_accuracy": 7.0, "eval_loss": 0.0})


def train(
    trial: Trial, resume: bool = True, monitor: str = "eval_accuracy", twice: bool = False, **options: Any
) -> Any:
    rates: list[float] = []
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"], momentum=0.9)
    rows = [{"inputs": inputs, "labels": target} for inputs, target in data()]
    callback = callbacks.RalrTuneCallback(trial, monitor, metrics=["eval_loss"])
    given = {
        "output_dir": str(trial.folder / "trainer"), "num_train_epochs": trial.max_epochs, "seed": trial.seed,
        "per_device_train_batch_size": 8, "eval_strategy": "epoch", "logging_strategy": "epoch", "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "max_grad_norm": 0.0, "save_strategy": "no",
    } | options  # fmt: skip
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(**given),
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=lambda found: {"accuracy": -float(((found.predictions - found.label_ids) ** 2).mean())},
        optimizers=(optimizer, trial.schedule(optimizer, steps_per_epoch=STEPS)),
        callbacks=[Rates(rates), callback, *([Twice(callback)] if twice else [])],
    )
    trainer.train(resume_from_checkpoint=trial.checkpoint if resume else None)
    if trial.stage == "test":
        trial.report_test(trainer.evaluate(rows, metric_key_prefix="test")["test_accuracy"])
    return rates, [each.tolist() for each in model.parameters()]


def test_every_evaluation_is_reported(tmp_path: Path) -> None:
    for report in checked_reports(train, tmp_path):
        assert report["metrics"] == {"eval_loss": pytest.approx(-report["value"])}
        assert report["loss"] > 0


@pytest.mark.parametrize(
    "options",
    [
        {"twice": True},
        {"eval_on_start": True},
        {"eval_strategy": "steps", "eval_steps": STEPS},
        {"save_strategy": "steps", "save_steps": 3},
    ],
    ids=str,
)
def test_one_report_for_each_step_that_was_evaluated(tmp_path: Path, options: dict[str, Any]) -> None:
    assert all(each["value"] < 0 for each in checked_reports(lambda trial: train(trial, **options), tmp_path))


def test_stop_is_obeyed(tmp_path: Path) -> None:
    check_stop(train, tmp_path)


@pytest.mark.parametrize("options", [{}, {"data_seed": 5}, {"dataloader_num_workers": 1}], ids=str)
def test_resume_is_exact(tmp_path: Path, options: dict[str, Any]) -> None:
    check_resume(lambda trial: train(trial, **options), tmp_path)


def test_the_test_stage(tmp_path: Path) -> None:
    check_test_stage(train, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "eval_f1"}, "eval_f1: not in an evaluation .* they had .*eval_accuracy"),
        ({"eval_strategy": "no"}, "they had nothing"),
        ({"load_best_model_at_end": True, "save_strategy": "epoch"}, "load_best_model_at_end=True: must be False"),
        ({"save_only_model": True}, "save_only_model=True: must be False"),
    ],
)
def test_a_trainer_that_does_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(lambda trial: train(trial, **options), Worker(tmp_path))


def test_a_trainer_that_was_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"resume_from_checkpoint=trial\.checkpoint"):
        run(lambda trial: train(trial, resume=False), Worker(tmp_path), checkpoint=tmp_path / "x", first=3)
