"""Two processes train one network on scikit-learn's digits. Alone:

python -m torch.distributed.run --standalone --nproc-per-node 2 train.py --lr 0.1
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import ralr_tune

BATCH = 25
"""Images of one process in one step."""


def digits() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels for training, validation and test: the same ones in every trial and process."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.data, dtype=torch.float32)[order] / 16
    labels = torch.tensor(found.target)[order]
    return list(zip(images.split([1000, 400, 397]), labels.split([1000, 400, 397]), strict=True))


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Each process could do a part; here it is too little work for that."""
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def one_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, order: torch.Tensor
) -> None:
    """`order`: of all images, the same in every process; each process takes its own share of it."""
    share = order[dist.get_rank() :: dist.get_world_size()]
    for batch in share.split(BATCH):
        loss = cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train(trial: ralr_tune.Trial) -> None:
    training, validation, test = digits()
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"], momentum=0.9)
    scheduler = trial.schedule(optimizer)
    trial.keep(model=network, optimizer=optimizer, scheduler=scheduler)
    for epoch in trial.epochs():
        order = torch.randperm(len(training[0]), generator=torch.Generator().manual_seed(trial.seed * 1000 + epoch))
        one_epoch(model, optimizer, *training, order)
        scheduler.step()
        trial.report(accuracy(network, *validation))
    if trial.stage == "test":
        trial.report_test(accuracy(network, *test))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    train(ralr_tune.trial(epochs=5, lr=0.05))
    dist.destroy_process_group()
