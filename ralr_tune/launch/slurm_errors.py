"""What Slurm's messages mean: one sentence that says what to do; Slurm's own wording comes last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from subprocess import CompletedProcess

NOT_A_NODE = "Slurm is installed here but not configured: run on a login node of the cluster, or set SLURM_CONF"
NO_CONTROLLER = "the controller of the cluster cannot be reached: is slurmctld running, and is this a login node?"

_MEANINGS: Sequence[tuple[str, str]] = (
    (r"configuration source|fetch_config|resolve_ctls|slurm\.conf", NOT_A_NODE),
    (r"contact slurm controller|connection refused|no answer within|timed out|connect failure", NO_CONTROLLER),
    (r"munge|authentication", "the cluster does not accept this machine: is munged running, with the cluster's key?"),
    (r"incompatible version|zero bytes", "this machine's Slurm and the cluster's are of different versions"),
    (
        r"account/partition|invalid account",
        "you may not use this account there; `sacctmgr show associations` lists yours",
    ),
    (r"partition", "no such partition, or you may not use it; `sinfo` lists them"),
    (r"qos", "you may not use this QOS; `sacctmgr show qos` lists them"),
    (
        r"time limit|time specification",
        "the time limit is none, or longer than the partition allows; `sinfo` shows how long",
    ),
    (r"generic resource|gres", "no node of the partition has such a gres; `sinfo -o '%P %G'` lists them"),
    (r"feature|constraint", "no node of the partition has this constraint; `sinfo -o '%P %f'` lists them"),
    (
        r"node configuration|too many|more processors",
        "no node of the partition has that much; `sinfo -N -l` lists them",
    ),
    (r"access|permission|denied", "you may not submit jobs there"),
)
"""Patterns in Slurm's messages of versions 20 to 25, in lower case; the first that is found counts."""


def explained(found: CompletedProcess[str]) -> str:
    """Why a command of Slurm failed, in a sentence, with its own words in parentheses."""
    raw = reason(found)
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, raw.lower()):
            return f"{meaning} (Slurm says: {raw})"
    return f"Slurm does not take the job (it says: {raw})"


def reason(found: CompletedProcess[str]) -> str:
    """The error messages of a command of Slurm on one line, without the program's name before each."""
    lines = [re.sub(r"^(\w+: )?(fatal: |error: )?", "", line.strip(), count=1) for line in found.stderr.splitlines()]
    return "; ".join(line for line in lines if line) or f"{found.args[0]} ended with exit code {found.returncode}"
