"""Light rooms: importing them imports no heavy package, so that `--help` answers at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "optuna", "plotly", "sqlalchemy")

LIGHT = (
    "ralr_tune",
    "ralr_tune.errors",
    "ralr_tune.seeds",
    "ralr_tune.records",
    "ralr_tune.bounds",
    "ralr_tune.machine.cores",
    "ralr_tune.machine.locks",
    "ralr_tune.machine.memory",
    "ralr_tune.schedules.curves",
    "ralr_tune.schedules.amplification",
    "ralr_tune.schedules.noise",
    "ralr_tune.schedules.rate",
    "ralr_tune.schedules.suggest",
    "ralr_tune.schedules.wrapper.draws",
    *(f"ralr_tune.studyfile.{path.stem}" for path in sorted((ROOT / "ralr_tune" / "studyfile").glob("[!_]*.py"))),
    "ralr_tune.tasks.base",
    "ralr_tune.client",
    "ralr_tune.child.trial",
    "ralr_tune.kinds.command.kind",
    "ralr_tune.kinds.simulated.kind",
    "ralr_tune.kinds.simulated.trial",
    "ralr_tune.kinds.classification.kind",
    "ralr_tune.kinds.detection.kind",
    "ralr_tune.kinds.simulated.task",
    *(f"ralr_tune.analysis.{path.stem}" for path in sorted((ROOT / "ralr_tune" / "analysis").glob("[!_]*.py"))),
)

PROBE = """
import importlib, json, sys
brought = {}
for module in sys.argv[2:]:
    before = set(sys.modules)
    importlib.import_module(module)
    brought[module] = [name for name in json.loads(sys.argv[1]) if name in sys.modules.keys() - before]
print(json.dumps(brought))
"""


def brought_along(*modules: str, path: Path = ROOT) -> dict[str, list[str]]:
    """The heavy packages that each module imports first, one module after the other in a new interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(HEAVY), *modules],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(path)},
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, list[str]] = json.loads(run.stdout)
    return {module: names for module, names in found.items() if names}


def test_light_modules_import_nothing_heavy() -> None:
    assert brought_along(*LIGHT) == {}


def test_the_check_above_can_fail(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")  # stands in for the real one, which takes seconds
    (tmp_path / "light.py").write_text("import json")
    (tmp_path / "heavy.py").write_text("import light, torch")
    assert brought_along("light", "heavy", path=tmp_path) == {"heavy": ["torch"]}
