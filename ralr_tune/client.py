"""The client of a study in a training program: reads the trial, reports, and passes the answer on.

    from ralr_tune import client

    trial = client.trial()
    for epoch in range(trial.first_epoch, trial.epochs + 1):
        rate = trial.rate(epoch)                    # base curve and amplification included
        ...                                         # train one epoch, write the checkpoint under a new name
        if client.report(epoch, accuracy, checkpoint="epoch3.pt") != client.CONTINUE:
            break
    if trial.stage == "test":
        client.report_test(test_accuracy)

In a shell: `python -m ralr_tune.client report --epoch 3 --value 0.91`; exit code 0: continue, 10: stop, 11: release.

This file needs nothing but Python's standard library, 3.9 or later, and may be copied. In a program that no study
started, `report` answers "continue" and `trial()` raises NoStudy.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

CONTINUE, STOP, RELEASE = "continue", "stop", "release"
EXIT_CODES = {CONTINUE: 0, STOP: 10, RELEASE: 11}
TRIAL, SOCKET = "RALR_TUNE_TRIAL", "RALR_TUNE_SOCKET"
"""Variables: the JSON file that describes the trial, and the path of the socket to the worker."""
VERSION = 1
"""Of the messages."""
_MAX_BYTES = 64 * 1024


class NoStudy(RuntimeError):
    """This program was not started by a study."""


class Refused(RuntimeError):
    """The worker did not accept a report; the message says why."""


class Trial:
    """What the study wants trained: the content of the file that RALR_TUNE_TRIAL names."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.params: dict[str, Any] = content["params"]
        """Searched and fixed values by name: `lr`, other keys of [training], and those of task.params."""
        self.seed: int = content["seed"]
        self.epochs: int = content["epochs"]
        self.first_epoch: int = content["first_epoch"]
        """The epoch to train next, from 1; `epochs` + 1 if all are trained and only the test is left."""
        self.stage: str = content["stage"]
        """"search", "confirm", "train" (the final training), or "test": then report the metric on the test split after
        the last epoch."""
        self.split: str = content["split"]
        """What to train on: "train", or "train+validation" for the final training of a chosen configuration."""
        self.device: str = content["device"]
        self.folder = Path(content["folder"])
        """This attempt's own folder: for checkpoints and whatever else the program writes."""
        self.checkpoint = Path(content["checkpoint"]) if content["checkpoint"] else None
        """What to resume from; None at the start."""
        self.by_step: bool = content["base"] is None
        """Whether the rate changes within an epoch, so that `declare_steps` is needed."""
        self.base: list[list[float]] = [[each] for each in content["base"] or ()]
        """The base curve: for each epoch, one multiplier, or one for each step that was declared."""
        self.factors: list[list[float]] = [[each] for each in content["factors"] or ()]
        """The amplification factors, in the same way."""

    def declare_steps(self, steps_per_epoch: int) -> None:
        """Asks for the schedule of every step; afterwards `factor`, `multiplier` and `rate` take a step.

        Raises Refused, and NoStudy if the program was not started by a study.
        """
        answer = exchange({"type": "steps", "steps_per_epoch": steps_per_epoch})
        if answer is None:
            raise NoStudy("RALR_TUNE_SOCKET is not set: only a study knows the schedule of every step")
        self.read_schedule(answer["schedule"])

    def read_schedule(self, path: str | os.PathLike[str]) -> None:
        """Reads the schedule of every step, which the worker wrote."""
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        self.base, self.factors = found["base"], found["factors"]

    def factor(self, epoch: int, step: int = 0) -> float:
        """The amplification factor of an epoch, from 1; with declared steps, of a step of it, from 0."""
        return self._at(self.factors, epoch, step)

    def multiplier(self, epoch: int, step: int = 0) -> float:
        """The base curve times the amplification factor: multiply the base rate by it."""
        return self._at(self.base, epoch, step) * self._at(self.factors, epoch, step)

    def rate(self, epoch: int, step: int = 0) -> float:
        """The learning rate: `params["lr"]` times `multiplier`."""
        return float(self.params["lr"]) * self.multiplier(epoch, step)

    def _at(self, table: list[list[float]], epoch: int, step: int) -> float:
        if not table:
            raise Refused("this study changes the rate at every step: call declare_steps(steps_per_epoch) first")
        steps = table[epoch - 1]
        return steps[step if len(steps) > 1 else 0]


