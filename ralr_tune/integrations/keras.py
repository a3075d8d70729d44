"""Keras 3 trains a trial.

    def train(trial: ralr_tune.Trial) -> None:
        model.compile(keras.optimizers.SGD(trial.params["lr"]), ..., metrics=["accuracy"])
        callback = RalrTuneCallback(trial, monitor="val_accuracy")
        model.fit(..., initial_epoch=trial.first_epoch - 1, epochs=trial.max_epochs, callbacks=[callback])
        if trial.stage == "test":
            trial.report_test(model.evaluate(..., return_dict=True)["accuracy"])

Resuming needs nothing else: the callback restores the model when `fit` begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from ralr_tune.own.trial import Trial


class RalrTuneCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras need not be installed
    """Sets the learning rate, saves and restores the model and its optimizer, reports, and ends `fit` if told to.

    `monitor`: the study's metric, as `fit` logs it. `metrics`: further ones, which are shown and never judged.
    `steps_per_epoch`: for a study that changes the rate at every step. The trial's schedule multiplies the rate that
    the model was compiled with. Random states are those of Python, NumPy and torch, and of the model's own layers.
    """

    def __init__(
        self, trial: Trial, monitor: str = "val_accuracy", *, metrics: Sequence[str] = (), steps_per_epoch: int = 0
    ) -> None:
        super().__init__()
        self._trial, self._monitor, self._metrics, self._steps = trial, monitor, metrics, steps_per_epoch
        self._epochs = trial.epochs()
        self._epoch = 0
        self._rate = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {str(index): keras.ops.convert_to_numpy(each) for index, each in enumerate(self._variables())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for index, variable in enumerate(self._variables()):
            variable.assign(state[str(index)])

    def on_train_begin(self, logs: Any = None) -> None:
        """Restores the model if the trial resumes."""
        self._rate = float(self.model.optimizer.learning_rate)
        self.model.optimizer.build(self.model.trainable_variables)
        self._trial.keep(keras=self)
        if self._steps:
            self._trial.declare_steps(self._steps)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Raises ValueError for an epoch that is not the trial's next one."""
        self._epoch = next(self._epochs, 0)
        if self._epoch != epoch + 1:
            raise ValueError("pass initial_epoch=trial.first_epoch - 1, epochs=trial.max_epochs to fit")
        self._set_rate(0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._steps:
            self._set_rate(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Raises ValueError if `fit` did not log the metric."""
        found = dict(logs or {})
        if self._monitor not in found:
            raise ValueError(f"{self._monitor}: not logged in this epoch; logged: {', '.join(found)}")
        others = {name: found[name] for name in self._metrics}
        if not self._trial.report(found[self._monitor], loss=found.get("loss"), metrics=others):
            self.model.stop_training = True

    def _set_rate(self, step: int) -> None:
        self.model.optimizer.learning_rate = self._rate * self._trial.multiplier(self._epoch, step)

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]
