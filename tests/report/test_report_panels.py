from __future__ import annotations

import json
from collections.abc import Iterator

import optuna
import pytest
from optuna_dashboard import get_note, save_note
from synthetic_study import card_of, make_record

from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.analysis.notes import urgent_sentences
from ralr_tune.report.panels import MAX_WARNINGS, note, write_panels

PLOTS = "dashboard:plot_data:"


@pytest.fixture
def studies() -> Iterator[dict[str, optuna.Study]]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    yield {arm: optuna.create_study(storage=storage, study_name=f"digits/{arm}") for arm in ("monotone", "ralr")}
    optuna.logging.set_verbosity(before)


def write(facts: Facts, studies: dict[str, optuna.Study]) -> None:
    write_panels(facts, card_of(facts), studies)


def panels(study: optuna.Study) -> dict[str, str]:
    """Stored figures by id, their parts joined."""
    found: dict[str, str] = {}
    attrs = study._storage.get_study_system_attrs(study._study_id)
    keys = [key.removeprefix(PLOTS).rsplit(":", 1) for key in attrs if key.startswith(PLOTS)]
    for name, part in sorted(keys, key=lambda key: (key[0], int(key[1]))):
        found[name] = found.get(name, "") + attrs[f"{PLOTS}{name}:{part}"]
    return found


def test_each_arm_gets_the_figures_and_a_note(studies: dict[str, optuna.Study]) -> None:
    facts = study_facts(make_record())
    write(facts, studies)
    for arm, study in studies.items():
        found = panels(study)
        names = ("importance", "scores", "differences", "budget", "robustness")
        assert set(found) == {f"ralr-tune-{name}" for name in names}
        assert all("data" in json.loads(text) for text in found.values())
        assert f"Arm `{arm}` of the study `digits`" in get_note(study)
        assert card_of(facts).next_step.command in get_note(study)
        first, second = get_note(study).split("\n\n")[:2]
        assert first.startswith("**Hyperparameter Importance on the study's page is Optuna's own, and differs")
        assert f"](/dashboard/studies/{study._study_id})" in first
        assert second.startswith("**The best value on the study's page is a search value**")


def test_writing_again_replaces(studies: dict[str, optuna.Study]) -> None:
    write(study_facts(make_record(arms=("monotone", "ralr", "noise"))), studies)
    larger = panels(studies["ralr"])
    write(study_facts(make_record(until="searched")), studies)
    smaller = panels(studies["ralr"])
    assert set(smaller) == set(larger)
    assert len(smaller["ralr-tune-importance"]) < len(larger["ralr-tune-importance"])
    json.loads(smaller["ralr-tune-importance"])
    assert get_note(studies["ralr"]).count("## Arm") == 1
    assert "Not confirmed yet" in get_note(studies["ralr"])


def test_the_note_names_what_is_most_urgent() -> None:
    facts = study_facts(make_record(trials=6))
    text = note(facts, card_of(facts), "ralr")
    urgent = urgent_sentences(facts)
    assert urgent
    for warning in urgent[:MAX_WARNINGS]:
        assert f"- {warning}" in text
    assert card_of(facts).next_step.why in text


def test_a_note_of_the_user_stays(studies: dict[str, optuna.Study]) -> None:
    save_note(studies["ralr"], "My own thoughts.")
    write(study_facts(make_record()), studies)
    assert get_note(studies["ralr"]) == "My own thoughts."
    assert "Arm `monotone`" in get_note(studies["monotone"])
