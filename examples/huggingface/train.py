"""Hugging Face's Trainer teaches a tiny ConvNeXt scikit-learn's digits. Alone: python train.py --lr 0.003"""

import torch
from sklearn.datasets import load_digits
from transformers import ConvNextConfig, ConvNextForImageClassification, Trainer, TrainingArguments

import ralr_tune
from ralr_tune.integrations.huggingface import RalrTuneCallback

BATCH = 50


def digits() -> list[list[dict]]:
    """Rows for training, validation and test: the same ones in every trial."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    rows = [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, found.target, strict=True)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [[rows[index] for index in part] for part in (order[:1000], order[1000:1400], order[1400:])]


def accuracy(found) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())}


def train(trial: ralr_tune.Trial) -> None:
    training, validation, test = digits()
    width = trial.params["width"]
    shape = ConvNextConfig(
        num_channels=1, patch_size=2, num_stages=2, hidden_sizes=[width, 2 * width], depths=[1, 1], num_labels=10
    )
    model = ConvNextForImageClassification(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.params["lr"])
    scheduler = trial.schedule(optimizer, steps_per_epoch=len(training) // BATCH)
    arguments = TrainingArguments(
        output_dir=trial.folder / "trainer",
        num_train_epochs=trial.max_epochs,
        seed=trial.seed,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=400,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",  # the callback has a checkpoint written after every evaluation
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=training,
        eval_dataset=validation,
        compute_metrics=accuracy,
        optimizers=(optimizer, scheduler),
        callbacks=[RalrTuneCallback(trial, monitor="eval_accuracy")],
    )
    trainer.train(resume_from_checkpoint=trial.checkpoint)
    if trial.stage == "test":
        trial.report_test(trainer.evaluate(test, metric_key_prefix="test")["test_accuracy"])


if __name__ == "__main__":
    train(ralr_tune.trial(epochs=5, lr=0.003, width=64))
