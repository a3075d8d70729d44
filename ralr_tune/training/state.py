"""Serialises the state of a torch trial between two epochs; a state that is read is validated before it is used."""

from __future__ import annotations

import io
import math
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ralr_tune.records import EpochRecord
from ralr_tune.studyfile.optimizers import is_imported
from ralr_tune.training.checkpoint import Unusable, curve_to_dicts, read_curve
from ralr_tune.training.memory import MemoryBudget
from ralr_tune.training.optimizer import has_uniform_state, state_of_one_weight, state_of_weights, whole_state
from ralr_tune.training.precision import Precision, can_bfloat16

if TYPE_CHECKING:
    from ralr_tune.studyfile.configuration import TrainingConfig

T = TypeVar("T")

OptimizerState = Mapping[Any, Any]
"""By the weight's index in `model.parameters()` and torch's names; values are numbers, None and tensors. Of an imported
optimizer, its whole `state_dict()`: its param groups may hold counters."""

MAX_COPIES = 4
"""Maximum size of a state in multiples of the network's: the network, and three numbers per weight of amsgrad and
centered rmsprop."""


@dataclass(frozen=True)
class SavedAverage:
    """The moving average of the weights."""

    model: Mapping[str, Tensor]
    updates: int
    """Steps that are in it."""


@dataclass(frozen=True)
class SavedState:
    """Everything that a trial needs to continue. Random numbers derive from (seed, epoch), so it has no generator."""

    model: Mapping[str, Tensor]
    optimizer: OptimizerState
    curve: list[EpochRecord]
    precision: Precision
    memory: MemoryBudget
    threads: int
    torch: str
    """Version that trained it."""
    kernels: bool
    """Whether it was trained with this package's kernels."""
    epochs: int
    """Epochs done; more than the curve has, if the last ones were not evaluated."""
    unrecorded_s: float = 0.0
    """Wall seconds of the epochs after the last record."""
    average: SavedAverage | None = None

    def encode(self) -> bytes:
        """The whole state in memory, so that disk errors occur in Python's write and not inside torch."""
        buffer = io.BytesIO()
        content = {
            "model": self.model,
            "optimizer": self.optimizer,
            "curve": curve_to_dicts(self.curve),
            "precision": [self.precision.bfloat16, self.precision.channels_last],
            "room": asdict(self.memory),
            "threads": self.threads,
            "torch": self.torch,
            "kernels": self.kernels,
            "epochs": self.epochs,
            "unrecorded_s": self.unrecorded_s,
        }
        if self.average is not None:
            content["average"] = vars(self.average)
        torch.save(content, buffer)
        return buffer.getvalue()


