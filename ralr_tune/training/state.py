"""The state of a torch trial between two epochs, as bytes and back; what comes back is checked before it is used."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ralr_tune.records import EpochRecord
from ralr_tune.training.checkpoint import Unusable, plain, read_curve
from ralr_tune.training.memory import MemoryBudget
from ralr_tune.training.optimizer import state_of_one_weight
from ralr_tune.training.precision import Precision, can_bfloat16

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig

T = TypeVar("T")

OptimizerState = Mapping[int, Mapping[str, object]]
"""By the weight's place in `model.parameters()` and the optimizer's own names; numbers, None, and tensors that are
scalar or of the weight's shape."""

COPIES = 4
"""Of a network's size: its own, and the three numbers a weight that amsgrad and the centered rmsprop keep."""


@dataclass(frozen=True)
class SavedState:
    """All that a trial needs to go on. What is random is drawn anew from (seed, epoch), so no generator is in it."""

    model: Mapping[str, Tensor]
    optimizer: OptimizerState
    curve: list[EpochRecord]
    precision: Precision
    memory: MemoryBudget
    threads: int
    torch: str
    """Version that trained it."""
    kernels: bool
    """Whether by our own kernels."""

    def encode(self) -> bytes:
        """All of it; held in memory as a whole, so that a failing disk is met by Python and not inside of torch."""
        buffer = io.BytesIO()
        said = {
            "model": self.model,
            "optimizer": self.optimizer,
            "curve": plain(self.curve),
            "precision": [self.precision.bfloat16, self.precision.channels_last],
            "room": asdict(self.memory),
            "threads": self.threads,
            "torch": self.torch,
            "kernels": self.kernels,
        }
        torch.save(said, buffer)
        return buffer.getvalue()


class StateReader:
    """Reads what `SavedState.encode` wrote (see checkpoint.Reader), for this network under this configuration."""

    def __init__(self, model: nn.Module, training: TrainingConfig, device: str) -> None:
        self._training, self._device = training, device
        self._model = {name: _shape(tensor) for name, tensor in model.state_dict().items()}
        self._weights = [weight.shape for weight in model.parameters()]
        self._size: int = sum(t.nbytes for t in model.state_dict().values() if isinstance(t, Tensor))

    @property
    def limit(self) -> int:
        """Twice what a state of this network can need, and room for names and the zip file's own records."""
        tensors = COPIES * len(self._model)
        return 2 * COPIES * self._size + 4096 * tensors + 1024 * self._training.epochs + 2**20

    def read(self, content: bytes) -> SavedState:
        said = _unpacked(content)
        try:
            return SavedState(
                model=self._checked_model(said["model"]),
                optimizer=self._checked_optimizer(said["optimizer"]),
                curve=read_curve(said["curve"], self._training.epochs),
                precision=self._checked_precision(*said["precision"]),
                memory=self._checked_memory(MemoryBudget(**said["room"])),
                threads=_checked("threads", said["threads"], int),
                torch=_checked("torch", said["torch"], str),
                kernels=_checked("kernels", said.get("kernels", False), bool),
            )
        except (KeyError, TypeError) as error:
            raise Unusable(f"odd: {type(error).__name__}: {error}") from error

    def _checked_model(self, said: object) -> Mapping[str, Tensor]:
        tensors = _checked("model", said, OrderedDict)
        if {name: _shape(tensor) for name, tensor in tensors.items()} != self._model:
            raise Unusable("odd: its weights are not those of this network")
        return tensors

    def _checked_optimizer(self, said: object) -> OptimizerState:
        """Weights without a gradient have no state; those that have one have all of it."""
        states = _checked("optimizer", said, dict)
        example = state_of_one_weight(self._training)
        for place, state in states.items():
            if type(place) is not int or not 0 <= place < len(self._weights):
                raise Unusable(f"odd: its optimizer has a state of weight {place!r}")
            found = {name: _shape(value) for name, value in _checked("optimizer", state, dict).items()}
            if found != {name: _shape(value, self._weights[place]) for name, value in example.items()}:
                raise Unusable(f"odd: its optimizer's state of weight {place} is not one of {self._training.optimizer}")
        return states

    def _checked_precision(self, bfloat16: object, channels_last: object) -> Precision:
        """The one that the trial began with: another would go on with other sums."""
        chosen = Precision(
            _checked("precision", bfloat16, bool), _checked("precision", channels_last, bool), "as begun"
        )
        wanted = (self._training.precision, self._training.channels_last)
        if wanted[0] not in ("auto", chosen.name) or wanted[1] not in ("auto", chosen.channels_last):
            raise Unusable(f"odd: trained in {chosen.name}, channels_last = {chosen.channels_last}; asked: {wanted}")
        if chosen.bfloat16 and not can_bfloat16(torch.device(self._device).type):
            raise Unusable(f"trained in bfloat16, in which {self._device} cannot go on")
        return chosen

    def _checked_memory(self, memory: MemoryBudget) -> MemoryBudget:
        most = {"training": self._training.batch_size, "since": self._training.epochs}
        numbers = asdict(memory)
        _checked("room", numbers.pop("recorded"), bool)
        for name, value in numbers.items():
            if value is not None and not 1 <= _checked(name, value, int) <= most.get(name, value):
                raise Unusable(f"odd: room: {name} = {value}")
        if (memory.training is None) != (memory.since is None):
            raise Unusable(f"odd: {memory}")
        return memory


def _unpacked(content: bytes) -> dict[str, Any]:
    """What `torch.save` packed: tensors, numbers, texts, lists and dicts; nothing in it is executed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
        # torch stores its members as they are; compressed or overlapping ones could grow without end
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > len(content):
            raise Unusable("odd: it holds compressed parts")
        said = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Unusable:
        raise
    except Exception as error:  # damaged bytes: neither library has a list of what comes out
        raise Unusable(f"cannot be read: {type(error).__name__}") from error
    return _checked("content", said, dict)


def _checked(name: str, value: object, kind: type[T]) -> T:
    if type(value) is not kind:  # exactly: a bool is an int, too
        raise Unusable(f"odd: {name} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _shape(value: object, weight: torch.Size | None = None) -> object:
    """What two values must have in common to stand for each other; `weight`: shape for a tensor that is no scalar."""
    if not isinstance(value, Tensor):
        return type(value)
    shape = value.shape if weight is None or value.ndim == 0 else weight
    return value.dtype, value.layout, tuple(shape)
