"""(a) The script that a user writes from Optuna's own PyTorch example: an objective, `study.optimize`.

`jobs` = 1 keeps the study in memory, as the example does. More jobs are as many processes on one JournalStorage, as
Optuna's page on parallelization recommends for one machine ("Multi-process optimization with JournalStorage").
"""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.peers.case import LR, WEIGHT_DECAY, Data, Job, job_of_command
from benchmarks.peers.training import train

NAME = "plain"


def main() -> None:
    job = job_of_command()
    jobs = job.settings["jobs"]
    if jobs == 1:
        memory = InMemoryStorage()
        created(job, memory)
        optimize(job, memory, job.case.trials, 0)
        return
    with tempfile.TemporaryDirectory() as folder:
        journal = str(Path(folder) / "journal.log")
        created(job, stored(journal))
        shares = [len(range(index, job.case.trials, jobs)) for index in range(jobs)]
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=one_process, args=(job, journal, share, index)) for index, share in enumerate(shares)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit(1)


def created(job: Job, storage: BaseStorage) -> None:
    study = optuna.create_study(study_name=NAME, storage=storage, direction="maximize")
    for configuration in job.case.first():
        study.enqueue_trial(configuration)


def one_process(job: Job, journal: str, trials: int, index: int) -> None:
    optimize(job, stored(journal), trials, index)


def stored(journal: str) -> BaseStorage:
    return JournalStorage(JournalFileBackend(journal))


def optimize(job: Job, storage: BaseStorage, trials: int, index: int) -> None:
    data = Data(job.case.data, job.case.seed)

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", *LR, log=True)
        weight_decay = trial.suggest_float("weight_decay", *WEIGHT_DECAY, log=True)

        def report(accuracy: float, epoch: int) -> None:
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return train(job, data, lr=lr, weight_decay=weight_decay, trial=trial.number, report=report)

    pruner: BasePruner = MedianPruner() if job.case.pruning else NopPruner()
    sampler = optuna.samplers.TPESampler(seed=job.case.seed + index)
    study = optuna.load_study(study_name=NAME, storage=storage, sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=trials)


if __name__ == "__main__":
    main()
