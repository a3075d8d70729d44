"""The kernels for a CPU: the same results as torch's operators, up to rounding."""

from __future__ import annotations

import copy
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ralr_tune.errors import RalrTuneError
from ralr_tune.models.registry import build
from ralr_tune.tasks.base import Capabilities, Split
from ralr_tune.training import loop
from ralr_tune.training.compiling import Compilation, Network
from ralr_tune.training.fusion import FusedTrainer
from ralr_tune.training.kernels import library
from ralr_tune.training.kernels.joining import Joined, joined
from ralr_tune.training.kernels.library import Kernels, Unavailable, kernels
from ralr_tune.training.kernels.normalise import Norm, fits, normalised
from ralr_tune.training.slot import SlotEpoch
from ralr_tune.training.start import start
from tests.training.test_training_fusion import losses, train
from tests.training.trials import differences, run

Make = Callable[..., Any]

try:
    kernels()
except Unavailable as reason:
    pytest.skip(str(reason), allow_module_level=True)

FLOAT32, BFLOAT16 = 5e-6, 2**-8
"""Largest errors against float64, relative to the largest number: sums of float32, and one rounding of eight bits."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the called kernels."""
    asked: list[str] = []
    call = Kernels.call

    def counting(self: Kernels, name: str, *given: Any) -> None:
        asked.append(name)
        call(self, name, *given)

    monkeypatch.setattr(Kernels, "call", counting)
    return asked


def pixels(*shape: int, like: torch.dtype = torch.float32, mean: float = 0.0, seed: int = 0) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + mean
    return drawn.to(like).contiguous(memory_format=torch.channels_last).requires_grad_()


def norm_of(channels: int) -> Norm:
    drawn = torch.Generator().manual_seed(channels)
    weight, bias, mean = (torch.randn(channels, generator=drawn) for _ in range(3))
    return Norm(weight.requires_grad_(), bias.requires_grad_(), mean, mean.square() + 1, 0.1, 1e-5)


def in_float64(x: Tensor, norm: Norm, other: Tensor | None, relu: bool, dy: Tensor, pool: bool = False) -> list[Tensor]:
    """The expected results, computed by torch from the same numbers."""
    given = [each.detach().double().requires_grad_() for each in (x, norm.weight, norm.bias)]
    added = None if other is None else other.detach().double().requires_grad_()
    mean, variance = norm.running_mean.double(), norm.running_variance.double()
    y = F.batch_norm(given[0], mean, variance, given[1], given[2], True, norm.momentum, norm.epsilon)
    y = y if added is None else y + added
    y = F.relu(y) if relu else y
    y = F.avg_pool2d(y, 2) if pool else y
    y.backward(dy.double())
    return [y, *(each.grad for each in [*given, *filter(lambda each: each is not None, [added])]), mean, variance]


def by_the_kernel(
    x: Tensor, norm: Norm, other: Tensor | None, relu: bool, dy: Tensor, pool: bool = False
) -> list[Tensor]:
    assert fits(x, norm, other)
    leaves = [x, norm.weight, norm.bias, *([] if other is None else [other])]
    for leaf in leaves:
        leaf.grad = None
    y = normalised(x, norm, other, relu=relu, pool=pool)
    y.backward(dy)
    return [y, *(leaf.grad for leaf in leaves), norm.running_mean, norm.running_variance]


def assert_near(found: list[Tensor], wanted: list[Tensor], error: float) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        largest = other.detach().abs().max().item()
        torch.testing.assert_close(one.detach().double(), other.detach(), rtol=0, atol=error * largest)


