"""What a report of a program costs: `python -m benchmarks.protocol` prints a table (half a minute, one core).

report   one epoch of a program that does nothing, from the answer to the report before it to its own answer: client,
         socket, validation, saved curve (of up to REPORTS epochs); with a checkpoint, also its link and digest. Median
         and 90% of REPORTS
start    from the start of the program to its first report, minus the same program started without a study; median of
         STARTS: the guard, the socket and the import of the client
next     of a function: from the end of a trial to the first line of the next one, in the same process; median of STARTS
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from ralr_tune.child.plan import Plan, Schedule
from ralr_tune.child.served import ServedPrograms
from ralr_tune.child.single import SinglePrograms
from ralr_tune.child.trial import ChildTrial

ROOT = Path(__file__).parents[1]
REPORTS, STARTS = 200, 15
SIZES = {"none": None, "1 kB": 1_000, "1 MB": 1_000_000, "100 MB": 100_000_000}
PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from ralr_tune import client
trial = client.trial()
size, times = int(sys.argv[1]), []
for epoch in range(1, trial.epochs + 1):
    name = None
    if size >= 0:
        (trial.folder / "tmp").write_bytes(bytes(size))
        (trial.folder / "tmp").rename(trial.folder / "state")
        name = "state"
    began = time.perf_counter()
    if client.report(epoch, 0.5, checkpoint=name) != client.CONTINUE:
        sys.exit()
    times.append(time.perf_counter() - began)
(trial.folder.parent.parent / "times").write_text(" ".join(map(str, times)))
"""
FUNCTION = """
import time
from pathlib import Path
import torch

def train(trial):
    (Path(__file__).parent / "began").write_text(str(time.clock_gettime(time.CLOCK_MONOTONIC)))
    for epoch in trial.epochs():
        trial.report(0.5)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAM)
        print(f"{'checkpoint':<12} {'report ms':>10} {'90% ms':>8}")
        for name, size in SIZES.items():
            times = report_ms(program, -1 if size is None else size, 20 if (size or 0) > 10**7 else REPORTS)
            print(f"{name:<12} {statistics.median(times):>10.2f} {statistics.quantiles(times, n=10)[-1]:>8.2f}")
        print(f"next: {statistics.median(next_ms(Path(folder))):.1f} ms")
        print(f"start: {statistics.median(start_ms(program) for _ in range(STARTS)):.0f} ms")


def plan(epochs: int) -> Plan:
    """A trial at a constant rate."""
    return Plan(
        identity="benchmark",
        epochs=epochs,
        stage="search",
        description={"params": {}, "seed": 0, "split": "train", "device": "cpu"},
        schedule=lambda steps: Schedule([[1.0]] * epochs, [[1.0]] * epochs, [[0.1]] * epochs),
        by_step=False,
    )


def trial(program: Path, size: int, epochs: int) -> ChildTrial:
    programs = SinglePrograms(lambda start: [sys.executable, "-S", str(program), str(size)])
    return ChildTrial(plan(epochs), programs, checkpoint=Path(tempfile.mkdtemp(dir=program.parent)) / "trial.ckpt")


def report_ms(program: Path, size: int, reports: int) -> list[float]:
    """As the program measures it."""
    for _ in trial(program, size, reports).epochs():
        pass
    return [1e3 * float(each) for each in program.with_name("times").read_text().split()]


def start_ms(program: Path) -> float:
    began = time.perf_counter()
    with closing(trial(program, -1, 2).epochs()) as epochs:
        next(epochs)
        studied = time.perf_counter() - began
    began = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", "import sys, time"], check=True)
    return 1e3 * (studied - (time.perf_counter() - began))


def next_ms(folder: Path) -> list[float]:
    """As the function measures it: both ends are on the clock of the whole machine."""
    (folder / "timed.py").write_text(FUNCTION)
    command = [sys.executable, "-m", "ralr_tune.own.serve", "timed:train", "--folder", str(folder)]
    programs, times = ServedPrograms(command), []
    for number in range(STARTS + 1):
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        one = ChildTrial(plan(1), programs, checkpoint=folder / f"next{number}" / "trial.ckpt")
        for _ in one.epochs():
            pass
        times.append(1e3 * (float((folder / "began").read_text()) - began))
    return times[1:]


if __name__ == "__main__":
    main()
