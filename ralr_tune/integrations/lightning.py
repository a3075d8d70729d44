"""Lightning's Trainer trains a trial.

    def train(trial: ralr_tune.Trial) -> None:
        module = Digits(trial)  # its configure_optimizers returns trial.schedule(optimizer), see below
        callback = RalrTuneCallback(trial, monitor="val_acc")
        trainer = Trainer(max_epochs=trial.max_epochs, callbacks=[callback])
        trainer.fit(module, train_loader, validation_loader, ckpt_path=trial.checkpoint)
        if trial.stage == "test":
            trial.report_test(trainer.test(module, test_loader)[0]["test_acc"])

`configure_optimizers` returns `[optimizer], [trial.schedule(optimizer)]`; Lightning steps it after every epoch. A
schedule of every step is `{"scheduler": trial.schedule(optimizer, steps_per_epoch=n), "interval": "step"}` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    from lightning.pytorch import Callback
except ImportError:  # the same code under the name that it had before
    from pytorch_lightning import Callback

from ralr_tune.own import distributed, random_states
from ralr_tune.own.trial import Trial


class RalrTuneCallback(Callback):  # type: ignore[misc]  # Lightning need not be installed
    """Saves a checkpoint and reports once after every epoch; ends `fit` on all ranks if the study says so.

    `monitor`: the study's metric, as validation logs it. `loss`: the mean training loss, and `metrics`: further ones,
    which are shown and never judged, as the module logs them. The checkpoint has the random states of all ranks, so
    that a resumed training sees the same data in the same order.
    """

    def __init__(
        self, trial: Trial, monitor: str = "val_acc", *, loss: str | None = None, metrics: Sequence[str] = ()
    ) -> None:
        self._trial, self._monitor, self._loss, self._metrics = trial, monitor, loss, metrics
        self._is_validated = False
        self._random: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"random": distributed.gathered(random_states.states())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random = state_dict["random"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Raises ValueError if the trainer has another number of epochs than the trial."""
        if trainer.max_epochs != self._trial.max_epochs:
            raise ValueError(f"Trainer(max_epochs={trainer.max_epochs}): must be trial.max_epochs")
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None  # the study decides when it stops
        if self._random:  # here: later, the trainer would have begun to read the data
            random_states.restore(self._random[min(distributed.rank(), len(self._random) - 1)])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Raises ValueError if the trainer has not resumed."""
        if trainer.current_epoch + 1 != self._trial.first_epoch:
            raise ValueError("the trial resumes: pass ckpt_path=trial.checkpoint to Trainer.fit")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Raises ValueError if validation did not log the metric in this epoch."""
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not self._is_validated or self._monitor not in found:
            raise ValueError(f"{self._monitor}: not logged by validation in this epoch; logged: {', '.join(found)}")
        self._is_validated = False
        path, temporary = self._trial.folder / "lightning.ckpt", self._trial.folder / "lightning.tmp"
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            temporary.replace(path)
        others = {name: found[name] for name in self._metrics}
        loss = None if self._loss is None else found[self._loss]
        goes_on = self._trial.report(found[self._monitor], loss=loss, checkpoint=path, metrics=others)
        trainer.should_stop = trainer.should_stop or not goes_on
