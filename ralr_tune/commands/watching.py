"""The progress display of `run` when it is called from Python: on a terminal, in a notebook, or nowhere."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from rich.console import Console

from ralr_tune.commands.progress import Display, plain_console


def is_watched() -> bool:
    """Whether the user sees what is printed: on a terminal or in a notebook, not in a log."""
    return in_notebook() or sys.stderr.isatty()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def display() -> Display:
    """A display for this place: without ipywidgets, rich cannot redraw in a notebook, so lines are printed there."""
    lines = in_notebook() and find_spec("ipywidgets") is None
    return Display(console=_lines() if lines else plain_console(stderr=True))


def _lines() -> Console:
    return Console(
        stderr=True, force_terminal=False, force_jupyter=False, markup=False, emoji=False, highlight=False, width=100
    )
