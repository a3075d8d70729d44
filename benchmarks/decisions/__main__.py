"""How often each way to decide is right, for how many epochs: `make bench-decisions` (SHORT=1: a rough answer).

Whole studies of two arms are replayed on curves that are already there: of the simulated kind, and of recorded training
runs (tables/, made by benchmarks.decisions.record). Both arms search the same curves, so they are equally good, and a
constant added to one is the true difference. Every replay is kept: a run that was stopped continues.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.decisions.pages import as_json, markdown
from benchmarks.decisions.replays import FOLDER, Known, Results, known, run
from ralr_tune.errors import RalrTuneError, UsageError
from ralr_tune.machine.files import write

REPLAYS, SHORT = 200, 40
"""The error of a share of 5% is then 1.5 and 3.4 points."""
PROGRESS_S = 30.0


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.decisions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replays", type=int, default=REPLAYS, help=f"of each world ({REPLAYS})")
    parser.add_argument("--short", action="store_const", dest="replays", const=SHORT, help=f"{SHORT} replays")
    parser.add_argument("--worlds", nargs="+", default=[], help="only worlds whose name contains one of these")
    parser.add_argument("--policies", nargs="+", default=[], help="only policies whose name contains one of these")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument(
        "--out", type=Path, default=Path(".bench/decisions"), help="results: OUT.jsonl, OUT.md, OUT.json"
    )
    given = parser.parse_args(arguments)
    try:
        _run(given, known(folder), Results(given.out.with_suffix(".jsonl"), folder))
    except RalrTuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


def _run(given: argparse.Namespace, there: Known, results: Results) -> None:
    if given.replays < 1 or given.processes < 1:
        raise UsageError(f"--replays {given.replays} --processes {given.processes}: must be at least 1")
    worlds = _named("--worlds", given.worlds, there.worlds)
    policies = _named("--policies", given.policies, there.policies)
    for line in there.missing:
        print(f"left out: {line}")
    tasks = results.waiting(worlds, policies, given.replays)
    began = said = time.monotonic()
    for done, (task, outcomes) in enumerate(run(tasks, given.processes, results.folder), 1):
        results.add(task, outcomes)
        if time.monotonic() > said + PROGRESS_S:
            said = time.monotonic()
            left = (said - began) / done * (len(tasks) - done) / 60
            print(f"{done:,} of {len(tasks):,} matches, about {left:.0f} minutes left", flush=True)
    found = results.figures(worlds, policies, given.replays)
    page = markdown(found, there.worlds, [there.policies[name] for name in policies])
    write(given.out.with_suffix(".md"), page.encode())
    write(given.out.with_suffix(".json"), json.dumps(as_json(found, there.worlds), indent=1).encode())
    print(page, end="")


def _named(option: str, parts: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that contain one of the parts; all without parts. Raises UsageError for a part that none contains."""
    everything = list(names)
    for part in parts:
        if not any(part in name for name in everything):
            raise UsageError(f"{option} {part}: unknown; known: {'; '.join(everything)}")
    return [name for name in everything if not parts or any(part in name for part in parts)]


if __name__ == "__main__":
    sys.exit(main())
