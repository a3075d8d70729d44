"""The generated parts of docs/results.md and the README's sentence: numbers from the stored records, nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from ralr_tune.analysis.next_step import hours
from results.facts import (
    UNDECIDED,
    Answer,
    Result,
    amplification,
    duration,
    interaction,
    overfitting,
    recipes,
    results,
    schedules,
)
from results.planned import ROOT, STUDIES, Planned, named

PAGES = (ROOT / "docs/results.md", ROOT / "README.md")
PART = re.compile(r"<!-- results: (\w+) -->(\n?).*?<!-- /results -->", flags=re.DOTALL)
NOT_RUN = "not run"
WIDTH = 130


class Claim(NamedTuple):
    """What the paper says, and the studies that ask the same here."""

    text: str
    figure: str
    studies: Sequence[str]
    measured: Callable[[Result], list[Answer]]


UNKNOWN = "figure not known to us"
ABLATION = "it has an ablation, its figures are not known to us"
CLAIMS = (
    Claim(
        "ResNet-110 on CIFAR-100 gains", "+1.34 points, mean of four runs", ["gpu_cifar100_resnet110"], amplification
    ),
    Claim(
        "Image classification improves",
        UNKNOWN,
        ["gpu_cifar100", "gpu_cifar100_epochs_182", "cifar100_twenty_classes", "digits"],
        amplification,
    ),
    Claim("Fine-grained classification improves", UNKNOWN, ["grocery"], amplification),
    Claim("Object detection improves", UNKNOWN, ["detection_bccd", "detection_bccd_on_gpu"], amplification),
    Claim(
        "Machine translation improves", UNKNOWN, ["translation_multi30k", "translation_multi30k_on_gpu"], amplification
    ),
    Claim("It works with any optimizer", "", ["digits_six_blocks", "digits_six_blocks_adamw"], schedules),
    Claim("It needs no extra computation", "", ["cifar100_twenty_classes", "translation_multi30k", "digits"], duration),
    Claim(
        "It is complementary with augmentation and regularisation",
        UNKNOWN,
        ["cifar100_complementarity", "complementarity"],
        interaction,
    ),
    Claim(
        "It prevents overfitting",
        UNKNOWN,
        ["cifar100_twenty_classes", "grocery", "digits", "digits_six_blocks", "digits_six_blocks_adamw"],
        overfitting,
    ),
    Claim("The probability matters", ABLATION, ["ablation_probability"], schedules),
    Claim("The two bounds matter", ABLATION, ["ablation_lower", "ablation_width"], schedules),
    Claim("It escapes saddle points and local minima", "", [], amplification),
)


def updated(text: str) -> str:
    """A page with its generated parts made again."""
    return PART.sub(
        lambda part: f"<!-- results: {part[1]} -->{part[2]}{PARTS[part[1]]()}{part[2]}<!-- /results -->", text
    )


def write_pages() -> list[Path]:
    """Makes the generated parts again; returns the files that changed."""
    results.cache_clear()  # a study has been stored since
    changed = []
    for path in PAGES:
        text = path.read_text()
        if (new := updated(text)) != text:
            path.write_text(new)
            changed.append(path)
    return changed


# ---------------------------------------------------------------- in sentences


def _sentence() -> str:
    answers = [answer for found in results().values() for answer in amplification(found)]
    count = Counter(answer.verdict for answer in answers)
    said = [] if count["improves"] else [f"none shows that it helps{'' if count['harms'] else ' or harms'}"]
    said += [
        f"{count[verdict]} {one if count[verdict] == 1 else more}" for verdict, one, more in SAID if count[verdict]
    ]
    return (
        f"of {len(answers)} comparisons of a recipe with and without amplification, on the same fresh seeds, "
        f"{_listed(said)}. {len(results())} of {len(STUDIES)} planned studies "
        f"{'is' if len(results()) == 1 else 'are'} done."
    )


SAID = (
    ("improves", "shows that it helps", "show that it helps"),
    ("harms", "shows that it harms", "show that it harms"),
    ("no difference that matters", "shows no difference that matters", "show no difference that matters"),
    (UNDECIDED, "is not decided", "are not decided"),
)
"""What the sentence says of each verdict, after a number of one or more."""


def _listed(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _summary() -> str:
    made = [(found, answer) for found in results().values() for answer in schedules(found) if "ralr" in answer.question]
    sentence = _sentence()
    lines = [fill(sentence[0].upper() + sentence[1:], WIDTH)]
    if made:
        lines += ["", "The schedules themselves, each searched independently several times:", ""]
        lines += [f"- {_link(found.planned.name)}: {_in_words(answer)}" for found, answer in made]
    seconds = sum(found.card.spending.total.seconds for found in results().values() if found.card.spending)
    return "\n".join([*lines, "", f"All studies together took {hours(seconds)} of device time."])


def _in_words(answer: Answer) -> str:
    return f"{answer.question}: {_shown(answer)}, {answer.pairs}: **{answer.verdict}**"


def _shown(answer: Answer) -> str:
    return f"{answer.difference} ({answer.interval})" if answer.interval else answer.difference


# ---------------------------------------------------------------- tables


def _claims() -> str:
    return _table(("The paper says", "study", "measured here"), _claim_rows())


def _claim_rows() -> Iterator[Sequence[str]]:
    for claim in CLAIMS:
        text = f"{claim.text}: {claim.figure}" if claim.figure else claim.text
        rows = [(_link(name), measured) for name in claim.studies for measured in _measured(claim, name)]
        for study, measured in rows or [("", "not tested: no study here can show it")]:
            yield text, study, measured
            text = ""


def _measured(claim: Claim, name: str) -> list[str]:
    found = results().get(name)
    if found is None:
        return [NOT_RUN]
    return [_in_words(answer) for answer in claim.measured(found)] or ["no figure in its record"]


def _link(name: str) -> str:
    """A study's name; if it was run, as a link to its section."""
    return f"[{name}](#{name})" if name in results() else name


