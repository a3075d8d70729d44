"""ignite drives RandomAmplifyLR: through its LRScheduler, which computes and writes by itself, and through step()."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.integrations.frameworks import STEPS, STOP, data, expected, framework, loss_of, network, rate, sgd, wrapped

engines = framework("ignite.engine")
handlers = framework("ignite.handlers.param_scheduler")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def run(through: str, states: dict[str, Any] | None, last: int, epochs: int) -> tuple[list[float], dict[str, Any]]:
    """Epochs of two steps; the rates that training met, and the states at the end."""
    model = network()
    optimizer = sgd(model)
    scheduler = wrapped(optimizer)
    rates: list[float] = []

    def update(_: Any, batch: Any) -> float:
        rates.append(rate(optimizer))
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        return float(loss)

    engine = engines.Engine(update)
    handler = handlers.LRScheduler(scheduler) if through == "handler" else None
    if handler:
        engine.add_event_handler(engines.Events.ITERATION_STARTED, handler)
    else:
        engine.add_event_handler(engines.Events.ITERATION_COMPLETED, lambda _: scheduler.step())
    saved = {"model": model, "optimizer": optimizer, "scheduler": handler or scheduler, "engine": engine}
    if states:
        for name, state in states.items():
            saved[name].load_state_dict(state)
    engine.run([data()[:2], data()[2:4]], max_epochs=last)
    return rates, {name: each.state_dict() for name, each in saved.items()}


@pytest.mark.parametrize("through", ["handler", "step"])
def test_an_engine_resumed_goes_on(through: str, tmp_path: Any) -> None:
    whole, _ = run(through, None, STEPS // 2, STEPS // 2)
    first, states = run(through, None, STOP // 2, STEPS // 2)
    torch.save(states, tmp_path / "stopped.pt")
    second, _ = run(through, torch.load(tmp_path / "stopped.pt", weights_only=True), STEPS // 2, STEPS // 2)
    assert first + second == whole
    if through == "step":
        assert whole == expected()
