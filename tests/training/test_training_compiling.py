from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from ralr_tune.training import compiling, loop, precision
from ralr_tune.training.compiling import MIN_STEPS_TO_COMPILE, Compilation, choose_compilation
from ralr_tune.training.kernels.library import Unavailable
from ralr_tune.training.start import start
from tests.training.trials import run

Make = Callable[..., Any]


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda name: name)


@pytest.mark.usefixtures("triton")
def test_auto_compiles_long_trials_on_a_gpu() -> None:
    chosen = choose_compilation("auto", device="cuda:0", steps=MIN_STEPS_TO_COMPILE)
    assert chosen.wanted
    assert chosen.recorded
    assert "compiled, recorded as CUDA graphs: 60000 steps" in chosen.reason


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(
    ("device", "steps", "reason"),
    [
        ("cpu", 10**6, "normalisation"),
        ("mps", 10**6, "kind of device"),
        ("cuda", MIN_STEPS_TO_COMPILE - 1, "below 60000"),
    ],
)
def test_auto_compiles_nothing_else(device: str, steps: int, reason: str) -> None:
    chosen = choose_compilation("auto", device=device, steps=steps)
    assert not chosen.wanted
    assert chosen.recorded is (device == "cuda")
    assert reason in chosen.reason


def test_auto_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert "Triton is not installed" in choose_compilation("auto", device="cuda", steps=10**6).reason


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("wanted", [True, False])
def test_configured_values_are_used(wanted: bool, device: str) -> None:
    """False: plain Python, for debugging."""
    chosen = choose_compilation(wanted, device=device, steps=1)
    assert (chosen.wanted, chosen.recorded, chosen.kernels) == (wanted, wanted and device == "cuda", False)


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(
    ("wanted", "reason"),
    [("auto", "eager, not recorded: it is odd"), (True, "compiled, as configured, not recorded: it is odd")],
)
def test_steps_that_cannot_be_recorded_are_compiled_only_if_configured(wanted: Any, reason: str) -> None:
    """A step that is compiled and not recorded was slower than an eager one."""
    chosen = choose_compilation(wanted, device="cuda", steps=10**6, obstacle="it is odd")
    assert chosen == Compilation(wanted is True, False, reason)


def test_kernels_are_used_on_a_cpu_with_known_networks() -> None:
    assert choose_compilation("auto", device="cpu", steps=1).kernels
    assert not choose_compilation("auto", device="cuda", steps=1).kernels
    odd = choose_compilation("auto", device="cpu", steps=1, obstacle="it is odd")
    assert odd == Compilation(False, False, "eager, normalisation by torch: it is odd")


def test_without_a_compiler_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise Unavailable("no C++ compiler found")

    monkeypatch.setattr(compiling, "kernels", none)
    chosen = choose_compilation("auto", device="cpu", steps=1)
    assert chosen == Compilation(False, False, "eager, normalisation by torch: no C++ compiler found")


def test_the_log_gives_the_choice_and_its_reason_once(
    make_images: Make, configure: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_matrix_units", lambda: False)
    loop.log_once.cache_clear()
    with caplog.at_level("INFO"):
        for seed in (0, 1):
            start(make_images(), configure(precision="auto"), seed=seed)
    message = "below 16 pixels bfloat16 may be slower; channels last: True; eager; with channels last"
    assert caplog.text.count(message) == 1


@pytest.mark.slow
def test_one_process_compiles_once(make_images: Make, configure: Make) -> None:
    """Another rate, weight decay, seed or shorter batch and an evaluation do not compile anything again."""
    torch._dynamo.reset()
    counters.clear()
    task = make_images()
    for number in range(3):
        run(
            start(
                task, configure(epochs=2, compile=True, lr=0.1 / (1 + number), weight_decay=1e-3 * number), seed=number
            )
        )
        assert counters["stats"]["unique_graphs"] == 1
    assert task.steps("train", 16) * 16 > task.size("train")  # the last batch is shorter
