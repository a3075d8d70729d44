"""Methods to train K networks at once, per step: `python -m benchmarks.fusing [--device cuda]`; a table per network.

Milliseconds of one network's share of a step (forward, backward, SGD with momentum), median of turns that the
methods take one after another; in brackets the speedup over one network after the other.

serial       one network after the other, in the memory format that the project uses for it
vmap         stacked weights under torch.func.vmap, sgd over the stack
grouped      training.fused: grouped convolutions in channels_last, what --slots trains with
recorded     one network after the other, each step a CUDA graph: the default on a GPU
grouped, recorded  what --slots trains with on a GPU
streams      the graphs of "recorded", replayed on K streams at once
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from ralr_tune.models.registry import build
from ralr_tune.training.fused import FusedNetwork, Stack
from ralr_tune.training.precision import Precision, choose_precision
from ralr_tune.training.recording import WARM_UPS, on_side_stream, record

RATE, MOMENTUM = 0.01, 0.9
CLASSES = 10
Step = Callable[[], object]


class Network(NamedTuple):
    model: str
    size: int
    """Of an image; 8: digits with one channel, otherwise three channels."""
    batch_size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1 if self.size == 8 else 3), self.size, self.size


NETWORKS = (Network("small_cnn", 8, 64), Network("small_cnn", 32, 128), Network("resnet20", 32, 128))


class Setting(NamedTuple):
    """The input of every method: K networks, a batch for each, and the precision."""

    models: list[nn.Module]
    images: list[Tensor]
    labels: list[Tensor]
    precision: Precision
    device: str

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), labels)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fusing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for network in NETWORKS:
        if given.only not in network.model:
            continue
        precision = chosen(network, given.device)
        print(f"\n{network.model}, {network.size}x{network.size}, batch {network.batch_size}, {precision.name}\n")
        print(f"| slots | {' | '.join(METHODS)} |")
        print("|---" * (1 + len(METHODS)) + "|")
        for slots in given.slots:
            times = measured(network, slots, given.device, given.turns)
            print(f"| {slots} | {' | '.join(_cell(times, method) for method in METHODS)} |", flush=True)


def chosen(network: Network, device: str) -> Precision:
    return choose_precision("auto", "auto", device=device, input_shape=network.shape)


def measured(network: Network, slots: int, device: str, turns: int) -> dict[str, float]:
    """Milliseconds of one network's share of a step, by method, for the methods available on this device."""
    steps = {method: step for method in METHODS if (step := working(method, setting(network, slots, device)))}
    found: dict[str, list[float]] = {method: [] for method in steps}
    for _ in range(turns):
        for method, step in steps.items():
            began = time.perf_counter()
            step()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            found[method].append(1000 * (time.perf_counter() - began) / slots)
    return {
        method: statistics.median(times[turns // 3 :]) for method, times in found.items()
    }  # the first turns warm up


def working(method: str, given: Setting) -> Step | None:
    """The step, run once; None if this device or torch does not support the method."""
    if method in ON_A_GPU and torch.device(given.device).type != "cuda":
        return None
    step = METHODS[method](given)
    try:
        step()
    except RuntimeError as error:  # vmap cannot mix bfloat16 images with float32 weights of batch normalisation
        print(f"({method}: {str(error).splitlines()[0]})")
        return None
    return step


def setting(network: Network, slots: int, device: str) -> Setting:
    channels, size, _ = network.shape
    precision = chosen(network, device)
    models = [build(network.model, classes=CLASSES, channels=channels, size=size) for _ in range(slots)]
    samples = [torch.randn(network.batch_size, *network.shape, device=device) for _ in range(slots)]
    return Setting(
        models=[model.to(device, memory_format=precision.memory_format) for model in models],
        images=[images.contiguous(memory_format=precision.memory_format) for images in samples],
        labels=[torch.randint(0, CLASSES, (network.batch_size,), device=device) for _ in range(slots)],
        precision=precision,
        device=device,
    )


# ---------------------------------------------------------------- the methods


def serial(given: Setting) -> Step:
    optimizers = [torch.optim.SGD(m.parameters(), lr=RATE, momentum=MOMENTUM, fused=True) for m in given.models]

    def step() -> None:
        for model, optimizer, images, labels in zip(given.models, optimizers, given.images, given.labels, strict=True):
            one_step(given, model, optimizer, images, labels)

    return step


def one_step(
    given: Setting, model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    optimizer.zero_grad()
    with given.precision.autocast(given.device):
        outputs = model(images)
    given.loss(outputs, labels).backward()
    optimizer.step()


def stacked(given: Setting) -> Step:
    weights, buffers = stack_module_state(given.models)  # type: ignore[arg-type]
    momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    images, labels = torch.stack(given.images), torch.stack(given.labels)
    model = given.models[0]

    def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        outputs: Tensor = functional_call(model, (weights, buffers), (images,))
        return given.loss(outputs, labels)

    gradients = vmap(grad(loss), randomness="different")

    def step() -> None:
        with given.precision.autocast(given.device):
            found = gradients(weights, buffers, images, labels)
        with torch.no_grad():
            for name, gradient in found.items():
                weights[name] -= RATE * momenta[name].mul_(MOMENTUM).add_(gradient)

    return step


def grouped(given: Setting) -> Step:
    network, stack = FusedNetwork(given.models[0]), Stack(given.models)
    images = torch.cat(given.images, dim=1).contiguous(memory_format=torch.channels_last)
    labels = torch.stack(given.labels, dim=1).flatten()
    optimizer = torch.optim.SGD([stack.weights], lr=RATE, momentum=MOMENTUM, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with given.precision.autocast(given.device):
            outputs = network(stack, images)
        (stack.slots * given.loss(outputs.flatten(0, 1), labels)).backward()
        optimizer.step()

    return step


def recorded(given: Setting) -> Step:
    replays = graphs(given)

    def step() -> None:
        for replay in replays:
            replay()

    return step


def grouped_recorded(given: Setting) -> Step:
    return graph(grouped(given), given.device)


def streams(given: Setting) -> Step:
    replays = [(replay, torch.cuda.Stream(given.device)) for replay in graphs(given)]

    def step() -> None:
        for replay, stream in replays:
            with torch.cuda.stream(stream):
                replay()

    return step


def graphs(given: Setting) -> list[Step]:
    """The replay of one step of each network; the rate is a tensor, so that it may change."""
    found = []
    for model, images, labels in zip(given.models, given.images, given.labels, strict=True):
        rate = torch.tensor(RATE, device=given.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, fused=True)
        found.append(graph(partial(one_step, given, model, optimizer, images, labels), given.device))
    return found


def graph(step: Step, device: str) -> Step:
    def work() -> Tensor:
        step()
        return torch.empty(0, device=device)

    stream = torch.cuda.Stream(device)
    for _ in range(WARM_UPS):
        on_side_stream(work, stream)
    torch.cuda.synchronize(device)
    return record(work, stream, ())[1]


METHODS: dict[str, Callable[[Setting], Step]] = {
    "serial": serial,
    "vmap": stacked,
    "grouped": grouped,
    "recorded": recorded,
    "grouped, recorded": grouped_recorded,
    "streams": streams,
}
ON_A_GPU = {"recorded", "grouped, recorded", "streams"}


def _cell(times: dict[str, float], method: str) -> str:
    if method not in times:
        return "-"
    return f"{times[method]:.2f} ({times['serial'] / times[method]:.2f}x)"


if __name__ == "__main__":
    main()
