"""Glue as a sweep agent works (W&B, without its server): draw a configuration, run the program, take its last value."""

import json
import os
import random
import subprocess
import sys

folder, train, budget = sys.argv[1], sys.argv[2], int(sys.argv[3])
path = os.path.join(folder, "runs.jsonl")


def note(**run):
    with open(path, "a") as file:
        file.write(json.dumps(run) + "\n")


def started():
    if not os.path.exists(path):
        return 0
    with open(path) as file:
        return sum(json.loads(line)["state"] == "started" for line in file)


for number in range(started(), budget):
    lr = 10 ** random.Random(number).uniform(-2, 0)
    note(run=number, state="started", lr=lr)
    command = [sys.executable, train, "--lr", repr(lr), "--state", os.path.join(folder, f"run{number}.json")]
    value = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            value = float(line.split()[3])
    note(run=number, state="crashed" if program.returncode else "finished", lr=lr, value=value)
