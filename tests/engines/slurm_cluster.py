"""A real Slurm on this machine: one controller and three nodes on loopback, without systemd, everything in one folder.

Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. Every daemon is ended by its process id.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.waiting import until

NODES = ("n0", "n1", "n2")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")


def obstacle() -> str | None:
    """Why Slurm cannot run here; None if it can."""
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}; on Debian: apt-get install slurmctld slurmd slurm-client munge"
    return None if os.geteuid() == 0 else "the daemons of Slurm need root"


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Inside, sbatch and its siblings use this Slurm (by SLURM_CONF)."""
    made = Cluster(folder)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(made.configuration)
    try:
        made.start()
        yield made
    finally:
        made.end()
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


class Cluster:
    """Its daemons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        for name in ("munge", "socket", "state", "log"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o700 if name == "munge" else 0o755)
        (folder / "munge/key").write_bytes(os.urandom(1024))
        (folder / "munge/key").chmod(0o400)
        self.configuration.write_text(_configuration(folder, *_free_ports(1 + len(NODES))))

    def start(self) -> None:
        kept = {name: str(self.folder / "munge" / name) for name in ("key", "log", "seed")}
        munge = [f"--key-file={kept['key']}", f"--log-file={kept['log']}", f"--seed-file={kept['seed']}"]
        munge += [f"--socket={self.folder}/socket/munge.sock", f"--pid-file={self.folder}/munge.pid", "--num-threads=1"]
        _called("munged", "--force", *munge)
        _called("slurmctld", "-c", "-f", str(self.configuration))
        for node in NODES:
            self.start_node(node)
        until(
            lambda: set(self.called("sinfo", "-h", "-o", "%T").split()) == {"idle"}, "all nodes are idle", within_s=60
        )

    def start_node(self, node: str) -> None:
        _called("slurmd", "-c", "-f", str(self.configuration), "-N", node)

    def kill_node(self, node: str) -> None:
        """The daemon of a node alone: the job goes on, and Slurm takes the node for lost."""
        with suppress(OSError, ValueError):
            os.kill(int((self.folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)

    def called(self, *command: str, check: bool = True) -> str:
        return _called(*command, check=check)

    def running(self) -> list[str]:
        """ARRAY_TASK of every running worker."""
        return self.called("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i", "-p", "main").split()

    def hurry(self) -> None:
        """Requeued jobs would wait for two minutes."""
        for task in self.called("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i").split():
            self.called("scontrol", "update", f"jobid={task}", "StartTime=now", check=False)

    def end(self) -> None:
        with suppress(subprocess.SubprocessError):
            _called("scancel", "--user=root", check=False)
            until(lambda: not _called("squeue", "-h", check=False), "the queue is empty", within_s=60)
        for file in sorted(self.folder.glob("*.pid"), key=lambda file: file.name == "munge.pid"):
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def _called(*command: str, check: bool = True) -> str:
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if check and found.returncode:
        raise RuntimeError(f"{' '.join(command)}: {found.stderr}")
    return found.stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _configuration(folder: Path, controller: int, *nodes: int) -> str:
    host = socket.gethostname().partition(".")[0]
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={controller}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/socket/munge.sock",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "ReturnToService=2",
        "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "JobRequeue=1",
        "KillWait=5",
        "SlurmdTimeout=10",
        "AccountingStorageType=accounting_storage/none",
        "JobAcctGatherType=jobacct_gather/none",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        *(f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"
          for name, port in zip(NODES, nodes, strict=True)),
        "PartitionName=main Nodes=n[0-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5",
        "PartitionName=high Nodes=n[0-2] Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
