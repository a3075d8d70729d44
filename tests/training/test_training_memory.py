"""Running out of memory: micro-batches equal the whole batch, are resumed exactly, and are not halved forever."""

from __future__ import annotations

import gc
import io
import os
import platform
import resource
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import DiskError, TrialError
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.training.memory import MemoryBudget, OutOfMemory, free, is_out_of_memory, micro_batches, within_memory
from ralr_tune.training.start import start
from tests.training.trials import NORMALISED, PLAIN, EqualSamples, differences, run, timeless, weights

Make = Callable[..., Any]

ROOT = Path(__file__).parents[2]

ERRORS: dict[str, Callable[[], Exception]] = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "host": MemoryError,
    "allocator": lambda: RuntimeError("[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "driver": lambda: RuntimeError("CUDA error: out of memory"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "onednn": lambda: RuntimeError("could not create a primitive"),
}


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Keeps the garbage collector from scanning objects of torch and pytest each time that memory runs out."""
    gc.freeze()
    yield
    gc.unfreeze()


class Limited:
    """A task with memory for `limit` samples at once in training, from its `first` loss on, and for `evaluated` in
    evaluation; it counts the failures and records the sizes of the training batches."""

    def __init__(
        self,
        task: ClassificationTask,
        limit: int = 10**9,
        *,
        evaluated: int = 10**9,
        first: int = 0,
        error: Callable[[], Exception] = ERRORS["device"],
    ) -> None:
        self.refused = 0
        self.sizes: list[int] = []
        loss, evaluate = task.loss, task.evaluate
        calls = iter(range(10**9))

        def limited_loss(model: nn.Module, batch: Any, **options: Any) -> Tensor:
            if next(calls) >= first and len(batch) > limit:
                self.refused += 1
                raise error()
            self.sizes.append(len(batch))
            return loss(model, batch, **options)

        def limited_evaluate(model: nn.Module, split: Any, *, batch_size: int, **options: Any) -> float:
            if batch_size > evaluated:
                self.refused += 1
                raise error()
            return evaluate(model, split, batch_size=batch_size, **options)

        task.loss = limited_loss  # type: ignore[method-assign]
        task.evaluate = limited_evaluate  # type: ignore[method-assign, assignment]


# ---------------------------------------------------------------- the same gradient


@pytest.mark.parametrize("error", ERRORS)
def test_micro_batches_add_up_to_the_whole_batch(make_images: Make, configure: Make, error: str) -> None:
    configuration = configure(
        options={"momentum": 0.9},
        weight_decay=1e-3,
        label_smoothing=0.1,
        clip_norm=0.5,
        augment=("crop", "flip", "mixup", "cutmix"),  # partners are those of the whole batch
    )
    whole = run(start(make_images(model=PLAIN), configuration, seed=1))
    task = make_images(model=PLAIN)
    limited = Limited(task, 5, error=ERRORS[error])
    trial = run(start(task, configuration, seed=1))
    assert limited.refused == 2  # 16, then 8
    assert set(limited.sizes) == {4}  # of 16 and, at the epoch's end, of 8
    for name, weight in weights(whole).items():
        assert torch.allclose(weights(trial)[name], weight, rtol=1e-4, atol=1e-6), name
    assert [record.train_loss for record in trial.curve] == pytest.approx(
        [record.train_loss for record in whole.curve], rel=1e-5
    )
    assert trial.recovered == "out of memory: trained in micro-batches of 4 (batch_size 16) from epoch 1 on"
    assert whole.recovered is None


def test_one_gradient_of_the_whole_batch_within_float_tolerance(make_images: Make, configure: Make) -> None:
    """One step without momentum: the weights' change is the gradient."""
    changes = []
    for limit in (100, 30, 7, 1):
        task = make_images(model=PLAIN)
        Limited(task, limit)
        before = dict(task.build_model(1).state_dict())
        trial = run(start(task, configure(epochs=1, batch_size=72, lr=1.0), seed=1))
        changes.append({name: weight - before[name] for name, weight in weights(trial).items()})
    for change in changes[1:]:
        for name, expected in changes[0].items():
            assert torch.allclose(change[name], expected, rtol=1e-4, atol=1e-6), name


