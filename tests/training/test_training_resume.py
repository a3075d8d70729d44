"""Resumed equals uninterrupted, bit for bit: curve, weights and the optimizer's state."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ralr_tune.studyfile.optimizer_keys import OPTIMIZERS
from ralr_tune.tasks.trial import Trial
from ralr_tune.training import precision
from ralr_tune.training.start import start
from tests.training.recipes import MEMORY_RECIPES, OPTIMIZER_OPTIONS, OPTIMIZER_RECIPES, OTHER_RECIPES
from tests.training.trials import differences, run, timeless, weights

Make = Callable[..., Any]

ROOT = Path(__file__).parents[2]


def trained_with_copies(file: Path, start_trial: Callable[..., Trial]) -> tuple[Trial, list[Path]]:
    """An uninterrupted trial, and its checkpoint after every epoch."""
    trial, copies = start_trial(checkpoint=file), []
    for record in trial.epochs():
        copies.append(file.with_name(f"epoch{record.epoch}"))
        shutil.copy(file, copies[-1])
    return trial, copies


def resumed_wrongly(folder: Path, start_trial: Callable[..., Trial]) -> dict[int, list[str]]:
    """Differences by the epoch after which another object resumed the trial; empty if resuming is exact."""
    whole, copies = trained_with_copies(folder / "trial.ckpt", start_trial)
    found = {}
    for epoch, copy in enumerate(copies, 1):
        resumed = start_trial(checkpoint=folder / f"from{epoch}.ckpt", earlier=[copy])
        assert len(resumed.curve) == epoch
        if wrong := differences(run(resumed), whole):
            found[epoch] = wrong
    return found


@pytest.mark.parametrize("recipe", OPTIMIZER_RECIPES)
def test_every_optimizer_at_every_epoch(make_images: Make, configure: Make, tmp_path: Path, recipe: str) -> None:
    task, configuration = make_images(dropout=0.3, width=4), configure(**OPTIMIZER_RECIPES[recipe])
    assert resumed_wrongly(tmp_path, lambda **files: start(task, configuration, seed=1, **files)) == {}


@pytest.mark.parametrize("recipe", MEMORY_RECIPES)
def test_every_precision_and_memory_format(make_images: Make, configure: Make, tmp_path: Path, recipe: str) -> None:
    task, configuration = make_images(size=16, dropout=0.3, width=4), configure(epochs=3, **MEMORY_RECIPES[recipe])
    assert resumed_wrongly(tmp_path, lambda **files: start(task, configuration, seed=1, **files)) == {}


@pytest.mark.parametrize("recipe", OTHER_RECIPES)
def test_every_curve_perturbation_and_augmentation(
    make_images: Make, configure: Make, tmp_path: Path, recipe: str
) -> None:
    task, configuration = make_images(dropout=0.3, width=4), configure(epochs=3, **OTHER_RECIPES[recipe])
    assert resumed_wrongly(tmp_path, lambda **files: start(task, configuration, seed=1, **files)) == {}


def test_every_option_of_every_optimizer_is_covered() -> None:
    for name, options in OPTIMIZERS.items():
        given = {option for way in OPTIMIZER_OPTIONS[name].values() for option in way}
        assert given == options, name


def test_a_difference_would_be_detected(make_images: Make, configure: Make) -> None:
    one, other = (run(start(make_images(), configure(epochs=1, lr=lr), seed=1)) for lr in (0.1, 0.1000001))
    assert differences(one, other) == ["curve", "weights"]


def test_a_residual_network(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task = make_images(size=16, model="resnet20")
    configuration = configure(epochs=2, precision="bfloat16", options={"momentum": 0.9, "nesterov": True})
    assert resumed_wrongly(tmp_path, lambda **files: start(task, configuration, seed=1, **files)) == {}


def test_several_attempts_each_with_its_own_file(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task, configuration = make_images(dropout=0.3), configure(**OTHER_RECIPES["everything"])
    whole = run(start(task, configuration, seed=1))
    attempts = [tmp_path / f"row.{attempt}.ckpt" for attempt in (4, 3, 2, 1)]
    for attempt in reversed(range(4)):
        before = {path: path.read_bytes() for path in attempts if path.exists()}
        trial = start(task, configuration, seed=1, checkpoint=attempts[attempt], earlier=attempts[attempt + 1 :])
        next(trial.epochs())
        assert {path: path.read_bytes() for path in before} == before
    assert differences(trial, whole) == []


def test_killed_within_an_epoch(make_images: Make, configure: Make, tmp_path: Path) -> None:
    configuration = configure(**OTHER_RECIPES["everything"])
    whole = run(start(make_images(dropout=0.3), configuration, seed=1))
    task = make_images(dropout=0.3)
    steps, loss = iter(range(100)), task.loss

    def killed(*arguments: Any, **options: Any) -> Tensor:
        if next(steps) == 11:  # five steps an epoch: in the third
            raise KeyboardInterrupt
        return loss(*arguments, **options)  # type: ignore[no-any-return]

    task.loss = killed
    with pytest.raises(KeyboardInterrupt):
        run(start(task, configuration, seed=1, checkpoint=tmp_path / "trial.ckpt"))
    resumed = start(make_images(dropout=0.3), configuration, seed=1, checkpoint=tmp_path / "trial.ckpt")
    assert len(resumed.curve) == 2
    assert differences(run(resumed), whole) == []


def test_a_finished_trial_is_not_trained_further(make_line: Make, configure: Make, tmp_path: Path) -> None:
    first = run(start(make_line(), configure(), seed=0, checkpoint=tmp_path / "trial.ckpt"))
    task = make_line()
    again = run(start(task, configure(), seed=0, checkpoint=tmp_path / "trial.ckpt"))
    assert task.steps_done == 0
    assert again.curve == first.curve
    assert again.evaluate("validation") == first.curve[-1].value


def test_leaving_keeps_the_epochs_so_far(make_line: Make, configure: Make, tmp_path: Path) -> None:
    trial = start(make_line(), configure(), seed=0, checkpoint=tmp_path / "sub" / "trial.ckpt")
    with closing(trial.epochs()) as epochs:
        next(epochs)
        next(epochs)
    assert len(trial.curve) == 2
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["trial.ckpt"]
    assert len(start(make_line(), configure(), seed=0, checkpoint=tmp_path / "sub" / "trial.ckpt").curve) == 2


# ---------------------------------------------------------------- another process, another machine

CHILD = "tests.training.child"


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m tests.training.child` and ends remaining processes."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", CHILD, str(tmp_path), *arguments]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_killed_by_the_system_and_resumed_by_another_process(
    child: Callable[..., subprocess.Popen[str]], make_images: Make, configure: Make, tmp_path: Path
) -> None:
    """A first process trains every recipe and is killed within an epoch of the last; a second one resumes all."""
    first = child("begin")
    while not (tmp_path / "within").exists():
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    second = child("finish")
    output, _ = second.communicate()
    results: dict[str, dict[str, Any]] = json.loads(output)
    assert len(results) == len(OPTIMIZER_RECIPES) + len(MEMORY_RECIPES) + len(OTHER_RECIPES)
    wrong = {name for name, result in results.items() if result["begun"] != 2 or result["resumed"] != result["whole"]}
    assert wrong == set()


@pytest.mark.slow
def test_compiled_networks_train_and_resume_exactly(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task, configuration = make_images(dropout=0.3), configure(epochs=3, compile=True)
    whole, copies = trained_with_copies(
        tmp_path / "trial.ckpt", lambda **files: start(task, configuration, seed=1, **files)
    )
    torch._dynamo.reset()  # discards the compiled code, like a new process
    resumed = run(start(task, configuration, seed=1, earlier=copies[:1]))
    assert differences(resumed, whole) == []


@pytest.mark.slow
def test_compiled_networks_learn_the_same(make_images: Make, configure: Make) -> None:
    """Without dropout, which compiled code draws differently."""
    task = make_images()
    eager, compiled = (run(start(task, configure(epochs=3, compile=how), seed=1)) for how in (False, True))
    losses = [[record.train_loss for record in trial.curve] for trial in (eager, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert weights(compiled).keys() == weights(eager).keys()


def test_the_initial_precision_of_a_trial_is_kept(
    make_images: Make, configure: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, configuration = make_images(size=16), configure(precision="auto")
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: True)
    whole = run(start(task, configuration, seed=1))
    next(start(task, configuration, seed=1, checkpoint=tmp_path / "trial.ckpt").epochs())
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: False)
    assert timeless(run(start(task, configuration, seed=1)).curve) != timeless(whole.curve)
    assert differences(run(start(task, configuration, seed=1, checkpoint=tmp_path / "trial.ckpt")), whole) == []


def test_a_device_without_bfloat16_starts_with_the_first_epoch(
    make_images: Make, configure: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    task, configuration = make_images(size=16), configure(precision="auto", epochs=1)
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: True)
    run(start(task, configuration, seed=1, checkpoint=tmp_path / "trial.ckpt"))
    monkeypatch.setattr(precision, "has_bfloat16", lambda kind: False)
    monkeypatch.setattr("ralr_tune.training.state.can_bfloat16", lambda kind: False)
    trial = start(task, configuration, seed=1, checkpoint=tmp_path / "trial.ckpt")
    assert trial.curve == []
    assert "trained in bfloat16, which cpu does not support" in caplog.text
    assert differences(run(trial), run(start(task, configuration, seed=1))) == []


@pytest.mark.parametrize("other", ["threads", "torch"])
def test_numeric_differences_are_logged(
    make_line: Make,
    configure: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    other: str,
) -> None:
    next(start(make_line(), configure(), seed=0, checkpoint=tmp_path / "trial.ckpt").epochs())
    threads = torch.get_num_threads()
    if other == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 6)
    else:
        monkeypatch.setattr(torch, "__version__", "9.9")
    with caplog.at_level("INFO"):
        trial = start(make_line(), configure(), seed=0, checkpoint=tmp_path / "trial.ckpt")
    assert len(trial.curve) == 1
    assert f"with {threads} threads of torch 2" in caplog.text
    assert (f"continuing with {threads + 6}" if other == "threads" else "of torch 9.9: sums") in caplog.text
