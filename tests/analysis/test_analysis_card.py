"""The verdict card: the sentence by verdict and kind of comparison, the recipe, the cost, and the one next step."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace

import pytest
from synthetic_study import AMPLIFY, SHARED, TYPED, card_of, make_record

from ralr_tune.analysis.card import Card, as_json
from ralr_tune.analysis.edges import edges
from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.recipe import recipe
from ralr_tune.analysis.sentence import Sentence
from ralr_tune.analysis.sequential import Plan
from ralr_tune.analysis.spending import spending
from ralr_tune.records import Row, StudyRecord
from tests.metrics import LOSS


def card(record: StudyRecord | None = None, **known: object) -> Card:
    return card_of(study_facts(record or make_record(**known)))  # type: ignore[arg-type]


def judged(shift: float, spread: float = 0.001, *, role: str = "best") -> Callable[[Row], Row]:
    """Every judged run at 0.9; those of ralr with this role by `shift` higher."""

    def change(row: Row) -> Row:
        if row.stage not in ("judge", "test"):
            return row
        own = shift if row.arm == "ralr" and row.role == role else 0.0
        return replace(row, value=0.9 + own + spread * ((row.ordinal + row.block) % 3 - 1) * (row.arm == "ralr"))

    return change


def uneven(shift: float) -> Callable[[Row], Row]:
    """The same, and the twin's scores vary."""

    def change(row: Row) -> Row:
        row = judged(shift)(row)
        varies = row.role == "twin" and row.value is not None
        return replace(row, value=(row.value or 0.0) + 0.0007 * (row.ordinal % 2)) if varies else row

    return change


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.02, "Amplification improves ralr's recipe by 2.0 points, between "),
        (-0.02, "Amplification makes ralr's recipe worse by 2.0 points, between "),
        (0.0, "no difference that matters (within the margin of 0.5 points)."),
    ],
)
def test_with_one_block_it_is_about_amplification_in_one_recipe(shift: float, words: str) -> None:
    found = card(change=uneven(shift))
    assert found.about == "amplification"
    assert words in found.verdict
    assert isinstance(found.verdict, Sentence)
    assert found.caveats == ("The schedules themselves were not compared: each was searched once.",)
    assert found.judged[0].label == "ralr's recipe against its twin"


def test_without_a_verdict_it_shows_the_sign_and_what_could_be_seen() -> None:
    found = card(noise=0.02, gain=0.0)
    made = found.judged[0].comparison
    assert made.verdict == "inconclusive"
    low, high = made.deciding or (0, 0)
    observed = f"by {100 * made.difference:+.1f} points, between {100 * low:+.1f} and {100 * high:+.1f}: "
    assert low < 0
    assert observed.replace("-", "\N{MINUS SIGN}") in found.verdict
    open_ends = (
        "no effect seen, but the true difference may lie anywhere in between; 5 seeds often miss differences below "
    )
    assert open_ends in found.verdict
    assert open_ends in as_json(found)["verdict"]
    assert observed in as_json(found)["verdict"]  # programs read "-"


@pytest.mark.parametrize(
    ("shift", "words"), [(0.02, "ralr's search ends 2.0 points better than monotone's, between "), (-0.02, "worse")]
)
def test_with_several_blocks_it_is_about_the_schedules(shift: float, words: str) -> None:
    found = card(blocks=4, change=judged(shift))
    assert (found.about, found.judged[0].comparison.what) == ("schedules", "arm")
    assert words in found.verdict
    assert found.caveats == ()
    assert found.judged[0].pairs == "4 blocks of search"


def test_undecided_schedules() -> None:
    verdict = card(blocks=4, noise=0.02, gain=0.0).verdict
    assert verdict.startswith("ralr's search differs from monotone's by ")
    assert (
        ": not decided, but the true difference may lie anywhere in between; 4 blocks often miss differences below "
        in verdict
    )


@pytest.mark.parametrize(("known", "pairs"), [({"seeds": 3}, "3 pairs of runs"), ({"blocks": 3}, "3 blocks of search")])
def test_few_pairs_have_no_interval_but_say_so(known: dict[str, int], pairs: str) -> None:
    found = card(noise=0.02, gain=0.0, **known)
    assert f" in {pairs}, too few to judge (at least 4 are needed): nothing is shown." in found.verdict
    assert found.judged[0].shown is None


def test_smaller_is_better_for_a_loss() -> None:
    found = card(replace(make_record(change=uneven(0.5)), metric=LOSS))
    assert found.verdict.startswith("Amplification makes ralr's recipe worse by 0.")
    assert not found.larger_is_better


