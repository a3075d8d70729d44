"""`python -m ralr_tune`: runs the command line and turns every exception into error lines and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from ralr_tune.cli import app
from ralr_tune.commands.arguments import conceal
from ralr_tune.commands.terminal import readable
from ralr_tune.errors import Interrupted, RalrTuneError, TrialError

_CLICK_ERROR = typer.BadParameter.__mro__[2]
"""ClickException: some versions of typer vendor it, others import it from click."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 it ran and failed, 2 wrong usage or study file, 130 interrupted (resumable)."""
    for warning in conceal(sys.orig_argv) if arguments is None else ():
        print(warning, file=sys.stderr)
    given = sys.argv[1:] if arguments is None else arguments
    if not sys.flags.safe_path and "" not in sys.path:
        # as `python -m` does, so that the installed script also finds `model = "my_package.networks:build"`
        sys.path.insert(0, "")
    debug = "--debug" in given
    sys.exit(_exit_code_of([argument for argument in given if argument != "--debug"], debug))


def _exit_code_of(arguments: list[str], debug: bool) -> int:
    try:
        code = app(arguments, prog_name="ralr-tune", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except RalrTuneError as error:
        return _print_error(error, str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _print_error(error, "interrupted", Interrupted.exit_code, debug)
    except BrokenPipeError:
        # the reader (head, less) closed the pipe; without this, Python reports the error again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if isinstance(error, _CLICK_ERROR):
            return _print_error(error, error.format_message(), 2, debug)  # type: ignore[attr-defined]
        hint = "this is a bug in ralr_tune: run the command again with --debug and report its output"
        return _print_error(error, f"{type(error).__name__}: {error} ({hint})", 1, debug)


def _print_error(error: BaseException, message: str, code: int, debug: bool) -> int:
    if debug:
        print(readable("".join(traceback.format_exception(error))), file=sys.stderr)
    elif isinstance(error, TrialError) and error.detail:
        print(readable(error.detail), file=sys.stderr)  # the traceback of the user's code, from another process
    for line in readable(message).splitlines() or [type(error).__name__]:
        print(f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
