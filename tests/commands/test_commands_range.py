"""`range`: what it trains, prints and leaves alone; its proposal on digits against the rates that train best."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ralr_tune.commands.range import RangeOptions, range_test, sweep_ends
from ralr_tune.commands.usual_rates import share_within, unusual_rates
from ralr_tune.errors import UsageError
from ralr_tune.kinds.classification.task import ClassificationTask
from ralr_tune.search.design import unit_params
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.values import Choice, Range
from ralr_tune.tasks.base import Split
from tests.commands.conftest import Cli
from tests.studies import AMPLIFY, loaded_task, simulated

TABLES: dict[str, dict[str, Any]] = {
    "study": {"name": "small", "baseline": "monotone"},
    "task": {"kind": "classification", "data": {"source": "digits"}, "model": "small_cnn", "validation": 0.2},
    "training": {
        "epochs": 3,
        "batch_size": 64,
        "momentum": 0.9,
        "lr": {"low": 1e-3, "high": 1.0, "log": True},
        "weight_decay": {"low": 1e-5, "high": 1e-3, "log": True},
    },
    "schedule": {"name": "cosine"},
    "arms": {"monotone": {}, "ralr": {"amplify": AMPLIFY}},
    "search": {"trials": 2},
}


def text(**changes: dict[str, Any]) -> str:
    return tomli_w.dumps({name: table | changes.get(name, {}) for name, table in TABLES.items()})


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., str]:
    def write(**changes: dict[str, Any]) -> str:
        (tmp_path / "small.toml").write_text(text(**changes))
        return "small.toml"

    return write


Study = Callable[..., str]
QUICK = ("--seeds", 1, "--steps", 100, "--low", 1e-3, "--high", 30, "--device", "cpu")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would set as many threads of torch as there are cores, and tests run in parallel."""
    monkeypatch.setattr("ralr_tune.launch.devices.available_cores", lambda: 1)


def test_the_line_that_it_prints_fits_into_the_file(cli_inside: Cli, study: Study, tmp_path: Path) -> None:
    file = study()
    ran = cli_inside("range", file, *QUICK)
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.out.splitlines() if line.startswith("lr = ")]
    low_and_high = parse_study(text(training=tomllib.loads(line))).training("monotone")["lr"]
    assert low_and_high.log
    assert "arms monotone, ralr" in ran.out
    assert "momentum = 0.9, weight_decay = 0.0001 (middle of its range)" in ran.out
    assert "arm ralr: tests the base rate only" in ran.out
    assert "paste into [training]; now it is lr = 0.001 to 1.0 (log):" in ran.out
    assert "plotly" in (tmp_path / "runs/small/range.html").read_text()


def test_a_study_that_exists_is_untouched(cli_inside: Cli, study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "runs/small"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("study.db", "checkpoints/small-search-1.ckpt"):
        (folder / name).write_bytes(b"as it was")
    assert cli_inside("range", study(), *QUICK).code == 0
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("data/")} == {
        "study.db", "checkpoints/small-search-1.ckpt", "range.html"
    }  # fmt: skip
    assert (folder / "study.db").read_bytes() == b"as it was"


def test_the_json_has_everything_and_only_the_training_split_is_read(
    cli_inside: Cli, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Split] = []
    part = ClassificationTask._part

    def noted(self: ClassificationTask, split: Split) -> Any:
        read.append(split)
        return part(self, split)

    monkeypatch.setattr(ClassificationTask, "_part", noted)
    found = cli_inside("range", study(), "--json", "-o", "loss.html", *QUICK).json()
    assert set(read) == {"train"}
    (test,) = found["tests"]
    assert (found["seeds"], found["steps"], found["device"], found["figure"]) == (1, 100, "cpu", "loss.html")
    assert test["arms"] == ["monotone", "ralr"]
    assert test["amplified"] == ["ralr"]
    assert test["fixed"] == {"optimizer": "sgd", "batch_size": 64, "momentum": 0.9}
    assert test["middle"] == {"weight_decay": pytest.approx(1e-4)}
    assert test["proposal"]["low"] < test["proposal"]["high"]
    (sweep,) = test["sweeps"]
    assert len(sweep["rates"]) == len(sweep["losses"]) <= 100
    assert sweep["rates"][0] == pytest.approx(1e-3)
    assert (tmp_path / "loss.html").exists()


def test_arms_that_train_differently_are_tested_separately(cli_inside: Cli, study: Study) -> None:
    arms = {
        "ralr": {"amplify": AMPLIFY, "schedule": {"name": "constant"}},
        "slow": {"training": {"batch_size": 128, "lr": 1e-3}},
    }
    first, second = cli_inside("range", study(arms=arms), "--json", *QUICK).json()["tests"]
    assert (first["arms"], first["tables"]) == (["monotone", "ralr"], ["training"])
    assert (second["arms"], second["tables"], second["in_file"]) == (["slow"], ["arms.slow.training"], "0.001")
    assert (first["fixed"]["batch_size"], second["fixed"]["batch_size"]) == (64, 128)
    assert second["epochs"] == pytest.approx(2 * first["epochs"], rel=0.1)


def test_a_loss_that_shows_nothing_is_code_1_with_the_next_step(cli_inside: Cli, study: Study) -> None:
    ran = cli_inside("range", study(), *QUICK, "--low", 1e-12, "--high", 1e-11)
    assert ran.code == 1
    assert "no proposal: the loss does not fall by more than its noise" in ran.out
    assert "range small.toml --low 1e-12 --high 1e-11 --steps 1000`" in ran.out
    assert "lr = {" not in ran.out
    assert "Then:" not in ran.out


