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
from ralr_tune.schedules.wrapper.draws import Draws
from ralr_tune.schedules.wrapper.rates import AmplifiedRates, Groups, Rate, amplifications, copies, levels, write

if TYPE_CHECKING:
    from ralr_tune.schedules.wrapper.preview import RatePreview


class RandomAmplifyLR(LRScheduler):
    """Multiplies what `base_scheduler` sets by a random factor, drawn at every step: RALR in your own loop.

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        base = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 150])
        scheduler = RandomAmplifyLR(optimizer, base, probability=0.25, lower=1.5, upper=3.0)
        for epoch in range(200):
            train(model, optimizer)
            scheduler.step()  # instead of base.step(); with what base.step() takes (ReduceLROnPlateau: the metric)

    With `probability` the factor is drawn from [lower, upper] by `law` ("uniform" or "loguniform"), otherwise it is 1.
    All param groups get the same factor, each on its own rate. `window` = (first, last) are the steps within which the
    rate may be amplified, half open; None is always. The first rate, before any step, is step 0 and takes part.

    `base_scheduler` is a scheduler of torch or timm (step it as timm does: `step(epoch)`, `step_update(updates)`);
    without one the base rate stays as it is. `optimizer` may be wrapped by accelerate or Fabric, and the base scheduler
    may belong to what is inside. Reads of unknown attributes (`base_lrs`, `total_steps`, ...) reach the base scheduler.

    Step i's factor is `Amplification.factor(seed, i)`: no random state. Steps count from the base scheduler's
    `last_epoch`, or from `last_epoch + 1` where that is given (as in torch, the last step that was done). Two wrappers
    of one run (a GAN) need seeds of their own, or a `prefix` each, which gives unrelated draws at the same seed.

    A run resumed from `state_dict()` continues with the same rates (it holds the base scheduler's state too, and plain
    numbers for the rest). Load the states of scheduler and optimizer in either order. The optimizer's own state holds
    base rates, and amplifies again what it loads.

    `factor` is the factor in force, `get_base_lr()` the rates without it, `preview()` those to come. The base scheduler
    never meets an amplified rate: torch's are recursive, and the amplification would stay. The rate in a param group
    counts as amplified: another scheduler that writes there changes the base rate by the same proportion.

    Another `RandomAmplifyLR` of the same optimizer takes over; the base rates are put back first. Call `release()`,
    which puts them back, before you hand the optimizer to another scheduler. (When the last reference to this object is
    gone, they are put back at the optimizer's next step.) A copy of the optimizer alone (`copy.deepcopy`) keeps the
    amplified rates: copy both together, or `state_dict()`. Put the wrapper outermost: around a SequentialLR, not into
    one.

    Raises ValueError for impossible arguments.

    Source: doi 10.3390/app12010268; the law in detail is our choice, see `amplification`.
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
        # LRScheduler.__init__ is left out, as in torch's own composite schedulers: the base scheduler has done its
        # work (initial_lr, the watch over the order of calls), and a second first step would go past it.
        self._draws = Draws(Amplification(probability, lower, upper, law), window, seed, prefix)
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
        self._name_initial_rates()
        self._amplify(self._groups)
        self._watch()

    def step(self, *args: Any, **kwargs: Any) -> None:
        """One step of the base scheduler, with what it takes, and one draw; of timm's, to the epoch in the call."""
        self._advance(self.base_scheduler.step, "epoch", args, kwargs)

    def step_update(self, *args: Any, **kwargs: Any) -> None:
        """timm's: to the update in the call. Like `step`, it moves only a base scheduler that counts in this unit."""
        self._advance(self.base_scheduler.step_update, "num_updates", args, kwargs)

    def release(self) -> None:
        """Puts the base rates back, for another scheduler or none. A later step amplifies again."""
        self._shared.remove(self._rates, self._groups)
        for group in self._groups if self._named_initial else ():
            group.pop("initial_lr", None)

    def preview(self, steps: int, *, metrics: Sequence[float] | None = None) -> RatePreview:
        """The rates of `steps` steps from the present one on. Neither this scheduler nor its optimizer moves.

        `metrics`, one a step, are for a base scheduler that wants them (ReduceLROnPlateau). `ralr_tune.plot_preview`
        draws the result. Raises ValueError for impossible arguments.
        """
        from ralr_tune.schedules.wrapper.preview import preview

        return preview(self, steps, metrics)

    def state_dict(self) -> dict[str, Any]:
        """All that a scheduler over the same kind of base needs to continue; for torch.load(weights_only=True) too."""
        own = self.get_base_lr()[: self._rates.count]
        return {
            "base_scheduler": base_state(self.base_scheduler),
            "base_lrs": [float(rate) for rate in own],
            "last_epoch": self._step,
            **self._draws.state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken, its arguments included; sets the optimizer's rates as they were.

        Raises ValueError for a state that does not fit, and changes nothing then.
        """
        _check_state(state_dict, len(self._groups))
        draws = Draws.from_state(state_dict)
        load_base(self.base_scheduler, state_dict["base_scheduler"])
        self._draws, self._step = draws, int(state_dict["last_epoch"])
        self._lift()
        groups = self._groups[: len(state_dict["base_lrs"])]
        write(groups, state_dict["base_lrs"])
        self._amplify(groups)

    @property
    def amplification(self) -> Amplification:
        """The law of the factors."""
        return self._draws.amplification

    @property
    def window(self) -> tuple[int, int] | None:
        """The steps within which the rate may be amplified."""
        return self._draws.window

    @property
    def seed(self) -> int:
        """The seed of the draws."""
        return self._draws.seed

    @property
    def prefix(self) -> str:
        """The stream of draws at that seed."""
        return self._draws.prefix

    @property
    def factor(self) -> float:
        """The factor in force."""
        return self._rates.factor(self._groups)

    @property
    def last_epoch(self) -> int:
        """The step whose rates are in force, from 0."""
        return self._step

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        # ignite's handler counts here, and then asks get_lr() for the rates.
        if hasattr(self.base_scheduler, "last_epoch"):
            self.base_scheduler.last_epoch += step - self._step
        self._step = step

    def get_base_lr(self) -> list[Rate]:
        """The rates without the factor, one a param group."""
        return self._rates.under(copies(self._groups))

    def get_last_lr(self) -> list[Rate]:
        """The rates that the last step set, one a param group."""
        return self._rates.last(self._groups)

    def get_lr(self) -> list[Rate]:
        """What the base scheduler computes for step `last_epoch`, times that step's factor, one a param group.

        As in torch, for a caller that writes the rates itself (ignite); `get_last_lr()` gives the rates in force.
        Raises NotImplementedError where the base scheduler has no `get_lr` (SequentialLR, timm's).
        """
        held = copies(self._groups)
        write(self._groups, self._rates.under(held))
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
        # Python's own protocols (copying, say) are about this object.
        if "base_scheduler" in vars(self) and not name.startswith("__"):
            return getattr(self.base_scheduler, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_shared", "_gone")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._shared = amplifications(self.optimizer)  # optimizers are copied and pickled without their hooks
        self._attach()
        self._watch()

    @property
    def _schedulers(self) -> NoReturn:
        # SequentialLR asks its members for this when it is made; inside one, it would restart the base and not the
        # amplification, and a loaded state would write to rates that belong to another member.
        raise ValueError(
            "RandomAmplifyLR goes around a SequentialLR, not into one; window = (first, last) spares steps"
        )

    @property
    def _step_count(self) -> int:
        # accelerate compares it with total_steps, and adds to it where gradients accumulate.
        return int(self.base_scheduler._step_count)

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        self.base_scheduler._step_count = count

    @property
    def _groups(self) -> Groups:
        return self.optimizer.param_groups

    # A compiled `optimizer.step(); scheduler.step()` is one graph, and this: NumPy's generators cannot be traced.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _advance(self, move: Callable[..., None], unit: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        in_epochs = getattr(self.base_scheduler, "t_in_epochs", None)  # timm's
        if in_epochs is not None and in_epochs != (unit == "epoch"):
            move(*args, **kwargs)
            return
        self._lift()  # whole before the base scheduler steps: an exception in there (a metric forgotten) harms nothing
        move(*args, **kwargs)
        self._step = self._step + 1 if in_epochs is None else int(args[0] if args else kwargs[unit])
        self._amplify(self._groups)

    def _lift(self) -> None:
        """Leaves the base rates in the param groups; takes over from wrappers that this one is not around."""
        self._attach()
        self._rates.restore(self._groups)

    def _amplify(self, groups: Groups) -> None:
        self._attach()  # a wrapper inside may have taken over in its own step
        self._rates.amplify(groups, self._draws.factor(self._step))

    def _attach(self) -> None:
        self._shared.keep_only(_rates_of(self), self._groups)
        self._shared.add(self._rates)

    def _watch(self) -> None:
        self._gone = weakref.finalize(self, _abandon, weakref.ref(self.optimizer), self._rates)
        self._gone.atexit = False

    def _name_initial_rates(self) -> None:
        """For schedulers made later: they read "initial_lr", or where there is none, the amplified rate."""
        self._named_initial = not any("initial_lr" in group for group in self._groups)
        for group, rate in zip(self._groups, copies(self._groups), strict=True):
            group.setdefault("initial_lr", rate)


def _rates_of(scheduler: Any) -> list[AmplifiedRates]:
    """Those of all wrappers that `scheduler` is or contains."""
    if isinstance(scheduler, RandomAmplifyLR):
        return [*_rates_of(scheduler.base_scheduler), scheduler._rates]
    return [rates for member in vars(scheduler).get("_schedulers", ()) for rates in _rates_of(member)]


def _abandon(optimizer: weakref.ref[Optimizer], rates: AmplifiedRates) -> None:
    """When a wrapper is gone, its optimizer does not stay amplified."""
    if (there := optimizer()) is not None:
        amplifications(there).abandon(rates, levels(there)[-1])


def _check_state(state: Any, groups: int) -> None:
    """Before anything of it is loaded."""
    needed = ("base_scheduler", "base_lrs", "last_epoch", "amplification", "window", "seed")
    missing = [name for name in needed if name not in state] if isinstance(state, Mapping) else list(needed)
    if missing:
        allowed = (
            "what RandomAmplifyLR.state_dict() gave (the state of a scheduler without RandomAmplifyLR goes into the "
            "base scheduler, before it is wrapped)"
        )
        raise refusal("state_dict", f"nothing under {', '.join(missing)}", allowed)
    rates = state["base_lrs"]
    if not isinstance(rates, list | tuple):
        raise refusal("state_dict['base_lrs']", rates, "a list of numbers, one a param group")
    if len(rates) > groups:
        raise refusal("state_dict", f"{len(rates)} param groups", f"at most {groups}")
    for rate in rates:
        check_number("state_dict['base_lrs']", rate, "[0, inf)")
    check_integer("state_dict['last_epoch']", state["last_epoch"], low=0)
