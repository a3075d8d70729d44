"""A worker that an engine started finds its node and number."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

from ralr_tune.launch.engine import index, node


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (socket.gethostname(), 0)),
        ({"SLURMD_NODENAME": "gpu7", "SLURM_ARRAY_TASK_ID": "12", "SLURM_PROCID": "0"}, ("gpu7", 12)),
        ({"SLURMD_NODENAME": "gpu7", "SLURM_PROCID": "3"}, ("gpu7", 3)),
        ({"NODE_NAME": "node-a", "JOB_COMPLETION_INDEX": "5"}, ("node-a", 5)),
        ({"NODE_NAME": "", "JOB_COMPLETION_INDEX": "x"}, (socket.gethostname(), 0)),
    ],
)
def test_node_and_number(environment: Mapping[str, str], expected: tuple[str, int]) -> None:
    assert (node(environment), index(environment)) == expected
