"""The content of the page in order: the answer, its evidence, warnings, a sentence instead of a missing figure."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import pytest
from synthetic_study import card_of, make_record

from ralr_tune.analysis.evaluators import Evaluated
from ralr_tune.analysis.evidence import comparison_sentences, twin_sentences
from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.analysis.missing_evidence import MissingEvidence
from ralr_tune.analysis.notes import (
    budget_sentences,
    claim_sentences,
    edge_sentences,
    importance_sentences,
    missing_evidence_sentences,
    pruning_sentences,
    robustness_sentences,
    urgent_sentences,
)
from ralr_tune.analysis.pruning import PruningAudit, PruningGap
from ralr_tune.analysis.sentence import Sentence
from ralr_tune.records import StudyRecord
from ralr_tune.report.figures import figures
from ralr_tune.report.markup import highlighted
from ralr_tune.report.sections import body
from ralr_tune.report.tables import Evaluators, evaluators_table

NARROW = {"lr": {"low": 1e-3, "high": 0.1, "log": True}}
AUDITS = (
    PruningAudit("monotone", 20, 1, 0.05, (0.001, 0.25), 0, 0.0, 4.0, 8.0),
    PruningAudit("ralr", 20, 12, 0.6, (0.36, 0.81), 1, 0.004, 4.0, 8.0),
)


def parts(record: StudyRecord, facts: Facts | None = None, evaluators: Evaluators | None = None) -> dict[str, str]:
    """The text of the page by section; "" is the part before the first question."""
    facts = facts or study_facts(record)
    text = body(record, facts, card_of(facts), figures(record, facts), evaluators or {})
    pieces = re.split(r'<(?:section|details) id="(?:question-)?([a-z]+)"(?: open)?>', text)
    named = zip(["", *pieces[1::2]], pieces[0::2], strict=True)
    return {name: unescape(re.sub(r"<[^>]*>", "", piece)) for name, piece in named}


def test_the_card_comes_first_and_the_evidence_is_folded() -> None:
    record = make_record()
    facts = study_facts(record)
    found, card = parts(record), card_of(facts)
    assert all(sentence in found[""] for sentence in (*card.sentences, card.next_step.why, card.cost))
    for sentence in comparison_sentences(facts):
        assert sentence in found["better"]


@pytest.mark.parametrize(("blocks", "arms"), [(1, 2), (2, 2), (1, 3)])
def test_the_evidence_repeats_no_comparison_of_the_card(blocks: int, arms: int) -> None:
    record = make_record(blocks=blocks, arms=("monotone", "ralr", "other")[:arms])
    facts = study_facts(record)
    card, better = card_of(facts), parts(record)["better"]
    twins = [each for each in twin_sentences(facts) if each not in better]
    made = [each for each in comparison_sentences(facts) if each not in better]
    assert len(twins) + len(made) == len(card.judged) > 0
    assert len(twins) == (card.about == "amplification")


def test_problems_to_fix_are_flagged_at_the_top() -> None:
    record = make_record(trials=10)
    arms = {name: replace(arm, dimensions={**arm.dimensions, **NARROW}) for name, arm in record.arms.items()}
    record = replace(record, arms=arms)
    unfair = PruningGap("ralr", "monotone", 0.0004, True)
    few = (MissingEvidence("few trials", "noise", 8),)
    facts = replace(study_facts(record), pruning=AUDITS, pruning_gaps=(unfair,), lacks=few)
    urgent = urgent_sentences(facts)
    assert urgent == [*missing_evidence_sentences(facts), urgent[1], *edge_sentences(facts)]
    assert "not equally fair" in urgent[1]
    assert len(edge_sentences(facts)) > 1
    found = parts(record, facts)
    said, others = urgent[2], [*urgent[:2], *urgent[3:]]
    assert card_of(facts).next_step.why == f"{said} This parameter matters."
    assert said not in found["warnings"]
    assert found["warnings"].strip().startswith(f"{len(others)} warnings")
    assert all(warning in found["warnings"] for warning in others)


def test_a_reason_that_the_card_gives_is_no_warning() -> None:
    record = make_record(arms=("monotone",))
    (missing,) = missing_evidence_sentences(study_facts(record))
    found = parts(record)
    assert missing in found[""]
    assert missing not in found.get("warnings", "")


def test_only_the_figures_behind_the_answer_are_open() -> None:
    record = make_record()
    facts = study_facts(record)
    text = body(record, facts, card_of(facts), figures(record, facts), {})
    assert re.findall(r"<details[^>]* open>", text) == ['<details id="question-better" open>']
    record = make_record(until="searched")
    facts = study_facts(record)
    assert " open>" not in body(record, facts, card_of(facts), figures(record, facts), {})


def test_each_question_has_its_sentences() -> None:
    record = make_record(blocks=2)
    facts = replace(study_facts(record), pruning=AUDITS)
    found = parts(record, facts)
    for name, sentences in {
        "budget": budget_sentences(facts),
        "importance": importance_sentences(facts),
        "robustness": robustness_sentences(facts),
        "pruning": pruning_sentences(facts),
        "details": claim_sentences(facts),
    }.items():
        assert sentences
        assert all(sentence in found[name] for sentence in sentences), name


@pytest.mark.parametrize(
    ("until", "section", "sentence"),
    [
        ("searched", "better", "No configuration has been confirmed yet."),
        ("planned", "rates", "No run has recorded its learning rates yet."),
        ("planned", "budget", "No search trial is complete yet."),
        ("planned", "importance", "In ralr, there is too little evidence on every parameter."),
        ("planned", "robustness", "No arm has searched its learning rate in at least 10 usable trials"),
        ("planned", "pruning", "Nothing was pruned."),
        ("searched", "pruning", "none of them was trained to the end to check whether that was right."),
        ("planned", "details", "No runs can be paired yet"),
        ("planned", "details", "Nothing to show yet."),
    ],
)
def test_a_sentence_replaces_missing_figures(until: str, section: str, sentence: str) -> None:
    record = make_record(until=until)  # type: ignore[arg-type]
    assert sentence in parts(record)[section]
    assert sentence not in parts(make_record())[section] or section == "pruning"


def test_optunas_evaluators_are_compared_and_folded() -> None:
    record = make_record()
    facts = study_facts(record)
    theirs = {
        "PED-ANOVA": {"lr": Evaluated(0.25, (0.1, 0.4), (0.0, 0.3))},
        "fANOVA": {"lr": Evaluated(0.75)},
        "MDI": {},
    }
    found: Evaluators = {"ralr": theirs}  # type: ignore[dict-item]
    row = next(row for row in evaluators_table(facts, found).rows if row[:2] == ["ralr", "lr"])
    lr = facts.importance["ralr"]["lr"]
    assert row[2:] == [f"{lr.value:.0%}", f"{lr.null[1]:.0%}", lr.verdict, "25%", "10% to 40%", "30%", "75%", "–"]
    assert "Compared with Optuna's own evaluators" in parts(record, facts, found)["importance"]
    assert "Compared with Optuna's own evaluators" not in parts(record)["importance"]


@pytest.mark.parametrize("verdict", ["better", "equivalent within 0.5 points", "any other words, 1e-03 of them"])
def test_the_verdict_is_highlighted_whatever_its_words(verdict: str) -> None:
    shown = highlighted(Sentence("a's best scored (n = 5): ", verdict, "; 5 seeds could have detected more."))
    inner = verdict.replace("1e-03", '<span class="number">1e-03</span>')
    pairs = '<span class="number">n = 5</span>'
    assert shown == f"a&#x27;s best scored ({pairs}): <strong>{inner}</strong>; 5 seeds could have detected more."


def test_words_of_a_verdict_elsewhere_are_not_highlighted() -> None:
    assert highlighted("An arm called a: better. It has no trial.") == "An arm called a: better. It has no trial."


def test_every_verdict_on_the_page_is_highlighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is worded in another way."""
    record = make_record()
    facts = study_facts(record)
    told_apart = [*comparison_sentences(facts), *twin_sentences(facts), *claim_sentences(facts)]
    verdicts = [each for each in told_apart if isinstance(each, Sentence)]
    assert len(verdicts) >= 3
    text = body(record, facts, card_of(facts), figures(record, facts), {})
    assert text.count("<strong>") == len(verdicts)  # the twin's is that of the card
    monkeypatch.setattr("ralr_tune.analysis.evidence._verdict", lambda facts, made: "a draw, more or less")
    assert "<strong>a draw, more or less</strong>" in body(record, facts, card_of(facts), [], {})


def test_a_sentence_with_a_verdict_is_plain_text_elsewhere() -> None:
    made = Sentence("a scored 3: ", "better", ".")
    assert made == "a scored 3: better."
    assert json.dumps([made]) == '["a scored 3: better."]'
    assert str(made) == f"{made}" == "a scored 3: better."


def test_texts_are_escaped_before_anything_is_highlighted() -> None:
    assert highlighted(Sentence("<b>: ", "<i>", "&")) == "&lt;b&gt;: <strong>&lt;i&gt;</strong>&amp;"
    assert highlighted("try 3.2e-07 to <i>") == 'try <span class="number">3.2e-07</span> to &lt;i&gt;'