def test_three_arms_are_ranked_in_one_sentence() -> None:
    def change(row: Row) -> Row:
        moved = judged(0.02)(row)
        if row.arm == "late" and row.stage in ("judge", "test"):
            return replace(row, value=0.85 + 0.001 * (row.ordinal % 3))
        return moved

    found = card(arms=("monotone", "late", "ralr"), change=change)
    assert found.verdict == "Compared with monotone's recipe, ralr is better; late is worse."
    assert [each.comparison.arm for each in found.judged] == ["ralr", "late"]
    nothing = card(arms=("monotone", "ralr", "other"), noise=0.02, gain=0.0)
    assert "monotone's recipe, no difference is shown for " in nothing.verdict


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.02, "That ralr is better does not show that amplification helps: it changes ralr's recipe by "),
        (-0.02, "That ralr is worse does not show that amplification harms: it changes ralr's recipe by "),
        (0.0, None),
    ],
)
def test_recipes_that_differ_as_much_without_their_amplification_say_so(shift: float, words: str | None) -> None:
    def change(row: Row) -> Row:
        if row.stage not in ("judge", "test"):
            return row
        varies = 0.001 * (row.ordinal % 3) * (row.arm == "ralr") + 0.001 * (row.ordinal % 2) * (row.role == "twin")
        return replace(row, value=0.9 + shift * (row.arm == "ralr") + varies)

    found = card(arms=("monotone", "late", "ralr"), change=change)
    assert found.about == "recipes"
    said = [caveat for caveat in found.caveats if "does not show that amplification" in caveat]
    assert [sentence.startswith(str(words)) for sentence in said] == ([] if words is None else [True])


def test_recipes_whose_amplification_explains_the_difference_have_no_such_caveat() -> None:
    found = card(arms=("monotone", "late", "ralr"), change=uneven(0.02))
    assert "ralr is better" in found.verdict
    assert "does not show" not in " ".join(found.caveats)


def test_arms_without_amplification_are_compared_as_recipes() -> None:
    record = make_record(arms=("monotone", "cosine"))
    rows = tuple(row for row in record.arms["cosine"].rows if row.role != "twin")
    plain = replace(record.arms["cosine"], rows=rows, dimensions=SHARED)
    found = card(replace(record, arms={**record.arms, "cosine": plain}))
    assert found.about == "recipes"
    assert "mplif" not in " ".join(found.sentences)
    assert "cosine's recipe" in found.verdict


def test_seeds_without_a_score_are_a_caveat() -> None:
    def spoil(row: Row) -> Row:
        lost = row.stage in ("judge", "test") and row.arm == "ralr" and row.role == "best" and row.ordinal == 1
        return replace(row, outcome="diverged", value=None, failure="diverged") if lost else row

    assert "Of ralr's 5 seeds 1 diverged or failed and are in no figure above." in card(change=spoil).caveats


# ---------------------------------------------------------------- what is missing


def test_before_confirm_nothing_is_compared() -> None:
    found = card(until="searched")
    assert found.verdict.startswith("Not confirmed yet, so nothing is compared: monotone's best of 24 trials reached")
    assert (found.about, found.judged, found.interval) == ("nothing", (), None)
    assert found.next_step.command == TYPED.run
    assert found.recipe is not None
    assert not found.recipe.confirmed


def test_one_seed_gives_no_interval_and_asks_for_more() -> None:
    found = card(seeds=1)
    assert "in 1 pair of runs, too few for an interval: nothing is shown." in found.verdict
    assert tomllib.loads(found.next_step.toml) == {"confirm": {"seeds": 5}}


def test_one_arm_with_amplification_has_a_verdict_and_needs_another_arm() -> None:
    found = card(arms=("ralr",), gain=0.05)
    assert found.verdict.startswith("Amplification improves ralr's recipe")
    assert found.caveats == ("The study has only one arm, ralr: its schedule is compared with no other.",)
    assert tomllib.loads(found.next_step.toml) == {"arms": {"plain": {}}}


def test_one_arm_without_amplification_needs_one_that_amplifies() -> None:
    found = card(arms=("monotone",))
    assert "only one arm, monotone" in found.verdict
    assert tomllib.loads(found.next_step.toml)["arms"]["amplified"]["amplify"].keys() == {
        "probability", "lower", "width"
    }  # fmt: skip


def test_nothing_has_run() -> None:
    found = card(until="planned")
    assert found.verdict == "No trial has completed yet: 48 are planned, 0 diverged, 0 failed."
    assert (found.next_step.why, found.next_step.command) == (
        "48 planned runs have not ended: run them.",
        TYPED.run,
    )
    assert found.recipe is None


def test_everything_diverged() -> None:
    found = card(until="searched", change=lambda row: replace(row, outcome="diverged", value=None))
    assert "48 diverged" in found.verdict
    assert tomllib.loads(found.next_step.toml) == {
        "search": {"trials": 36},
        "training": {"lr": {"low": 1e-5, "high": 1.0, "log": True}},
    }


