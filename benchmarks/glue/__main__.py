"""What is lost when a search is killed at a random moment: `python -m benchmarks.glue` prints a table.

One training script (train.py: it resumes from its state) under four kinds of glue: Optuna by hand, Ray Tune, an agent
as of W&B sweeps, and a study with `kind = "command"`. Each search of BUDGET trials is killed KILLS times, once per
search, with everything that it started, at a moment drawn between its first epoch and its usual end, and started again
by the same command until it ends. All of them run one trial at a time.

lines    of glue, blank lines and comments left out: the file, or what train_ours.py has besides train.py, and the study
lost     trials of the budget that never got a result
extra    results beyond the budget
again    epochs that were trained twice
held     searches that did not come to their end: the same command failed, or ran for longer than LIMIT_S

Needs Ray: `.venv-bench/bin/python -m benchmarks.glue`; without it, its row is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
EPOCHS, BUDGET, KILLS = 8, 6, 20
LIMIT_S = 180.0
RESTARTS = 3

Results = Callable[[Path], Counter[str]]
"""By learning rate (and seed): how many results there are in a search's folder."""


@dataclass(frozen=True)
class Glue:
    """One way to search."""

    name: str
    file: str
    results: Results
    train: str = "train.py"

    def command(self, folder: Path) -> list[str]:
        if self.file.endswith(".toml"):
            text = (HERE / self.file).read_text()
            for word, value in (("PYTHON", sys.executable), ("TRAIN", str(HERE / self.train)), ("BUDGET", str(BUDGET))):
                text = text.replace(word, value)
            (folder / "glue.toml").write_text(text)
            words = ["-m", "ralr_tune", "run", "glue.toml", "--workers", "1", "--no-confirm", "--quiet", "--out", "out"]
            return [sys.executable, *words]
        return [sys.executable, str(HERE / self.file), str(folder), str(HERE / self.train), str(BUDGET)]

    def lines(self) -> int:
        """Without blank lines and comments."""
        own = code_lines(HERE / self.file)
        if self.train == "train.py":
            return len(own)
        before, after = code_lines(HERE / "train.py"), code_lines(HERE / self.train)
        added = [line for line in difflib.ndiff(before, after) if line.startswith("+ ")]
        return len(own) + len(added)


@dataclass
class Outcome:
    """One search that was killed once."""

    lost: int
    extra: int
    again: int
    held: bool
    seconds: float


def code_lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith(("#", '"""'))]


def of_optuna(folder: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database:
        rows = database.execute(
            "SELECT p.param_value FROM trials t JOIN trial_params p USING (trial_id) WHERE t.state = 'COMPLETE'"
        ).fetchall()
    return Counter(str(value) for (value,) in rows)


def of_ray(folder: Path) -> Counter[str]:
    path = folder / "results"
    found = (line.split() for line in path.read_text().splitlines()) if path.exists() else ()
    return Counter(lr for lr, epoch in found if int(epoch) == EPOCHS)


def of_sweep(folder: Path) -> Counter[str]:
    path = folder / "runs.jsonl"
    return (
        Counter(line for line in path.read_text().splitlines() if '"finished"' in line) if path.exists() else Counter()
    )


def of_ours(folder: Path) -> Counter[str]:
    with contextlib.closing(sqlite3.connect(folder / "out/study.db")) as database:
        rows = database.execute("SELECT id FROM ralr_tune_ledger WHERE outcome = 'complete'").fetchall()
    return Counter(str(number) for (number,) in rows)


GLUES = (
    Glue("Optuna by hand", "by_optuna.py", of_optuna),
    Glue("Ray Tune", "by_ray.py", of_ray),
    Glue("sweep agent", "by_sweep.py", of_sweep),
    Glue("ralr_tune", "ours.toml", of_ours, train="train_ours.py"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    kills = parser.parse_args().kills
    print(f"{'glue':<16}{'lines':>6}{'lost':>6}{'extra':>6}{'again':>6}{'held':>6}{'s, median':>11}")
    for glue in GLUES:
        if glue.name == "Ray Tune" and importlib.util.find_spec("ray") is None:
            print(f"{glue.name:<16}  Ray is not installed")
            continue
        found = [outcome(glue, seed) for seed in range(kills)]
        sums = [sum(getattr(each, key) for each in found) for key in ("lost", "extra", "again", "held")]
        median = statistics.median(each.seconds for each in found)
        print(f"{glue.name:<16}{glue.lines():>6}" + "".join(f"{total:>6}" for total in sums) + f"{median:>11.1f}")


def outcome(glue: Glue, seed: int) -> Outcome:
    """One search, killed once at the moment that `seed` draws."""
    folder = Path(tempfile.mkdtemp(prefix="ralr_tune-glue-"))
    log = folder / "epochs"
    log.touch()
    began = time.monotonic()
    killed_after = random.Random(seed).randint(1, BUDGET * EPOCHS - 1)
    with started(glue, folder, log) as search:
        ended = until(lambda: search.poll() is not None or len(log.read_text().splitlines()) >= killed_after)
        time.sleep(random.Random(f"{seed} within").uniform(0, 0.1))
    finished = False
    for _ in range(RESTARTS):
        with started(glue, folder, log) as search:
            ended = until(lambda: search.poll() is not None)
            finished = ended and search.returncode == 0
        if finished:
            break
    results = glue.results(folder)
    trained = Counter(log.read_text().splitlines())
    total = sum(results.values())
    found = Outcome(
        lost=max(0, BUDGET - total),
        extra=max(0, total - BUDGET),
        again=sum(count - 1 for count in trained.values()),
        held=not finished,
        seconds=time.monotonic() - began,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return found


@contextlib.contextmanager
def started(glue: Glue, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The search; on leaving, it and everything that it started are killed."""
    environment = {**os.environ, "GLUE_LOG": str(log), "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("ab") as output:
        search = subprocess.Popen(
            glue.command(folder), cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield search
    finally:
        kill_all(search.pid, folder)
        search.wait()


def kill_all(session: int, folder: Path) -> None:
    """Every process of the session, and those that were started in the folder and left it."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            mine = os.getsid(process.pid) == session or process.environ().get("GLUE_LOG", "").startswith(str(folder))
            if mine and process.pid != os.getpid():
                process.send_signal(signal.SIGKILL)


def until(condition: Callable[[], bool]) -> bool:
    """Whether the condition came true within LIMIT_S."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


if __name__ == "__main__":
    main()
