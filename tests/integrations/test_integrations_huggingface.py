"""Hugging Face's Trainer and accelerate drive RandomAmplifyLR: resumed runs set the rates of uninterrupted ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from tests.integrations.frameworks import (
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

accelerate = framework("accelerate")
transformers = framework("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = network()

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": loss_of(self.model, (inputs, labels))}


class Recorder(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
    """The rate of each step; stops after a checkpoint, as a machine that goes away would."""

    def __init__(self, stop: int) -> None:
        self.rates: list[float] = []
        self.stop = stop

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self.rates.append(rate(optimizer))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step >= self.stop


def train(folder: Path, stop: int = STEPS, resume: bool = False) -> list[float]:
    model, recorder = Model(), Recorder(stop)
    optimizer = sgd(model)
    rows = [{"inputs": inputs, "labels": target} for inputs, target in data()]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=2, save_steps=STOP, report_to="none",
        use_cpu=True, disable_tqdm=True, logging_strategy="no", max_grad_norm=0.0,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, optimizers=(optimizer, wrapped(optimizer)), callbacks=[recorder]
    )
    trainer.train(resume_from_checkpoint=resume)
    return recorder.rates


def test_a_trainer_resumed_from_its_checkpoint_goes_on(tmp_path: Path) -> None:
    assert train(tmp_path / "whole") == expected()
    stopped = train(tmp_path / "stopped", stop=STOP)
    assert len(stopped) == STOP
    assert stopped + train(tmp_path / "stopped", resume=True) == expected()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("made", ["before", "base before", "after"])
def test_accelerate_resumes(tmp_path: Path, made: str, accumulation: int) -> None:
    """Wrapper and base scheduler made before or after `prepare`; with steps that only gather gradients, too."""

    def run(first: int, last: int, load: bool) -> list[float]:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        model = network()
        optimizer = sgd(model)
        base = CosineAnnealingLR(optimizer, STEPS + 4) if made == "base before" else None
        scheduler: Any = wrapped(optimizer) if made == "before" else None
        model, optimizer = accelerator.prepare(model, optimizer)
        scheduler = accelerator.prepare(scheduler or wrapped(optimizer, base))
        if load:
            accelerator.load_state(str(tmp_path / "state"))
        rates = []
        for index in range(first * accumulation, last * accumulation):
            with accelerator.accumulate(model):
                if index % accumulation == 0:
                    rates.append(rate(optimizer))
                accelerator.backward(loss_of(model, data(2 * STEPS * accumulation)[2 * index : 2 * index + 2]))
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        accelerator.save_state(str(tmp_path / "state"))
        return rates

    assert run(0, STOP, load=False) + run(STOP, STEPS, load=True) == expected()


TWO_PROCESSES = """
import torch
from accelerate import Accelerator, debug_launcher
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from tests.integrations.frameworks import data, loss_of, network, sgd, wrapped

def train():
    accelerator = Accelerator(cpu=True)
    model = network()
    optimizer, loader = sgd(model), DataLoader(data(10), batch_size=2)  # five batches for two processes
    scheduler = wrapped(optimizer, OneCycleLR(optimizer, 0.1, total_steps=len(loader)))
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    for batch in loader:
        accelerator.backward(loss_of(model, batch))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert scheduler.scheduler.last_epoch == 5  # not 6: three batches, and a step for each process
    assert accelerator.num_processes == 2

debug_launcher(train, num_processes=2)
"""


def test_two_processes_with_an_uneven_loader_end_a_one_cycle(tmp_path: Path) -> None:
    """accelerate steps the scheduler once a process, and stops at total_steps, which it reads from the wrapper."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    run = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert run.returncode == 0, run.stderr
