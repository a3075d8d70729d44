"""Training steps as CUDA graphs: recorded once, then launched as a whole.

A step of ResNet-20 consists of several hundred kernels, which an H100 executes in 2.3 ms and Python launches in 8.2 ms;
for eight trials as one network, 7.0 and 16 ms (LOG.md, 2026-11-26).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property

import torch
from torch import Generator, Tensor, fx, nn

from ralr_tune.studyfile.optimizers import optimizer_spec
from ralr_tune.tasks.base import Batch, Capabilities
from ralr_tune.training.memory import first_line, is_out_of_memory

logger = logging.getLogger(__name__)

WARM_UPS = 2
"""Ordinary steps before one is recorded: libraries load and choose their kernels, optimizers create their states."""

KNOWN_PACKAGES = frozenset({"torch", "torchvision", "ralr_tune"})
"""Packages whose modules are known to repeat their operations."""

VARYING_MODULES = ("torchvision.models.detection",)
"""Exceptions: their modules draw numbers in Python or loop over what they detect."""

Work = Callable[[Batch], Tensor]


def recording_obstacle(
    capabilities: Capabilities, model: nn.Module, optimizer: str, weight_decay_varies: bool = False
) -> str | None:
    """Why steps must not be recorded; None when every step is the same sequence of operations on the same shapes."""
    if weight_decay_varies:
        return "the weight decay changes from step to step, and optimizers cannot read it from the device"
    if not optimizer_spec(optimizer).one_kernel:
        return f"{optimizer} cannot read the learning rate from the device"
    if capabilities.static_steps and not capabilities.static_shapes:
        return "the task's batches differ in shape"
    return rewriting_obstacle(capabilities, model)


def rewriting_obstacle(capabilities: Capabilities, model: nn.Module) -> str | None:
    """Why the network must not be rewritten for this package's kernels; None if it may be.

    The task guarantees equal steps for its loss, its evaluation and its calls of the network (see
    tasks.base.Capabilities); the network's modules are checked here.
    """
    return varying_module(model) if capabilities.static_steps else "the task does not guarantee equal steps"


def varying_module(model: nn.Module) -> str | None:
    """A sentence on the first module whose operations may differ between steps; None if there is none.

    Called as `model(inputs)`, modules of torch, torchvision and this package repeat their operations, unless hooks or
    options change that. torchvision's detectors do not: they draw sizes and loop over what they detect. Any other
    module may draw from Python's generator, count steps or branch on a number; a recording would repeat the first
    outcome without an error.
    """
    for module in model.modules():
        if not _is_known(type(module).__module__) or _is_changed(module):
            return f"the operations of {type(module).__name__} may differ between steps"
    return None


def _is_known(name: str) -> bool:
    return name.partition(".")[0] in KNOWN_PACKAGES and not name.startswith(VARYING_MODULES)


def _is_changed(module: nn.Module) -> bool:
    """Whether user code or an option changes the default operations of the module's class."""
    if isinstance(module, fx.GraphModule | torch.jit.ScriptModule):
        return True  # a class of torch that runs the user's code
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is None:
        return True  # it reads a number from the device in every step
    hooks = [module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks]
    for weight in module.parameters(recurse=False):
        hooks += [weight._backward_hooks or {}, getattr(weight, "_post_accumulate_grad_hooks", None) or {}]
    return "forward" in vars(module) or any(hooks)


class Recorder:
    """Calls `work` batch by batch and, from the third batch on, replays a recording of it, for batches with the
    signature of the first (see tasks.base.Batch).

    The work must be the same in every call and, apart from the batch, read and write the same tensors; the next call
    overwrites the result. If recording fails, this process records nothing more; out-of-memory errors are raised.
    """

    failed = False
    """Whether a recording failed in this process: torch 2.11 then refuses to draw from its own generator in any
    further recording."""

    def __init__(self, device: str, generators: Sequence[Generator] = ()) -> None:
        """`generators`: those from which the work draws, besides torch's own."""
        self._device, self._generators = device, generators
        self._signature: Hashable = None
        self._seen = 0
        self._batch: Batch | None = None
        self._output = torch.empty(0)
        self._replay: Callable[[], object] | None = None

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        """The same one for warm-ups and recording: torch reuses freed memory only within a stream."""
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def __call__(self, work: Work, batch: Batch) -> Tensor:
        self._signature = self._signature or batch.signature
        if batch.signature != self._signature or Recorder.failed:
            return work(batch)
        self._seen += 1
        if self._seen <= WARM_UPS:
            return on_side_stream(lambda: work(batch), self._stream)
        if self._seen == WARM_UPS + 1:
            self._record(work, batch)
        if self._batch is None or self._replay is None:
            return work(batch)
        self._batch.take(batch)
        self._replay()
        return self._output

    def _record(self, work: Work, batch: Batch) -> None:
        """Records without computing: the batch is processed afterwards."""
        static_batch = batch.clone()
        try:
            self._output, self._replay = record(lambda: work(static_batch), self._stream, self._generators)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            Recorder.failed = True
            logger.warning(
                "recording failed, this process no longer records steps as CUDA graphs: %s", first_line(error)
            )
        else:
            self._batch = static_batch


def on_side_stream(work: Callable[[], Tensor], stream: torch.cuda.Stream) -> Tensor:
    """Calls `work` on a separate stream, as CUDA graphs require for warm-ups."""
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
    """The tensor into which every replay writes the result, and the replay function."""
    graph, device = torch.cuda.CUDAGraph(), stream.device
    for generator in generators:
        graph.register_generator_state(generator)
    current = torch.cuda.current_stream(device)
    # cuBLAS keeps a workspace for each stream, and streams are reused: none may be in the memory of another graph
    torch._C._cuda_clearCublasWorkspaces()
    try:
        # torch would by default record a stream of the first GPU, wherever the work runs; thread_local: CUDA calls of
        # other threads must not invalidate the recording
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            output = work()
    finally:
        torch.cuda.set_stream(current)  # torch does not restore it if a recording fails
        torch._C._cuda_clearCublasWorkspaces()
    return output, graph.replay
