"""What the engine that started a worker says about its place."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

NODE_VARIABLES = ("SLURMD_NODENAME", "NODE_NAME")
"""The node: Slurm's, and that of deploy/kubernetes, where a pod's host name is the pod's."""
INDEX_VARIABLES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "SLURM_PROCID")
"""The number among equal workers: a task of a Slurm array, of an Indexed Job of Kubernetes, of one Slurm job."""


def node(environment: Mapping[str, str] = os.environ) -> str:
    """The name of the machine, as its engine knows it."""
    return next((environment[name] for name in NODE_VARIABLES if environment.get(name)), socket.gethostname())


def index(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this worker; 0 if nothing tells it."""
    numbers = (environment.get(name, "") for name in INDEX_VARIABLES)
    return next((int(number) for number in numbers if number.isdecimal()), 0)