class StateReader:
    """Reads what `SavedState.encode` wrote (see checkpoint.Reader), for this network under this configuration."""

    def __init__(self, model: nn.Module, training: TrainingConfig, device: str, *, evaluate_every: int = 1) -> None:
        self._training, self._device, self._every = training, device, evaluate_every
        self._model = {name: _shape(tensor) for name, tensor in model.state_dict().items()}
        self._weights = [weight.shape for weight in model.parameters()]
        self._size: int = sum(t.nbytes for t in model.state_dict().values() if isinstance(t, Tensor))

    @property
    def limit(self) -> int:
        """Twice the maximum size of this network's state, plus space for names and the zip file's records."""
        copies = MAX_COPIES + (self._training.ema_decay > 0)
        tensors, size = copies * len(self._model), copies * self._size
        if is_imported(self._training.optimizer):
            size += _bytes(self._imported_state())
        return 2 * size + 4096 * tensors + 2048 * self._training.epochs + 2**20

    def read(self, content: bytes) -> SavedState:
        stored = _unpacked(content)
        try:
            curve = read_curve(stored["curve"], self._training.epochs, every=self._every)
            return SavedState(
                model=self._checked_model(stored["model"]),
                optimizer=self._checked_optimizer(stored["optimizer"]),
                curve=curve,
                precision=self._checked_precision(*stored["precision"]),
                memory=self._checked_memory(MemoryBudget(**stored["room"])),
                threads=_checked("threads", stored["threads"], int),
                torch=_checked("torch", stored["torch"], str),
                kernels=_checked("kernels", stored.get("kernels", False), bool),
                epochs=self._checked_epochs(stored.get("epochs", len(curve)), curve),
                unrecorded_s=self._checked_seconds(stored.get("unrecorded_s", 0.0)),
                average=self._checked_average(stored["average"]) if self._training.ema_decay else None,
            )
        except (KeyError, TypeError) as error:
            raise Unusable(f"invalid: {type(error).__name__}: {error}") from error

    def _checked_epochs(self, epochs: object, curve: Sequence[EpochRecord]) -> int:
        """Those of the curve, and fewer after it than lie between two evaluations."""
        number, recorded = _checked("epochs", epochs, int), curve[-1].epoch if curve else 0
        if not recorded <= number <= min(recorded + self._every - 1, self._training.epochs):
            raise Unusable(f"invalid: {number} epochs, of which {recorded} are in its curve")
        return number

    def _checked_seconds(self, seconds: object) -> float:
        if not 0 <= _checked("unrecorded_s", seconds, float) < math.inf:
            raise Unusable(f"invalid: unrecorded_s = {seconds}")
        return cast(float, seconds)

    def _checked_model(self, stored: object) -> Mapping[str, Tensor]:
        tensors = _checked("model", stored, OrderedDict)
        if {name: _shape(tensor) for name, tensor in tensors.items()} != self._model:
            raise Unusable("invalid: its weights are not those of this network")
        return tensors

    def _checked_average(self, stored: object) -> SavedAverage:
        found = SavedAverage(**_checked("average", stored, dict))
        if _checked("updates", found.updates, int) < 0:
            raise Unusable(f"invalid: average: updates = {found.updates}")
        return SavedAverage(self._checked_model(found.model), found.updates)

    def _checked_optimizer(self, stored: object) -> OptimizerState:
        """Weights without a gradient have no state; the state of all others must be complete."""
        states = _checked("optimizer", stored, dict)
        if is_imported(self._training.optimizer):
            return self._checked_imported(states)
        expected = self._expected_states()
        for index, state in states.items():
            if type(index) is not int or not 0 <= index < len(self._weights):
                raise Unusable(f"invalid: its optimizer has a state of weight {index!r}")
            found = {name: _shape(value) for name, value in _checked("optimizer", state, dict).items()}
            if found != expected(index):
                name = self._training.optimizer
                raise Unusable(f"invalid: its optimizer's state of weight {index} is not one of {name}")
        return states

    def _checked_imported(self, stored: dict[Any, Any]) -> OptimizerState:
        """The order of the weights depends on the task's groups, so each state must be one of some weight."""
        expected = self._imported_state()
        known = [_structure(each) for each in expected["state"].values()]
        found = [_structure(each) for each in _checked("optimizer", stored["state"], dict).values()]
        names = {name for group in expected["param_groups"] for name in group}
        groups = [set(group) for group in _checked("optimizer", stored["param_groups"], list)]
        if (
            stored.keys() != expected.keys()
            or not all(each in known for each in found)
            or groups.count(names) != len(groups)
        ):
            raise Unusable(f"invalid: its optimizer's state is not one of {self._training.optimizer}")
        return stored

    def _imported_state(self) -> dict[str, Any]:
        return whole_state(self._training, self._weights)

    def _expected_states(self) -> Callable[[int], Mapping[str, object]]:
        """What the state of a weight must look like, by the weight's index."""
        if has_uniform_state(self._training):
            example = state_of_one_weight(self._training)
            return lambda index: {name: _shape(value, self._weights[index]) for name, value in example.items()}
        states = state_of_weights(self._training, self._weights)
        return lambda index: {name: _shape(value) for name, value in states[index].items()}

    def _checked_precision(self, bfloat16: object, channels_last: object) -> Precision:
        """The precision that the trial started with: another one would change the sums."""
        chosen = Precision(
            _checked("precision", bfloat16, bool), _checked("precision", channels_last, bool), "as in the checkpoint"
        )
        wanted = (self._training.precision, self._training.channels_last)
        if wanted[0] not in ("auto", chosen.name) or wanted[1] not in ("auto", chosen.channels_last):
            raise Unusable(
                f"invalid: trained in {chosen.name}, channels_last = {chosen.channels_last}; configured: {wanted}"
            )
        if chosen.bfloat16 and not can_bfloat16(torch.device(self._device).type):
            raise Unusable(f"trained in bfloat16, which {self._device} does not support")
        return chosen

    def _checked_memory(self, memory: MemoryBudget) -> MemoryBudget:
        maximum = {"training": self._training.batch_size, "since": self._training.epochs}
        numbers = asdict(memory)
        _checked("room", numbers.pop("recorded"), bool)
        for name, value in numbers.items():
            if value is not None and not 1 <= _checked(name, value, int) <= maximum.get(name, value):
                raise Unusable(f"invalid: room: {name} = {value}")
        if (memory.training is None) != (memory.since is None):
            raise Unusable(f"invalid: {memory}")
        return memory


def _unpacked(content: bytes) -> dict[str, Any]:
    """What `torch.save` wrote: tensors, numbers, strings, lists and dicts; no code is executed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
        # torch stores members uncompressed; compressed or overlapping ones could expand without limit
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > len(content):
            raise Unusable("invalid: it contains compressed parts")
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Unusable:
        raise
    except Exception as error:  # damaged bytes: neither library documents what it raises
        raise Unusable(f"cannot be read: {type(error).__name__}") from error
    return _checked("content", stored, dict)


def _checked(name: str, value: object, kind: type[T]) -> T:
    if type(value) is not kind:  # not isinstance: a bool is an int, too
        raise Unusable(f"invalid: {name} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _shape(value: object, weight: torch.Size | None = None) -> object:
    """What two values must have in common to be interchangeable; `weight`: the shape of a tensor that is no scalar."""
    if not isinstance(value, Tensor):
        return type(value)
    shape = value.shape if weight is None or value.ndim == 0 else weight
    return value.dtype, value.layout, tuple(shape)


def _structure(value: object) -> object:
    """What two states must have in common: names, lengths, shapes and types."""
    if isinstance(value, Mapping):
        return {key: _structure(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_structure(each) for each in value]
    return "a number" if isinstance(value, int | float) else _shape(value)


def _bytes(value: object) -> int:
    """The size of all tensors in a state."""
    if isinstance(value, Tensor):
        return value.nbytes
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, inside))
