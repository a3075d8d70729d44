"""Glue for Ray Tune: a program per trial, and Tuner.restore after a kill, as its documentation does it."""

import os
import shutil
import subprocess
import sys
import tempfile

import ray
from ray import tune

folder, train, budget = sys.argv[1], sys.argv[2], int(sys.argv[3])


def trainable(config):
    work = tempfile.mkdtemp()
    state = os.path.join(work, "state.json")
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as found:
            shutil.copy(os.path.join(found, "state.json"), state)
    command = [sys.executable, train, "--lr", repr(config["lr"]), "--state", state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            _, epoch, _, value = line.split()
            tune.report({"value": float(value), "epoch": int(epoch)}, checkpoint=tune.Checkpoint.from_directory(work))
    if program.returncode:
        raise RuntimeError(f"exit code {program.returncode}")


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
path = os.path.join(folder, "glue")
if tune.Tuner.can_restore(path):
    tuner = tune.Tuner.restore(path, trainable, resume_unfinished=True, restart_errored=True)
else:
    tuner = tune.Tuner(
        trainable,
        param_space={"lr": tune.loguniform(0.01, 1.0)},
        tune_config=tune.TuneConfig(metric="value", mode="max", num_samples=budget, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=folder, name="glue", verbose=0),
    )
results = tuner.fit()
with open(os.path.join(folder, "results"), "w") as file:
    file.writelines(f"{result.config['lr']!r} {result.metrics['epoch']}\n" for result in results if not result.error)
