"""`python -m ralr_tune`: runs the command line and turns every error of ours into one line and an exit code."""

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
"""ClickException, which typer carries inside itself in some versions and takes from click in others."""


def main(arguments: list[str] | None = None) -> None:
    """Parse, do, exit: 0 done, 1 it ran and failed, 2 wrong usage or study file, 130 interrupted (and resumable)."""
    for warning in conceal(sys.orig_argv) if arguments is None else ():
        print(warning, file=sys.stderr)
    given = sys.argv[1:] if arguments is None else arguments
    if not sys.flags.safe_path and "" not in sys.path:
        # as `python -m` does, so that `model = "my_package.networks:build"` is found by the installed script, too
        sys.path.insert(0, "")
    debug = "--debug" in given
    sys.exit(_guarded([argument for argument in given if argument != "--debug"], debug))


def _guarded(arguments: list[str], debug: bool) -> int:
    try:
        code = app(arguments, prog_name="ralr-tune", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except RalrTuneError as error:
        return _tell(error, str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _tell(error, "interrupted", Interrupted.exit_code, debug)
    except BrokenPipeError:
        # the reader (head, less) has had enough; Python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if isinstance(error, _CLICK_ERROR):
            return _tell(error, error.format_message(), 2, debug)  # type: ignore[attr-defined]
        hint = "this is a defect of ralr_tune: run again with --debug and report what it prints"
        return _tell(error, f"{type(error).__name__}: {error} ({hint})", 1, debug)


def _tell(error: BaseException, message: str, code: int, debug: bool) -> int:
    if debug:
        print(readable("".join(traceback.format_exception(error))), file=sys.stderr)
    elif isinstance(error, TrialError) and error.detail:
        print(readable(error.detail), file=sys.stderr)  # of the user's own code, in another process
    for line in readable(message).splitlines() or [type(error).__name__]:
        print(f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
