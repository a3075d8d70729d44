"""The browser that renders PNG and SVG files, searched for in the same way as Kaleido does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ralr_tune.commands.health.check import Check

TIMEOUT_S = 10.0

_FIX = "install one (apt install chromium) or set BROWSER_PATH; only `report --png` and `report --svg` need it"


def browser_check() -> Check:
    """Check that a browser is installed and starts."""
    from choreographer.browsers.chromium import Chromium

    path = Chromium.find_browser(skip_local=False)
    if path is None or not Path(path).is_file():
        named = os.environ.get("BROWSER_PATH")
        found = f"BROWSER_PATH is {named!r}, which is not a file" if named else "no Chrome or Chromium"
        return Check("browser", "warning", found, _FIX)
    return _start_check(path)


def _start_check(path: str) -> Check:
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("browser", "warning", f"{path} does not start: {error}", _FIX)
    return Check("browser", "ok", f"{done.stdout.strip() or 'unknown version'} ({path})")
