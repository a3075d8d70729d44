"""The browser that draws PNG and SVG files, found as Kaleido finds it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ralr_tune.commands.health.check import Check

TIMEOUT_S = 10.0

_MEND = "install one (apt install chromium) or set BROWSER_PATH; only `report --png` and `--svg` need it"


def browser_check() -> Check:
    """Whether there is one and it starts."""
    from choreographer.browsers.chromium import Chromium

    path = Chromium.find_browser(skip_local=False)
    if path is None or not Path(path).is_file():
        named = os.environ.get("BROWSER_PATH")
        found = f"BROWSER_PATH is {named!r}, which is no file" if named else "no Chrome or Chromium"
        return Check("browser", "warning", found, _MEND)
    return _started(path)


def _started(path: str) -> Check:
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("browser", "warning", f"{path} does not start: {error}", _MEND)
    return Check("browser", "ok", f"{done.stdout.strip() or 'of unknown version'} ({path})")
