"""Steps of training as CUDA graphs: recorded once, then started as a whole.

A step of ResNet-20 is several hundred kernels, which an H100 computes in 2.3 ms and Python starts in 8.2; of eight
trials as one network, 7.0 and 16 ms (LOG.md, 2026-11-26).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property

import torch
from torch import Generator, Tensor, fx, nn

from ralr_tune.studyfile.optimizers import OPTIMIZER_SPECS
from ralr_tune.tasks.base import Batch, Capabilities
from ralr_tune.training.memory import first_line, is_out_of_memory

logger = logging.getLogger(__name__)

WARM_UPS = 2
"""Steps as ever before one is recorded: libraries load and choose their kernels, and optimizers make what they keep."""

PACKAGES = frozenset({"torch", "torchvision", "ralr_tune"})
"""Whose modules are known here."""

VARYING = ("torchvision.models.detection",)
"""Parts of them whose modules draw numbers in Python or loop over what they find."""

Work = Callable[[Batch], Tensor]


def recording_obstacle(capabilities: Capabilities, model: nn.Module, optimizer: str) -> str | None:
    """Why steps must not be recorded; None when every step is the same sequence of operations on the same shapes."""
    if not OPTIMIZER_SPECS[optimizer].one_kernel:
        return f"{optimizer} takes no learning rate from the device"
    if capabilities.static_steps and not capabilities.static_shapes:
        return "the task's batches differ in shape"
    return rewriting_obstacle(capabilities, model)


def rewriting_obstacle(capabilities: Capabilities, model: nn.Module) -> str | None:
    """Why the network must be called as it is, and not rewritten for this package's kernels; None when it may be.

    The task answers for its loss, its evaluation and the way it calls the network (see tasks.base.Capabilities), the
    network's modules for themselves.
    """
    return varying_module(model) if capabilities.static_steps else "the task does not promise equal steps"


def varying_module(model: nn.Module) -> str | None:
    """The first module whose operations may differ from step to step, in a sentence; None when there is none.

    Called in the plain way, modules of torch, torchvision and this package repeat their operations, unless hooks or
    options change them; torchvision's detectors do not: they draw sizes and loop over what they find. Any other module
    may draw from Python's generator, count steps or branch on a number: a recording would repeat the first outcome
    without an error.
    """
    for module in model.modules():
        if not _is_known(type(module).__module__) or _is_changed(module):
            return f"what {type(module).__name__} does may differ from step to step"
    return None


def _is_known(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES and not name.startswith(VARYING)


def _is_changed(module: nn.Module) -> bool:
    """Whether it does other things than its class does by default, by somebody's code or by an option."""
    if isinstance(module, fx.GraphModule | torch.jit.ScriptModule):
        return True  # somebody's code in a class of torch
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is None:
        return True  # it reads a number from the device in every step
    hooks = [module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks]
    for weight in module.parameters(recurse=False):
        hooks += [weight._backward_hooks or {}, getattr(weight, "_post_accumulate_grad_hooks", None) or {}]
    return "forward" in vars(module) or any(hooks)


class Recorder:
    """Does work batch by batch, from the third batch on by a recording of it, for batches with the first one's
    signature (see tasks.base.Batch).

    The work must be the same in every call and read and write, besides the batch, the same tensors; what it gives is
    overwritten by the next call. Where recording fails, nothing more is recorded in this process; lack of memory is
    raised.
    """

    failed = False
    """In this process: after one that failed, torch 2.11 refuses to draw from its own generator, recorded or not."""

    def __init__(self, device: str, generators: Sequence[Generator] = ()) -> None:
        """`generators`: those that the work draws from, besides torch's own."""
        self._device, self._generators = device, generators
        self._signature: Hashable = None
        self._seen = 0
        self._batch: Batch | None = None
        self._output = torch.empty(0)
        self._replay: Callable[[], object] | None = None

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """One for warm-ups and recording: torch keeps memory that is free again apart, by stream."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def __call__(self, work: Work, batch: Batch) -> Tensor:
        self._signature = self._signature or batch.signature
        if batch.signature != self._signature or Recorder.failed:
            return work(batch)
        self._seen += 1
        if self._seen <= WARM_UPS:
            return aside(lambda: work(batch), self._stream)
        if self._seen == WARM_UPS + 1:
            self._record(work, batch)
        if self._batch is None or self._replay is None:
            return work(batch)
        self._batch.take(batch)
        self._replay()
        return self._output

    def _record(self, work: Work, batch: Batch) -> None:
        """Computes nothing, so that the batch is still to be done."""
        still = batch.clone()
        try:
            self._output, self._replay = record(lambda: work(still), self._stream, self._generators)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            Recorder.failed = True
            logger.warning("this process records no more steps as CUDA graphs: %s", first_line(error))
        else:
            self._batch = still


def aside(work: Callable[[], Tensor], stream: torch.cuda.Stream) -> Tensor:
    """Done on a stream of its own, as what comes before a recording must be."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        result = work()
    current.wait_stream(stream)
    result.record_stream(current)
    return result


def record(
    work: Callable[[], Tensor], stream: torch.cuda.Stream, generators: Sequence[Generator]
) -> tuple[Tensor, Callable[[], object]]:
    """The tensor into which every replay writes the result, and the replay."""
    graph, device = torch.cuda.CUDAGraph(), stream.device
    for generator in generators:
        graph.register_generator_state(generator)
    current = torch.cuda.current_stream(device)
    # cuBLAS keeps a workspace for each stream, and streams come round again: none may lie in another graph's memory
    torch._C._cuda_clearCublasWorkspaces()
    try:
        # torch records what happens on this stream: left to itself, on one of the first GPU, wherever the work is done;
        # and what other threads of the process ask of CUDA meanwhile must not spoil it
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = work()
    finally:
        torch.cuda.set_stream(current)  # which torch forgets where a recording fails
        torch._C._cuda_clearCublasWorkspaces()
    return output, graph.replay
