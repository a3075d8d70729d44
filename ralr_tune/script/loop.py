"""What every script does: read its options, train, save its weights.

Scripts include this source. It trains like `training.loop`, but without checkpoints, and it ends if memory runs out.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ralr_tune.schedules.rate import LearningRate
from ralr_tune.seeds import derive_seed


def parse_options(description: str | None, file: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads `out` and `device`. An invalid value ends the program before training."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, prog=Path(file).name
    )
    weights = Path(file).with_suffix(".pt")
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--out", type=Path, default=weights, help=f"file for the trained weights (default: {weights})")
    parser.add_argument(
        "--device", default=chosen, help=f"torch device name, such as cpu or cuda:0 (default: {chosen})"
    )
    options = parser.parse_args(arguments)
    if options.out.is_dir() or not os.access(options.out.parent, os.W_OK):
        parser.error(f"--out {options.out}: must be a file in a writable folder")
    try:
        torch.zeros(1, device=options.device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        parser.error(f"--device {options.device}: {error}")
    return options


def train(
    model: nn.Module,
    optimizer: Optimizer,
    rate: LearningRate,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    seed: int,
    accumulate: int = 1,
    clip_norm: float | None = None,
    weight_decays: Callable[[int], Iterable[float]] | None = None,
    before_epoch: Callable[[int], object] = lambda epoch: None,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Trains all epochs of `rate`: `batches(epoch)` yields inputs and targets, `loss` maps them to the batch mean.

    `seed` is the training seed. `accumulate`: batches whose gradients are added up for one step, weighted by their
    numbers of targets; the last step of an epoch may have fewer. `weight_decays(epoch)`: of each step; None: the
    optimizer's own. `before_epoch(epoch)` is called in training mode. The `factor` of an optimizer's group, if it has
    one, multiplies the group's rates. Ends the program if the loss is not finite. Epochs are counted from 0.
    """
    for epoch in range(rate.epochs):
        model.train()
        before_epoch(epoch)
        torch.manual_seed(derive_seed("dropout", seed, epoch))
        total: float | Tensor = 0.0
        samples = 0
        rates = rate.rates(epoch).tolist()
        settings = [{"lr": lr} for lr in rates]
        for setting, decay in zip(settings, weight_decays(epoch) if weight_decays else (), strict=False):
            setting["weight_decay"] = float(decay)
        for parts, setting in zip(_in_steps(batches(epoch), accumulate), settings, strict=True):
            for group in optimizer.param_groups:
                group.update(setting)
                group["lr"] *= group.get("factor", 1.0)
            optimizer.zero_grad()
            weight = sum(len(targets) for _, targets in parts)
            for inputs, targets in parts:
                found = loss(inputs, targets)
                (found * (len(targets) / weight)).backward()  # type: ignore[no-untyped-call]
                total += found.detach() * len(targets)  # stays on the device: reading it would synchronize with the GPU
            samples += weight
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            after_step()
        mean = float(total) / samples
        if not math.isfinite(mean):
            raise SystemExit(f"epoch {epoch + 1}: diverged, the loss is {mean}")
        print(f"epoch {epoch + 1}/{rate.epochs}: loss {mean:.4f}, learning rate {rates[0]:.4g}", flush=True)


def _in_steps(batches: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """`size` batches for each step; the last step may have fewer."""
    rest = iter(batches)
    while parts := list(islice(rest, size)):
        yield parts


def save_weights(model: nn.Module, path: Path) -> None:
    """Saves the state dict for torch.load(path, weights_only=True): writes a temporary file, then renames it."""
    partial = path.with_name(path.name + ".partial")
    torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, partial)
    partial.replace(path)
