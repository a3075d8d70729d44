"""Seconds per epoch, from a few steps. `run` measures them in a separate process, which this module is when it is run:
the launcher would otherwise keep torch and its memory on a GPU while the workers train.
"""

from __future__ import annotations

import json
import subprocess
import sys

from ralr_tune.errors import RalrTuneError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.search.design import unit_params
from ralr_tune.search.tasks import Tasks
from ralr_tune.studyfile import StudySpec, parse_study


def seconds_per_epoch(spec: StudySpec, place: Place) -> float | None:
    """In the middle of the first arm's space: the duration depends mostly on batch size and network.

    None if only the trials will show it.
    """
    from ralr_tune.launch.worker import set_threads

    set_threads(place, spec.kind)
    arm = next(iter(spec.arms))
    configuration = spec.configuration(arm, unit_params(spec.space(arm), 0.5))
    task = Tasks(spec, device=place.device).of(configuration.task)
    return spec.kind.seconds_per_epoch(task, configuration)


def measured_apart(spec: StudySpec, place: Place) -> float | None:
    """The same, measured by a process of its own if the kind of task needs torch. Raises UsageError if it cannot."""
    if not spec.kind.needs_torch:
        return seconds_per_epoch(spec, place)
    words = [sys.executable, "-m", __name__, place.device, str(place.threads)]
    ended = subprocess.run(words, input=spec.text, capture_output=True, text=True, check=False)
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"search.budget = {spec.file.search.budget!r}: an epoch could not be timed: {reason}")
    seconds: float | None = json.loads(ended.stdout.splitlines()[-1])
    return seconds


if __name__ == "__main__":
    try:
        print(json.dumps(seconds_per_epoch(parse_study(sys.stdin.read()), Place(0, sys.argv[1], int(sys.argv[2])))))
    except RalrTuneError as error:
        sys.exit(str(error))
