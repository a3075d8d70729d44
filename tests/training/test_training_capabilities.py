"""A task's declared capabilities decide how its steps run: by default eagerly, weighted by the batches' weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ralr_tune.errors import UsageError
from ralr_tune.tasks.base import Batch, Capabilities, TorchTask, tensor_signature
from ralr_tune.tasks.trial import evaluated_split
from ralr_tune.training import loop
from ralr_tune.training.compiling import Compilation
from ralr_tune.training.estimate import seconds_per_epoch
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.recording import recording_obstacle, rewriting_obstacle
from ralr_tune.training.slot import SlotEpoch
from ralr_tune.training.start import start
from tests.training.boxes import COUNTS, BoxTask, Detector
from tests.training.trials import differences, run, weights

Make = Callable[..., Any]

STEP_CURVE = {"name": "cosine", "granularity": "step"}
AMPLIFY = {"probability": 0.5, "lower": 1.0, "width": 1.0, "granularity": "step"}
STATIC = Capabilities(static_steps=True, static_shapes=True)


@pytest.fixture
def boxes(configure: Make) -> Any:
    """A configuration of batches of at most eight boxes."""
    return configure(batch_size=8, lr=0.05, schedule=STEP_CURVE, amplify=AMPLIFY, options={"momentum": 0.9})


# ---------------------------------------------------------------- a task whose steps vary


def test_steps_that_vary_in_shape_and_number_are_trained(boxes: Any) -> None:
    task = BoxTask()
    steps = [task.steps("train", 8, epoch, seed=3) for epoch in range(4)]
    trial = run(start(task, boxes, seed=3))
    assert len(set(steps)) > 1
    assert len(task.losses) == sum(steps)
    assert len(task.signatures) > 1
    assert trial.curve[-1].value < trial.curve[0].value


def test_the_mean_loss_is_weighted_by_boxes(boxes: Any) -> None:
    task = BoxTask()
    epochs = start(task, boxes, seed=3).epochs()
    for record in epochs:
        mean = sum(loss * weight for loss, weight in task.losses) / sum(weight for _, weight in task.losses)
        assert record.train_loss == pytest.approx(mean, rel=1e-6)
        assert record.train_loss != pytest.approx(sum(loss for loss, _ in task.losses) / len(task.losses), rel=1e-3)
        task.losses.clear()


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_a_resumed_trial_equals_an_uninterrupted_one(boxes: Any, tmp_path: Path, killed: int) -> None:
    whole = run(start(BoxTask(), boxes, seed=3))
    epochs = start(BoxTask(), boxes, seed=3, checkpoint=tmp_path / "it").epochs()
    for _ in range(killed):
        next(epochs)
    resumed = start(BoxTask(), boxes, seed=3, checkpoint=tmp_path / "it")
    assert len(resumed.curve) == killed
    assert differences(run(resumed), whole) == []


def test_the_rate_follows_the_curve_with_varying_numbers_of_steps(boxes: Any) -> None:
    task = BoxTask()
    trial: Any = start(task, boxes, seed=3)
    steps = [task.steps("train", 8, epoch, seed=3) for epoch in range(4)]
    assert [len(trial.learning_rate.rates(epoch)) for epoch in range(4)] == steps
    assert [record.lr for record in run(trial).curve] == [trial.learning_rate.rates(epoch)[0] for epoch in range(4)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_its_steps_are_neither_recorded_nor_compiled_nor_rewritten(
    boxes: Any, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    chosen: list[Compilation] = []
    choose = loop.choose_compilation

    def spy(wanted: Any, **given: Any) -> Compilation:
        chosen.append(choose(wanted, **given | {"device": device, "steps": 10**9}))
        return Compilation(False, False, "")

    monkeypatch.setattr(loop, "choose_compilation", spy)
    monkeypatch.setattr(loop, "is_cuda", lambda name: device == "cuda")
    start(BoxTask(), boxes, seed=3)
    (found,) = chosen
    assert (found.wanted, found.recorded, found.kernels) == (False, False, False)
    assert "the task does not guarantee equal steps" in found.reason


def test_compile_true_is_refused_for_it(configure: Make) -> None:
    with pytest.raises(UsageError, match=r'training\.compile = true: .*cannot be compiled; allowed: false, "auto"'):
        start(BoxTask(), configure(batch_size=8, compile=True), seed=0)


def test_it_is_not_fused(boxes: Any) -> None:
    trials: list[Any] = [start(BoxTask(), boxes, seed=seed) for seed in (0, 1)]
    assert [SlotEpoch(trial).key() for trial in trials] == [None, None]
    FusedTrainer(BoxTask(), 2).train(trials)
    assert all(trial.trained_ahead is None for trial in trials)


def test_its_epoch_is_estimated_with_its_own_batches(boxes: Any) -> None:
    task = BoxTask()
    assert seconds_per_epoch(task, boxes, steps=1) > 0
    assert len(task.losses) == 2  # one to warm up, one timed


# ---------------------------------------------------------------- memory


class Limited(BoxTask):
    """Has memory for `limit` samples at once."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.refused: list[int] = []

    def loss(self, model: nn.Module, batch: Batch, *, options: Hashable) -> Tensor:
        if len(batch) > self.limit:
            self.refused.append(len(batch))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(model, batch, options=options)


