"""A Keras model, on torch, learns scikit-learn's digits. Alone: python train.py --lr 0.1"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import ralr_tune
from ralr_tune.integrations.keras import RalrTuneCallback


def digits() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels for training, validation and test: the same ones in every trial."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images, labels = found.data[order].astype("float32") / 16, found.target[order]
    return list(zip(np.split(images, [1000, 1400]), np.split(labels, [1000, 1400]), strict=True))


def train(trial: ralr_tune.Trial) -> None:
    training, validation, test = digits()
    width = trial.params["width"]
    model = keras.Sequential([layers.Dense(width, activation="relu"), layers.Dropout(0.2), layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.SGD(trial.params["lr"], momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        *training,
        batch_size=50,
        validation_data=validation,
        initial_epoch=trial.first_epoch - 1,
        epochs=trial.max_epochs,
        callbacks=[RalrTuneCallback(trial, monitor="val_accuracy")],
        verbose=0,
    )
    if trial.stage == "test":
        trial.report_test(model.evaluate(*test, verbose=0, return_dict=True)["accuracy"])


if __name__ == "__main__":
    train(ralr_tune.trial(epochs=6, lr=0.05, width=32))
