"""A LightningModule learns scikit-learn's digits. Alone: python train.py --lr 0.1"""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

import ralr_tune
from ralr_tune.integrations.lightning import RalrTuneCallback


class Digits(L.LightningModule):
    def __init__(self, trial: ralr_tune.Trial) -> None:
        super().__init__()
        width = trial.params["width"]
        self.trial = trial
        self.model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))

    def training_step(self, batch, _):
        images, labels = batch
        loss = cross_entropy(self.model(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        self.log("val_acc", self.accuracy(batch))

    def test_step(self, batch, index):
        self.log("test_acc", self.accuracy(batch))

    def accuracy(self, batch):
        images, labels = batch
        return (self.model(images).argmax(1) == labels).float().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.trial.params["lr"], momentum=0.9)
        return [optimizer], [self.trial.schedule(optimizer)]


def digits() -> list[DataLoader]:
    """For training, validation and test: the same images in every trial."""
    found = load_digits()
    images, labels = torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)
    data = TensorDataset(images, labels)
    training, validation, test = random_split(data, [1000, 400, 397], torch.Generator().manual_seed(0))
    shuffled = DataLoader(training, batch_size=50, shuffle=True)
    return [shuffled, DataLoader(validation, batch_size=400), DataLoader(test, batch_size=400)]


def train(trial: ralr_tune.Trial) -> None:
    training, validation, test = digits()
    model = Digits(trial)
    trainer = L.Trainer(
        max_epochs=trial.max_epochs,
        accelerator="cpu",
        callbacks=[RalrTuneCallback(trial, monitor="val_acc", loss="train_loss")],
        default_root_dir=trial.folder,
        enable_checkpointing=False,  # the callback writes the one that the study needs
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(model, training, validation, ckpt_path=trial.checkpoint)
    if trial.stage == "test":
        trial.report_test(trainer.test(model, test, verbose=False)[0]["test_acc"])


if __name__ == "__main__":
    train(ralr_tune.trial(epochs=6, lr=0.05, width=32))
