"""A training script as people have it: options, a state that it resumes from, a line for each epoch."""

import argparse
import json
import os
import random
import time

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--state", required=True, help="a file: read if it is there, written after every epoch")
options = parser.parse_args()

done = 0
if os.path.exists(options.state):
    with open(options.state) as file:
        done = json.load(file)["epoch"]
for epoch in range(done + 1, options.epochs + 1):
    time.sleep(0.1)
    value = epoch / (epoch + 1) - abs(options.lr - 0.1) + random.Random(f"{options.seed} {epoch}").gauss(0, 0.01)
    with open(f"{options.state}.tmp", "w") as file:
        json.dump({"epoch": epoch}, file)
    os.replace(f"{options.state}.tmp", options.state)
    with open(os.environ["GLUE_LOG"], "a") as log:
        log.write(f"{options.lr!r} {options.seed} {epoch}\n")
    print(f"epoch {epoch} value {value:.6f}", flush=True)
