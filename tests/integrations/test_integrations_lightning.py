"""Lightning's Trainer and Fabric drive RandomAmplifyLR: resumed runs set the rates of uninterrupted ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Linear
from torch.optim import swa_utils
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader

from tests.integrations.frameworks import (
    ARGUMENTS,
    STEPS,
    STOP,
    data,
    expected,
    framework,
    loss_of,
    network,
    rate,
    sgd,
    wrapped,
)

pl = framework("lightning.pytorch")
fabric_module = framework("lightning.fabric")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
    """A step of the scheduler each batch, or each epoch, and the rates that training met."""

    def __init__(self, interval: str = "step", make: Any = None, **options: Any) -> None:
        super().__init__()
        self.model: Linear = network()
        self.interval, self.make, self.options = interval, make or wrapped, options
        self.rates: list[float] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.rates.append(rate(self.optimizers()))
        loss = loss_of(self.model, batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = sgd(self.model)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make(optimizer), "interval": self.interval, **self.options},
        }


def trainer(folder: Path, **options: Any) -> Any:
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip


def fit(module: Module, folder: Path, checkpoint: Path | None = None, batches: int = STEPS, **options: Any) -> Any:
    running = trainer(folder, **options)
    running.fit(module, DataLoader(data(2 * batches), batch_size=2), ckpt_path=checkpoint)
    return running


def test_a_trainer_resumed_amid_an_epoch_goes_on(tmp_path: Path) -> None:
    whole = Module()
    fit(whole, tmp_path, max_steps=STEPS)
    first = Module()
    fit(first, tmp_path, max_steps=STOP).save_checkpoint(tmp_path / "stopped.ckpt")
    second = Module()
    fit(second, tmp_path, tmp_path / "stopped.ckpt", max_steps=STEPS)
    assert whole.rates == expected()
    assert first.rates + second.rates == whole.rates


def test_a_plateau_gets_its_metric(tmp_path: Path) -> None:
    options = {"monitor": "loss", "reduce_on_plateau": True}

    def make(optimizer: Any) -> Any:
        return wrapped(optimizer, ReduceLROnPlateau(optimizer, patience=0, threshold=10.0))

    def epochs(count: int, checkpoint: Path | None = None) -> tuple[Module, Any]:
        module = Module("epoch", make, **options)
        return module, fit(module, tmp_path, checkpoint, batches=1, max_epochs=count)

    whole, running = epochs(8)
    assert running.lr_scheduler_configs[0].scheduler.get_base_lr()[0] < 0.01
    first, running = epochs(3)
    running.save_checkpoint(tmp_path / "stopped.ckpt")
    second, _ = epochs(8, tmp_path / "stopped.ckpt")
    assert first.rates + second.rates == whole.rates


def test_stochastic_weight_averaging_swaps_the_scheduler_and_goes_on_from_the_base_rate(tmp_path: Path) -> None:
    """Its callback drops the wrapper without a word, and anneals from what it finds."""

    def run(make: Any) -> list[float]:
        averaging = pl.callbacks.StochasticWeightAveraging(0.01, 3, annealing_epochs=3, annealing_strategy="linear")
        module = Module("epoch", make)
        fit(module, tmp_path, batches=1, max_epochs=9, callbacks=[averaging])
        return module.rates

    bare, found = (
        run(make)
        for make in (
            lambda optimizer: StepLR(optimizer, 50),
            lambda optimizer: wrapped(optimizer, StepLR(optimizer, 50)),
        )
    )
    assert found[:3] != bare[:3]
    assert found[3:] == bare[3:]


@pytest.mark.parametrize("made", ["before", "base before", "after"])
def test_fabric_resumes(tmp_path: Path, made: str) -> None:
    """Wrapper and base scheduler made before or after `setup`, which gives an optimizer around the first one."""

    def run(first: int, last: int, load: bool) -> list[float]:
        fabric = fabric_module.Fabric(accelerator="cpu", devices=1)
        model = network()
        optimizer = sgd(model)
        base = CosineAnnealingLR(optimizer, STEPS + 4) if made == "base before" else None
        scheduler = wrapped(optimizer) if made == "before" else None
        model, optimizer = fabric.setup(model, optimizer)
        scheduler = scheduler or wrapped(optimizer, base)
        state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        if load:
            fabric.load(tmp_path / "stopped.ckpt", state)
        rates = []
        for index in range(first, last):
            rates.append(rate(optimizer))
            optimizer.zero_grad()
            fabric.backward(loss_of(model, data()[2 * index : 2 * index + 2]))
            optimizer.step()
            scheduler.step()
        fabric.save(tmp_path / "stopped.ckpt", state)
        return rates

    assert run(0, STOP, load=False) + run(STOP, STEPS, load=True) == expected()


@pytest.mark.parametrize("released", [True, False])
def test_weights_averaged_by_hand(released: bool) -> None:
    """torch's own recipe (swa_utils): released or dropped, the averaging phase is that of a run without a wrapper."""

    def run(wrap: bool) -> list[float]:
        model = network()
        optimizer, averaged = sgd(model), swa_utils.AveragedModel(model)
        scheduler: Any = StepLR(optimizer, 50)
        scheduler = wrapped(optimizer, scheduler) if wrap else scheduler
        rates = []
        for index in range(12):
            if index == 4:
                if wrap and released:
                    scheduler.release()
                scheduler = swa_utils.SWALR(optimizer, swa_lr=0.01, anneal_epochs=4)
            loss_of(model, data()[:4]).backward()
            optimizer.step()
            rates.append(rate(optimizer))
            averaged.update_parameters(model)
            scheduler.step()
        return rates[4:]

    assert ARGUMENTS["probability"] > 0
    assert run(wrap=True) == run(wrap=False)
