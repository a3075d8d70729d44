"""What a report of a program costs: `python -m benchmarks.protocol` prints a table (half a minute, one core).

report   one epoch of a program that does nothing, from the answer to the report before it to its own answer: client,
         socket, validation, saved curve (of up to REPORTS epochs); with a checkpoint, also its link and digest. Median
         and 90% of REPORTS
start    from the start of the program to its first report, minus the same program started without a study; median of
         STARTS: the guard, the socket and the import of the client
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from ralr_tune.child.trial import ChildTrial, Plan

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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(PROGRAM)
        print(f"{'checkpoint':<12} {'report ms':>10} {'90% ms':>8}")
        for name, size in SIZES.items():
            times = report_ms(program, -1 if size is None else size, 20 if (size or 0) > 10**7 else REPORTS)
            print(f"{name:<12} {statistics.median(times):>10.2f} {statistics.quantiles(times, n=10)[-1]:>8.2f}")
        print(f"start: {statistics.median(start_ms(program) for _ in range(STARTS)):.0f} ms")


def trial(program: Path, size: int, epochs: int) -> ChildTrial:
    return ChildTrial(
        Plan(
            identity="benchmark",
            command=lambda start: [sys.executable, "-S", str(program), str(size)],
            epochs=epochs,
            description={
                "params": {}, "seed": 0, "split": "train", "device": "cpu",
                "base": [1.0] * epochs, "factors": [1.0] * epochs,
            },
            rates=[0.1] * epochs,
            factors=[1.0] * epochs,
            report_timeout=None,
            grace_s=10.0,
        ),
        checkpoint=Path(tempfile.mkdtemp(dir=program.parent)) / "trial.ckpt",
    )  # fmt: skip


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


if __name__ == "__main__":
    main()