class Quiet(Detector):
    """Draws nothing: micro-batches would draw in another order."""

    def forward(self, boxes: Tensor, targets: Tensor | None = None) -> Tensor:
        outputs: Tensor = self.head(boxes)[:, 0]
        return outputs if targets is None else (outputs - targets) ** 2


def test_micro_batches_add_up_to_the_whole_batch_by_boxes(configure: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step on all samples, in parts with different numbers of boxes, one without any."""
    monkeypatch.setattr(BoxTask, "build_model", lambda self, seed: torch.manual_seed(seed) and Quiet())
    configuration = configure(epochs=1, batch_size=sum(COUNTS), lr=0.1)
    whole = run(start(BoxTask(), configuration, seed=1))
    for limit in (6, 5, 1):
        trial = run(start(Limited(limit), configuration, seed=1))
        assert trial.recovered is not None
        assert trial.curve[0].train_loss == pytest.approx(whole.curve[0].train_loss, rel=1e-5)
        for name, weight in weights(whole).items():
            assert torch.allclose(weights(trial)[name], weight, rtol=1e-5, atol=1e-6), name


def test_a_batch_size_in_boxes_is_halved_until_it_splits_samples(
    configure: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """batch_size is 1,000 boxes; there are 29, in 12 samples: the first half that splits them is 7."""
    task = Limited(6)
    run(start(task, configure(epochs=1, batch_size=1000), seed=1))
    assert task.refused == [12]
    assert "in micro-batches of 7" in caplog.text


# ---------------------------------------------------------------- where the gap is measured


@pytest.mark.parametrize("gap_split", [None, "probe", "train"])
def test_the_gap_is_measured_on_the_tasks_split(make_line: Make, configure: Make, gap_split: Any) -> None:
    task, evaluated = make_line(), []
    task.capabilities = Capabilities(gap_split=gap_split)
    trial = run(start(task, configure(epochs=1), seed=0))
    evaluate = task.evaluate
    task.evaluate = lambda model, split, **given: (evaluated.append(split), evaluate(model, split, **given))[1]
    assert (trial.train_value() is None) is (gap_split is None)
    assert evaluated == ([] if gap_split is None else [gap_split])


def test_the_evaluated_split_exists_without_a_probe() -> None:
    assert [evaluated_split("train", split) for split in (None, "probe")] == ["validation", "validation"]
    assert [evaluated_split("train+validation", split) for split in (None, "probe")] == ["validation", "probe"]


# ---------------------------------------------------------------- task and network


def test_the_defaults_guarantee_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(TorchTask):
        """A user's task that declares nothing."""

    nothing = Silent().capabilities  # type: ignore[abstract]
    assert nothing == Capabilities()
    assert (nothing.may_record, nothing.fusable, nothing.gap_split) == (False, False, "probe")


def test_a_known_network_is_trusted_only_if_the_task_has_static_steps() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert recording_obstacle(STATIC, plain, "sgd") is None
    assert rewriting_obstacle(STATIC, plain) is None
    assert recording_obstacle(Capabilities(), plain, "sgd") == "the task does not guarantee equal steps"
    assert rewriting_obstacle(Capabilities(static_shapes=True), plain) == "the task does not guarantee equal steps"


def test_with_varying_shapes_kernels_are_used_and_nothing_is_recorded() -> None:
    varying, plain = Capabilities(static_steps=True), nn.ReLU()
    assert rewriting_obstacle(varying, plain) is None
    assert recording_obstacle(varying, plain, "sgd") == "the task's batches differ in shape"


def test_a_detector_of_torchvision_is_never_recorded() -> None:
    detector = nn.Sequential(Detector().transform, nn.Linear(4, 1))
    assert type(detector[0]).__module__.startswith("torchvision.")
    reason = "the operations of GeneralizedRCNNTransform may differ between steps"
    assert recording_obstacle(STATIC, detector, "sgd") == rewriting_obstacle(STATIC, detector) == reason


def test_signatures_distinguish_shapes_and_types() -> None:
    one = tensor_signature(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    assert one == tensor_signature(torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    assert one != tensor_signature(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    assert one != tensor_signature(torch.zeros(2, 3), torch.zeros(2))


def test_the_log_gives_the_reason(boxes: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop.log_once.cache_clear()
    with caplog.at_level(logging.INFO):
        start(BoxTask(), boxes, seed=0)
    assert "normalisation by torch: the task does not guarantee equal steps" in caplog.text
