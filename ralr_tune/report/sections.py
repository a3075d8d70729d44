"""The content of the page: the verdict card, warnings, whether it is better, then the other questions, folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ralr_tune.analysis import robustness as rates
from ralr_tune.analysis.card import Card
from ralr_tune.analysis.evidence import comparison_sentences, twin_sentences
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.importance import EVALUATOR
from ralr_tune.analysis.notes import (
    budget_sentences,
    claim_sentences,
    generation_sentences,
    importance_sentences,
    pruning_sentences,
    robustness_sentences,
    urgent_sentences,
)
from ralr_tune.analysis.starting import start_sentences
from ralr_tune.records import Generation, Inventory, Row, StudyRecord
from ralr_tune.report import markup, tables
from ralr_tune.report.budget import budget_note
from ralr_tune.report.card import card_html
from ralr_tune.report.curves import crowding, curves_facts
from ralr_tune.report.examples import ShownExamples, examples_html
from ralr_tune.report.figures import Figure, Section
from ralr_tune.report.inventory import inventory_lines, inventory_table
from ralr_tune.report.markup import Table, escaped, fold, paragraphs, some_folded, table
from ralr_tune.report.other_metrics import other_metrics, other_metrics_note
from ralr_tune.report.robustness import robustness_facts, robustness_note
from ralr_tune.report.style import sentence
from ralr_tune.report.words import duration


class Part(NamedTuple):
    """One question, or one kind of detail."""

    key: Section
    heading: str
    answer: Sequence[str]
    """The answer in sentences."""
    note: str
    """How to read the figures."""
    without: str
    """Text shown instead of figures and sentences."""
    more: str = ""
    """Tables, as HTML."""


def body(
    record: StudyRecord,
    facts: Facts,
    card: Card,
    drawn: Sequence[Figure],
    found: tables.Evaluators,
    examples: ShownExamples | None = None,
) -> str:
    """The visible part of the page. `drawn`: all figures, those of the examples included."""
    questions = _questions(record, facts, card, found)
    return "\n".join(
        [
            _head(record, facts, card),
            _warnings(facts, card),
            _contents(questions, examples is not None),
            *(_question(record.name, part, drawn) for part in questions),
            *([_examples(record.name, examples, drawn)] if examples else []),
            _details(record, facts, drawn),
        ]
    )


def _examples(study: str, shown: ShownExamples, drawn: Sequence[Figure]) -> str:
    own = [figure for figure in drawn if figure.section == "examples"]
    return fold("Examples", examples_html(study, shown, own), 2, "examples")


# ---------------------------------------------------------------- the card


def _head(record: StudyRecord, facts: Facts, card: Card) -> str:
    context = escaped(" · ".join(_context(record, facts)))
    blocks = max((arm.blocks for arm in facts.arms.values()), default=1)
    about = [*generation_sentences(facts), *start_sentences(facts.start, blocks)]
    shown = "\n".join([card_html(card, copyable=True), paragraphs(about, "note")])
    return f'<header>\n<h1>{escaped(record.name)}</h1>\n<p class="context">{context}</p>\n{shown}\n</header>'


def _context(record: StudyRecord, facts: Facts) -> Iterable[str]:
    """The study in a few words."""
    arms = list(facts.arms.values())
    yield f"{facts.split} {facts.metric.words}"
    yield f"{len(arms)} arm{'s' if len(arms) != 1 else ''}"
    budgets = sorted({arm.counts["budget"] for arm in arms})
    if budgets:
        count = str(budgets[0]) if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]}"
        blocks = max(arm.blocks for arm in arms)
        yield f"{count} search trials each" + (f" in {blocks} blocks" if blocks > 1 else "")
    yield datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d")


def _warnings(facts: Facts, card: Card) -> str:
    """What to fix before relying on the card, except what it says itself; folded: its next step comes first."""
    said = " ".join([*card.sentences, card.next_step.why])
    urgent = [each for each in urgent_sentences(facts) if each not in said]
    heading = f"{len(urgent)} warning{'' if len(urgent) == 1 else 's'}"
    return fold(heading, paragraphs(urgent), 2, "warnings") if urgent else ""


def _contents(parts: Sequence[Part], examples: bool) -> str:
    links = "".join(f'<a href="#question-{part.key}">{escaped(part.heading)}</a>' for part in parts)
    links += '<a href="#examples">Examples</a>' if examples else ""
    return f'<nav aria-label="Contents">{links}<a href="#details">Details</a></nav>'


# ---------------------------------------------------------------- questions


def _question(study: str, part: Part, drawn: Sequence[Figure]) -> str:
    """Folded, because the card holds the answer; only the figures behind that answer are open."""
    opened = part.key == "better" and any(figure.section == part.key for figure in drawn)
    return fold(part.heading, _content(study, part, drawn, 3), 2, f"question-{part.key}", opened=opened)


def _content(study: str, part: Part, drawn: Sequence[Figure], level: int) -> str:
    own = [figure for figure in drawn if figure.section == part.key]
    answer = some_folded(part.answer, "says") or ("" if own else paragraphs([part.without], "note"))
    notes = paragraphs([part.note], "note") if own else ""
    return "\n".join(filter(None, [markup.grid(study, own, level), answer, notes, part.more]))


def _questions(record: StudyRecord, facts: Facts, card: Card, found: tables.Evaluators) -> list[Part]:
    return [
        Part(
            "better",
            "Is it better?",
            _compared(facts, card),
            (_DIFFERENCES if facts.comparisons or facts.twins or facts.amplified else "") + _SCORES,
            "No configuration has been confirmed yet.",
            _arms(facts),
        ),
        Part(
            "budget",
            "What does the search cost?",
            budget_sentences(facts),
            budget_note(facts),
            "No search trial is complete yet.",
        ),
        Part(
            "importance",
            "What matters?",
            importance_sentences(facts),
            _importance_note(facts),
            "No parameter was searched.",
            _evaluators(facts, found),
        ),
        _robustness(facts),
        Part("rates", "Which learning rates were used?", [], _RATES, "No run has recorded its learning rates yet."),
        Part("pruning", "Was pruning fair?", _pruned_on(record) + pruning_sentences(facts), _PRUNING, _no_audit(facts)),
        *([_complementarity(facts)] if facts.complementarity else []),
    ]


_DIFFERENCES = (
    "Amplification alone: a configuration with minus without it, over equal seeds (an arm against its twin, whose "
    "amplification is off, and the baseline amplified as another arm is). The thick interval is the one that the "
    "verdict rests on, as on the card; fewer than four of five such studies would detect a true difference within the "
    "dotted line. "
)
_SCORES = (
    "In the scores, each mark is a fresh seed of a fixed configuration, hollow with its amplification off; up to "
    "twelve seeds are joined by thin lines."
)
_PRUNING = (
    "With exact 95% intervals. Wrong: trained to its end, the trial is in the better half of the complete trials. The "
    "pruners median and patient do not judge a trial by an amplified epoch; after it, they wait for the next one."
)
_MARKS = (
    "One mark for each search trial, at its last epoch. Pruned trials are hollow, at the score that they had when they "
    "stopped; scores far below the others are triangles at the bottom, diverged trials are crosses."
)
_CURVES = "Strokes mark the end of pruned trials, crosses that of diverged ones. The heavy line is the best trial."
_RATES = "As trained, at the first step of each epoch; dotted: the base schedule, solid: the rate that was used."


def _compared(facts: Facts, card: Card) -> list[str]:
    """Every comparison except the card's."""
    said = [(made.what, made.arm, made.against) for made in (each.comparison for each in card.judged)]
    return [*twin_sentences(facts, said), *comparison_sentences(facts, said)]


