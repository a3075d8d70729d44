"""Recorded and replayed steps: the same results as without, on a CPU that imitates CUDA graphs (tape.py)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from ralr_tune.models.registry import build
from ralr_tune.tasks.base import Capabilities
from ralr_tune.training import loop, recording
from ralr_tune.training.compiling import Compilation
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.memory import MemoryBudget
from ralr_tune.training.recording import WARM_UPS, Recorder, recording_obstacle
from ralr_tune.training.start import start
from tests.training import tape
from tests.training.test_training_fusion import RECIPES, losses, train
from tests.training.trials import EqualSamples, differences, plain_network, run

Make = Callable[..., Any]
STATIC = Capabilities(static_steps=True, static_shapes=True)
BATCH = 20
"""Of 72 images: three full batches and a shorter one."""


def assert_same(recorded: Any, plain: Any) -> None:
    """Bit for bit; Adam's to six digits, since a rate on the device is float32 and Python's is not."""
    if recorded.configuration.training.optimizer == "sgd":
        assert differences(recorded, plain) == []
    assert [each.lr for each in recorded.curve] == [each.lr for each in plain.curve]
    assert losses(recorded) == pytest.approx(losses(plain), rel=1e-6)
    weights = [torch.cat([each.flatten() for each in one.state.model.parameters()]) for one in (recorded, plain)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """All trials record; one entry for each replay."""
    played: list[int] = []

    def record(work: Callable[[], Tensor], *where: Any) -> tuple[Tensor, Callable[[], object]]:
        output, play = tape.record(work, *where)
        return output, lambda: (played.append(1), play())

    monkeypatch.setattr(recording, "on_side_stream", lambda work, stream: work())
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
    monkeypatch.setattr(recording, "record", record)
    monkeypatch.setattr(loop, "choose_compilation", lambda wanted, **_: Compilation(False, wanted is not False, ""))
    return played


RECORDABLE = {name: recipe for name, recipe in RECIPES.items() if not name.startswith("decay")}
"""torch's optimizers read the weight decay from Python: one that varies is recorded in slots only."""


@pytest.mark.parametrize("recipe", RECORDABLE.values(), ids=RECORDABLE)
def test_a_recorded_trial_learns_the_same(
    make_images: Make, configure: Make, recipe: dict[str, Any], replays: list[int]
) -> None:
    """With dropout, a changing rate, a shorter last batch, and more than one epoch."""
    task = make_images(dropout=0.2)
    given = {"lr": 0.1, "batch_size": BATCH, "epochs": 3} | recipe
    plain = run(start(task, configure(**given, compile=False), seed=0))
    assert replays == []
    recorded = run(start(task, configure(**given), seed=0))
    assert len(replays) == 3 * (task.steps("train", BATCH) - 1) - WARM_UPS
    assert_same(recorded, plain)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recorded_slots_learn_the_same(
    make_images: Make, configure: Make, recipe: dict[str, Any], replays: list[int]
) -> None:
    """Slots have different hyperparameters; one ends and is reused: the recording stays valid."""
    found = []
    for compiled in (False, "auto"):
        task = make_images(dropout=0.2)
        given = {"lr": 0.1, "weight_decay": 1e-3, "batch_size": BATCH, "compile": compiled} | recipe
        trials = [start(task, configure(**given | {"lr": given["lr"] / (1 + k)}, epochs=4), seed=k) for k in range(3)]
        engine = FusedTrainer(task, 2)
        train(engine, trials[:2], epochs=2)
        train(engine, trials[1:], epochs=2)
        found.append(trials)
    assert len(replays) == 4 * (task.steps("train", BATCH) - 1) - WARM_UPS
    for plain, recorded in zip(*found, strict=True):
        assert differences(recorded, plain) == []


