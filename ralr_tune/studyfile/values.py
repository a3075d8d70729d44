"""The forms of a value in a study file: a fixed value, a range to search, or a choice to search.

`Searchable[T]` is for numbers (all three forms), `Choosable[T]` for everything else (fixed or choice). The bounds of T
(`Positive`, `Share`, ...) apply to both ends of a range and to every choice.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ralr_tune.bounds import BOUNDS
from ralr_tune.nearest import nearest


class Frozen(BaseModel):
    """A frozen pydantic model: no silent conversion, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Extended(Frozen):
    """A table that has more keys than in earlier releases.

    The keys in `added` are left out of its JSON while they have their default, so that an unchanged study file keeps
    its fingerprint and its checkpoints.
    """

    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_added(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            key: value
            for key, value in dumped(self).items()
            if key not in self.added or getattr(self, key) != fields[key].default
        }


T = TypeVar("T")


def within(name: str) -> Any:
    """A parameter's row in `bounds` as a pydantic constraint: `Annotated[float, within("lr")]`."""
    bounds = BOUNDS[name]
    low, high = (int(bounds.low), int(bounds.high)) if bounds.integer else (bounds.low, bounds.high)
    below = None if bounds.high == math.inf else high
    return Field(
        ge=low if bounds.has_low else None,
        gt=None if bounds.has_low else low,
        le=below if bounds.has_high else None,
        lt=None if bounds.has_high else below,
    )


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
"""A share or probability, 0 and 1 included."""
Count = Annotated[int, Field(ge=1, lt=10**9)]
"""The upper end is far above any real use and still exact in a database integer and a float."""


class Range(Frozen, Generic[T]):
    """`{ low, high, log, step }`: values from low to high, both included."""

    low: T
    high: T
    log: bool = False
    step: T | None = None

    @model_validator(mode="after")
    def _possible(self) -> Range[T]:
        low, high, step = self.numbers()
        if not low < high:
            raise problem(f"low = {low:g} and high = {high:g}: low must be below high")
        if self.log and low <= 0:
            raise problem(f"low = {low:g} with log = true: low must be above 0")
        if step is not None:
            _check_step(low, high, step, self.log)
        return self

    def numbers(self) -> tuple[float, float, float | None]:
        """(low, high, step) as floats, for any T."""
        step = None if self.step is None else float(str(self.step))
        return float(str(self.low)), float(str(self.high)), step

    def contains(self, value: Any) -> bool:
        """Whether a trial may have this value; with a step, it must be on the grid, up to rounding."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high, step = self.numbers()
        if not low <= value <= high or (isinstance(self.low, int) and not isinstance(value, int)):
            return False
        return step is None or _is_whole((value - low) / step)

    def describe(self) -> dict[str, Any]:
        """As JSON, like in the file."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}

    def __str__(self) -> str:
        grid = "" if self.step is None else f" in steps of {self.step}"
        return f"{self.low} to {self.high}{grid}{' (log)' if self.log else ''}"


_MAX_STEPS = 10**6
"""Maximum number of steps in a range: with more, rounding errors decide whether a value is on the grid."""


def _check_step(low: float, high: float, step: float, log: bool) -> None:
    if log:
        raise problem(f"step = {step:g} with log = true: give one of the two")
    smallest = (high - low) / _MAX_STEPS
    if not max(smallest, 0) < step <= high - low:
        raise problem(f"step = {step:g}: must be above {smallest:g} and at most high - low = {high - low:g}")
    steps = (high - low) / step
    if not _is_whole(steps):
        reached = low + step * math.floor(steps)
        raise problem(f"step = {step:g} does not reach high = {high:g}; the nearest value on the grid is {reached:g}")


def _is_whole(number: float) -> bool:
    return math.isclose(number, round(number), rel_tol=1e-9, abs_tol=1e-9)


