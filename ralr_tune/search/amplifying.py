"""The baseline's winner with another arm's amplification added: a twin the other way round (ours).

A twin says what amplification does to the configuration that was tuned with it; this, what it does to one that was
tuned without. Each amplifying arm's best winner gives its amplification to the baseline's best winner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ralr_tune.records import AMPLIFICATION, Row, amplified_role
from ralr_tune.studyfile import AmplifyConfig, StudySpec


@dataclass(frozen=True)
class AddedAmplification:
    """A configuration to judge: the parameters of `receiver`, a search row, with those of an amplification.

    Search rows that were read without their parameters give receiver and role alone: enough to know what is planned.
    """

    receiver: Row
    role: str
    params: Mapping[str, Any]


def additions(spec: StudySpec, winners: Mapping[str, Sequence[Row]]) -> Iterator[AddedAmplification]:
    """One for each amplifying arm; none where the baseline perturbs its rate itself. `winners`: by arm, best first."""
    receivers = winners.get(spec.study.baseline, ())
    if not receivers or not max_additions(spec):
        return
    for arm, rows in winners.items():
        if spec.arms[arm].amplify is not None and rows:
            yield _added(spec, receivers[0], rows[0])


def max_additions(spec: StudySpec) -> int:
    """How many amplifications there can be to add."""
    baseline = spec.arms[spec.study.baseline]
    perturbed = baseline.amplify is not None or baseline.noise is not None
    return 0 if perturbed else sum(arm.amplify is not None for arm in spec.arms.values())


def _added(spec: StudySpec, receiver: Row, donor: Row) -> AddedAmplification:
    assert donor.trial is not None
    given = _amplification(spec, donor) if spec.space(donor.arm).keys() <= donor.params.keys() else {}
    return AddedAmplification(
        receiver, amplified_role(donor.arm, donor.block, donor.trial), {**receiver.params, **given}
    )


def _amplification(spec: StudySpec, donor: Row) -> dict[str, Any]:
    """All of it, also what the donor's arm does not search: the receiver's arm knows none of it."""
    amplify = spec.configuration(donor.arm, donor.params).amplify
    assert amplify is not None
    return {f"{AMPLIFICATION}{name}": value for name, value in amplify.model_dump(mode="json").items()}


def amplification_of(params: Mapping[str, Any]) -> AmplifyConfig:
    """What `additions` put among the parameters."""
    given = {
        name.removeprefix(AMPLIFICATION): value for name, value in params.items() if name.startswith(AMPLIFICATION)
    }
    return AmplifyConfig.model_validate(given)
