"""Workers as the tasks of a Slurm array job.

One script serves all workers. Slurm itself starts a task again after preemption or the loss of a node; the script does
so when its time limit is near, for its own task only (`scontrol requeue` on a bare job id would requeue the whole
array). What a worker's exit code was, the script leaves in a file, since `sacct` needs a database that many sites lack.

    user's run --sbatch--> script --> worker        TERM (scancel, preemption): the worker saves, frees its row, ends
                                                    USR1 (time limit is near): the same, and the task is requeued
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from ralr_tune.errors import Interrupted, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Ending, Job, Launcher, LauncherOptions
from ralr_tune.launch.local import tail
from ralr_tune.launch.slurm_errors import explained, reason
from ralr_tune.machine.files import write, writing
from ralr_tune.store.address import PASSWORD_VARIABLE
from ralr_tune.store.location import STORAGE_VARIABLE
from ralr_tune.studyfile.values import problem

log = logging.getLogger(__name__)

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
TIMEOUT_S = 60.0
"""Of one Slurm command; a busy controller answers late."""
GRACE_S = 15.0
"""Seconds after a task has left the queue in which its exit code may appear: shared folders show new files late."""
CANCELLED = -15
"""The exit code of a task that left the queue after a stop that `run` did not ask for: `scancel`, or preemption on a
site that does not requeue."""
KILLED = -9
"""The exit code of a task that left the queue without one."""


def _one_line(value: str) -> str:
    if "\n" in value or not value.strip():
        raise problem("must be one line of text")
    return value.strip()


Line = Annotated[str, AfterValidator(_one_line)]


class SlurmOptions(LauncherOptions):
    """`--launcher-option KEY=VALUE`."""

    partition: Line | None = None
    account: Line | None = None
    time: Line | None = None
    """Time limit of one task, as sbatch takes it (04:00:00); what does not end within it is requeued."""
    gres: Line | None = None
    """Generic resources of one task, such as gpu:1; with it, workers use the GPU that Slurm assigns."""
    constraint: Line | None = None
    cpus: Annotated[int, Field(ge=1)] = 1
    """Cores of one task, and threads of its worker."""
    warn_s: Annotated[int, Field(ge=1, le=65535)] = 120
    """Seconds before the time limit at which a worker is asked to save its state; Slurm may be up to a minute early."""
    poll_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two calls of squeue."""
    line: tuple[Line, ...] = ()
    """Further lines of the script, before the worker starts: `#SBATCH ...`, `module load cuda`, ..."""
    dry_run: bool = False
    """Print the script and submit nothing."""


