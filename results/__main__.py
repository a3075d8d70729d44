"""`python -m results`: runs the studies of docs/results.md that have no stored record, one after the other.

A study that was stopped or killed resumes from runs/NAME. When its verdict stands, its record is stored as
results/NAME.json.gz, and the generated parts of the documents are made again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ralr_tune.machine.files import replacing
from ralr_tune.report.words import duration
from ralr_tune.store.location import STORAGE_VARIABLE
from results.planned import ROOT, STUDIES, Planned, named

INTERRUPTED = 130
DATA = {"cifar100.npz": "cifar100.npz", "grocery": "grocery", "bccd": "bccd", "multi30k": "multi30k/raw"}
"""What the studies read in data/, and where it lies in the folder of --data."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m results", description=str(__doc__).partition("\n")[0])
    parser.add_argument("study", nargs="*", help="names of studies  [default: all without a stored record]")
    parser.add_argument("--workers", type=int, help="worker processes  [default: one per core or GPU]")
    parser.add_argument("--data", type=Path, help="a folder with the data sets, which data/ then links to")
    parser.add_argument("--plan", action="store_true", help="only say what the studies would cost")
    parser.add_argument("--file", action="store_true", help="only print the files of the studies")
    parser.add_argument("--page", action="store_true", help="only make the generated parts of the documents again")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.study if named(name) is None]:
        parser.error(f"{', '.join(unknown)}: no such study; known: {', '.join(each.name for each in STUDIES)}")
    if given.data is not None:
        link_data(given.data)
    if given.page:
        _write_pages()
        return 0
    chosen = [each for each in STUDIES if (each.name in given.study if given.study else _is_due(each))]
    if given.file:
        print(*(each.text() for each in chosen), sep="\n", end="")
        return 0
    failed = [each.name for each in chosen if not _finish(each, given.workers, only_plan=given.plan)]
    if failed:
        print(f"error: not finished: {', '.join(failed)}; the messages above say why", file=sys.stderr)
    return 1 if failed else 0


def link_data(folder: Path) -> None:
    """Makes data/NAME a link to each data set of `folder` that is not in data/ yet."""
    (ROOT / "data").mkdir(exist_ok=True)
    for name, there in DATA.items():
        if (folder / there).exists() and not (ROOT / "data" / name).exists():
            (ROOT / "data" / name).symlink_to((folder / there).resolve())


def _is_due(planned: Planned) -> bool:
    return not planned.on_gpu and not planned.record.exists()


def _finish(planned: Planned, workers: int | None, *, only_plan: bool) -> bool:
    """Says what a study costs, runs it, and stores its record. Ctrl-C ends everything; the same command resumes."""
    out = ROOT / "runs" / planned.name
    file = study_file(planned, out)
    more = [] if workers is None else ["--workers", str(workers)]
    begun = (out / "study.db").exists()
    if not announce(planned, file, out, more, begun) or only_plan:
        return only_plan
    if code := _run(file, out, more):
        if code == INTERRUPTED:
            sys.exit(INTERRUPTED)
        return False
    stage = json.loads(_program("status", planned.name, "--out", out, "--json").stdout)["stage"]
    if stage != "done":
        print(f"{planned.name}: its verdict does not stand yet ({stage}); the same command resumes it", file=sys.stderr)
        return False
    stored = _program("export", planned.name, "--out", out, "--record", planned.record)
    if stored.returncode:
        return False
    _write_pages()
    return True


def study_file(planned: Planned, out: Path) -> Path:
    """The file to run: the study's own, or a copy with its changes."""
    if not (planned.changes or planned.suffix):
        return ROOT / planned.file
    path = out / "study.toml"
    with replacing(path) as temporary:
        temporary.write_text(planned.text())
    return path


def announce(planned: Planned, file: Path, out: Path, more: Sequence[str], begun: bool) -> bool:
    """Prints what the whole study costs; returns whether it can be run."""
    made = _program("plan", file, "--out", out, "--json", *more)
    if made.returncode:
        return False
    plan = json.loads(made.stdout)
    likely, most = (plan[key] for key in ("expected_seconds", "seconds"))
    time = "unknown before the first trial" if likely is None else f"about {duration(likely)}, at most {duration(most)}"
    on = f"{plan['workers']} worker{'' if plan['workers'] == 1 else 's'} ({plan['device']})"
    print(f"{planned.name}: {planned.about}. In all {time} on {on}; {'resumes' if begun else 'begins'}.", flush=True)
    return True


def _run(file: Path, out: Path, more: Sequence[str]) -> int:
    """Runs the study; Ctrl-C is passed on, and waits until everything is saved."""
    process = subprocess.Popen(_words("run", file, "--out", out, *more), cwd=ROOT, env=_environment())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # a terminal has sent it already; a repetition means the same


def _program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the program in the project's folder and returns what it prints; its errors are shown."""
    return subprocess.run(_words(*words), cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True, check=False)


def _words(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "ralr_tune", *map(str, words)]


def _environment() -> dict[str, str]:
    """Each study is stored in its own folder, whatever database is set."""
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {name: value for name, value in os.environ.items() if name != STORAGE_VARIABLE} | {"PYTHONPATH": search}


def _write_pages() -> None:
    from results.page import write_pages  # heavy, and not needed before a study is done

    for path in write_pages():
        print(f"Wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