SHAPES = [(9, 16, 32, 32), (3, 32, 5, 7), (5, 48, 3, 3), (2, 128, 8, 8), (2, 16, 1, 1)]
NARROW = [(3, 24, 4, 4), (4, 60, 5, 5), (4, 300, 3, 3), (1, 12, 2, 2), (2, 3, 16, 16), (16, 7, 3, 3)]
"""Numbers of channels that do not fill vectors: several pixels do."""


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "no relu"])
@pytest.mark.parametrize("summed", [True, False], ids=["sum", "no sum"])
@pytest.mark.parametrize("shape", SHAPES + NARROW)
@pytest.mark.parametrize(("kind", "error"), [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)], ids=str)
def test_values_gradients_and_moving_averages_are_correct(
    shape: tuple[int, ...], summed: bool, relu: bool, kind: torch.dtype, error: float
) -> None:
    """Chunks that are not full, rows of one to 75 vectors, and pixels that are not a multiple of four."""
    x, norm, dy = pixels(*shape, like=kind, mean=1.5), norm_of(shape[1]), pixels(*shape, like=kind, seed=1).detach()
    other = pixels(*shape, like=kind, mean=0.5, seed=2) if summed else None
    wanted = in_float64(x, norm, other, relu, dy)
    found = by_the_kernel(x, norm, other, relu, dy)
    if shape[2:] != (1, 1):  # with two pixels the gradient is a difference that is mostly rounding
        assert_near(found, wanted, error)
    else:
        assert_near(found[:1] + found[2:], wanted[:1] + wanted[2:], error)


@pytest.mark.parametrize("shape", [(9, 16, 32, 32), (3, 32, 6, 4), (5, 48, 2, 2), (2, 128, 8, 8), (1, 64, 2, 600)])
@pytest.mark.parametrize(("kind", "error"), [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)], ids=str)
def test_means_of_pixels_are_correct(shape: tuple[int, ...], kind: torch.dtype, error: float) -> None:
    """Includes an image whose row is longer than a chunk."""
    x, norm = pixels(*shape, like=kind, mean=1.5), norm_of(shape[1])
    dy = pixels(*shape[:2], shape[2] // 2, shape[3] // 2, like=kind, seed=1).detach()
    wanted = in_float64(x, norm, None, True, dy, pool=True)
    assert_near(by_the_kernel(x, norm, None, True, dy, pool=True), wanted, error)


@pytest.mark.parametrize(("relu", "pool", "summed"), [(1, 0, 0), (0, 0, 0), (1, 0, 1), (0, 0, 1), (1, 1, 0)])
@pytest.mark.parametrize("shape", [(9, 16, 32, 32), (3, 32, 6, 4), (5, 48, 2, 2), (1, 128, 8, 8), (1, 64, 2, 600)])
@pytest.mark.parametrize(("kind", "error"), [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)], ids=str)
def test_evaluations_are_correct(
    shape: tuple[int, ...], relu: int, pool: int, summed: int, kind: torch.dtype, error: float, calls: list[str]
) -> None:
    x, norm = pixels(*shape, like=kind, mean=1.5), norm_of(shape[1])
    other = pixels(*shape, like=kind, seed=2) if summed else None
    before = [each.clone() for each in norm[:4]]
    with torch.no_grad():
        found = normalised(x, norm, other, relu=bool(relu), pool=bool(pool), training=False)
    assert calls == [f"evaluate_{'float32' if kind == torch.float32 else 'bfloat16'}"]
    wanted = F.batch_norm(x.double(), *(each.double() for each in (*before[2:], *before[:2])), False, 0.1, 1e-5)
    wanted = wanted if other is None else wanted + other.double()
    wanted = F.relu(wanted) if relu else wanted
    assert_near([found], [F.avg_pool2d(wanted, 2) if pool else wanted], error)
    assert all(torch.equal(*pair) for pair in zip(before, norm[:4], strict=True))


@pytest.mark.parametrize("shape", NARROW)
def test_evaluations_of_narrow_images_are_correct(shape: tuple[int, ...], calls: list[str]) -> None:
    x, norm = pixels(*shape), norm_of(shape[1])
    with torch.no_grad():
        found = normalised(x, norm, relu=True, training=False)
    assert calls == ["evaluate_float32"]
    mean, variance = norm.running_mean.double(), norm.running_variance.double()
    assert norm.weight is not None
    assert norm.bias is not None
    wanted = F.batch_norm(x.double(), mean, variance, norm.weight.double(), norm.bias.double(), False, 0.1, 1e-5)
    assert_near([found], [F.relu(wanted)], FLOAT32)