class Slurm(Launcher):
    """`sbatch`, `squeue` and `scancel`. Files are in OUT/slurm, logs in OUT/logs/worker-INDEX.log."""

    Options = SlurmOptions
    options: SlurmOptions
    remote: ClassVar[bool] = True
    needs_out: ClassVar[bool] = True
    poll_s: ClassVar[float] = 0.5

    def __init__(self, options: LauncherOptions | None = None) -> None:
        super().__init__(options)
        self.dry_run = self.options.dry_run
        self._waiting: dict[int, Place] = {}
        """Places whose workers are not submitted yet: one sbatch submits all of them."""
        self._job: Job | None = None
        self._tasks: dict[int, str] = {}
        """Slurm's ARRAY_TASK by place index."""
        self._gone: dict[int, float] = {}
        """When a task was first missing in the queue."""
        self._stopping = False
        self._queue: frozenset[str] = frozenset()
        self._next_reading = 0.0

    def places(self, devices: str, workers: int | None) -> list[Place]:
        """As many as `workers`, by default one; `devices`: auto is what Slurm assigns, or cpu without `gres`."""
        if workers is not None and workers < 1:
            raise UsageError(f"--workers {workers}: allowed: at least 1")
        if devices not in ("auto", "cpu"):
            raise UsageError(f"--devices {devices}: with --launcher slurm, allowed: auto, cpu (gres asks for GPUs)")
        device = "auto" if devices == "auto" and self.options.gres else "cpu"
        if not self.options.dry_run:
            self._check_engine()
        return [Place(index, device, self.options.cpus) for index in range(workers or 1)]

    def preview(self, job: Job, places: Sequence[Place]) -> str:
        return script(job, places, self.options)

    def start(self, job: Job, place: Place) -> None:
        self._stopping = False
        self._job = job
        self._gone.pop(place.index, None)
        if self._tasks.pop(place.index, None) is None and (task := self._left_behind(place.index)):
            log.info("worker %d: already in the queue as job %s", place.index, task)
            self._tasks[place.index] = task
            return
        self._waiting[place.index] = place

    def poll(self) -> dict[int, int | None]:
        self._submit()
        if self._tasks and time.monotonic() >= self._next_reading:
            self._read_queue()
        return {index: self._code(index) for index in self._tasks}

    def ending(self, code: int) -> Ending:
        return Ending.cancelled if code == CANCELLED else super().ending(code)

    def stop(self, timeout_s: float) -> None:
        """Workers get SIGTERM and no deadline of Slurm's; what is still in the queue after `timeout_s` is cancelled."""
        self._stopping = True
        self._waiting.clear()
        deadline = time.monotonic() + timeout_s
        self._read_queue()
        running = [task for index, task in self._tasks.items() if self._code(index) is None]
        if running:
            _run(["scancel", "--state=PENDING", *running])
            _run(["scancel", "--state=RUNNING", "--signal=TERM", "--full", *running])
        while self._unfinished() and time.monotonic() < deadline:
            time.sleep(min(self.options.poll_s, 1.0))
        if left := self._unfinished():
            _run(["scancel", *left])

    def tail(self, index: int, lines: int = 20) -> str:
        return "\n".join(tail(_log(self._job.out, index), lines)) if self._job and index in self._tasks else ""

    def _check_engine(self) -> None:
        """Raises UsageError if Slurm is missing or unreachable, or refuses the options."""
        for name in COMMANDS:
            if shutil.which(name) is None:
                raise UsageError(
                    f"--launcher slurm: Slurm is not installed here ({name} is missing); run on a login node"
                )
        example = "\n".join(["#!/bin/bash", *_directives(self.options), "true", ""])
        found = _run(["sbatch", "--test-only"], example)
        if found.returncode:
            given = self.options.model_dump(
                exclude_none=True, include={"partition", "account", "time", "gres", "constraint"}
            )
            shown = ", ".join(f"{key}={value}" for key, value in given.items()) or "no options"
            raise UsageError(f"--launcher slurm ({shown}): {explained(found)}")

    def prepare(self, job: Job, places: Sequence[Place]) -> str:
        return shlex.join(["sbatch", str(self._write(job, places))])

    def _submit(self) -> None:
        """All waiting places as one array."""
        if not self._waiting or self._job is None:
            return
        places = list(self._waiting.values())
        found = _run(["sbatch", "--parsable"], self._write(self._job, places).read_text())
        if found.returncode:
            raise UsageError(f"--launcher slurm: {explained(found)}")
        number = found.stdout.strip().partition(";")[0]  # JOB[;CLUSTER]
        self._tasks |= {index: f"{number}_{index}" for index in self._waiting}
        log.info("submitted job %s with %d workers", number, len(places))
        self._waiting.clear()
        self._next_reading = 0.0
        write(_folder(self._job.out) / "tasks.json", json.dumps(self._tasks).encode())

    def _write(self, job: Job, places: Sequence[Place]) -> Path:
        """The script and the files that it reads. Raises DiskError."""
        folder, logs = _folder(job.out), _log(job.out, 0).parent
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            logs.mkdir(parents=True, exist_ok=True)
        for place in places:
            job.write_environment(place, folder / f"environment-{place.index}.sh")
            _code_file(job.out, place.index).unlink(missing_ok=True)
        write(folder / "workers.sbatch", script(job, places, self.options).encode())
        return folder / "workers.sbatch"

    def _left_behind(self, index: int) -> str | None:
        """The task of an earlier `run` of this study that was killed, if it is still in the queue."""
        assert self._job is not None
        try:
            task = json.loads((_folder(self._job.out) / "tasks.json").read_bytes()).get(str(index))
        except (OSError, ValueError, AttributeError):
            return None
        if not isinstance(task, str) or not re.fullmatch(r"\d+_\d+", task):
            return None
        self._read_queue()
        return task if task in self._queue else None

    def _read_queue(self) -> None:
        """Reads the queue. If Slurm does not answer, the last answer stands."""
        self._next_reading = time.monotonic() + self.options.poll_s
        found = _run(["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i"])
        if found.returncode:
            log.warning("squeue failed (%s); asking again in %g s", reason(found), self.options.poll_s)
            return
        self._queue = frozenset(found.stdout.split())
        now = time.monotonic()
        for index, task in self._tasks.items():
            if task in self._queue:
                self._gone.pop(index, None)
            else:
                self._gone.setdefault(index, now)

    def _code(self, index: int) -> int | None:
        """The exit code of a task that has left the queue; a task in the queue runs, waits, or will be requeued."""
        if index not in self._gone or self._job is None:
            return None
        code = _read_code(_code_file(self._job.out, index))
        if code is None:
            if not self._stopping and time.monotonic() - self._gone[index] < GRACE_S:
                return None
            return Interrupted.exit_code if self._stopping else KILLED
        return CANCELLED if code == Interrupted.exit_code and not self._stopping else code

    def _unfinished(self) -> list[str]:
        self._read_queue()
        return [task for index, task in self._tasks.items() if index not in self._gone]


