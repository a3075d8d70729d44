"""Lightning's Trainer trains a trial through the callback, under both names that Lightning has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Dropout, Linear, Sequential
from torch.utils.data import DataLoader

from ralr_tune.own.trial import Trial
from tests.child.conftest import trial_of
from tests.integrations.frameworks import data, framework, loss_of, rate
from tests.integrations.trials import (
    EPOCHS,
    Worker,
    check_resume,
    check_stop,
    check_test_stage,
    checked_reports,
    run,
)

pl = framework("lightning.pytorch")
callbacks = framework("ralr_tune.integrations.lightning")

SEVERAL = """
import ralr_tune
from lightning.pytorch.callbacks import Callback
from tests.integrations.test_integrations_callback_lightning import train

class Note(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        with (trial.folder.parent / "notes").open("a") as notes:
            notes.write(f"{trainer.global_rank} {trainer.current_epoch + 1}\\n")

trial = ralr_tune.trial()
train(trial, strategy="ddp", devices=2, more=[Note()])
"""
"""A program that Lightning starts a second time."""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def module_of(package: Any, trial: Trial, rates: list[float]) -> Any:
    class Module(package.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = Sequential(Linear(3, 8), Dropout(0.5), Linear(8, 1))

        def on_train_epoch_start(self) -> None:
            rates.append(float(f"{rate(self.optimizers()):.6g}"))

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = loss_of(self.model, batch)
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_acc", -loss_of(self.model, batch))
            self.log("val_loss", loss_of(self.model, batch))

        def test_step(self, batch: Any, index: int) -> None:
            self.log("test_acc", -loss_of(self.model, batch))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=trial.params["lr"], momentum=0.9)
            return [optimizer], [trial.schedule(optimizer)]

    return Module()


def train(trial: Trial, package: Any = pl, resume: bool = True, more: Sequence[Any] = (), **options: Any) -> Any:
    rates: list[float] = []
    module = module_of(package, trial, rates)
    callback = callbacks.RalrTuneCallback(trial, loss="train_loss", metrics=["val_loss"])
    given = {
        "max_epochs": trial.max_epochs, "callbacks": [callback, *more], "default_root_dir": trial.folder, "devices": 1,
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False,
    } | options  # fmt: skip
    trainer = package.Trainer(**given)
    loaders = (DataLoader(data(), batch_size=8, shuffle=True), DataLoader(data(), batch_size=8))
    trainer.fit(module, *loaders, ckpt_path=trial.checkpoint if resume else None)
    if trial.stage == "test":
        trial.report_test(trainer.test(module, loaders[1], verbose=False)[0]["test_acc"])
    return rates, [each.tolist() for each in module.parameters()]


def test_every_epoch_is_reported_and_the_sanity_check_is_not(tmp_path: Path) -> None:
    for report in checked_reports(train, tmp_path):
        assert report["metrics"] == {"val_loss": -report["value"]}
        assert report["loss"] > 0


@pytest.mark.parametrize("options", [{}, {"min_epochs": EPOCHS}, {"min_steps": 1000}], ids=str)
def test_stop_is_obeyed_whatever_the_minimum(tmp_path: Path, options: dict[str, Any]) -> None:
    check_stop(lambda trial: train(trial, **options), tmp_path)


def test_resume_is_exact(tmp_path: Path) -> None:
    check_resume(train, tmp_path)


def test_without_random_states_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning itself does not keep the order of the data: the check above can fail."""
    monkeypatch.setattr(callbacks.random_states, "restore", lambda _: None)
    with pytest.raises(AssertionError):
        check_resume(train, tmp_path)


def test_the_test_stage(tmp_path: Path) -> None:
    check_test_stage(train, tmp_path)


def test_several_validations_in_an_epoch_make_one_report(tmp_path: Path) -> None:
    checked_reports(lambda trial: train(trial, val_check_interval=0.5), tmp_path)


def test_the_package_under_its_former_name(tmp_path: Path) -> None:
    package = framework("pytorch_lightning")
    check_resume(lambda trial: train(trial, package), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 9}, r"max_epochs=9\): must be trial.max_epochs"),
        ({"check_val_every_n_epoch": 2}, "val_acc: not logged by validation in this epoch"),
        ({"limit_val_batches": 0}, "val_acc: not logged"),
    ],
)
def test_a_trainer_that_does_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(lambda trial: train(trial, **options), Worker(tmp_path))


def test_a_trainer_that_was_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ckpt_path=trial\.checkpoint"):
        run(lambda trial: train(trial, resume=False), Worker(tmp_path), checkpoint=tmp_path / "x.ckpt", first=3)


def test_two_ranks_report_once_resume_and_stop(tmp_path: Path) -> None:
    def several(attempt: int, earlier: tuple[int, ...] = ()) -> Any:
        command = [sys.executable, str(tmp_path / "program.py")]
        return trial_of(
            tmp_path, SEVERAL, attempt=attempt, earlier=earlier, command=lambda start: command, report_timeout=None
        )

    whole = [record.value for record in several(1).epochs()]
    with closing(several(2).epochs()) as epochs:
        next(epochs)
    second = several(3, (2,))
    list(second.epochs())
    assert [record.value for record in second.curve] == whole
    assert len(set(whole)) == EPOCHS
    notes = sorted((tmp_path / "notes").read_text().splitlines())
    assert notes == sorted(f"{rank} {epoch}" for rank in (0, 1) for epoch in (1, 2, 3, 4) for _ in (1, 2))