@pytest.mark.parametrize("shape", [(2, 16, 5, 4), (2, 24, 4, 4)], ids=["odd size", "half a vector"])
def test_images_that_the_kernel_cannot_pool_are_pooled_by_torch(shape: tuple[int, ...], calls: list[str]) -> None:
    x, norm, again = pixels(*shape).detach(), norm_of(shape[1]), norm_of(shape[1])
    found = normalised(x, norm, relu=True, pool=True)
    plain = F.batch_norm(x, again.running_mean, again.running_variance, again.weight, again.bias, True)
    assert calls == []
    assert torch.equal(found, F.avg_pool2d(F.relu(plain), 2))


def test_gradients_without_training_are_torchs_own(calls: list[str]) -> None:
    x, norm = pixels(2, 16, 4, 4), norm_of(16)
    normalised(x, norm, relu=True, training=False).sum().backward()
    assert calls == []
    assert x.grad is not None


def test_numbers_far_from_zero_keep_their_variance() -> None:
    """The mean square in float32 minus the squared mean would cancel completely."""
    x, norm, dy = pixels(8, 16, 8, 8, mean=3000), norm_of(16), pixels(8, 16, 8, 8, seed=1).detach()
    wanted = in_float64(x, norm, None, False, dy)
    assert_near(by_the_kernel(x, norm, None, False, dy), wanted, 1e-3)


def test_one_pixel_far_from_all_others_does_not_spoil_the_variance() -> None:
    """Even the first one: the first image may be fully bright."""
    x, norm, dy = pixels(64, 16, 16, 16), norm_of(16), pixels(64, 16, 16, 16, seed=1).detach()
    with torch.no_grad():
        x[0, :, 0, 0] = 600
    wanted = in_float64(x, norm, None, False, dy)
    assert_near(by_the_kernel(x, norm, None, False, dy), wanted, 1e-4)


@pytest.mark.parametrize("summed", [True, False])
def test_results_do_not_depend_on_the_number_of_threads(summed: bool) -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x, norm, dy = pixels(9, 32, 32, 32), norm_of(32), pixels(9, 32, 32, 32, seed=1).detach()
            found.append(by_the_kernel(x, norm, pixels(9, 32, 32, 32, seed=2) if summed else None, True, dy))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


def test_nan_is_propagated() -> None:
    """Otherwise divergence would not be detected."""
    x, norm = pixels(2, 16, 4, 4), norm_of(16)
    with torch.no_grad():
        x[0, 3, 1, 1] = torch.nan
    y = normalised(x, norm, relu=True)
    assert y[:, 3].isnan().all()
    assert not y[:, :3].isnan().any()


