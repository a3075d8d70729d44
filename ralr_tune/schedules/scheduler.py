"""Random amplification around any scheduler of torch or timm: `RandomAmplifyLR`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler

from ralr_tune.schedules.amplification import Amplification, Law
from ralr_tune.schedules.checks import check_integer, check_number, refusal
from ralr_tune.schedules.wrapper.bases import base_state, check_base, computed_lr, load_base, position, take_over
from ralr_tune.schedules.wrapper.draws import Draws, ListedFactors
from ralr_tune.schedules.wrapper.rates import AmplifiedRates, Groups, Rate, amplifications, copies, levels, write

if TYPE_CHECKING:
    from ralr_tune.schedules.wrapper.preview import RatePreview


class RandomAmplifyLR(LRScheduler):
    """Multiplies the rates that `base_scheduler` sets by a random factor, drawn at every step: RALR in your own loop.

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        base = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 150])
        scheduler = RandomAmplifyLR(optimizer, base, probability=0.25, lower=1.5, upper=3.0)
        for epoch in range(200):
            train(model, optimizer)
            scheduler.step()  # instead of base.step(), with the same arguments (ReduceLROnPlateau: the metric)

    With `probability` the factor is drawn from [lower, upper] by `law` ("uniform" or "loguniform"), otherwise it is 1.
    All param groups get the same factor, each multiplied with its own rate. `window` = (first, last) limits
    amplification to these steps, `last` excluded; None means all steps. The initial rate is that of step 0 and may be
    amplified, too.

    `base_scheduler` is a torch or timm scheduler (step timm's as usual: `step(epoch)`, `step_update(updates)`); without
    one, the base rate is constant. `optimizer` may be wrapped by accelerate or Fabric, and the base scheduler may
    belong to the wrapped optimizer. Unknown attributes (`base_lrs`, `total_steps`, ...) are read from the base
    scheduler.

    Step i's factor is `Amplification.factor(seed, i)`, so there is no random state. Steps count from the base
    scheduler's `last_epoch`, or from `last_epoch + 1` if `last_epoch` is given (as in torch, the last completed step).
    Two wrappers in one run (a GAN) need different seeds, or a different `prefix` each, which gives independent draws
    from the same seed.

    A run that resumes from `state_dict()` continues with the same rates (the state contains the base scheduler's state
    and otherwise plain numbers). Load the states of scheduler and optimizer in either order. The optimizer's own state
    holds base rates; when it is loaded, the rates are amplified again.

    `factor` is the current factor, `get_base_lr()` returns the rates without it, `preview()` future rates. The base
    scheduler only sees base rates: torch's schedulers are recursive, so an amplification would persist. The rate in a
    param group counts as amplified: if another scheduler writes it, the base rate changes by the same proportion.

    Another `RandomAmplifyLR` on the same optimizer takes over, after the base rates are restored. Call `release()`,
    which restores them, before another scheduler uses the optimizer. (After this object is garbage-collected, they are
    restored at the optimizer's next step.) A copy of the optimizer alone (`copy.deepcopy`) keeps the amplified rates:
    copy both together, or use `state_dict()`. Make this the outermost scheduler: wrap a SequentialLR, do not make this
    a member of one.

    Raises ValueError for invalid arguments.

    Source: doi 10.3390/app12010268; the details of the law are our choice, see `amplification`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_scheduler: Any = None,
        *,
        probability: float,
        lower: float,
        upper: float,
        law: Law = "uniform",
        window: tuple[int, int] | None = None,
        seed: int = 0,
        prefix: str = "",
        last_epoch: int = -1,
    ) -> None:
        draws = Draws(Amplification(probability, lower, upper, law), window, seed, prefix)
        self._wrap(optimizer, base_scheduler, draws, last_epoch)

    def _wrap(self, optimizer: Optimizer, base_scheduler: Any, draws: Draws | ListedFactors, last_epoch: int) -> None:
        # LRScheduler.__init__ is not called, as in torch's composite schedulers: the base scheduler's did the same work
        # (initial_lr, the check of the order of calls), and its initial step would advance the schedule.
        self._draws = draws
        check_integer("last_epoch", last_epoch, low=-1)
        if not isinstance(optimizer, Optimizer):
            raise refusal("optimizer", optimizer, "a torch optimizer")
        self._shared = amplifications(optimizer)
        if base_scheduler is None:
            self._shared.keep_only([], optimizer.param_groups)
            base_scheduler = ConstantLR(optimizer, factor=1.0)
        check_base(optimizer, base_scheduler)
        take_over(self._shared, _rates_of(base_scheduler), base_scheduler)
        self.base_scheduler = base_scheduler
        self.optimizer: Optimizer = base_scheduler.optimizer
        self._step = position(base_scheduler) if last_epoch == -1 else int(last_epoch) + 1
        self._rates: AmplifiedRates = AmplifiedRates()
        self._set_initial_lr()
        self._amplify(self._groups)
        self._release_at_collection()

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the base scheduler with its own arguments and draws a factor; timm's steps to the given epoch."""
        self._advance(self.base_scheduler.step, "epoch", args, kwargs)

    def step_update(self, *args: Any, **kwargs: Any) -> None:
        """For timm: steps to the given update. Like `step`, it only advances a scheduler that counts in this unit."""
        self._advance(self.base_scheduler.step_update, "num_updates", args, kwargs)

    def release(self) -> None:
        """Restores the base rates, for another scheduler or none. A later step amplifies again."""
        self._shared.remove(self._rates, self._groups)
        for group in self._groups if self._named_initial else ():
            group.pop("initial_lr", None)

    def preview(self, steps: int, *, metrics: Sequence[float] | None = None) -> RatePreview:
        """The rates of `steps` steps, from the current one on. Neither this scheduler nor its optimizer changes.

        `metrics`, one for each step, are for a base scheduler that needs them (ReduceLROnPlateau).
        `ralr_tune.plot_preview` draws the result. Raises ValueError for invalid arguments.
        """
        from ralr_tune.schedules.wrapper.preview import preview

        return preview(self, steps, metrics)

    def state_dict(self) -> dict[str, Any]:
        """What a scheduler over the same kind of base needs to resume; torch.load(weights_only=True) can read it."""
        own = self.get_base_lr()[: self._rates.count]
        return {
            "base_scheduler": base_state(self.base_scheduler),
            "base_lrs": [float(rate) for rate in own],
            "last_epoch": self._step,
            **self._draws.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes from `state_dict`, including the arguments and the optimizer's rates at that time.

        Raises ValueError for a state that does not fit, and then changes nothing.
        """
        _check_state(state_dict, len(self._groups), self._drawn)
        draws = self._draws_of(state_dict)
        load_base(self.base_scheduler, state_dict["base_scheduler"])
        self._draws, self._step = draws, int(state_dict["last_epoch"])
        self._restore_base_rates()
        groups = self._groups[: len(state_dict["base_lrs"])]
        write(groups, state_dict["base_lrs"])
        self._amplify(groups)

    _drawn: tuple[str, ...] = ("amplification", "window", "seed")
    """Keys of a state without which `_draws_of` cannot do."""

    def _draws_of(self, state: Mapping[str, Any]) -> Draws | ListedFactors:
        return Draws.from_state(state)

    @property
    def _law(self) -> Draws:
        if not isinstance(self._draws, Draws):
            raise AttributeError("the factors were given as a list, so they have no law")
        return self._draws

    @property
    def amplification(self) -> Amplification:
        """The law of the factors."""
        return self._law.amplification

    @property
    def window(self) -> tuple[int, int] | None:
        """The steps within which the rate may be amplified."""
        return self._law.window

    @property
    def seed(self) -> int:
        """The seed of the draws."""
        return self._law.seed

    @property
    def prefix(self) -> str:
        """Selects one of the independent streams of draws for the seed."""
        return self._law.prefix

    @property
    def factor(self) -> float:
        """The current factor."""
        return self._rates.factor(self._groups)

    @property
    def last_epoch(self) -> int:
        """The current step, from 0."""
        return self._step

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        # ignite's handler sets this, and then calls get_lr() for the rates.
        if hasattr(self.base_scheduler, "last_epoch"):
            self.base_scheduler.last_epoch += step - self._step
        self._step = step

    def get_base_lr(self) -> list[Rate]:
        """The rates without the factor, one for each param group."""
        return self._rates.to_base(copies(self._groups))

    def get_last_lr(self) -> list[Rate]:
        """The rates that the last step set, one for each param group."""
        return self._rates.last(self._groups)

    def get_lr(self) -> list[Rate]:
        """The base scheduler's rate for step `last_epoch` times that step's factor, for each param group.

        As in torch, for a caller that writes the rates itself (ignite); `get_last_lr()` returns the current rates.
        Raises NotImplementedError if the base scheduler has no `get_lr` (SequentialLR, timm's).
        """
        held = copies(self._groups)
        write(self._groups, self._rates.to_base(held))
        try:
            base = computed_lr(self.base_scheduler, stepping=self._get_lr_called_within_step)
        finally:
            write(self._groups, held)
        return self._rates.compute(base, self._draws.factor(self._step))

    def __repr__(self) -> str:
        base, law = self.base_scheduler, self.amplification
        inner = repr(base) if isinstance(base, RandomAmplifyLR) else type(base).__name__
        return (
            f"RandomAmplifyLR({inner}, probability={law.probability}, lower={law.lower}, upper={law.upper}, "
            f"law={law.law!r}, window={self.window}, seed={self.seed}, prefix={self.prefix!r}, "
            f"last_epoch={self._step}, factor={self.factor:.6g})"
        )

    def __getattr__(self, name: str) -> Any:
        # Special methods (such as those for copying) must not come from the base scheduler.
        if "base_scheduler" in vars(self) and not name.startswith("__"):
            return getattr(self.base_scheduler, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_shared", "_finalizer")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._shared = amplifications(self.optimizer)  # copies and pickles of an optimizer have no hooks
        self._attach()
        self._release_at_collection()

    @property
    def _schedulers(self) -> NoReturn:
        # The constructor of SequentialLR reads this from its members. As a member, this object would have its base
        # scheduler restarted but not its amplification, and loading a state would overwrite another member's rates.
        raise ValueError(
            "RandomAmplifyLR must wrap a SequentialLR, not be a member of one; window = (first, last) limits the steps"
        )

    @property
    def _step_count(self) -> int:
        # accelerate compares it with total_steps, and increments it when gradients accumulate.
        return int(self.base_scheduler._step_count)

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        self.base_scheduler._step_count = count

    @property
    def _groups(self) -> Groups:
        return self.optimizer.param_groups

    # NumPy's generators cannot be traced: a compiled `optimizer.step(); scheduler.step()` is one graph and this call.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _advance(self, move: Callable[..., None], unit: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        in_epochs = getattr(self.base_scheduler, "t_in_epochs", None)  # timm's
        if in_epochs is not None and in_epochs != (unit == "epoch"):
            move(*args, **kwargs)
            return
        self._restore_base_rates()  # first: an exception in the base scheduler (a missing metric) then does no harm
        move(*args, **kwargs)
        self._step = self._step + 1 if in_epochs is None else int(args[0] if args else kwargs[unit])
        self._amplify(self._groups)

    def _restore_base_rates(self) -> None:
        """Writes the base rates to the param groups; removes wrappers that are not inside this one."""
        self._attach()
        self._rates.restore(self._groups)

    def _amplify(self, groups: Groups) -> None:
        self._attach()  # an inner wrapper may have removed this one in its own step
        self._rates.amplify(groups, self._draws.factor(self._step))

    def _attach(self) -> None:
        self._shared.keep_only(_rates_of(self), self._groups)
        self._shared.add(self._rates)

    def _release_at_collection(self) -> None:
        self._finalizer = weakref.finalize(self, _abandon, weakref.ref(self.optimizer), self._rates)
        self._finalizer.atexit = False

    def _set_initial_lr(self) -> None:
        """For later schedulers: they read "initial_lr" or, if there is none, the (amplified) rate."""
        self._named_initial = not any("initial_lr" in group for group in self._groups)
        for group, rate in zip(self._groups, copies(self._groups), strict=True):
            group.setdefault("initial_lr", rate)


def _rates_of(scheduler: Any) -> list[AmplifiedRates]:
    """The rates of all wrappers that `scheduler` is or contains, the innermost first."""
    if isinstance(scheduler, RandomAmplifyLR):
        return [*_rates_of(scheduler.base_scheduler), scheduler._rates]
    return [rates for member in vars(scheduler).get("_schedulers", ()) for rates in _rates_of(member)]


def _abandon(optimizer: weakref.ref[Optimizer], rates: AmplifiedRates) -> None:
    """After a wrapper is garbage-collected, restores the base rates of its optimizer."""
    if (alive := optimizer()) is not None:
        amplifications(alive).abandon(rates, levels(alive)[-1])


def _check_state(state: Any, groups: int, drawn: tuple[str, ...]) -> None:
    """ValueError for a state that lacks keys, or whose rates or step do not fit."""
    needed = ("base_scheduler", "base_lrs", "last_epoch", *drawn)
    missing = [name for name in needed if name not in state] if isinstance(state, Mapping) else list(needed)
    if missing:
        allowed = (
            "the result of RandomAmplifyLR.state_dict() (load the state of a scheduler without RandomAmplifyLR into "
            "the base scheduler before you wrap it)"
        )
        raise refusal("state_dict", f"no value for {', '.join(missing)}", allowed)
    rates = state["base_lrs"]
    if not isinstance(rates, list | tuple):
        raise refusal("state_dict['base_lrs']", rates, "a list of numbers, one for each param group")
    if len(rates) > groups:
        raise refusal("state_dict", f"{len(rates)} param groups", f"at most {groups}")
    for rate in rates:
        check_number("state_dict['base_lrs']", rate, "[0, inf)")
    check_integer("state_dict['last_epoch']", state["last_epoch"], low=0)
