from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

import pytest

from ralr_tune.errors import DataError, StudyFileError, TrialError
from ralr_tune.kinds.simulated.kind import KIND
from ralr_tune.kinds.simulated.section import RANGE_PARAMETERS, SimulatedData
from ralr_tune.kinds.simulated.task import CEILING, CHANCE, CURVATURE, SimulatedTask
from ralr_tune.studyfile import Configuration, models
from ralr_tune.studyfile.configuration import ScheduleConfig
from tests.studies import simulated

EXACT = {"noise": 0.0, "epoch_noise": 0.0, "jitter": 0.0}
AMPLIFY = {"probability": 0.5, "lower": 1.0, "width": 2.0}


def configuration(amplify: dict[str, Any] | None = None, **training: Any) -> Configuration:
    tables: dict[str, Any] = {"training": {"epochs": 40, "batch_size": 32, "lr": 0.1} | training}
    return models.configuration(KIND).model_validate(tables | ({"amplify": amplify} if amplify else {}))


def task(**data: Any) -> SimulatedTask:
    return SimulatedTask(**dict(SimulatedData.model_validate(data)), identity="test")


def final(task: SimulatedTask, configuration: Configuration, seed: int = 0) -> float:
    return task.point(configuration, seed=seed, epochs=40)


def test_the_optimum_is_where_it_was_set() -> None:
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


def test_amplification_with_probability_zero_has_no_effect() -> None:
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
def test_all_other_parameters_are_ignored(ignored: dict[str, Any]) -> None:
    assert final(task(), configuration(**ignored)) == final(task(), configuration())


def test_seeds_spread_by_the_noise() -> None:
    values = [final(task(noise=0.005, epoch_noise=0.0), configuration(), seed) for seed in range(400)]
    assert statistics.stdev(values) == pytest.approx(0.005, rel=0.15)


def test_epochs_spread_by_the_epoch_noise() -> None:
    noisy, exact = (
        task(**constants).trajectory(configuration(epochs=400), seed=0)
        for constants in ({"noise": 0.0, "epoch_noise": 0.002}, EXACT)
    )
    spread = [noisy.point(epochs) - exact.point(epochs) for epochs in range(1, 401)]
    assert statistics.stdev(spread) == pytest.approx(0.002, rel=0.15)


def test_amplified_epochs_are_noisier() -> None:
    on = configuration(AMPLIFY | {"lower": 2.0}, epochs=100)
    jittery, exact = (task(**EXACT | {"jitter": jitter}).trajectory(on, seed=0) for jitter in (0.02, 0.0))
    moved = [jittery.point(epochs) != exact.point(epochs) for epochs in range(1, 101)]
    assert 30 < sum(moved) < 70


def test_points_are_pure() -> None:
    one, again = (task().point(configuration(AMPLIFY), seed=5, epochs=7) for _ in range(2))
    assert one == again != task().point(configuration(AMPLIFY), seed=6, epochs=7)


def test_train_and_test_values_differ() -> None:
    values = {task().point(configuration(), seed=0, epochs=5, split=split) for split in ("validation", "test", "probe")}
    assert len(values) == 3
    exact = task(**EXACT)
    train = exact.point(configuration(), seed=0, epochs=5, split="probe")
    assert train == pytest.approx(exact.point(configuration(), seed=0, epochs=5) + 0.01)


def test_large_rates_diverge_amplification_included() -> None:
    with pytest.raises(TrialError, match="learning rate 6 in epoch 40; the simulated task diverges above 5") as caught:
        final(task(), configuration(lr=6.0))
    assert caught.value.kind == "diverged"
    amplified = configuration({"probability": 1.0, "lower": 3.0, "width": 0.0}, lr=2.0)
    with pytest.raises(TrialError, match="learning rate 6"):
        final(task(), amplified)
    final(task(), amplified.without_amplification())


# ---------------------------------------------------------------- known effects

EFFECTS = {
    "weight_decay": {"best": 1e-4, "loss": 0.02, "log": True},
    "momentum": {"best": 0.9, "loss": 0.1},
    "amplify.probability": {"best": 0.3, "loss": 0.1},
}
BEST = {"weight_decay": 1e-4, "options": {"momentum": 0.9}}


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({}, 0.0),
        ({"lr": 1.0}, CURVATURE),
        ({"weight_decay": 1e-3}, 0.02),
        ({"weight_decay": 1e-6}, 4 * 0.02),
        ({"options": {"momentum": 0.4}}, 0.1 * 0.5**2),
        ({"options": {}}, 0.0),  # a number that the configuration does not have has no effect
        ({"batch_size": 512, "label_smoothing": 0.5}, 0.0),
    ],
)
def test_each_parameter_has_its_known_effect(changes: dict[str, Any], lost: float) -> None:
    known = task(effects=EFFECTS, **EXACT)
    ideal, other = configuration(**BEST), configuration(**(BEST | changes))
    assert known.asymptote(ideal) == CEILING
    assert known.asymptote(ideal) - known.asymptote(other) == pytest.approx(lost, abs=1e-12)
    assert final(known, ideal) - final(known, other) == pytest.approx(lost * 40 / 41, abs=1e-12)


def test_amplification_effects_apply_only_if_it_amplifies() -> None:
    known = task(effect=0.01, effects=EFFECTS, **EXACT)
    asymptotes = [
        known.asymptote(configuration(AMPLIFY | {"probability": probability}, **BEST))
        for probability in (0.3, 0.8, 0.0)
    ]
    assert asymptotes == pytest.approx([CEILING + 0.01, CEILING + 0.01 - 0.1 * 0.5**2, CEILING])