@pytest.mark.parametrize(
    ("x", "other"),
    [
        (torch.randn(3, 10, 3, 3).contiguous(memory_format=torch.channels_last), None),
        (torch.randn(2, 16, 4, 4), None),
        (torch.randn(2, 16, 4, 4).double().contiguous(memory_format=torch.channels_last), None),
        (pixels(2, 16, 4, 4).detach(), torch.randn(2, 16, 1, 1)),
        (pixels(2, 16, 4, 4).detach(), torch.randn(2, 16, 4, 4)),
        (pixels(2, 16, 4, 4).detach(), pixels(2, 16, 4, 4).detach().bfloat16()),
        (torch.randn(4, 16), None),
    ],
    ids=["half a vector", "order", "float64", "broadcast", "order of the sum", "kinds", "no images"],
)
def test_unsupported_tensors_use_torchs_operators(x: Tensor, other: Tensor | None) -> None:
    norm, again = norm_of(x.shape[1]), norm_of(x.shape[1])
    if x.dtype == torch.float64:
        norm, again = (Norm(*(each.double() for each in one[:4]), *one[4:]) for one in (norm, again))  # type: ignore[misc]
    assert not fits(x, norm, other)
    wanted = F.batch_norm(x, again[2], again[3], again.weight, again.bias, True, again.momentum, again.epsilon)
    wanted = F.relu(wanted if other is None else wanted + other)
    assert torch.equal(normalised(x, norm, other, relu=True), wanted)
    assert torch.equal(norm.running_variance, again.running_variance)


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("name", "size", "layers", "with_relu", "with_pool"),
    [
        ("small_cnn", 32, 4, 4, 3),
        ("resnet20", 32, 19, 19, 0),
        ("torchvision:resnet18", 64, 20, 17, 0),
        ("torchvision:densenet121", 64, 121, 121, 0),
        ("torchvision:mobilenet_v2", 64, 52, 0, 0),
    ],
)
def test_networks_learn_the_same(name: str, size: int, layers: int, with_relu: int, with_pool: int) -> None:
    torch.manual_seed(0)
    plain = build(name, classes=10, channels=3, size=size).to(memory_format=torch.channels_last)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
    other = copy.deepcopy(plain)
    network = joined(other)
    found = [each for each in network.modules() if isinstance(each, Joined)]
    counts = len(found), sum(each._relu for each in found), sum(each._pool for each in found)
    assert counts == (layers, with_relu, with_pool)
    images = pixels(4, 3, size, size).detach()
    outputs = [each(images) for each in (plain, network)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-3, atol=1e-3)
    for each in outputs:
        each.square().sum().backward()
    gradients = [torch.cat([weight.grad.flatten() for weight in each.parameters()]) for each in (plain, other)]  # type: ignore[union-attr]
    assert F.cosine_similarity(*gradients, dim=0) > 0.9999
    for key, value in plain.named_buffers():
        torch.testing.assert_close(dict(other.named_buffers())[key], value, rtol=1e-3, atol=1e-4)


def in_place(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    a += b
    return F.relu(a, inplace=True)


def in_place_of_another(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    x = x * 2
    x += a
    return F.relu(x) + x + b


AFTER: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], int]] = {
    "sum": (lambda a, b, x: (a + b).relu(), 1),
    "in place": (in_place, 1),
    "in place of another": (in_place_of_another, 0),
    "used twice": (lambda a, b, x: F.relu(a) + a + b, 0),
    "twice itself": (lambda a, b, x: F.relu(a + a) + b, 0),
    "a number": (lambda a, b, x: F.relu(a + 1) + b, 0),
    "no relu": (lambda a, b, x: a + b, 0),
}
"""What to do with the outputs of two layers and their input, and how many ReLUs are joined."""


class Two(nn.Module):
    """Two layers, and a function of their outputs."""

    def __init__(self, then: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self._then = nn.BatchNorm2d(16), nn.BatchNorm2d(16), then

    def forward(self, x: Tensor) -> Tensor:
        return self._then(self.first(x), self.second(x * x), x)


@pytest.mark.parametrize(("then", "with_relu"), AFTER.values(), ids=AFTER)
def test_only_results_without_other_uses_are_joined(then: Callable[..., Tensor], with_relu: int) -> None:
    plain = Two(then)
    network, x = joined(copy.deepcopy(plain)), pixels(2, 16, 4, 4).detach()
    assert sum(each._relu for each in network.modules() if isinstance(each, Joined)) == with_relu
    torch.testing.assert_close(network(x), plain(x), rtol=1e-5, atol=1e-5)


def test_a_layer_in_evaluation_mode_is_not_updated() -> None:
    plain = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2))
    network, x = joined(plain), pixels(2, 16, 4, 4).detach()
    assert isinstance(network, fx.GraphModule)
    network.eval()
    before = copy.deepcopy(plain.state_dict())
    assert torch.equal(network(x), plain(x))
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())