class Choice(Frozen, Generic[T]):
    """`{ choices = [...] }`: one of these."""

    choices: Annotated[tuple[T, ...], Field(strict=False, min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _distinct(self) -> Choice[T]:
        if len({json.dumps(value) for value in self.choices}) < len(self.choices):
            raise problem(f"choices = {list(self.choices)}: list each choice once")
        return self

    def contains(self, value: Any) -> bool:
        """Whether a trial may have this value; an int matches a float choice, but a float never an int choice."""
        given = encode(value)
        kinds = {type(given), float} if type(given) is int else {type(given)}
        return any(type(choice) in kinds and given == choice for choice in map(encode, self.choices))

    def decode(self, value: Any) -> T:
        """The choice that Optuna stores as `value` (see `encode`). Raises ValueError for any other."""
        for choice in self.choices:
            if encode(choice) == value:
                return choice
        raise ValueError(f"{value!r}: must be {self}")

    def describe(self) -> dict[str, Any]:
        return {"choices": [encode(choice) for choice in self.choices]}

    def __str__(self) -> str:
        return "one of " + ", ".join(str(encode(choice)) for choice in self.choices)


def encode(value: Any) -> Any:
    """A choice as Optuna stores it: scalars unchanged, lists and tables as JSON."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value, default=str)


def _form(value: Any) -> str:
    if isinstance(value, Range) or (isinstance(value, dict) and "choices" not in value):
        return "range"
    return "choice" if isinstance(value, Choice | dict) else "fixed"


def _choice_form(value: Any) -> str:
    return "choice" if isinstance(value, Choice | dict) else "fixed"


# The discriminator picks the form from the value, so that an error is reported once instead of once per form.
if TYPE_CHECKING:
    Searchable: TypeAlias = T | Range[T] | Choice[T]
    Choosable: TypeAlias = T | Choice[T]
else:

    class Searchable:
        """`Searchable[T]` for pydantic; a plain generic alias would leave the T of `Range[T]` unbound."""

        def __class_getitem__(cls, kind: Any) -> Any:
            choice = Annotated[Choice[kind], Tag("choice")]
            return Annotated[
                Annotated[kind, Tag("fixed")] | Annotated[Range[kind], Tag("range")] | choice, Discriminator(_form)
            ]

    class Choosable:
        """`Choosable[T]` for pydantic."""

        def __class_getitem__(cls, kind: Any) -> Any:
            choice = Annotated[Choice[kind], Tag("choice")]
            return Annotated[Annotated[kind, Tag("fixed")] | choice, Discriminator(_choice_form)]


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    wrong = [f"{key} = {value}" for key, value in table.items() if not _is_plain(value)]
    if wrong:
        raise problem(
            f"{', '.join(wrong)}: allowed: strings, finite numbers, true, false, and lists and tables of them"
        )
    return table


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | dict):
        return all(_is_plain(each) for each in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


Options = Annotated[dict[str, Any], AfterValidator(_plain)]
"""A table that is passed unchanged to a sampler or a network; it can be written as JSON."""


def _searched(table: dict[str, Any]) -> dict[str, Any]:
    found = {key: _form_of_option(key, value) for key, value in table.items()}
    if dotted := [key for key, value in found.items() if "." in key and isinstance(value, Range | Choice)]:
        raise problem(f"{dotted[0]}: a key with a dot cannot be searched")
    return found


def _form_of_option(key: str, value: Any) -> Any:
    """A range or choice if the value looks like one. Other values are not checked: only the network or sampler can."""
    if isinstance(value, dict) and "choices" in value:
        return _validated(Choice[Any], key, value)
    if isinstance(value, dict) and {"low", "high"} & value.keys():
        whole = all(type(value.get(end)) is int for end in ("low", "high"))
        return _validated(Range[int] if whole else Range[float], key, value)
    return value


def _validated(form: type[BaseModel], key: str, value: Any) -> Any:
    try:
        return form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (key, *first["loc"])))
        raise problem(f"{where}: {first['msg']}") from None


SearchableOptions = Annotated[dict[str, Any], AfterValidator(_plain), AfterValidator(_searched)]
"""`Options` that may be searched: `{ low, high, ... }` and `{ choices = [...] }` are a range and a choice here."""

Domain: TypeAlias = Range[Any] | Choice[Any]
FORMS = frozenset({"fixed", "range", "choice"})
"""Tags that pydantic adds to an error's location and that are not keys of the file."""


def hints(model: type[BaseModel]) -> dict[str, Any]:
    """The annotations of a model's keys, including `Annotated`."""
    found = get_type_hints(model, include_extras=True)
    return {key: found[key] for key in model.model_fields}


def takes_range(model: type[BaseModel]) -> list[str]:
    """The keys of a model that may be given as a range."""
    return [key for key, hint in hints(model).items() if "range" in _forms(hint)]


def fixed_type(hint: Any) -> Any:
    """The T of `Searchable[T]` or `Choosable[T]`; any other annotation unchanged."""
    return _forms(hint).get("fixed", hint)


def _forms(hint: Any) -> dict[str, Any]:
    """The alternatives of `Searchable[T]` or `Choosable[T]` by tag, also if the annotation allows None."""
    for part in get_args(hint) if get_origin(hint) is not Annotated else ():
        if found := _forms(part):
            return found
    if get_origin(hint) is not Annotated or not any(isinstance(extra, Discriminator) for extra in hint.__metadata__):
        return {}
    tagged = [(alternative, _tag(alternative)) for alternative in get_args(hint.__origin__)]
    return {tag: _untagged(alternative) for alternative, tag in tagged if tag is not None}


def _tag(hint: Any) -> str | None:
    return next((extra.tag for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Tag)), None)


def _untagged(hint: Any) -> Any:
    """Without the tag; bounds and validators of T stay, since nested `Annotated` are flattened."""
    kept = tuple(extra for extra in hint.__metadata__ if not isinstance(extra, Tag))
    return Annotated[(hint.__origin__, *kept)] if kept else hint.__origin__


def problem(message: str) -> PydanticCustomError:
    """This package's error inside a validator; the text is shown unchanged."""
    return PydanticCustomError("ralr_tune", "{message}", {"message": message})


def known(what: str, names: Collection[str]) -> AfterValidator:
    """A constraint on a text: one of these names of `what`."""

    def check(value: str) -> str:
        if value not in names:
            raise problem(f"unknown {what}; {one_of(names, value)}")
        return value

    return AfterValidator(check)


def each_once(what: str) -> AfterValidator:
    """A constraint on a list of names of `what`: each at most once."""

    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := [each for each, count in Counter(value).items() if count > 1]:
            raise problem(f"{repeated[0]} is listed more than once; list each {what} once")
        return value

    return AfterValidator(check)


def one_of(allowed: Iterable[str], given: str) -> str:
    """The end of a message: the most similar allowed word, or the only one with this prefix, otherwise all words."""
    words = list(allowed)
    close = nearest(given, words) or [word for word in words if given and word.startswith(given)]
    return f"did you mean {close[0]!r}?" if len(close) == 1 else f"allowed: {', '.join(words)}"