def trial() -> Trial:
    """The trial that this program was started for. Raises NoStudy."""
    path = os.environ.get(TRIAL)
    if not path:
        raise NoStudy("RALR_TUNE_TRIAL is not set: this program was not started by a study")
    return Trial(json.loads(Path(path).read_text(encoding="utf-8")))


def report(
    epoch: int,
    value: float,
    *,
    loss: float | None = None,
    seconds: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    metrics: dict[str, float] | None = None,
) -> str:
    """Reports the metric after an epoch (from 1) on the validation split, and returns CONTINUE, STOP or RELEASE.

    `checkpoint`: a file or folder in the trial's folder that is complete: write it under another name, then rename it.
    `metrics`: further ones by name, which are shown and never judged. After STOP and RELEASE the program must exit
    soon; after RELEASE the trial continues later from its checkpoint. Raises Refused.
    """
    path = None if checkpoint is None else os.fspath(checkpoint)
    numbers = None if metrics is None else {name: _plain(each) for name, each in metrics.items()}
    return _answer(
        {
            "type": "report",
            "epoch": epoch,
            "value": _plain(value),
            "loss": _plain(loss),
            "seconds": _plain(seconds),
            "checkpoint": path,
            "metrics": numbers,
        }
    )


def log(step: int, **metrics: float) -> None:
    """Reports metrics of a step, counted over the whole run: shown and never judged; at most 50 points of each are
    kept. Raises Refused."""
    _answer({"type": "log", "step": step, "metrics": {name: _plain(each) for name, each in metrics.items()}})


def report_test(value: float) -> str:
    """Reports the metric on the test split; only in the stage "test". Raises Refused."""
    return _answer({"type": "test", "value": _plain(value)})


def exchange(message: dict[str, Any]) -> dict[str, Any] | None:
    """Sends a message of the protocol, and returns the answer; None in a program that no study started.

    Raises Refused.
    """
    path = os.environ.get(SOCKET)
    if not path:
        return None
    given = {key: value for key, value in message.items() if value is not None}
    line = json.dumps({"v": VERSION, **given}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(path)
        channel.sendall(line)
        with channel.makefile("rb") as answers:
            found = answers.readline(_MAX_BYTES)
    if not found:
        raise Refused("the worker closed the channel without an answer")
    answer: dict[str, Any] = json.loads(found)
    if answer.get("answer") not in EXIT_CODES:
        raise Refused(str(answer.get("message")))
    return answer


def _answer(message: dict[str, Any]) -> str:
    answer = exchange(message)
    return CONTINUE if answer is None else str(answer["answer"])


def _plain(value: Any) -> Any:
    """Numbers of numpy and tensors of torch as Python's own."""
    return value.item() if hasattr(value, "item") else value


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit code: that of the answer; 1 if the report was refused."""
    parser = argparse.ArgumentParser(description="Report to the study's worker.")
    commands = parser.add_subparsers(dest="message", required=True)
    one = commands.add_parser("report", help="the metric after an epoch; exit code 0: continue, 10: stop, 11: release")
    one.add_argument("--epoch", type=int, required=True)
    one.add_argument("--value", type=float, required=True)
    one.add_argument("--loss", type=float)
    one.add_argument("--seconds", type=float)
    one.add_argument("--checkpoint")
    one.add_argument("--metric", action="append", type=_named, default=[], metavar="NAME=VALUE", dest="metrics")
    steps = commands.add_parser("steps", help="prints the path of a JSON file with the schedule of every step")
    steps.add_argument("--per-epoch", type=int, required=True, dest="steps_per_epoch")
    test = commands.add_parser("report-test", help="the metric on the test split")
    test.add_argument("--value", type=float, required=True)
    given = vars(parser.parse_args(arguments))
    message = given.pop("message")
    try:
        if message == "steps":
            answer = exchange({"type": "steps", **given})
            if answer is None:
                raise Refused("RALR_TUNE_SOCKET is not set: only a study knows the schedule of every step")
            print(answer["schedule"])
            return 0
        if message == "report":
            return EXIT_CODES[report(**given | {"metrics": dict(given["metrics"]) or None})]
        return EXIT_CODES[report_test(**given)]
    except (Refused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _named(text: str) -> tuple[str, float]:
    """A number with its name, as on the command line."""
    name, _, value = text.partition("=")
    return name, float(value)


if __name__ == "__main__":
    sys.exit(main())
