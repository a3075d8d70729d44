"""Workers as tasks of a Ray cluster: plain tasks, so that Ray holds no state that the ledger does not have.

Each task starts a worker in a session of its own and waits for it in a loop. Whatever ends the task (`ray.cancel`, the
loss of its driver, SIGKILL of Ray's process) then ends the worker in order: by SIGTERM from the task, or because the
worker sees that its parent is gone. Ray runs a task again on another node if its own is lost, without limit.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ralr_tune.errors import Interrupted, UsageError
from ralr_tune.invocation import install
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import LAUNCHER_VARIABLE, Job, Launcher, LauncherOptions
from ralr_tune.launch.local import tail

log = logging.getLogger(__name__)

POLL_S = 0.1
"""Seconds between two checks of a worker by its task: `ray.cancel` interrupts Python code, but no system call."""
SAVE_S = 60.0
"""Seconds that a worker gets to save its state when its task is cancelled."""
KILLED = -9
"""The exit code of a task that failed without one."""


class RayOptions(LauncherOptions):
    """`--launcher-option KEY=VALUE`."""

    address: str = "auto"
    """The cluster: auto (RAY_ADDRESS, or the one on this machine), or ray://HOST:PORT, HOST:PORT."""
    node_ip: str | None = None
    """This machine's address in the cluster; None: as Ray finds it, which may fail with several networks."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """Cores of one worker, and its threads."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of one worker: 0, 1, or a share such as 0.25, of whose memory the worker takes no more."""
    resource: tuple[str, ...] = ()
    """NAME=AMOUNT: a custom resource of the cluster that each worker needs; may be repeated."""


class Ray(Launcher):
    """One task for each worker; logs in OUT/logs/worker-INDEX.log."""

    Options = RayOptions
    options: RayOptions
    remote: ClassVar[bool] = True

    def __init__(self, options: LauncherOptions | None = None) -> None:
        super().__init__(options)
        self._tasks: dict[int, Any] = {}
        self._codes: dict[int, int] = {}
        self._out: Path | None = None
        self._resources = _resources(self.options.resource)

    def places(self, devices: str, workers: int | None) -> list[Place]:
        """As many as `workers`, by default what the cluster has room for."""
        if workers is not None and workers < 1:
            raise UsageError(f"--workers {workers}: allowed: at least 1")
        if devices not in ("auto", "cpu"):
            raise UsageError(f"--devices {devices}: with --launcher ray, allowed: auto, cpu (gpus=1 asks for GPUs)")
        room = self._room(_connected(self.options))
        share = self.options.gpus if devices == "auto" else 0.0
        device = "cuda:0" if share else "cpu"  # Ray shows a task the GPUs that it has assigned, and no other
        sharing = round(1 / share) if 0 < share < 1 else 1
        return [Place(index, device, self.options.cpus, sharing) for index in range(workers or room)]

    def start(self, job: Job, place: Place) -> None:
        ray = _connected(self.options)
        self._out = job.out
        self._codes.pop(place.index, None)
        task = ray.remote(run_worker).options(
            name=f"ralr_tune {job.study} {place.index}",
            num_cpus=self.options.cpus,
            num_gpus=self.options.gpus if place.device != "cpu" else 0,
            resources=self._resources,
            max_retries=-1,
            scheduling_strategy="SPREAD",
        )
        # the environment as an argument: Ray writes that of `runtime_env` into its logs, with the password
        self._tasks[place.index] = task.remote(
            job.command(place), job.environment(place), str(_log(job.out, place.index))
        )

    def poll(self) -> dict[int, int | None]:
        waiting = {task: index for index, task in self._tasks.items() if index not in self._codes}
        if waiting:
            ray = _ray()
            ended, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
            self._codes |= {waiting[task]: _code(ray, task) for task in ended}
        return {index: self._codes.get(index) for index in self._tasks}

    def stop(self, timeout_s: float) -> None:
        running = [self._tasks[index] for index, code in self.poll().items() if code is None]
        if not running:
            return
        ray = _ray()
        for task in running:
            ray.cancel(task, force=False)
        _, left = ray.wait(running, num_returns=len(running), timeout=timeout_s)
        for task in left:
            ray.cancel(task, force=True)
        self.poll()

    def tail(self, index: int, lines: int = 20) -> str:
        return "\n".join(tail(_log(self._out, index), lines)) if self._out and index in self._tasks else ""

    def _room(self, ray: Any) -> int:
        """Workers that the cluster can run at once, at least one. Raises UsageError if it can never run any."""
        wanted = {"CPU": float(self.options.cpus), "GPU": self.options.gpus, **self._resources}
        has: Mapping[str, float] = ray.cluster_resources()
        for name, amount in wanted.items():
            if amount > has.get(name, 0.0):
                found = f"{has.get(name, 0.0):g}"
                raise UsageError(
                    f"--launcher ray: each worker needs {amount:g} {name}, and the whole cluster has {found}"
                )
        return max(1, int(min(has[name] // amount for name, amount in wanted.items() if amount)))


def run_worker(command: Sequence[str], environment: Mapping[str, str], log_file: str) -> int:
    """The task: one worker, to its exit code. Returns codes, since Ray retries a task that exits."""
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    with open(log_file, "ab") as output:
        worker = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment) | {LAUNCHER_VARIABLE: str(os.getpid())},
            start_new_session=True,  # Ray kills the process group of its own workers
        )
    try:
        while (code := worker.poll()) is None:
            time.sleep(POLL_S)
        return code
    except BaseException:  # ray.cancel raises KeyboardInterrupt here
        worker.terminate()
        return worker.wait(SAVE_S)


def _code(ray: Any, task: Any) -> int:
    try:
        return int(ray.get(task))
    except ray.exceptions.TaskCancelledError:
        return Interrupted.exit_code
    except ray.exceptions.RayError as error:
        log.warning("a task of Ray failed: %s", str(error).partition("\n")[0])
        return KILLED


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError(f"--launcher ray: ray is not installed; type: {install('ray')}") from None
    return ray


def _connected(options: RayOptions) -> Any:
    """The library, connected to the cluster."""
    ray = _ray()
    if ray.is_initialized():
        return ray
    own = {} if options.node_ip is None else {"_node_ip_address": options.node_ip}
    try:
        # without log_to_driver, which merges lines that differ in digits: logs are files
        ray.init(address=options.address, log_to_driver=False, logging_level=logging.WARNING, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"--launcher-option address={options.address}: no Ray cluster can be reached: {reason}"
        ) from error
    _log_messages(ray)
    return ray


def _log_messages(ray: Any) -> None:
    """What Ray says of lost nodes and tasks goes to the log, a line each. Ray prints it on stdout, where `run --json`
    prints its result, with dozens of lines of a node's state, and has no setting for it."""
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _log_message


def _log_message(data: Mapping[str, Any], **_: object) -> None:
    for message in data["lines"]:
        log.warning("Ray: %s", str(message).partition("\n")[0].partition(". ")[0])


def _resources(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, equals, amount = text.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise UsageError(f"--launcher-option resource={text}: allowed: NAME=AMOUNT")
    return found


def _log(out: Path, index: int) -> Path:
    return out / "logs" / f"worker-{index}.log"