def test_everything_failed() -> None:
    found = card(until="searched", change=lambda row: replace(row, outcome="failed", value=None))
    assert found.next_step.command == TYPED.status


def test_no_arms() -> None:
    found = card(replace(make_record(), arms={}))
    assert found.sentences == ["The study has no arms, so there is nothing to report."]


# ---------------------------------------------------------------- recipe and cost


def test_the_recipe_is_that_of_the_best_arm_on_validation_seeds() -> None:
    def change(row: Row) -> Row:
        """monotone wins on validation seeds, ralr on the test split."""
        if row.stage == "judge":
            return replace(row, value=0.95 if row.arm == "monotone" else 0.9)
        return replace(row, value=0.9 if row.arm == "monotone" else 0.95) if row.stage == "test" else row

    record = make_record(change=change)
    facts = study_facts(record)
    found = card_of(facts).recipe
    assert facts.split == "test"
    assert found is not None
    assert (found.arm, found.confirmed) == ("monotone", True)
    assert ("amplification", "none") in found.rows()
    confirmed = facts.arms["monotone"].confirm
    assert confirmed is not None
    (row,) = [row for row in record.arms["monotone"].search() if row.trial == confirmed.trial]
    assert found.params == row.params


def test_a_recipe_shows_rate_and_bounds_and_can_be_pasted() -> None:
    facts = study_facts(make_record())
    fixed = {"epochs": 12, "lr": 0.25, "amplify.law": "uniform", "amplify.lower": 1.5, "amplify.width": 2.0}
    arm = replace(
        facts.arms["ralr"], settings=fixed, recipe={"amplify.probability": 0.3, "momentum": 0.9, "nesterov": True}
    )
    found = recipe(arm, "train it")
    assert found is not None
    assert found.rows() == [
        ("base rate", "0.25"), ("probability", "0.3"), ("factors", "1.5 to 3.5"), ("momentum", "0.9"),
        ("nesterov", "yes"),
    ]  # fmt: skip
    assert tomllib.loads(found.text()) == {
        "lr": 0.25,
        "momentum": 0.9,
        "nesterov": True,
        "amplify": {"probability": 0.3, "lower": 1.5, "upper": 3.5, "law": "uniform"},
    }


def test_the_cost_counts_every_run_and_has_a_price() -> None:
    record = make_record()
    rows = record.rows()
    found = card(replace(record, cost_per_hour=3.0))
    spent = found.spending
    assert spent is not None
    assert spent.total.seconds == pytest.approx(sum(row.seconds or 0 for row in rows))
    assert spent.total.epochs == sum(row.epoch for row in rows if row.stage != "test")
    assert spent.search.runs == 48
    assert found.cost.startswith("48 trials and 19 runs to confirm, ")
    money = spent.total.seconds / 3600 * 3.0
    assert found.cost.endswith(f"of device time, {money:.2f} at 3 per hour")
    assert as_json(found)["cost"]["cost"] == pytest.approx(money)
    assert as_json(card(record))["cost"]["cost"] is None


def test_an_audit_without_its_trial_and_an_infinite_time_have_a_cost() -> None:
    first, *others = make_record(until="searched").rows()
    audit = replace(first, id=9999, stage="audit", ordinal=99, epoch=12, seconds=math.inf)
    spent = spending(make_record(until="searched", change=lambda row: audit if row.id == first.id else row))
    assert (spent.audit.runs, spent.audit.epochs, spent.audit.seconds) == (1, 12, 0.0)
    assert spent.search.seconds == pytest.approx(sum(row.seconds or 0 for row in others))


# ---------------------------------------------------------------- the next step


def test_more_seeds_have_a_price() -> None:
    record = replace(make_record(), cost_per_hour=1000.0)
    found = card(record)
    step = found.next_step
    count = int(step.why.split()[1])
    assert re.match(rf"About {count} more seeds \(\d+ to \d+\), {5 + count} in all, would settle it: about ", step.why)
    assert tomllib.loads(step.toml) == {"confirm": {"seeds": 5 + count}}
    assert found.spending is not None
    assert found.spending.seed.runs == 3  # ralr, its twin, monotone
    assert f"about {3 * count} runs and " in step.why
    assert f"at a cost of {1000 * found.spending.seed.seconds * count / 3600:.2f}" in step.why


@pytest.mark.parametrize(
    ("seeds", "why"),
    [
        (1, "One seed says nothing about chance: 4 more, 5 in all: "),
        (3, "3 seeds are too few to judge: 2 more, 5 in all: "),
    ],
)
def test_few_seeds_become_enough_to_judge(seeds: int, why: str) -> None:
    step = card(noise=0.02, gain=0.0, seeds=seeds).next_step
    assert step.why.startswith(why)
    assert tomllib.loads(step.toml) == {"confirm": {"seeds": 5}}


