"""The package's verdicts on recorded real curves, both arms from one table: `python -m tests.calibration.recorded`.

With one block, a verdict is wrong if the configuration that it calls better is not; with several, whenever one arm is
called better. A table of too few seeds has no rows (benchmarks.decisions.recorded says what few seeds do).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import optuna

from benchmarks.decisions.measures import outcome
from benchmarks.decisions.package import Package
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.replays import known
from benchmarks.decisions.tables import FOLDER
from benchmarks.decisions.worlds import Match
from ralr_tune.analysis.next_step import BLOCKS
from tests.calibration.tables import Counted, Promise, Table, rows_of, show

RARELY_WRONG = Promise(("wrong",), 0.05)


def verdicts(studies: int, folder: Path, name: str, blocks: int) -> Counted:
    """Studies with seeds of their own in one world."""
    started, before = time.process_time(), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    package, counts = Package(blocks), Counter[str]()
    for number in range(studies):
        match = Match(known(folder).worlds[name], number)
        found = outcome(match, package.decide(match, package.search(match), (0.0, 0.0)), 0.0)
        counts["claimed"] += found.claimed
        counts["wrong"] += found.claimed if blocks > 1 else found.recipes_wrong
    optuna.logging.set_verbosity(before)
    what = f"{name}: {f'{blocks} blocks' if blocks > 1 else '1 block, the two recipes'}"
    return Counted(what, studies, counts, time.process_time() - started, (RARELY_WRONG,))


def table(folder: Path = FOLDER) -> Table:
    """A row for each recorded world and number of blocks."""
    worlds = [name for name, world in known(folder).worlds.items() if isinstance(world, RecordedWorld)]
    rows = rows_of(verdicts, *((folder, name, blocks) for name in worlds for blocks in (1, BLOCKS)))
    columns = {"better or worse": ("claimed",), "wrong": ("wrong",)}
    return Table("Recorded curves, equal arms", rows, columns, 200, intervals=True)


if __name__ == "__main__":
    sys.exit("\n".join(show([table()])) or None)