def test_the_error_in_the_middle_of_an_epoch_leaves_no_trace(make_images: Make, configure: Make) -> None:
    """The epoch restarts with its initial network, optimizer, order and dropout."""
    configuration = configure(options={"momentum": 0.9}, augment=("crop",))
    trials = []
    for first in (0, 3):
        task = make_images(dropout=0.3)
        Limited(task, 8, first=first)
        trials.append(run(start(task, configuration, seed=1)))
    assert differences(*trials) == []
    assert trials[0].recovered == "out of memory: trained in micro-batches of 8 (batch_size 16) from epoch 1 on"


def test_earlier_epochs_stay_as_they_were(make_images: Make, configure: Make) -> None:
    whole = run(start(make_images(), configure(), seed=1))
    task = make_images()
    limited = Limited(task, 8, first=12)  # five steps an epoch: in the third
    trial = run(start(task, configure(), seed=1))
    assert limited.refused == 1
    assert timeless(trial.curve[:2]) == timeless(whole.curve[:2])
    assert trial.curve[3].train_loss != whole.curve[3].train_loss  # batch normalisation sees the micro-batch
    assert trial.recovered == "out of memory: trained in micro-batches of 8 (batch_size 16) from epoch 3 on"
    assert [record.epoch for record in trial.curve] == [1, 2, 3, 4]


def test_less_and_less_room(make_images: Make, configure: Make, caplog: pytest.LogCaptureFixture) -> None:
    task = make_images(model=PLAIN)
    Limited(task, 1)
    trial = run(start(task, configure(batch_size=9), seed=1))
    assert trial.recovered == "out of memory: trained in micro-batches of 1 (batch_size 9) from epoch 1 on"
    tries = [record.getMessage() for record in caplog.records if "micro-batches" in record.msg]
    assert [line.split(":")[0].split()[-1] for line in tries] == ["4", "2", "1"]
    assert "CUDA out of memory. Tried to allocate 20.00 GiB." in caplog.text


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize("largest", [None, 1, 2, 3, 5, 8])
def test_parts_of_a_batch(count: int, largest: int | None) -> None:
    sizes = [len(part) for part in micro_batches(EqualSamples(count), largest)]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    if largest is None or count <= largest:
        assert sizes == [count]
    elif largest == 1:
        assert set(sizes) == {1}
    else:
        assert min(sizes) >= 2  # batch normalisation has no variance to take of one
        assert max(sizes) <= largest + (count % largest == 1)


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("killed", [1, 2, 3])
@pytest.mark.parametrize("kept", [True, False], ids=["in a file", "in memory"])
def test_resumed_equals_uninterrupted(
    make_images: Make, configure: Make, tmp_path: Path, killed: int, kept: bool
) -> None:
    """The last state is reloaded from a file or from memory; the resumed trial does not run out of memory again."""
    configuration = configure(optimizer="adamw", lr=0.01, augment=("flip",))

    def limited(done: int = 0) -> tuple[Any, Limited]:
        task = make_images(dropout=0.3)
        return task, Limited(task, 5, first=max(0, 7 - 5 * done))  # five steps an epoch: within the second

    whole = run(start(limited()[0], configuration, seed=1, checkpoint=tmp_path / "whole.ckpt" if kept else None))
    assert whole.recovered is not None
    assert "from epoch 2" in whole.recovered
    epochs = start(limited()[0], configuration, seed=1, checkpoint=tmp_path / "trial.ckpt").epochs()
    for _ in range(killed):
        next(epochs)
    task, again = limited(killed)
    resumed = run(start(task, configuration, seed=1, checkpoint=tmp_path / "trial.ckpt"))
    assert again.refused == (0 if killed > 1 else 2)
    assert differences(resumed, whole) == []
    assert resumed.recovered == whole.recovered


def test_killed_after_the_error_within_the_first_epoch(make_images: Make, configure: Make, tmp_path: Path) -> None:
    """The reduced budget is saved before the next attempt."""
    task = make_images()
    Limited(task, 8)
    loss, calls = task.loss, iter(range(100))

    def killed(*arguments: Any, **options: Any) -> Tensor:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments, **options)  # type: ignore[no-any-return]

    task.loss = killed
    with pytest.raises(KeyboardInterrupt):
        run(start(task, configure(), seed=1, checkpoint=tmp_path / "trial.ckpt"))
    resumed = start(make_images(), configure(), seed=1, checkpoint=tmp_path / "trial.ckpt")
    assert resumed.curve == []
    assert resumed.recovered == "out of memory: trained in micro-batches of 8 (batch_size 16) from epoch 1 on"
    whole_task = make_images()
    Limited(whole_task, 8)
    assert differences(run(resumed), run(start(whole_task, configure(), seed=1))) == []