def _arms(facts: Facts) -> str:
    known = any(arm.best or arm.confirm for arm in facts.arms.values())
    return table(tables.arms_table(facts)) if known else ""


def _importance_note(facts: Facts) -> str:
    epochs = [
        f"{arm}: {found.trials} trials" + ("" if found.epoch is None else f" (80% of them reached epoch {found.epoch})")
        for arm, parameters in facts.importance.items()
        for found in list(parameters.values())[:1]
    ]
    return (
        "The share of the variance of the trials' ranks that one parameter explains by itself. A grey bar is the range "
        "for a parameter without any effect: only a mark beyond it matters, is filled, and has its 95% interval, as "
        f"far as that lies beyond the bar. Method: {EVALUATOR}; effects that exist only in interactions are not "
        "detected. "
        f"Compared: {'; '.join(epochs)}."
    )


def _evaluators(facts: Facts, found: tables.Evaluators) -> str:
    made = tables.evaluators_table(facts, found)
    return fold("Compared with Optuna's own evaluators", table(made)) if any(found.values()) and made.rows else ""


def _robustness(facts: Facts) -> Part:
    lines = robustness_facts(facts)
    tried = any(each.finished for each in facts.robustness)
    return Part(
        "robustness",
        "How robust is it?",
        robustness_sentences(facts),
        robustness_note(lines, facts) if lines else "",
        f"No arm has searched its learning rate in at least {rates.MIN_TRIALS} usable trials.",
        table(tables.robustness_table(facts)) if tried else "",
    )


