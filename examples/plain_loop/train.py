"""A plain PyTorch loop: a small network learns scikit-learn's digits. Alone: python train.py --lr 0.1"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import ralr_tune


def digits() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels for training, validation and test: the same ones in every trial."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.data, dtype=torch.float32)[order] / 16
    labels = torch.tensor(found.target)[order]
    return list(zip(images.split([1000, 400, 397]), labels.split([1000, 400, 397]), strict=True))


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def one_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Returns the mean loss."""
    model.train()
    losses = []
    for batch in torch.randperm(len(images)).split(50):
        loss = cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def train(trial: ralr_tune.Trial) -> None:
    training, validation, test = digits()
    width, dropout = trial.params["width"], trial.params["dropout"]
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"], momentum=0.9)
    scheduler = trial.schedule(optimizer)
    trial.keep(model=model, optimizer=optimizer, scheduler=scheduler)
    for _ in trial.epochs():
        loss = one_epoch(model, optimizer, *training)
        scheduler.step()
        trial.report(accuracy(model, *validation), loss=loss)
    if trial.stage == "test":
        trial.report_test(accuracy(model, *test))


if __name__ == "__main__":
    train(ralr_tune.trial(epochs=10, lr=0.05, width=32, dropout=0.2))