def _studies() -> str:
    missing = [each for each in STUDIES if each.name not in results()]
    lines = [f"- {each.name}: {each.about}; `{_repeat(each.name)}`" for each in missing]
    absent = ["### Not run yet", "", *lines] if missing else []
    return "\n\n".join([*map(_study, results().values()), "\n".join(absent)]).strip()


def _study(found: Result) -> str:
    planned, card = found.planned, found.card
    answers = [*amplification(found), *recipes(found), *schedules(found)]
    rows = [(each.question, _shown(each), each.pairs, each.verdict) for each in answers]
    return "\n\n".join(
        [
            f"### {planned.name}",
            f"{planned.about[0].upper()}{planned.about[1:]}. **{card.verdict}** {' '.join(card.caveats)}".rstrip(),
            _table(("question", f"difference in {found.facts.metric.words}", "pairs", "answer"), rows),
            f"{card.cost}. Repeat it: `{_repeat(planned.name)}`. [Report](gallery.md#{planned.name})",
        ]
    )


def _repeat(name: str) -> str:
    planned = named(name)
    return f"results/gpu.sh run {name}" if planned and planned.on_gpu else f"make results STUDY={name}"


def _repeats() -> str:
    rows = [row for each in STUDIES if "seed" in each.changes for row in _repeated(each)]
    return _table(("study", "question", "first", "repeated", "changed"), rows)


def _repeated(again: Planned) -> Iterator[Sequence[str]]:
    """What a study and its repetition answer to the same questions."""
    before, after = results().get(again.original), results().get(again.name)
    if before is None or after is None:
        yield again.original, "", *("run" if found else NOT_RUN for found in (before, after)), ""
        return
    second = {answer.question: answer for answer in _verdicts(after)}
    for one in _verdicts(before):
        if (two := second.get(one.question)) is not None:
            yield again.original, one.question, one.verdict, two.verdict, _changed(one, two)


def _verdicts(found: Result) -> list[Answer]:
    return schedules(found) or amplification(found)


def _changed(one: Answer, two: Answer) -> str:
    if one.verdict == two.verdict:
        return "no"
    return "yes" if UNDECIDED not in (one.verdict, two.verdict) else "decided in one only"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    "sentence": lambda: fill(f"[What the evidence says so far](docs/results.md): {_sentence()}", WIDTH),
    "summary": _summary,
    "claims": _claims,
    "studies": _studies,
    "repeats": _repeats,
}
"""What replaces `<!-- results: NAME -->` up to `<!-- /results -->`."""