def _complementarity(facts: Facts) -> Part:
    note = "Each of the four arms is tuned separately; intervals are uncorrected."
    return Part("complementarity", "Does amplification add to other changes?", [], note, "")


def _claims(facts: Facts) -> Part:
    return Part(
        "claims",
        "The paper's other claims",
        claim_sentences(facts),
        f"Intervals of {100 * facts.confidence:g}%, uncorrected; no verdict depends on these figures.",
        "No runs can be paired yet, so neither the cost of an epoch nor overfitting is compared.",
    )


def _pruned_on(record: StudyRecord) -> list[str]:
    """What the pruner saw, if that is not what the study is judged by."""
    seen = record.prune_metric
    if seen is None:
        return []
    return [
        f"Pruned on validation {seen.name} ({seen.direction}): only the pruner sees it; {record.metric.name} is what "
        "the sampler sees and what decides which pruning was wrong."
    ]


def _no_audit(facts: Facts) -> str:
    if any(arm.counts["pruned"] for arm in facts.arms.values()):
        return "No pruned trial was trained to its end, so it is unknown whether pruning was fair."
    return "Nothing was pruned."


# ---------------------------------------------------------------- details


def _details(record: StudyRecord, facts: Facts, drawn: Sequence[Figure]) -> str:
    metric, nothing = sentence(facts.metric.words), "Nothing to show yet."
    top = tables.top_trials(record, facts)
    curves = [found for arm in record.arms.values() if (found := curves_facts(arm, facts))]
    others, tested = other_metrics(record), tables.tested_table(record, facts)
    parts = [
        Part("parameters", f"{metric} against each other searched parameter", [], _MARKS, nothing),
        Part("curves", "Learning curves", [], _CURVES + crowding(curves), nothing),
        *(
            [Part("others", "Other metrics", [], other_metrics_note(others, record.prune_metric), nothing)]
            if others
            else []
        ),
        _claims(facts),
    ]
    folds = [
        *(fold(part.heading, _content(record.name, part, drawn, 4)) for part in parts),
        *([fold("Other metrics on the test split", table(tested))] if tested else []),
        *([fold("Data", _data(facts.data))] if facts.data else []),
        fold("Top trials", table(top) if top.rows else paragraphs([nothing], "note")),
        fold("What was run", _what_was_run(record, facts)),
        fold("Study file", f'<pre tabindex="0">{escaped(record.spec_text)}</pre>'),
    ]
    return "\n".join(['<section id="details">', "<h2>Details</h2>", *folds, "</section>"])


def _data(inventory: Inventory) -> str:
    return "\n".join([table(inventory_table(inventory)), paragraphs(inventory_lines(inventory), "note")])


def _what_was_run(record: StudyRecord, facts: Facts) -> str:
    rows = [row for arm in record.arms.values() for row in arm.rows]
    known = [
        ["study", record.name],
        ["storage", record.storage],
        ["created", datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M UTC")],
        ["fingerprint", record.fingerprint],
        *_generation_rows(record.generations),
        *([name, value] for name, value in record.environment.items()),
        ["training time, all runs", duration(sum(row.seconds or 0.0 for row in rows))],
        ["from the first start to the last end", _span(rows)],
    ]
    lost = tables.failure_table(record)
    return "\n".join(
        [
            table(Table("", ["", ""], known, left=2)),
            table(tables.counts_table(facts)) if facts.arms else "",
            table(lost) if lost.rows else paragraphs(["No run diverged or failed."], "note"),
        ]
    )


def _generation_rows(generations: Sequence[Generation]) -> list[list[str]]:
    """Each generation with its beginning, trials and data; none if there is only one."""
    if len(generations) < 2:
        return []
    return [
        [f"generation {each.number}{'' if each is generations[-1] else ' (not in this report)'}", _generation(each)]
        for each in generations
    ]


def _generation(generation: Generation) -> str:
    began = datetime.fromtimestamp(generation.created, UTC).strftime("%Y-%m-%d %H:%M UTC")
    data = generation.identity.data if generation.identity else None
    held = f"; {data.source}: {data.class_count}, {_sizes(data)} {data.unit}" if data else ""
    return f"began {began}; {generation.trials} trials{held}"


def _sizes(data: Inventory) -> str:
    return ", ".join(f"{split.total:,} {split.name}" for split in data.splits)


def _span(rows: Sequence[Row]) -> str:
    started = [row.started for row in rows if row.started is not None]
    finished = [row.finished for row in rows if row.finished is not None]
    return duration(max(finished) - min(started)) if started and finished else "–"