def test_a_trial_that_leaves_its_slot_is_recorded_again(make_images: Make, configure: Make, replays: list[int]) -> None:
    """The old recording writes into tensors that the trial no longer uses."""
    found = []
    for compiled in (False, "auto"):
        task = make_images()
        given = {"batch_size": BATCH, "compile": compiled, "options": {"momentum": 0.9}, "epochs": 3}
        trials = [start(task, configure(**given), seed=k) for k in range(2)]
        for slots in (1, 2, 1):
            train(FusedTrainer(task, slots), trials, epochs=1)
        found.append(trials)
    assert replays
    for plain, recorded in zip(*found, strict=True):
        assert differences(recorded, plain) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_recorded_trial_resumes_from_its_checkpoint(
    make_images: Make, configure: Make, tmp_path: Path, optimizer: str, replays: list[int]
) -> None:
    task = make_images()
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    given = {"optimizer": optimizer, "options": options, "lr": 0.01, "batch_size": BATCH, "epochs": 3}
    whole = run(start(task, configure(**given, compile=False), seed=0))
    begun = start(task, configure(**given), seed=0, checkpoint=tmp_path / "it")
    next(begun.epochs())
    again = start(task, configure(**given), seed=0, checkpoint=tmp_path / "it")
    assert_same(run(again), whole)
    assert replays


def test_without_memory_for_a_recording_the_same_steps_are_not_recorded(
    make_images: Make, configure: Make, monkeypatch: pytest.MonkeyPatch, replays: list[int]
) -> None:
    """Micro-batches would change the sums, and steps that are not recorded may fit."""

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    given = {"batch_size": BATCH, "epochs": 2, "options": {"momentum": 0.9}}
    plain = run(start(make_images(), configure(**given, compile=False), seed=0))
    monkeypatch.setattr(recording, "record", full)
    trial = run(start(make_images(), configure(**given), seed=0))
    assert trial.recovered is None
    assert_same(trial, plain)


def test_a_trial_without_memory_for_a_recording_does_not_try_again(
    make_images: Make,
    configure: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    replays: list[int],
) -> None:
    """Nor with micro-batches, which are never recorded; then the rate is not on the device."""
    tried: list[int] = []

    def full(*_: Any) -> Any:
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(recording, "record", full)
    given = {"batch_size": BATCH, "epochs": 2}
    begun = start(make_images(), configure(**given), seed=0, checkpoint=tmp_path / "it")
    next(begun.epochs())
    with caplog.at_level("INFO"):
        again = start(make_images(), configure(**given), seed=0, checkpoint=tmp_path / "it")
    assert "eager, not recorded: there was not enough memory" in caplog.text
    assert (again.memory, again.state.compilation.recorded) == (MemoryBudget(recorded=False), False)
    run(again)
    assert tried == [1]


def test_micro_batches_are_not_recorded(
    make_images: Make, configure: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replays: list[int]
) -> None:
    given = {"batch_size": BATCH, "epochs": 2}
    begun = start(make_images(), configure(**given), seed=0, checkpoint=tmp_path / "it")
    begun.memory = MemoryBudget(training=5, since=1)
    next(begun.epochs())
    replays.clear()
    again = start(make_images(), configure(**given), seed=0, checkpoint=tmp_path / "it")
    assert not again.state.compilation.recorded
    run(again)
    assert replays == []


# ---------------------------------------------------------------- the recorder


