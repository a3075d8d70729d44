from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

import pytest

from ralr_tune.errors import DataError, TrialError
from ralr_tune.spec import Configuration
from ralr_tune.tasks.simulated import CEILING, CHANCE, CURVATURE, SimulatedTask, simulated_task

EXACT = {"noise": 0.0, "epoch_noise": 0.0, "jitter": 0.0}
AMPLIFY = {"probability": 0.5, "lower": 1.0, "width": 2.0}


def configuration(amplify: dict[str, Any] | None = None, **training: Any) -> Configuration:
    tables: dict[str, Any] = {"training": {"epochs": 40, "batch_size": 32, "lr": 0.1} | training}
    return Configuration.model_validate(tables | ({"amplify": amplify} if amplify else {}))


def task(**data: float) -> SimulatedTask:
    return simulated_task(data, identity="test")


def final(task: SimulatedTask, configuration: Configuration, seed: int = 0) -> float:
    return task.point(configuration, seed=seed, epochs=40)


def test_the_optimum_is_where_it_was_put() -> None:
    rates = [0.001, 0.01, 0.03, 0.1, 0.3, 1.0]
    values = [final(task(optimum=0.03, **EXACT), configuration(lr=lr)) for lr in rates]
    assert max(zip(values, rates, strict=True))[1] == 0.03


def test_the_curve_is_the_documented_power_law() -> None:
    exact = task(**EXACT)
    assert exact.point(configuration(), seed=0, epochs=0) == CHANCE
    assert exact.point(configuration(), seed=0, epochs=1) == pytest.approx((CHANCE + CEILING) / 2)
    tenth = CEILING - CURVATURE - CHANCE
    assert exact.point(configuration(lr=0.01), seed=0, epochs=9) == pytest.approx(CHANCE + 0.9 * tenth)


def test_effect_is_the_mean_difference_of_amplification() -> None:
    noisy = task(effect=0.01, noise=0.01, jitter=0.02)
    off = configuration()
    on = configuration(AMPLIFY)
    differences = [final(noisy, on, seed) - final(noisy, off, seed) for seed in range(400)]
    assert statistics.mean(differences) == pytest.approx(0.01 * 40 / 41, abs=0.003)


def test_amplification_that_never_happens_has_no_effect() -> None:
    never = configuration(AMPLIFY | {"probability": 0.0})
    assert final(task(effect=0.1), never) == final(task(effect=0.1), configuration())


@pytest.mark.parametrize(
    "ignored",
    [
        {"weight_decay": 0.01},
        {"batch_size": 512},
        {"augment": ("crop",)},
        {"label_smoothing": 0.5},
        {"options": {"momentum": 0.5}},
    ],
)
def test_the_rest_is_ignored(ignored: dict[str, Any]) -> None:
    assert final(task(), configuration(**ignored)) == final(task(), configuration())


def test_seeds_spread_by_the_noise() -> None:
    values = [final(task(noise=0.005, epoch_noise=0.0), configuration(), seed) for seed in range(400)]
    assert statistics.stdev(values) == pytest.approx(0.005, rel=0.15)


def test_epochs_spread_by_the_epoch_noise() -> None:
    noisy, exact = task(noise=0.0, epoch_noise=0.002), task(**EXACT)
    spread = [
        noisy.point(configuration(epochs=400), seed=0, epochs=epochs)
        - exact.point(configuration(epochs=400), seed=0, epochs=epochs)
        for epochs in range(1, 401)
    ]
    assert statistics.stdev(spread) == pytest.approx(0.002, rel=0.15)


def test_amplified_epochs_wobble_more() -> None:
    jittery, exact = task(noise=0.0, epoch_noise=0.0, jitter=0.02), task(**EXACT)
    on = configuration(AMPLIFY | {"lower": 2.0}, epochs=100)
    moved = [
        abs(jittery.point(on, seed=0, epochs=epochs) - exact.point(on, seed=0, epochs=epochs)) > 0
        for epochs in range(1, 101)
    ]
    assert 30 < sum(moved) < 70


def test_points_are_pure() -> None:
    one, again = (task().point(configuration(AMPLIFY), seed=5, epochs=7) for _ in range(2))
    assert one == again != task().point(configuration(AMPLIFY), seed=6, epochs=7)


def test_train_and_test_are_other_numbers() -> None:
    values = {task().point(configuration(), seed=0, epochs=5, split=split) for split in ("validation", "test", "probe")}
    assert len(values) == 3
    exact = task(**EXACT)
    train = exact.point(configuration(), seed=0, epochs=5, split="probe")
    assert train == pytest.approx(exact.point(configuration(), seed=0, epochs=5) + 0.01)


def test_large_rates_diverge_with_the_amplification_counted() -> None:
    with pytest.raises(TrialError, match="learning rate 6 in epoch 40; the simulated task diverges above 5") as caught:
        final(task(), configuration(lr=6.0))
    assert caught.value.kind == "diverged"
    amplified = configuration({"probability": 1.0, "lower": 3.0, "width": 0.0}, lr=2.0)
    with pytest.raises(TrialError, match="learning rate 6"):
        final(task(), amplified)
    final(task(), amplified.without_amplification())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"optimun": 0.1}, "data.optimun: no constant of the simulated task; allowed: optimum, effect, noise"),
        ({"noise": -0.1}, "data.noise = -0.1: must be a finite number, at least 0"),
        ({"effect": float("inf")}, "data.effect = inf: must be a finite number"),
        ({"optimum": "best"}, "data.optimum = 'best'"),
    ],
)
def test_wrong_constants_are_told(data: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task(**data)


def test_a_worker_of_the_simulated_task_has_no_torch() -> None:
    script = (
        "import sys\n"
        "from ralr_tune.spec import Configuration, TaskSpec\n"
        "from ralr_tune.tasks.load import load_task\n"
        "from ralr_tune.training.start import start\n"
        "task = load_task(TaskSpec(kind='simulated', data={}), seed=0, device='cpu')\n"
        "training = {'epochs': 2, 'batch_size': 1, 'lr': 0.1}\n"
        "trial = start(task, Configuration.model_validate({'training': training}), seed=0)\n"
        "assert len(list(trial.epochs())) == 2\n"
        "print(sorted({'torch', 'optuna', 'plotly', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
