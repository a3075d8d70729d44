"""A trial without a study: parameters from the code's defaults, the command line, or an exported configuration."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune import client
from ralr_tune.errors import UsageError
from ralr_tune.own import random_states
from ralr_tune.own.trial import StudyLink, Trial

if TYPE_CHECKING:
    from ralr_tune.child.plan import Schedule
    from ralr_tune.studyfile import Configuration
    from ralr_tune.tasks.trial import TrialStage

_AMPLIFY = ("probability", "lower", "upper")
_FLAGS = frozenset({*_AMPLIFY, "seed", "device", "configuration", "folder", "test"})


def trial(
    *,
    epochs: int = 10,
    lr: float = 0.1,
    schedule: str = "constant",
    amplify: Mapping[str, Any] | None = None,
    arguments: Sequence[str] | None = None,
    **params: Any,
) -> Trial:
    """The trial of this program: that of the study that started it, or one of its own.

        if __name__ == "__main__":
            train(ralr_tune.trial(epochs=30, lr=0.1, width=32))

    Without a study, the keywords are the default parameters, and the command line changes them: `--lr 0.3 --width 64`,
    `--seed`, `--epochs`, `--device`, `--schedule`, `--probability`, `--lower`, `--upper`; `--configuration FILE` takes
    an exported configuration, `--folder` keeps checkpoints and resumes from them, `--test` adds the stage "test".
    `arguments` replaces the command line. Results are printed. Started by a study (`kind = "command"`), the program
    gets the study's trial, and the keywords are not used.
    """
    path = os.environ.get(client.TRIAL)
    if path:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        random_states.seed_all(content["seed"])
        link = StudyLink(content["token"]) if os.environ.get(client.SOCKET) else PrintingLink.of(content)
        return Trial(content, link)
    if taken := sorted(params.keys() & _FLAGS):
        raise ValueError(f"trial({taken[0]}=...): is an option of the command line; choose another name")
    parser = _parser({"lr": lr, **params}, epochs, schedule, amplify or {})
    options = parser.parse_args(_command_line() if arguments is None else arguments)
    random_states.seed_all(options.seed)
    try:
        return _alone(options, [*params])
    except (UsageError, ValueError) as error:  # pydantic's errors are ValueErrors
        parser.error(str(error))


def _parser(
    params: Mapping[str, Any], epochs: int, schedule: str, amplify: Mapping[str, Any]
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train without a study.", allow_abbrev=False)
    for name, default in params.items():
        if isinstance(default, bool):
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(f"--{name}", type=_type_of(default), default=default, help=f"default: {default}")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--device", help="torch's name; default: the first GPU, or cpu")
    parser.add_argument("--schedule", default=schedule, help=f"the base curve; default: {schedule}")
    for key in _AMPLIFY:
        parser.add_argument(f"--{key}", type=float, default=amplify.get(key), help="of the amplification")
    parser.add_argument("--configuration", type=Path, help="an exported configuration, in place of the values above")
    parser.add_argument("--folder", type=Path, help="where checkpoints are kept, and resumed from")
    parser.add_argument("--test", action="store_true", help="report the metric on the test split at the end")
    return parser


def _type_of(default: Any) -> Callable[[str], Any]:
    """Converts a text to the type of a default; other types than numbers and texts are written as JSON."""
    return type(default) if isinstance(default, int | float | str) else json.loads


def _command_line() -> Sequence[str]:
    """In a notebook it is the kernel's own, which is not for the trial."""
    return [] if "ipykernel" in sys.modules else sys.argv[1:]


def _alone(options: argparse.Namespace, names: Sequence[str]) -> Trial:
    """Raises UsageError or ValueError for values that do not fit."""
    from ralr_tune.child.kind import plan_of, values_of
    from ralr_tune.child.plan import Start, describe

    configuration, own = _configuration(options, names)
    values = values_of(own, configuration, seed=options.seed, device=options.device or _device(), split="train")
    stage: TrialStage = "test" if options.test else "train"
    plan = plan_of(configuration, values, stage, seed=options.seed, of=json.dumps(own, sort_keys=True, default=str))
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="ralr_tune-alone-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    link = PrintingLink(plan.epochs, folder, plan.identity, plan.schedule)
    first, checkpoint = link.resumable()
    written = describe(plan, Start(plan.stage, first, folder, checkpoint))
    return Trial(json.loads(written.path.read_text(encoding="utf-8")), link)


def _configuration(options: argparse.Namespace, names: Sequence[str]) -> tuple[Configuration, Mapping[str, Any]]:
    """The configuration, and the values of the code's own parameters."""
    from ralr_tune.studyfile.configuration import AmplifyConfig, Configuration, ScheduleConfig, TrainingConfig

    if options.configuration is not None:
        from ralr_tune.studyfile.exported import load_exported

        exported = load_exported(options.configuration)
        own = exported.task.model_dump().get("params", {})
        return exported.configuration(), {**{name: getattr(options, name) for name in names}, **own}
    given = {key: getattr(options, key) for key in _AMPLIFY if getattr(options, key) is not None}
    configuration = Configuration(
        training=TrainingConfig(epochs=options.epochs, lr=options.lr),
        schedule=ScheduleConfig(name=options.schedule),
        amplify=AmplifyConfig.model_validate(given) if given else None,
    )
    return configuration, {name: getattr(options, name) for name in names}


def _device() -> str:
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


class PrintingLink:
    """Prints what is reported, and notes in the folder how far the training is."""

    def __init__(
        self, epochs: int, folder: Path, identity: str = "", schedule: Callable[[int], Schedule] | None = None
    ) -> None:
        """`identity`: of what is trained; `schedule`: for a number of steps in each epoch; None: not known here."""
        self._epochs, self._folder, self._identity, self._schedule = epochs, folder, identity, schedule
        self._notes = folder / "reported.json"

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> PrintingLink:
        """For an exported script, which has the description of its trial."""
        return cls(content["epochs"], Path(content["folder"]))

    def resumable(self) -> tuple[int, Path | None]:
        """The epoch to train next, and the checkpoint from which."""
        try:
            found = json.loads(self._notes.read_text(encoding="utf-8"))
            epoch, checkpoint, identity = found["epoch"], Path(found["checkpoint"]), found["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            return 1, None
        same = identity == self._identity and checkpoint.exists()
        return (epoch + 1, checkpoint) if same else (1, None)

    def exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        from ralr_tune.child.plan import write_schedule

        answer: dict[str, Any] = {"answer": client.CONTINUE}
        if message["type"] == "steps":
            if self._schedule is None:
                raise client.Refused("only a study, or a trial of its own, knows the schedule of every step")
            steps = self._schedule(message["steps_per_epoch"])
            answer["schedule"] = str(write_schedule(self._folder, steps))
        elif message["type"] == "report":
            self._report(message)
        elif message["type"] == "test":
            print(f"test value {message['value']:.6g}", flush=True)
        return answer

    def _report(self, message: dict[str, Any]) -> None:
        epoch = message["epoch"]
        others = {"loss": message["loss"], **(message["metrics"] or {})}
        shown = "".join(f", {name} {value:.6g}" for name, value in others.items() if value is not None)
        print(f"epoch {epoch}/{self._epochs}: value {message['value']:.6g}{shown}", flush=True)
        if message["checkpoint"]:
            note = {"epoch": epoch, "checkpoint": message["checkpoint"], "identity": self._identity}
            self._notes.write_text(json.dumps(note), encoding="utf-8")