def test_a_kind_without_torch_is_refused_in_one_line(cli_inside: Cli, tmp_path: Path) -> None:
    (tmp_path / "sim.toml").write_text(simulated().text)
    ran = cli_inside("range", "sim.toml")
    assert ran.code == 2
    assert ran.err == (
        "error: task.kind = 'simulated': has no learning-rate range test; allowed: kinds that train with torch\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--low", "0.1", "--high", "0.5"], "--high at least 10 times --low"),
        (["--low", "-1"], "--low above 0"),
        (["--low", "0"], "--low above 0"),
        (["--high", "1e9"], "at most 1e+06"),
        (["--high", "nan"], "allowed"),
        (["--steps", "99"], "--steps"),
        (["-o", "loss.pdf"], "must end in .html, .png or .svg"),
    ],
)
def test_wrong_options_are_one_line(cli_inside: Cli, study: Study, arguments: list[str], message: str) -> None:
    ran = cli_inside("range", study(), *arguments)
    assert ran.code == 2, ran
    assert len(ran.err.splitlines()) == 1
    assert message in ran.err


def test_imported_code_is_refused_on_request(cli_inside: Cli, study: Study) -> None:
    file = study(task={"model": "tests.training.trials:plain_network"})
    refused = cli_inside("range", file, "--no-imports")
    assert refused.code == 2
    assert "tests.training.trials" in refused.err
    assert cli_inside("range", file, *QUICK).code == 0


def test_the_default_sweep_is_wider_than_the_usual_rates() -> None:
    assert sweep_ends("sgd", None, None) == pytest.approx((1e-5, 30.0))
    assert sweep_ends("adamw", None, None) == pytest.approx((1e-6, 0.9))
    assert sweep_ends("sgd", 0.01, 0.1) == (0.01, 0.1)
    with pytest.raises(UsageError):
        sweep_ends("sgd", 0.01, 0.09)


def test_progress_counts_the_steps_of_all_seeds(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[int, int]] = []
    options = RangeOptions(seeds=2, steps=50, low=1e-3, device="cpu")
    range_test(study(), options, progress=lambda done, planned: seen.append((done, planned)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {planned for _, planned in seen} == {100}
    assert seen[-1] == (100, 100)


# ---------------------------------------------------------------- the hint of `plan`


@pytest.mark.parametrize(
    ("lr", "share"),
    [
        (0.1, 1.0),
        (10.0, 0.0),
        (Range(low=1e-3, high=1.0, log=True), 1.0),
        (Range(low=1e-6, high=1e-2, log=True), 0.5),
        (Range(low=10.0, high=100.0, log=True), 0.0),
        (Range(low=0.0, high=4.0), 0.25),
        (Choice(choices=(0.1, 1.0, 10.0, 100.0)), 0.5),
    ],
)
def test_the_share_of_usual_rates(lr: Any, share: float) -> None:
    assert share_within(lr, 1e-4, 1.0) == pytest.approx(share, abs=1e-3)


def spec(**training: Any) -> StudySpec:
    return parse_study(text(training=training))


def test_unusual_rates_are_found_for_the_optimizer_of_each_arm() -> None:
    assert unusual_rates(spec()) == ()
    assert unusual_rates(spec(lr={"low": 1e-8, "high": 1e-5, "log": True})) == (
        "lr = 1e-08 to 1e-05 (log) is mostly outside the usual learning rates (sgd: 0.0001 to 1)",
    )
    (slow,) = unusual_rates(parse_study(text(arms={"slow": {"training": {"lr": 50.0}}})))
    assert slow == "lr = 50.0 is mostly outside the usual learning rates (sgd: 0.0001 to 1)"
    searched = {"choices": ["adamw", "adadelta"]}
    table = {key: value for key, value in TABLES["training"].items() if key != "momentum"}
    both = tomli_w.dumps(TABLES | {"training": table | {"optimizer": searched, "lr": 1.0}})
    assert unusual_rates(parse_study(both)) == ()  # usual for one of the two


def test_a_kind_without_torch_has_no_usual_rates() -> None:
    assert unusual_rates(simulated(training={"lr": 1e5})) == ()


# ---------------------------------------------------------------- against a search


@pytest.mark.slow
def test_the_rates_that_train_digits_best_lie_in_the_proposal(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid of rates over seven decades, eight epochs each: the best and all within two points of it."""
    monkeypatch.chdir(tmp_path)
    found = range_test(study(), RangeOptions(device="cpu")).tests[0].proposal
    long = spec(epochs=8)
    task = loaded_task(long)
    scores = {}
    for lr in (1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0):
        params = unit_params(long.space("monotone"), 0.5) | {"lr": lr}
        trial = long.kind.trial(task, long.configuration("monotone", params), seed=1)
        scores[lr] = [record.value for record in trial.epochs()][-1]
    best = max(scores.values())
    assert best > 0.9
    assert found.low is not None
    assert found.high is not None
    good = [lr for lr, score in scores.items() if score >= best - 0.02]
    assert all(found.low <= lr <= found.high for lr in good), (json.dumps(scores), found.line)
    assert found.low > 1e-3  # it excludes what does not train
    assert found.high <= 10.0
