"""`python -m ralr_tune`: runs the command line and turns every exception into lines on stderr and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import TextIO

try:
    import typer

    from ralr_tune.cli import app
    from ralr_tune.commands.arguments import conceal
    from ralr_tune.commands.terminal import PLAIN, readable
    from ralr_tune.errors import Interrupted, RalrTuneError, TrialError
except KeyboardInterrupt:  # these imports take long enough for a Ctrl-C; `main` handles later ones
    print("interrupted", file=sys.stderr)
    sys.exit(130)  # Interrupted.exit_code, which may not be imported yet

_CLICK_ERROR = typer.BadParameter.__mro__[2]
"""ClickException: some versions of typer vendor it, others import it from click."""

_OUTPUT_LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 it ran and failed, 2 wrong usage or study file, 130 interrupted (resumable)."""
    for warning in conceal(sys.orig_argv) if arguments is None else ():
        print(warning, file=sys.stderr)
    given = sys.argv[1:] if arguments is None else arguments
    if not sys.flags.safe_path and "" not in sys.path:
        # as `python -m` does, so that the installed script also finds `model = "my_package.networks:build"`
        sys.path.insert(0, "")
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding cannot show is replaced or escaped
            stream.reconfigure(errors=PLAIN)
    sys.exit(_exit_code_of([argument for argument in given if argument != "--debug"], debug))


def _exit_code_of(arguments: list[str], debug: bool) -> int:
    try:
        code = app(arguments, prog_name="ralr-tune", standalone_mode=False)
        _flush()
        return code if isinstance(code, int) else 0
    except RalrTuneError as error:
        return _print_error(error, str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _print_error(error, "interrupted", Interrupted.exit_code, debug)
    except BrokenPipeError:
        _discard(sys.stdout)  # the reader (head, less) closed the pipe
        return 0
    except Exception as error:
        return _print_error(error, *_unexpected(error, arguments), debug)


def _unexpected(error: Exception, given: Sequence[str]) -> tuple[str, int]:
    """The message for an error of another package, and the exit code."""
    if isinstance(error, _CLICK_ERROR):
        return _wrong_option(error, given) or error.format_message(), 2  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.filename is None and error.errno in _OUTPUT_LOST:
        _discard(sys.stdout)  # failures with a file are errors of this package, so this was a stream
        return f"the output cannot be written: {error.strerror}", 1
    hint = "this is a bug in ralr_tune: run the command again with --debug and report its output"
    return f"{type(error).__name__}: {error} ({hint})", 1


def _wrong_option(error: Exception, given: Sequence[str]) -> str | None:
    """The option as it was given and what is allowed: typer's own message may lack the value. None for other errors."""
    for name in getattr(getattr(error, "param", None), "opts", ()):
        values = [word.removeprefix(f"{name}=") for word in given if word.startswith(f"{name}=")]
        values += [value for word, value in pairwise(given) if word == name]
        if name.startswith("-") and values:
            message, _, _ = str(getattr(error, "message", error)).partition(", unable to parse")
            message = message.removeprefix("Value error, ")  # of a check that is not pydantic's own
            value = values[-1] or "''"
            return f"{name} {value}: {message.replace('Input should be', 'allowed:')}"
    return None


def _flush() -> None:
    if sys.stdout is not None:  # None: closed by the caller (`>&-`)
        sys.stdout.flush()


def _discard(stream: TextIO) -> None:
    """Discard all further output of a stream; otherwise Python reports the error again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_error(error: BaseException, message: str, code: int, debug: bool) -> int:
    begin = "" if code == Interrupted.exit_code else "error: "  # the user asked for it
    lines = [f"{begin}{line}" for line in readable(message).splitlines() or [type(error).__name__]]
    if debug:
        lines.insert(0, readable("".join(traceback.format_exception(error))))
    elif isinstance(error, TrialError) and error.detail:
        lines.insert(0, readable(error.detail))  # the traceback of the user's code, from another process
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:  # the message cannot be shown; the exit code still reports the failure
        _discard(sys.stderr)
    return code


if __name__ == "__main__":
    main()
