"""The baseline's winner with another arm's amplification added: the reverse of a twin (our choice).

A twin shows what amplification does to a configuration that was tuned with it. An added amplification shows what it
does to a configuration that was tuned without it: the baseline's best winner gets the amplification of each amplifying
arm's best winner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ralr_tune.records import AMPLIFICATION, Row, amplified_role
from ralr_tune.studyfile import AmplifyConfig, StudySpec


@dataclass(frozen=True)
class AddedAmplification:
    """A configuration to judge: the parameters of `receiver`, a search row, plus those of an amplification.

    If search rows were read without their parameters, only receiver and role are valid: enough to see what is planned.
    """

    receiver: Row
    role: str
    params: Mapping[str, Any]


def additions(spec: StudySpec, winners: Mapping[str, Sequence[Row]]) -> Iterator[AddedAmplification]:
    """One for each amplifying arm; none if the baseline itself perturbs its rate. `winners`: by arm, best first."""
    receivers = winners.get(spec.study.baseline, ())
    if not receivers or not max_additions(spec):
        return
    for arm, rows in winners.items():
        if spec.arms[arm].amplify is not None and rows:
            yield _added(spec, receivers[0], rows[0])


def max_additions(spec: StudySpec) -> int:
    """The largest number of amplifications that `additions` can yield."""
    baseline = spec.arms[spec.study.baseline]
    perturbed = baseline.amplify is not None or baseline.noise is not None
    return 0 if perturbed else sum(arm.amplify is not None for arm in spec.arms.values())


def _added(spec: StudySpec, receiver: Row, donor: Row) -> AddedAmplification:
    assert donor.trial is not None
    given = (
        _amplification(spec, donor) if spec.used_space(donor.arm, donor.params).keys() <= donor.params.keys() else {}
    )
    return AddedAmplification(
        receiver, amplified_role(donor.arm, donor.block, donor.trial), {**receiver.params, **given}
    )


def _amplification(spec: StudySpec, donor: Row) -> dict[str, Any]:
    """All amplification parameters, including those that the donor's arm does not search: the receiver has none."""
    amplify = spec.configuration(donor.arm, donor.params).amplify
    assert amplify is not None
    given = amplify.model_dump(
        mode="json", exclude_none=True
    )  # a window that is not given follows the receiver's curve
    return {f"{AMPLIFICATION}{name}": value for name, value in given.items()}


def amplification_of(params: Mapping[str, Any]) -> AmplifyConfig:
    """The amplification that `additions` added to the parameters."""
    given = {
        name.removeprefix(AMPLIFICATION): value for name, value in params.items() if name.startswith(AMPLIFICATION)
    }
    return AmplifyConfig.model_validate(given)
