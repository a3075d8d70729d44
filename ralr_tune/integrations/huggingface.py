"""Hugging Face's Trainer trains a trial.

    def train(trial: ralr_tune.Trial) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=trial.params["lr"])
        arguments = TrainingArguments(
            trial.folder / "trainer", num_train_epochs=trial.max_epochs, seed=trial.seed, eval_strategy="epoch", ...
        )
        trainer = Trainer(
            model, arguments, optimizers=(optimizer, trial.schedule(optimizer, steps_per_epoch=steps)),
            callbacks=[RalrTuneCallback(trial, monitor="eval_accuracy")], ...
        )
        trainer.train(resume_from_checkpoint=trial.checkpoint)
        if trial.stage == "test":
            trial.report_test(trainer.evaluate(test_data, metric_key_prefix="test")["test_accuracy"])

An epoch of the study is what lies between two evaluations: `steps` is the number of optimizer steps in it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ralr_tune.own.trial import Trial


class RalrTuneCallback(TrainerCallback):  # type: ignore[misc]  # transformers need not be installed
    """Reports once for every evaluation, with a checkpoint of the trainer; ends the training if the study says so.

    `monitor`: the study's metric, as `compute_metrics` returns it, with the prefix of the evaluation. `metrics`:
    further ones, which are shown and never judged. The trainer's own checkpoint has all states, also random ones, and
    is written here after every evaluation, whatever `save_strategy` says.
    """

    def __init__(self, trial: Trial, monitor: str = "eval_accuracy", *, metrics: Sequence[str] = ()) -> None:
        self._trial, self._monitor, self._metrics = trial, monitor, metrics
        self._found: dict[str, float] = {}
        self._others: set[str] = set()
        self._reported = 0
        """The step of the last report."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raises ValueError for a trainer that does not resume, or could not, or changes the model at the end."""
        for name in ("load_best_model_at_end", "save_only_model"):
            if getattr(args, name):
                raise ValueError(f"{name}=True: must be False: the study resumes and tests the model of the last epoch")
        if self._trial.checkpoint is not None and state.global_step == 0:
            raise ValueError("the trial resumes: pass resume_from_checkpoint=trial.checkpoint to Trainer.train")
        self._reported = state.global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """The trainer saves after it has evaluated. It may evaluate a step twice, and before the first step."""
        if self._monitor not in metrics:
            self._others |= metrics.keys()
        elif state.global_step > self._reported:
            self._found = metrics
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._found:
            return
        found, self._found, self._reported = self._found, {}, state.global_step
        path = os.path.abspath(os.path.join(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"))
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        others = {name: found[name] for name in self._metrics}
        if not self._trial.report(found[self._monitor], loss=loss, checkpoint=path, metrics=others):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raises ValueError if no evaluation had the metric."""
        if state.global_step and not self._reported:
            found = ", ".join(sorted(self._others)) or "nothing"
            raise ValueError(f"{self._monitor}: not in an evaluation (see eval_strategy); they had {found}")
