"""(b) Ray Tune with OptunaSearch, and with ASHA when trials are pruned; `cpus` (and `gpus`) are what a trial gets."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import ray
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.case import LR, WEIGHT_DECAY, Data, Job, job_of_command
from benchmarks.peers.training import train


def main() -> None:
    job = job_of_command()
    case, settings = job.case, job.settings
    root = os.environ["PYTHONPATH"]
    ray.init(
        num_cpus=settings["cores"],
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )
    data = Data(case.data, case.seed)
    _ = data.arrays  # read once; with_parameters puts it into Ray's object store
    trainable: Any = tune.with_parameters(one_trial, job=job, data=data)
    resources = {"cpu": settings["cpus"], **({"gpu": settings["gpus"]} if "gpus" in settings else {})}
    scheduler = ASHAScheduler(max_t=case.epochs, grace_period=1) if case.pruning else FIFOScheduler()
    with tempfile.TemporaryDirectory(prefix="ralr-tune-ray-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"lr": tune.loguniform(*LR), "weight_decay": tune.loguniform(*WEIGHT_DECAY)},
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                num_samples=case.trials,
                search_alg=OptunaSearch(sampler=TPESampler(seed=case.seed), points_to_evaluate=case.first()),
                scheduler=scheduler,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        failed = tuner.fit().num_errors
    ray.shutdown()
    if failed:
        raise SystemExit(f"{failed} trials failed")


def one_trial(config: dict[str, Any], job: Job, data: Data) -> None:
    number = int(tune.get_context().get_trial_id().rpartition("_")[2], 16)  # Ray counts no trials: ids are random

    def report(accuracy: float, epoch: int) -> None:
        tune.report({"accuracy": accuracy, "epoch": epoch})

    train(job, data, lr=config["lr"], weight_decay=config["weight_decay"], trial=number, report=report)


if __name__ == "__main__":
    main()
