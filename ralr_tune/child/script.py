"""Exports a configuration of a program as a script that trains it once: what a study would give it, written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from ralr_tune.child.kind import changes_by_step, plan_of, values_of
from ralr_tune.errors import UsageError
from ralr_tune.script.text import OTHER_FORMATS, literal, wrapped
from ralr_tune.studyfile.exported import Exported

DEVICE, FOLDER = "@DEVICE@", "@FOLDER@"
"""Stand for values that are known only when the script runs."""

_SCRIPT = Template('''\
"""Trains one configuration on train + validation data and reports its test value once.

$lines

Written by `python -m ralr_tune export --format python`. Usage, in the folder of your code: python SCRIPT [DEVICE]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
$imports
DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
FOLDER = Path(__file__).with_suffix("").absolute()

TRIAL = $trial


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    description = FOLDER / "trial.json"
    description.write_text(json.dumps({**TRIAL, "device": DEVICE, "folder": str(FOLDER)}))
    os.environ["RALR_TUNE_TRIAL"] = str(description)
$run

if __name__ == "__main__":
    main()
''')

_COMMAND = Template("""\
    command = $command
    words = [word.replace("@DEVICE@", DEVICE).replace("@FOLDER@", str(FOLDER)) for word in command]
    sys.exit(subprocess.call(words))
""")


def command_script(exported: Exported, command: Sequence[str]) -> str:
    """`command`: the command line, with DEVICE and FOLDER in place of these values."""
    words = wrapped(literal(list(command)), indent=4, used=len("    command = "))
    return _script(exported, imports="import subprocess\n", run=_COMMAND.substitute(command=words))


def function_script(exported: Exported, target: str) -> str:
    """`target`: the function's import path."""
    module, _, name = target.partition(":")
    imports = f"\nimport ralr_tune\nfrom {module} import {name.partition('.')[0]}\n"
    return _script(exported, imports=imports, run=f"    {name}(ralr_tune.trial())\n")


def script_values(exported: Exported) -> dict[str, Any]:
    """What the program gets, by name."""
    own = exported.task.model_dump().get("params", {})
    seed = exported.provenance.seed
    return values_of(own, exported.configuration(), seed=seed, device=DEVICE, split="train+validation")


def _script(exported: Exported, *, imports: str, run: str) -> str:
    trial = wrapped(literal(_description(exported)), used=len("TRIAL = "))
    return _SCRIPT.substitute(lines="\n".join(exported.lines()), imports=imports, trial=trial, run=run)


def _description(exported: Exported) -> Mapping[str, Any]:
    """The trial's description (see child.plan), without what the script adds."""
    configuration = exported.configuration()
    if changes_by_step(configuration):
        raise UsageError(f'granularity = "step": a script has one rate for each epoch; {OTHER_FORMATS}, and `train` it')
    values = script_values(exported)
    plan = plan_of(configuration, values, "test", seed=exported.provenance.seed)
    schedule = plan.schedule(1)
    return {
        "token": "",
        "stage": "test",
        "first_epoch": 1,
        "epochs": plan.epochs,
        "checkpoint": None,
        **{key: value for key, value in values.items() if key != "device"},
        "base": [rate for (rate,) in schedule.base],
        "factors": [factor for (factor,) in schedule.factors],
    }
