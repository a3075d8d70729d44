"""Figures as PNG and SVG files, for a paper. Kaleido draws them in an installed Chromium."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ralr_tune.errors import RalrTuneError
from ralr_tune.report.figures import Figure

Format = Literal["png", "svg"]

WIDTH = 760
SCALE = 2  # pixels of a PNG per point
TIMEOUT_S = 90.0  # for each image


def write_images(drawn: Sequence[Figure], folder: Path, formats: Sequence[Format] = ("png", "svg")) -> list[Path]:
    """Writes FOLDER/NAME.FORMAT for each figure, in one browser; returns the paths.

    The browser is `$BROWSER_PATH`, otherwise the first Chrome or Chromium found. Kaleido starts it without a sandbox
    (containers offer none); it loads only these figures and has no network.
    Errors: RalrTuneError if there is no browser, or if it fails.
    """
    import kaleido
    from choreographer.errors import ChromeNotFoundError

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".images-", dir=folder) as temporary:
        wanted = [(figure, kind, Path(temporary) / f"{figure.name}.{kind}") for figure in drawn for kind in formats]
        try:
            kaleido.write_fig_from_object_sync(
                [_kaleido_job(figure, kind, path) for figure, kind, path in wanted],
                cancel_on_error=True,
                kopts={"mathjax": False, "timeout": TIMEOUT_S},
            )
        except ChromeNotFoundError as error:
            raise RalrTuneError(_no_browser()) from error
        except Exception as error:  # from kaleido, choreographer, asyncio or the system: no common base class
            reason = f"{type(error).__name__}: {error.args[0] if error.args else 'no reason given'}"
            raise RalrTuneError(f"images: the browser failed ({reason}); set BROWSER_PATH to another one") from error
        return [path.replace(folder / path.name) for _, _, path in wanted]


def _kaleido_job(figure: Figure, kind: Format, path: Path) -> dict[str, object]:
    opts = {"format": kind, "width": WIDTH, "height": figure.plot.layout.height, "scale": SCALE if kind == "png" else 1}
    return {"fig": figure.plot, "path": str(path), "opts": opts}


def _no_browser() -> str:
    named = os.environ.get("BROWSER_PATH")
    found = f"BROWSER_PATH is {named!r}, which is not a file" if named else "none was found"
    return f"images: Chrome or Chromium is needed, but {found}; install one (apt install chromium) or set BROWSER_PATH"