# ---------------------------------------------------------------- the script


def script(job: Job, places: Sequence[Place], options: SlurmOptions) -> str:
    """The array script of these places. It holds no secret: the storage URL is in a file that only its owner reads."""
    folder = shlex.quote(str(_folder(job.out)))
    numbers = ",".join(str(place.index) for place in places)
    output = str(_log(job.out, 0)).replace("%", "%%").removesuffix("worker-0.log") + "worker-%a.log"
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name=ralr_tune-{job.study}",
        f"#SBATCH --array={numbers}",
        f"#SBATCH --output={_quoted(output)}",
        *_directives(options),
        "",
        f"code_file={folder}/code-$SLURM_ARRAY_TASK_ID",
        'rm -f "$code_file" "$code_file.new"     # of this task before it was requeued',
        f". {folder}/environment-$SLURM_ARRAY_TASK_ID.sh || exit 1",
        "",
        "again=",
        "trap : TERM                             # Slurm signals the worker, too: once is enough",
        "trap 'again=1; kill -TERM 0' USR1       # the time limit is near",
        "# in a subshell: when a trap ends `wait`, bash may lose the exit code of the process that it waited for",
        f'( trap : TERM; {_command(job, places[0])}; echo $? > "$code_file.new" ) &',
        "while kill -0 $! 2>/dev/null; do wait $!; done",
        'code=$(cat "$code_file.new" 2>/dev/null || echo 137)',
        "",
        "# 143: the signal came before the worker could handle it",
        'if [ "$again" ] && { [ $code = 130 ] || [ $code = 143 ]; }; then',
        '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" && sleep 60',
        "    code=143                            # it could not be requeued: `run` submits it again",
        "fi",
        'echo $code > "$code_file.new" && mv "$code_file.new" "$code_file"',
        "exit $code",
        "",
    ]
    return "\n".join(lines)


def _directives(options: SlurmOptions) -> list[str]:
    """The lines of the script that any job with these options has; the user's own come last, and win."""
    asked = options.model_dump(exclude_none=True, include={"partition", "account", "time", "gres", "constraint"})
    settings = {key: _quoted(str(value)) for key, value in asked.items()}
    settings |= {"ntasks": "1", "cpus-per-task": str(options.cpus), "open-mode": "append"}
    settings |= {"signal": f"B:USR1@{options.warn_s}"}
    own = sorted(options.line, key=lambda line: not line.startswith("#SBATCH"))  # sbatch reads none after a command
    return [*(f"#SBATCH --{key}={value}" for key, value in settings.items()), "#SBATCH --requeue", *own]


def _command(job: Job, place: Place) -> str:
    """The worker's command; the index of the place is the task's."""
    words = job.command(place)
    at = words.index("--index") + 1
    return " ".join([*map(shlex.quote, words[:at]), '"$SLURM_ARRAY_TASK_ID"', *map(shlex.quote, words[at + 1 :])])


def _quoted(value: str) -> str:
    """A value of a directive: sbatch splits it at spaces, unless it is in double quotes."""
    return (
        value if re.fullmatch(r"[\w./:,=%+@-]*", value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


# ---------------------------------------------------------------- files and commands


def _folder(out: Path) -> Path:
    return out / "slurm"


def _log(out: Path, index: int) -> Path:
    return out / "logs" / f"worker-{index}.log"


def _code_file(out: Path, index: int) -> Path:
    return _folder(out) / f"code-{index}"


def _read_code(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """One Slurm command. A job inherits no secret of this process: Slurm stores the environment of jobs."""
    try:
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=_without_secrets(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {TIMEOUT_S:g} s")


def _without_secrets() -> dict[str, str]:
    """This process's environment without the storage URL and its password, which the script reads from a file."""
    return {name: value for name, value in os.environ.items() if name not in (STORAGE_VARIABLE, PASSWORD_VARIABLE)}
