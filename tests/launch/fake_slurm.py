"""sbatch, squeue, scancel and scontrol that run jobs as processes of this machine, for tests without Slurm.

They know what `launch/slurm.py` uses, and fail on anything else. tests/engines has the same tests with a real Slurm.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "FAKE_SLURM"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Puts the four commands first on the PATH; their state is in `folder`."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        (commands / name).write_text(
            f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name='{name}')\n"
        )
        (commands / name).chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")


def sbatch(folder: Path, arguments: list[str]) -> str:
    text = sys.stdin.read()
    directives = dict(line[10:].partition("=")[::2] for line in text.splitlines() if line.startswith("#SBATCH --"))
    if directives.get("partition") == "nope":
        sys.exit("sbatch: error: invalid partition specified: nope")
    if arguments == ["--test-only"]:
        return ""
    assert arguments == ["--parsable"], arguments
    (folder / "environment").write_text(str(dict(os.environ)))  # what Slurm would store
    job = str(1000 + len(list(folder.glob("*.sbatch"))))
    (folder / f"{job}.sbatch").write_text(text)
    for index in directives["array"].split(","):
        begin(folder, job, index, directives["output"].strip('"').replace("%a", index))
    return f"{job};test"


def begin(folder: Path, job: str, index: str, output: str) -> None:
    environment = os.environ | {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": index, "SLURM_JOB_ID": job}
    with open(output, "ab") as log:
        script = ["bash", str(folder / f"{job}.sbatch")]
        made = subprocess.Popen(script, env=environment, stdout=log, stderr=log, start_new_session=True)
    (folder / f"{job}_{index}").write_text(str(made.pid))


def squeue(folder: Path, arguments: list[str]) -> str:
    assert {"--noheader", "--array", "--format=%i"} <= set(arguments), arguments
    return "\n".join(file.name for file in folder.glob("*_*") if alive(int(file.read_text())))


def scancel(folder: Path, arguments: list[str]) -> str:
    options = {each for each in arguments if each.startswith("--")}
    if "--state=PENDING" in options:
        return ""  # none ever waits
    for task in set(arguments) - options:
        pid = int((folder / task).read_text())
        if alive(pid):
            os.killpg(pid, signal.SIGTERM)
    return ""


def scontrol(folder: Path, arguments: list[str]) -> str:
    sys.exit(f"scontrol {arguments}: this fake does not requeue")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ in (commands := {each.__name__: each for each in (sbatch, squeue, scancel, scontrol)}):
    print(commands[__name__](Path(os.environ[VARIABLE]), sys.argv[1:]))
