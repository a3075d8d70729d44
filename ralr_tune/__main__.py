"""`python -m ralr_tune`: runs the command line and turns every error of ours into one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from typing import TextIO

import typer

from ralr_tune.cli import app
from ralr_tune.commands.arguments import conceal
from ralr_tune.commands.terminal import readable
from ralr_tune.errors import Interrupted, RalrTuneError, TrialError

_CLICK_ERROR = typer.BadParameter.__mro__[2]
"""ClickException, which typer carries inside itself in some versions and takes from click in others."""

_OUTPUT_LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


def main(arguments: list[str] | None = None) -> None:
    """Parse, do, exit: 0 done, 1 it ran and failed, 2 wrong usage or study file, 130 interrupted (and resumable)."""
    for warning in conceal(sys.orig_argv) if arguments is None else ():
        print(warning, file=sys.stderr)
    given = sys.argv[1:] if arguments is None else arguments
    if not sys.flags.safe_path and "" not in sys.path:
        # as `python -m` does, so that `model = "my_package.networks:build"` is found by the installed script, too
        sys.path.insert(0, "")
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_guarded([argument for argument in given if argument != "--debug"], debug))


def _guarded(arguments: list[str], debug: bool) -> int:
    try:
        code = app(arguments, prog_name="ralr-tune", standalone_mode=False)
        _flush()
        return code if isinstance(code, int) else 0
    except RalrTuneError as error:
        return _tell(error, str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _tell(error, "interrupted", Interrupted.exit_code, debug)
    except BrokenPipeError:
        _discard(sys.stdout)  # the reader (head, less) has had enough
        return 0
    except Exception as error:
        return _tell(error, *_unexpected(error), debug)


def _unexpected(error: Exception) -> tuple[str, int]:
    """What is said of an error that is none of ours, and the exit code."""
    if isinstance(error, _CLICK_ERROR):
        return error.format_message(), 2  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_LOST:
        _discard(sys.stdout)  # what fails with a file is an error of ours, so this was a stream
        return f"the output cannot be written: {error.strerror}", 1
    hint = "this is a defect of ralr_tune: run again with --debug and report what it prints"
    return f"{type(error).__name__}: {error} ({hint})", 1


def _flush() -> None:
    if sys.stdout is not None:  # None: closed by the caller (`>&-`)
        sys.stdout.flush()


def _discard(stream: TextIO) -> None:
    """Nothing more of a stream is written: Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(error: BaseException, message: str, code: int, debug: bool) -> int:
    lines = [f"error: {line}" for line in readable(message).splitlines() or [type(error).__name__]]
    if debug:
        lines.insert(0, readable("".join(traceback.format_exception(error))))
    elif isinstance(error, TrialError) and error.detail:
        lines.insert(0, readable(error.detail))  # of the user's own code, in another process
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:  # nobody can be told; the exit code says it
        _discard(sys.stderr)
    return code


if __name__ == "__main__":
    main()