def test_training_restarts_from_an_earlier_attempts_checkpoint(
    make_images: Make, configure: Make, tmp_path: Path
) -> None:
    next(start(make_images(), configure(), seed=1, checkpoint=tmp_path / "1.ckpt").epochs())
    task = make_images()
    Limited(task, 8)
    trial = start(task, configure(), seed=1, checkpoint=tmp_path / "2.ckpt", earlier=[tmp_path / "1.ckpt"])
    next(trial.epochs())
    assert trial.recovered == "out of memory: trained in micro-batches of 8 (batch_size 16) from epoch 2 on"


def test_a_checkpoint_that_disappeared_is_an_error(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task = make_images()
    Limited(task, 8, first=7)
    trial = start(task, configure(), seed=1, checkpoint=tmp_path / "trial.ckpt")
    epochs = trial.epochs()
    next(epochs)
    (tmp_path / "trial.ckpt").unlink()
    with pytest.raises(DiskError, match=r"trial\.ckpt: cannot be read again: it no longer exists; run again"):
        next(epochs)


# ---------------------------------------------------------------- not enough memory for one sample


def test_not_even_one_sample(make_images: Make, configure: Make, tmp_path: Path) -> None:
    task = make_images(model=PLAIN)
    limited = Limited(task, 0, first=5)
    trial = start(task, configure(), seed=0, checkpoint=tmp_path / "trial.ckpt")
    with pytest.raises(
        TrialError, match=r"CUDA out of memory\..*not enough memory even for one sample at a time"
    ) as caught:
        run(trial)
    assert caught.value.kind == "oom"
    assert limited.refused == 5  # 16, 8, 4, 2, 1
    assert len(trial.curve) == 1
    assert len(start(make_images(model=PLAIN), configure(), seed=0, checkpoint=tmp_path / "trial.ckpt").curve) == 1


def test_batch_normalisation_that_cannot_train_on_one_sample(make_images: Make, configure: Make) -> None:
    task = make_images(model=NORMALISED)
    limited = Limited(task, 1)
    with pytest.raises(TrialError, match="batch normalisation needs two samples at a time") as caught:
        run(start(task, configure(), seed=0))
    assert caught.value.kind == "oom"
    assert limited.refused == 4  # 16, 8, 4, 2
    task = make_images(model=NORMALISED)
    Limited(task, 3)
    assert len(run(start(task, configure(batch_size=17), seed=0)).curve) == 4  # 17 = 3 * 4 + 5: no part of one


def test_batch_normalisation_of_maps_trains_on_one_sample(make_images: Make, configure: Make) -> None:
    task = make_images()
    Limited(task, 1)
    assert len(run(start(task, configure(epochs=1), seed=0)).curve) == 1


def test_a_configured_batch_of_one_is_not_an_out_of_memory_error(make_images: Make, configure: Make) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        run(start(make_images(model=NORMALISED), configure(batch_size=1), seed=0))


@pytest.mark.parametrize("where", ["model", "optimizer"])
def test_the_network_itself_does_not_fit(
    make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    if where == "model":
        monkeypatch.setattr(nn.Module, "to", full)
    else:
        monkeypatch.setattr("ralr_tune.training.train_state.make_optimizer", full)
    with pytest.raises(TrialError, match="CUDA out of memory") as caught:
        start(make_images(), configure(), seed=0)
    assert caught.value.kind == "oom"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes cannot be multiplied"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_out_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        within_memory(fail)


@pytest.mark.parametrize("first", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_an_error_caused_by_missing_memory_is_out_of_memory(first: Exception) -> None:
    """Closing a writer or a recording after the failure raises another error."""
    error = RuntimeError("operation failed due to a previous error during capture")
    error.__context__ = first
    assert is_out_of_memory(error)


def test_no_memory_for_a_checkpoint(make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.save` then raises another error."""

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise MemoryError

    monkeypatch.setattr("ralr_tune.training.state.io.BytesIO", Full)
    with pytest.raises(TrialError) as caught:
        next(start(make_images(), configure(), seed=0).epochs())
    assert caught.value.kind == "oom"


def test_memory_of_the_failed_attempt_is_freed_before_the_next() -> None:
    held: list[weakref.ref[Tensor]] = []

    def work() -> None:
        activations = torch.zeros(3)
        ring: list[Any] = [activations]
        ring.append(ring)  # a cycle: only the garbage collector frees it
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried")

    gc.disable()
    try:
        assert within_memory(work) == OutOfMemory("CUDA out of memory.")
        free()
    finally:
        gc.enable()
    assert held[0]() is None


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize("error", ERRORS)
def test_evaluation_uses_smaller_batches(make_images: Make, configure: Make, tmp_path: Path, error: str) -> None:
    whole = run(start(make_images(), configure(epochs=2), seed=1))
    task = make_images()
    limited = Limited(task, evaluated=3, error=ERRORS[error])
    trial = run(start(task, configure(epochs=2), seed=1, checkpoint=tmp_path / "trial.ckpt"))
    tries = limited.refused
    assert timeless(trial.curve) == timeless(whole.curve)
    assert trial.recovered == "out of memory: evaluated in batches of 2"
    assert tries == 3  # 18 validation images, 9, 4; no epoch was trained again
    assert (trial.train_value(), trial.evaluate("test")) == (whole.train_value(), whole.evaluate("test"))
    resumed = start(task, configure(epochs=2), seed=1, checkpoint=tmp_path / "trial.ckpt")
    assert resumed.evaluate("test") == whole.evaluate("test")
    assert limited.refused == tries


def test_evaluation_fails_below_one_sample(make_images: Make, configure: Make) -> None:
    task = make_images()
    Limited(task, evaluated=0)
    with pytest.raises(TrialError, match="not enough memory even for one sample") as caught:
        run(start(task, configure(), seed=1))
    assert caught.value.kind == "oom"


def test_test_data_that_do_not_fit_are_read_once(make_images: Make, configure: Make) -> None:
    """Smaller batches would not help."""
    task, reads = make_images(), []

    def size(split: str) -> int:
        reads.append(1)
        raise MemoryError

    trial = start(task, configure(), seed=1)
    task.size = size
    with pytest.raises(TrialError, match="MemoryError") as caught:
        trial.evaluate("test")
    assert (caught.value.kind, reads) == ("oom", [1])


def test_both_recoveries_are_reported() -> None:
    room = MemoryBudget().less_for_training(64, 3, "full").less_for_evaluation(512, "full")
    assert room.recovered(64) == (
        "out of memory: trained in micro-batches of 32 (batch_size 64) from epoch 3 on, evaluated in batches of 256"
    )


# ---------------------------------------------------------------- memory really runs out

STARVED = """
import resource, sys
import psutil, torch
from ralr_tune.training.start import start
from tests.training.trials import configuration, images

torch.set_num_threads(1)
task = images(size=32, width=16)
trial = start(task, configuration(epochs=2, batch_size=72, precision="float32"), seed=1)
epochs = trial.epochs()
if sys.argv[1] == "starved":
    trial.state.step(next(task.batches("train", seed=1, epoch=0, batch_size=4)), 0.0, None)  # loads what torch needs
    trial = start(task, configuration(epochs=2, batch_size=72, precision="float32"), seed=1)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, -1))
for record in trial.epochs():
    pass
print(trial.recovered)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_the_operating_system_refuses_memory() -> None:
    def outcome_of(*arguments: str) -> str:
        command = [sys.executable, "-c", STARVED, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
        return (done.stdout if done.returncode == 0 else done.stderr).splitlines()[-1]

    assert outcome_of("plenty") == "None"
    outcomes = [outcome_of("starved", str(mebibytes)) for mebibytes in (12, 28, 40)]
    recovered = [outcome for outcome in outcomes if "out of memory: trained in micro-batches" in outcome]
    hopeless = [outcome for outcome in outcomes if "not enough memory even for one sample" in outcome]
    assert recovered
    assert set(outcomes) <= {*recovered, *hopeless, "None"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own options")
def test_freed_memory_stays_with_the_process() -> None:
    """For 50 tensors of 8 MB, one after the other, most pages are already mapped."""
    script = """
import resource, torch
from ralr_tune.training.memory import keep_freed
keep_freed()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**23, dtype=torch.uint8)
before = faults()
for _ in range(50):
    torch.ones(2**23, dtype=torch.uint8)
print(faults() - before)
"""
    faults = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(faults) < 50 * 2**23 / resource.getpagesize() / 2