def test_known_effects_can_be_queried() -> None:
    known = task(optimum=0.03, effects=EFFECTS)
    assert [known.best(name) for name in ("lr", "weight_decay", "amplify.probability", "batch_size")] == [
        0.03, 1e-4, 0.3, None
    ]  # fmt: skip
    for name in (*EFFECTS, "lr"):
        assert known.loss_at(name, known.best(name) or 0.0) == 0.0
    assert known.loss_at("lr", 0.3) == pytest.approx(CURVATURE)
    assert known.loss_at("weight_decay", 1e-2) == pytest.approx(4 * 0.02)
    assert known.loss_at("amplify.probability", 0.5) == pytest.approx(0.1 * 0.2**2)
    assert known.loss_at("batch_size", 7) == 0.0


def test_every_number_of_a_configuration_can_have_an_effect() -> None:
    tables = {
        "schedule": {"name": "cosine", "options": {"end_factor": 0.5}},
        "amplify": AMPLIFY,
        "training": {"epochs": 40, "batch_size": 32, "lr": 0.1, "options": {"momentum": 0.5}, "clip_norm": 0.5},
    }
    found = models.configuration(KIND).model_validate(tables)
    given = [name for name in RANGE_PARAMETERS if name != "lr" and found.number(name) is not None]
    assert {"epochs", "momentum", "clip_norm", "schedule.end_factor", "amplify.width"} < set(given)
    for name in given:
        far = task(effects={name: {"best": 1000.0, "loss": 1e-6}}, **EXACT)
        assert far.asymptote(found) == pytest.approx(CEILING - 1e-6 * ((found.number(name) or 0.0) - 1000) ** 2), name


def test_without_effects_curves_equal_those_of_the_first_release() -> None:
    """Values from the first release, which had no effects."""
    on = configuration(AMPLIFY, epochs=8, lr=0.3, weight_decay=0.01)
    cosine = on.model_copy(update={"schedule": ScheduleConfig(name="cosine")})
    course = task(optimum=0.2, effect=0.01).trajectory(cosine, seed=3)
    assert [course.point(epochs) for epochs in range(1, 9)] == [
        0.5283769745512651, 0.675849314194355, 0.7573645275271199, 0.7850585932312897,
        0.8117370640168703, 0.8325629391203259, 0.8504298176075601, 0.8707265128433533,
    ]  # fmt: skip
    assert course.point(8, "test") == 0.8624218989783116


# ---------------------------------------------------------------- wrong constants


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"optimun": 0.1}, r"data\.optimun = 0\.1: unknown key; did you mean 'optimum'\?"),
        ({"noise": -0.1}, r"data\.noise = -0\.1: must be 0 or more"),
        ({"effect": float("inf")}, r"data\.effect = Infinity: must be a finite number"),
        ({"optimum": "best"}, r'data\.optimum = "best": must be a number'),
        ({"noise": -0.1, "jitter": "x"}, r"(?s)data\.noise .*data\.jitter "),
        (
            {"effects": {"momentun": {"best": 0.9, "loss": 0.1}}},
            r"data\.effects\.momentun = .*: not a number of a configuration; did you mean 'momentum'\?",
        ),
        (
            {"effects": {"amplify.law": {"best": 0.9, "loss": 0.1}}},
            r'data\.effects\."amplify\.law" = .*: not a number of a configuration; did you mean \'amplify\.lower',
        ),
        (
            {"effects": {"optimizer": {}}},
            r"not a number of a configuration; allowed: epochs, batch_size, weight_decay, ",
        ),
        ({"effects": {"lr": {"best": 0.1, "loss": 0.1}}}, r"the effect of lr is set by data\.optimum"),
        ({"effects": {"momentum": {"best": 0.9}}}, r"data\.effects\.momentum\.loss is missing"),
        ({"effects": {"momentum": {"best": 0.9, "loss": -1.0}}}, r"data\.effects\.momentum\.loss = -1\.0: must be 0"),
        (
            {"effects": {"momentum": {"best": 0.0, "loss": 0.1, "log": True}}},
            r"best = 0 with log = true: best must be above 0",
        ),
    ],
)
def test_wrong_constants_are_reported(data: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        simulated(task={"data": data})


def test_a_value_outside_a_log_scale_is_reported() -> None:
    with pytest.raises(DataError, match=r"data\.effects\.weight_decay\.log = true: weight_decay = 0; must be above 0"):
        final(task(effects=EFFECTS), configuration(weight_decay=0.0))


def test_a_worker_of_the_simulated_task_has_no_torch() -> None:
    script = (
        "import sys\n"
        "from ralr_tune.studyfile import Configuration\n"
        "from ralr_tune.studyfile import registry\n"
        "kind = registry.find('simulated')\n"
        "section = kind.section.model_validate({'kind': 'simulated'})\n"
        "task = kind.load(section, metric=kind.default_metric, seed=0, device='cpu')\n"
        "training = {'epochs': 2, 'batch_size': 1, 'lr': 0.1}\n"
        "trial = kind.trial(task, Configuration.model_validate({'training': training}), seed=0)\n"
        "assert len(list(trial.epochs())) == 2\n"
        "print(sorted({'torch', 'optuna', 'plotly', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
