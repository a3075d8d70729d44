"""The trial that a function or a script trains."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ralr_tune import client
from ralr_tune.own import distributed
from ralr_tune.own.keeping import KeptObjects

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ralr_tune.schedules.listed import ListedAmplifyLR


class Link(Protocol):
    """Where the trial's messages go: to the study's worker, or to the terminal."""

    def exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        """Sends one message of the protocol, and returns its answer. Raises client.Refused."""


class StudyLink:
    """To the worker; messages carry the token of their trial."""

    def __init__(self, token: str) -> None:
        self._token = token

    def exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        return client.exchange({**message, "token": self._token}) or {"answer": client.CONTINUE}


class Params(dict[str, Any]):
    """Values by name."""

    def __missing__(self, name: str) -> Any:
        raise KeyError(f"{name}: the trial has no such parameter; it has {', '.join(self)}")


class Trial:
    """One training: what to train, and where the results go.

        def train(trial: ralr_tune.Trial) -> None:
            model = build(trial.params["width"])
            optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"])
            scheduler = trial.schedule(optimizer)
            trial.keep(model=model, optimizer=optimizer, scheduler=scheduler)
            for epoch in trial.epochs():
                one_epoch(model, optimizer)
                scheduler.step()
                trial.report(accuracy(model, "validation"))
            if trial.stage == "test":
                trial.report_test(accuracy(model, "test"))

    A study with `kind = "function"` calls the function with a trial. A script gets one from `ralr_tune.trial(...)`: in
    a study with `kind = "command"` that of the study, otherwise one that prints its results. Before the function
    begins, the global random generators of Python, NumPy and torch are seeded with `seed`.

    Under torchrun every process has the trial and makes the same calls; only rank 0 talks to the study.
    """

    def __init__(self, content: Mapping[str, Any], link: Link) -> None:
        """`content`: the description of the trial (see child.plan)."""
        given = client.Trial(dict(content))
        self._given, self._link = given, link
        self.params: Mapping[str, Any] = Params(given.params)
        """Searched and fixed values by name: `lr`, other keys of [training], and those of task.params."""
        self.seed: int = given.seed
        """Everything random must follow from it and the epoch."""
        self.device: str = given.device
        """torch's name of the device: "cpu", "cuda:0"."""
        self.folder: Path = given.folder
        """This attempt's own folder: for checkpoints and whatever else the code writes."""
        self.stage: str = given.stage
        """"search", "confirm", "train" (the final training of a configuration), or "test": then call `report_test`
        after the last epoch."""
        self.split: str = given.split
        """What to train on: "train", or "train+validation" in the final training."""
        self.max_epochs: int = given.epochs
        self.first_epoch: int = given.first_epoch
        """The epoch to train next, from 1; `max_epochs` + 1 if all are trained and only the test is left."""
        self.checkpoint: Path | None = given.checkpoint
        """What to resume from; None at the start. Only for code that does not use `keep`."""
        self.answer: str = client.CONTINUE
        """The study's answer to the last report: "continue", "stop" (pruned) or "release" (it continues later)."""
        self._reported = given.first_epoch - 1
        self._kept = KeptObjects(self.folder, given.checkpoint)
        self._reads_schedule = False

    # ------------------------------------------------------------ the schedule

    def schedule(self, optimizer: Optimizer, *, steps_per_epoch: int | None = None) -> LRScheduler:
        """The trial's base curve and amplification as a torch scheduler, relative to the optimizer's present rates.

        Call its `step()` once after every epoch, or after every step if `steps_per_epoch` is given (needed if the
        study changes the rate within an epoch).
        """
        from torch.optim.lr_scheduler import LambdaLR

        multipliers = self._multipliers(steps_per_epoch, curve=True)
        return LambdaLR(optimizer, lambda step: multipliers[min(step, len(multipliers) - 1)])

    def amplify(
        self, optimizer: Optimizer, scheduler: Any = None, *, steps_per_epoch: int | None = None
    ) -> ListedAmplifyLR:
        """The trial's amplification around a scheduler of your own, which keeps its curve.

        Use it in place of your scheduler: once after every epoch, or after every step if `steps_per_epoch` is given.
        The study's [schedule] must be constant. Raises ValueError if it is not.
        """
        from ralr_tune.schedules.listed import ListedAmplifyLR

        factors = self._multipliers(steps_per_epoch, curve=False)
        if any(each != 1.0 for epoch in self._given.base for each in epoch):
            raise ValueError(
                "amplify() keeps the curve of your own scheduler, but the study has a [schedule] as well; set "
                'name = "constant" there, or apply it by trial.schedule(optimizer)'
            )
        return ListedAmplifyLR(optimizer, scheduler, factors=factors)

    def declare_steps(self, steps_per_epoch: int) -> None:
        """For `multiplier`, `factor` and `rate` of every step, from 0."""
        answer = distributed.by_rank_0(
            lambda: self._link.exchange({"type": "steps", "steps_per_epoch": steps_per_epoch})
        )
        self._given.read_schedule(answer["schedule"])

    def multiplier(self, epoch: int, step: int = 0) -> float:
        """The base curve times the amplification factor: multiply the base rate of an epoch, from 1, by it."""
        self._reads_schedule = True
        return self._given.multiplier(epoch, step)

    def factor(self, epoch: int, step: int = 0) -> float:
        """The amplification factor alone."""
        self._reads_schedule = True
        return self._given.factor(epoch, step)

    def rate(self, epoch: int, step: int = 0) -> float:
        """The learning rate: `params["lr"]` times `multiplier`."""
        return float(self.params["lr"]) * self.multiplier(epoch, step)

    # ------------------------------------------------------------ training

    def keep(self, **objects: Any) -> None:
        """Saves the states of these objects with every report, and restores them now if the trial resumes.

        Allowed are objects with `state_dict` and `load_state_dict` (networks, optimizers, schedulers, scalers), and
        generators of torch, NumPy and Python. The global random states are saved as well, and restored when `epochs`
        begins. Raises TypeError for an object without a state.
        """
        self._kept.add(objects)

    def epochs(self) -> Iterator[int]:
        """The epochs to train, from `first_epoch` to `max_epochs`; ends when the study stops the trial.

        Every epoch must call `report` once. Raises RuntimeError if it did not.
        """
        self._kept.restore_random()
        for epoch in range(self._reported + 1, self.max_epochs + 1):
            yield epoch
            if self._reported != epoch:
                raise RuntimeError(f"epoch {epoch} ended without trial.report(value)")
            if self.answer != client.CONTINUE:
                return

    def report(
        self,
        value: float,
        *,
        loss: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Saves what is kept, reports the metric of the next epoch on the validation split, and waits for the answer.

        `loss` is the mean training loss. `checkpoint`: for code that does not use `keep`, a complete file or folder in
        `folder`. `metrics`: further ones by name, which are shown and never judged. Returns whether training goes on;
        if not, the code must end soon. Raises client.Refused for a report that the study does not accept.
        """
        epoch = self._reported + 1
        self._check_schedule()
        if self._kept:
            if checkpoint is not None:
                raise ValueError("report(checkpoint=...): the trial has its own checkpoint; use it or keep(), not both")
            checkpoint = self._kept.save()
        message = {
            "type": "report",
            "epoch": epoch,
            "value": _number(value),
            "loss": _number(loss),
            "checkpoint": None if checkpoint is None else os.fspath(checkpoint),
            "metrics": {name: _number(each) for name, each in metrics.items()} if metrics else None,
        }
        self.answer = str(distributed.by_rank_0(lambda: self._link.exchange(message))["answer"])
        self._reported = epoch
        return self.answer == client.CONTINUE

    def log(self, step: int, **metrics: float) -> None:
        """Metrics of a step, counted over the whole run: shown and never judged; 50 points of each are kept."""
        found = {name: _number(value) for name, value in metrics.items()}
        if distributed.rank() == 0:
            self._link.exchange({"type": "log", "step": step, "metrics": found})

    def report_test(self, value: float) -> None:
        """Reports the metric on the test split. Raises RuntimeError in any other stage than "test"."""
        if self.stage != "test":
            raise RuntimeError(f'trial.stage = "{self.stage}": a test value is allowed only in the stage "test"')
        distributed.by_rank_0(lambda: self._link.exchange({"type": "test", "value": _number(value)}))

    def _multipliers(self, steps_per_epoch: int | None, *, curve: bool) -> list[float]:
        """Of all epochs, or of all steps."""
        self._reads_schedule = True
        if steps_per_epoch is not None:
            self.declare_steps(steps_per_epoch)
        read = self._given.multiplier if curve else self._given.factor
        steps = range(steps_per_epoch or 1)
        return [read(epoch, step) for epoch in range(1, self.max_epochs + 1) for step in steps]

    def _check_schedule(self) -> None:
        """All arms would train the same if the code did not apply the schedule."""
        table = zip(self._given.base, self._given.factors, strict=True)
        varies = self._given.by_step or any(each != [1.0] for pair in table for each in pair)
        if varies and not self._reads_schedule:
            raise RuntimeError(
                "the study's schedule was not applied, so that all arms would train the same; call "
                "trial.schedule(optimizer), or trial.amplify(optimizer, scheduler), or use trial.multiplier(epoch)"
            )


def _number(value: Any) -> Any:
    """Numbers of NumPy and tensors of torch as Python's own."""
    return value.item() if hasattr(value, "item") else value