class Dropping(nn.Module):
    """Passes its mode to a function: the traced network has it as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.norm(x), 0.5, self.training)


def test_training_and_evaluation_are_traced_separately() -> None:
    plain, x = Dropping(), pixels(2, 16, 4, 4).detach()
    network = Network(plain, batch_size=2, compilation=Compilation(False, False, "", kernels=True))
    with torch.no_grad():
        assert (network.for_batch(2)(x) == 0).any()
        torch.testing.assert_close(network.for_evaluation()(x), plain(x), rtol=1e-5, atol=1e-5)
        assert (network.for_evaluation()(x) != 0).all()
        plain.train()
        assert (network.for_batch(2)(x) == 0).any()


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, 2),
        nn.AvgPool2d(2, 1),
        nn.AvgPool2d(2, 2, 1),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
        nn.MaxPool2d(2),
    ],
    ids=str,
)
def test_other_pooling_is_not_joined(pool: nn.Module) -> None:
    plain, x = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), pool), pixels(2, 16, 7, 8).detach()
    network = joined(copy.deepcopy(plain))
    assert [each._pool for each in network.modules() if isinstance(each, Joined)] == [False]
    torch.testing.assert_close(network(x), plain(x), rtol=1e-5, atol=1e-5)


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_traced_is_returned_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    network = Deciding()
    with caplog.at_level("INFO"):
        assert joined(network) is network
    assert "this network cannot be traced: symbolically traced variables cannot be used" in caplog.text


def test_other_threads_train_while_one_traces() -> None:
    """torch.fx patches the call of every module during a trace."""
    other, x = build("small_cnn", classes=3, channels=3, size=16), torch.randn(4, 3, 16, 16)
    done, failed = threading.Event(), []

    def train_on() -> None:
        while not done.is_set():
            try:
                other(x).sum().backward()
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=train_on)
    thread.start()
    networks = [joined(build("resnet20", classes=3, channels=3, size=16)) for _ in range(10)]
    done.set()
    thread.join()
    assert failed == []
    assert all(sum(isinstance(each, Joined) for each in network.modules()) == 19 for network in networks)


def test_an_interrupt_during_tracing_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise RalrTuneError("stopped")

    monkeypatch.setattr(fx.Tracer, "trace", interrupted)
    with pytest.raises(RalrTuneError):
        joined(nn.Sequential(nn.BatchNorm2d(16)))


def test_a_network_without_normalisation_is_returned_unchanged() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    assert joined(network) is network


# ---------------------------------------------------------------- trials


def test_a_trial_learns_the_same_with_kernels(make_images: Make, configure: Make, calls: list[str]) -> None:
    """Three layers, forward and backward in every step, including the shorter last one, and forward in evaluation."""
    task = make_images(size=16)
    plain = run(start(task, configure(epochs=3, compile=False), seed=0))
    assert calls == []
    trial = run(start(task, configure(epochs=3), seed=0))
    epochs, layers, steps = 3, 3, task.steps("train", 16)
    once = {"backward_float32": steps, "evaluate_float32": 1, "forward_float32": steps}
    assert Counter(calls) == {name: epochs * layers * each for name, each in once.items()}
    assert losses(trial) == pytest.approx(losses(plain), rel=1e-3)


def test_a_users_evaluation_gets_the_original_network(make_images: Make, configure: Make) -> None:
    task = make_images(size=16)

    class Own(type(task)):  # type: ignore[misc]
        capabilities = Capabilities()

        def evaluate(self, model: nn.Module, split: Split, **_: Any) -> float:
            return float(isinstance(model, fx.GraphModule))

    task.__class__ = Own
    assert run(start(task, configure(epochs=1), seed=0)).curve[-1].value == 0
    assert not start(task, configure(epochs=1), seed=0).state.compilation.kernels


def test_a_resumed_trial_equals_an_uninterrupted_one(
    make_images: Make, configure: Make, calls: list[str], tmp_path: Path
) -> None:
    task, given = make_images(size=16), configure(epochs=3, options={"momentum": 0.9})
    whole = run(start(task, given, seed=0))
    next(start(task, given, seed=0, checkpoint=tmp_path / "it").epochs())
    assert differences(run(start(task, given, seed=0, checkpoint=tmp_path / "it")), whole) == []
    assert calls


def test_resuming_a_checkpoint_without_kernels_logs_that_sums_may_differ(
    make_images: Make,
    configure: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    next(start(make_images(), configure(), seed=0, checkpoint=tmp_path / "it").epochs())
    monkeypatch.setattr(loop, "choose_compilation", lambda wanted, **_: Compilation(False, False, "eager"))
    with caplog.at_level("INFO"):
        start(make_images(), configure(), seed=0, checkpoint=tmp_path / "it")
    assert "normalisation by the kernel of ralr_tune, continuing with" in caplog.text


@pytest.mark.parametrize("compiled", [False, "auto"])
def test_slots_learn_the_same_with_kernels(make_images: Make, configure: Make, calls: list[str], compiled: Any) -> None:
    task, given = make_images(size=16), [configure(epochs=2, compile=compiled, lr=0.1 / (1 + k)) for k in range(3)]
    alone = [run(start(task, each, seed=k)) for k, each in enumerate(given)]
    calls.clear()
    slots = [start(task, each, seed=k) for k, each in enumerate(given)]
    train(FusedTrainer(task, 3), slots)
    assert bool(calls) is (compiled == "auto")
    for one, other in zip(alone, slots, strict=True):
        assert losses(other) == pytest.approx(losses(one), rel=2e-3)


def test_trials_with_kernels_and_without_are_not_fused(make_images: Make, configure: Make) -> None:
    one, other = (start(make_images(), configure(compile=compiled), seed=0) for compiled in (False, "auto"))
    assert SlotEpoch(one).key() != SlotEpoch(other).key()


def test_missing_memory_for_the_sums_is_an_out_of_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels(), "_functions", {"forward_float32": lambda *_: 1})
    with pytest.raises(MemoryError, match="no memory for the sums of forward_float32"):
        normalised(pixels(2, 16, 4, 4), norm_of(16), relu=True)


# ---------------------------------------------------------------- building


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing has been built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    library._load.cache_clear()
    yield tmp_path / "ralr_tune"
    library._load.cache_clear()


def test_kernels_are_built_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels()
    assert [file.suffix for file in fresh.iterdir()] == [".so"]
    assert fresh.stat().st_mode & 0o077 == 0
    library._load.cache_clear()
    monkeypatch.setattr(subprocess, "run", None)
    y = normalised(pixels(2, 16, 4, 4), norm_of(16), relu=True)
    assert y.isfinite().all()


def test_another_processor_has_its_own(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Several machines may share a home folder, and code for one may crash on another."""
    kernels()
    monkeypatch.setattr(library, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("model name : another\nflags : fewer\n")
    library._load.cache_clear()
    kernels()
    assert len(list(fresh.iterdir())) == 2


def test_a_missing_compiler_is_the_reason(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler found: c\+\+, g\+\+, clang\+\+"):
        kernels()


def test_a_compiler_that_fails_is_quoted(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'it began well' >&2; echo 'fatal error: no headers' >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(Unavailable, match="compiler failed: fatal error: no headers"):
        kernels()
    assert list(fresh.iterdir()) == []


def test_a_missing_folder_is_the_reason(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="Not a directory"):
        kernels()


def test_a_damaged_file_is_built_again(fresh: Path) -> None:
    fresh.mkdir(mode=0o700)
    file = fresh / f"{library._cache_key(library.compiler())}.so"
    file.write_bytes(b"half a lib")
    kernels()
    assert file.stat().st_size > 1000


def test_code_from_a_folder_that_others_can_write_is_not_loaded(fresh: Path) -> None:
    fresh.mkdir()
    fresh.chmod(0o777)
    with pytest.raises(Unavailable, match="other users may write there; `chmod 700` it"):
        kernels()


def test_a_user_without_a_home_has_no_kernels(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(Unavailable, match="Could not determine home directory"):
        kernels()


def test_a_failed_build_is_not_repeated(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every trial requests the kernels, and a compiler needs seconds to fail."""
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\necho >> {tmp_path / 'asked'}; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"{compiler} -with options")
    for _ in range(2):
        with pytest.raises(Unavailable, match="compiler failed"):
            kernels()
    assert (tmp_path / "asked").read_text() == "\n"