def test_interim_analyses_fix_the_number_of_seeds() -> None:
    facts = study_facts(make_record())
    assert "seeds" not in card_of(facts, TYPED._replace(can_add_seeds=False)).next_step.toml
    plan = Plan((3, 5, 12), margin=0.0)
    waiting = card_of(study_facts(make_record(until="confirmed", noise=0.02, gain=0.0), plan=plan))
    assert waiting.next_step.why == "The next interim analysis is at 12 seeds; this continues."


def test_once_amplification_is_judged_blocks_compare_the_schedules() -> None:
    step = card(gain=0.05).next_step
    assert step.why.startswith("To compare the schedules themselves, search 3 more blocks, 4 in all: about ")
    assert tomllib.loads(step.toml) == {"search": {"blocks": 4}}


def test_blocks_of_a_divided_search_are_added_with_their_trials_and_the_answer_is_about_their_size() -> None:
    step = card(replace(make_record(gain=0.05), divided=True)).next_step
    assert tomllib.loads(step.toml) == {"search": {"blocks": 4, "trials": 96}}
    found = card(replace(make_record(blocks=4, change=judged(0.02)), divided=True))
    assert "The trials were divided among the blocks: the answer is about searches of 24 trials." in found.caveats


def test_with_everything_decided_the_step_is_to_train() -> None:
    step = card(blocks=4, change=judged(0.02)).next_step
    assert step.why.startswith("Nothing is missing: train ralr's recipe")
    assert (step.toml, step.command) == ("", TYPED.train["ralr"])


@pytest.mark.parametrize(
    ("name", "domain", "expected"),
    [
        ("lr", {"low": 1e-3, "high": 0.1, "log": True}, {"arms": {"ralr": {"training": {}}}}),
        ("amplify.probability", {"low": 0.05, "high": 0.3}, {"arms": {"ralr": {"amplify": {}}}}),
    ],
)
def test_a_range_that_matters_is_widened(name: str, domain: dict[str, float], expected: dict[str, object]) -> None:
    record = make_record(change=judged(0.02))
    arm = record.arms["ralr"]
    value = domain["high"] * 0.999
    rows = tuple(replace(row, params={**row.params, name: value}) for row in arm.rows)
    arm = replace(arm, dimensions={**arm.dimensions, name: domain}, rows=rows)
    record = replace(record, arms={**record.arms, "ralr": arm})
    facts = study_facts(record)
    found = facts.importance["ralr"]
    matters = {**found, name: replace(found[name], verdict="matters")}
    facts = replace(
        facts, winner="ralr", importance={**facts.importance, "ralr": matters}, edges=tuple(edges(arm, facts.metric))
    )
    step = card_of(facts).next_step
    assert f"ralr's best {name} " in step.why
    pasted = tomllib.loads(step.toml)
    assert pasted["search"] == {"trials": 36}
    if name == "lr":
        assert pasted["arms"]["ralr"]["training"]["lr"]["high"] > 0.1
    else:
        amplify = pasted["arms"]["ralr"]["amplify"]
        assert amplify["probability"]["high"] > 0.3
        assert amplify["lower"] == {"low": AMPLIFY["amplify.lower"]["low"], "high": AMPLIFY["amplify.lower"]["high"]}
    quiet = replace(facts, importance={**facts.importance, "ralr": found})
    assert all(each.verdict != "matters" for key, each in found.items() if key == name)
    assert name not in card_of(quiet).next_step.why


def test_json_has_the_contract() -> None:
    found = as_json(card())
    assert found.keys() >= {"verdict", "interval", "recipe", "cost", "next_step"}
    assert found["interval"].keys() >= {"interval", "confidence", "difference", "pairs", "split", "verdict"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for until in ("planned", "searching", "searched", "confirmed"):
        json.dumps(as_json(card(until=until)), allow_nan=False)


def test_an_equivalent_verdict_shows_the_90_percent_interval_that_decides() -> None:
    differences = (0.004, -0.004, 0.004, 0.0, 0.001, 0.003)

    def change(row: Row) -> Row:
        if row.stage not in ("judge", "test"):
            return row
        own = differences[row.ordinal] if (row.arm, row.role) == ("ralr", "best") else 0.0
        return replace(row, value=0.9 + own)

    found = card(replace(make_record(seeds=6, change=change), margin=0.004))
    made, shown = found.judged[0].comparison, as_json(found)["interval"]
    assert made.verdict == shown["verdict"] == "equivalent"
    assert made.interval is not None
    assert made.interval[1] > found.margin > shown["interval"][1]
    assert shown["confidence"] == pytest.approx(0.90)