class Counting:
    """Work that records how it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.done: list[str] = []
        self._failure = failure
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
        monkeypatch.setattr(Recorder, "failed", False)
        monkeypatch.setattr(recording, "on_side_stream", self._on_side_stream)
        monkeypatch.setattr(recording, "record", self._record)

    def __call__(self, batch: Any) -> Tensor:
        self.done.append("work")
        return torch.zeros(())

    def _on_side_stream(self, work: Callable[[], Tensor], stream: str) -> Tensor:
        self.done.append("on_side_stream")
        return work()

    def _record(self, work: Callable[[], Tensor], *_: Any) -> tuple[Tensor, Callable[[], object]]:
        self.done.append("record")
        if self._failure:
            raise self._failure
        return torch.zeros(()), lambda: self.done.append("replay")


def test_the_third_batch_is_recorded_and_those_of_other_sizes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    work, recorder = Counting(monkeypatch), Recorder("cuda:1")
    for size in (8, 8, 5, 8, 8, 5):
        recorder(work, EqualSamples(size))
    assert work.done == ["on_side_stream", "work"] * 2 + ["work", "record", "replay", "replay", "work"]


class Shaped(EqualSamples):
    """The same number of samples, in a tensor of another shape."""

    def __init__(self, count: int, *shape: int) -> None:
        super().__init__(count)
        self.shape = shape

    @property
    def signature(self) -> Hashable:
        return self.shape


def test_batches_of_another_shape_are_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    work, recorder = Counting(monkeypatch), Recorder("cuda:1")
    for side in (4, 4, 5, 4, 4, 5):
        recorder(work, Shaped(8, 8, side, side))
    assert work.done == ["on_side_stream", "work"] * 2 + ["work", "record", "replay", "replay", "work"]


def test_work_that_cannot_be_recorded_runs_normally(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    work, recorder = Counting(monkeypatch, RuntimeError("operation not permitted\nwhen capturing")), Recorder("cuda:1")
    for _ in range(5):
        recorder(work, EqualSamples(8))
    assert work.done == ["on_side_stream", "work"] * 2 + ["record", "work", "work", "work"]
    assert caplog.text.count("no longer records steps as CUDA graphs: operation not permitted") == 1
    Recorder("cuda:1")(work, EqualSamples(8))
    assert work.done[-1:] == ["work"]
    assert work.done.count("on_side_stream") == 2


def test_out_of_memory_while_recording_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """There would be even less memory for the same step; the caller reduces the step."""
    work, recorder = Counting(monkeypatch, torch.OutOfMemoryError("CUDA out of memory")), Recorder("cuda:1")
    for _ in range(WARM_UPS):
        recorder(work, EqualSamples(8))
    with pytest.raises(torch.OutOfMemoryError):
        recorder(work, EqualSamples(8))


@pytest.mark.parametrize("name", ["small_cnn", "resnet20", "torchvision:resnet18"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_networks_of_known_packages_may_be_recorded(name: str, optimizer: str) -> None:
    assert recording_obstacle(STATIC, build(name, classes=3, channels=3, size=32), optimizer) is None


class Coin(nn.Module):
    """A user's module."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def hooked() -> nn.Module:
    module = nn.Identity()
    module.register_forward_hook(lambda *_: None)
    return module


def hooked_weight(name: str) -> nn.Module:
    module = nn.PReLU(1)
    getattr(module.weight, name)(lambda *_: None)
    return module


def patched() -> nn.Module:
    module = nn.Identity()
    module.forward = lambda x: x
    return module


@pytest.mark.parametrize(
    ("layers", "optimizer", "reason"),
    [
        ([Coin()], "sgd", "the operations of Coin may differ between steps"),
        ([hooked()], "sgd", "the operations of Identity may differ between steps"),
        ([patched()], "sgd", "the operations of Identity may differ between steps"),
        ([hooked_weight("register_hook")], "sgd", "the operations of PReLU may differ between steps"),
        (
            [hooked_weight("register_post_accumulate_grad_hook")],
            "sgd",
            "the operations of PReLU may differ between steps",
        ),
        ([fx.symbolic_trace(Coin())], "sgd", "the operations of Coin may differ between steps"),
        ([], "rmsprop", "rmsprop cannot read the learning rate from the device"),
    ],
)
def test_other_networks_are_not_recorded(layers: list[nn.Module], optimizer: str, reason: str) -> None:
    assert recording_obstacle(STATIC, nn.Sequential(nn.Conv2d(3, 4, 3), *layers), optimizer) == reason


def test_a_weight_decay_that_varies_is_not_recorded() -> None:
    plain = build("resnet20", classes=3, channels=3, size=32)
    assert recording_obstacle(STATIC, plain, "sgd", weight_decay_varies=False) is None
    reason = "the weight decay changes from step to step, and optimizers cannot read it from the device"
    assert recording_obstacle(STATIC, plain, "sgd", weight_decay_varies=True) == reason


def test_an_average_of_the_weights_is_recorded_around(make_images: Make, configure: Make, replays: list[int]) -> None:
    task, given = make_images(), {"lr": 0.1, "batch_size": BATCH, "epochs": 3, "ema_decay": 0.9}
    plain, recorded = (run(start(task, configure(**given, compile=how), seed=0)) for how in (False, "auto"))
    assert replays
    assert differences(recorded, plain) == []


def test_the_log_says_why_a_network_is_not_rewritten(
    make_images: Make, configure: Make, caplog: pytest.LogCaptureFixture
) -> None:
    loop.log_once.cache_clear()
    task, network = make_images(), plain_network(4)
    task.build_model = lambda seed: copy.deepcopy(nn.Sequential(network, Coin()))
    with caplog.at_level("INFO"):
        for seed in (0, 1):
            trial = run(start(task, configure(epochs=1), seed=seed))
            assert not trial.state.compilation.kernels
    assert caplog.text.count("normalisation by torch: the operations of Coin may differ between steps") == 1
