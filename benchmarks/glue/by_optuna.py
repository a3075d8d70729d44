"""Glue by hand: a program per trial under Optuna, as its documentation does it for runs that may be killed."""

import subprocess
import sys

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

folder, train, budget = sys.argv[1], sys.argv[2], int(sys.argv[3])
storage = RDBStorage(
    f"sqlite:///{folder}/study.db",
    heartbeat_interval=1,
    grace_period=2,
    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
)
study = optuna.create_study(storage=storage, study_name="glue", direction="maximize", load_if_exists=True)


def objective(trial):
    lr = trial.suggest_float("lr", 0.01, 1.0, log=True)
    state = f"{folder}/{lr!r}.json"
    command = [sys.executable, train, "--lr", repr(lr), "--state", state]
    value = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            _, epoch, _, value = line.split()
            trial.report(float(value), int(epoch))
    if program.returncode:
        raise RuntimeError(f"exit code {program.returncode}")
    return float(value)


finished = sum(trial.state.is_finished() and trial.value is not None for trial in study.trials)
study.optimize(objective, n_trials=budget - finished)
