"""The commands: options, help, and printing. `commands/` does the work; each module is imported when its command runs.

These modules import no heavy package (torch, optuna, plotly, sqlalchemy), so that `--help` is fast; a test checks this.
"""

from __future__ import annotations

import logging

import typer

from ralr_tune.cli import planning, results, running, upkeep
from ralr_tune.invocation import command

app = typer.Typer(
    help="Does RALR (amplifying the learning rate at random) help on your task? Find out with a fair search.",
    epilog=f"Start with: {command('run', 'digits')}    (--debug after any command shows tracebacks)",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

for part in (running, planning, results, upkeep):  # in the order of --help
    app.add_typer(part.group)


@app.callback()
def _main() -> None:
    from ralr_tune.secrecy import HidingFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(HidingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
