"""The process in which a function trains, started by a worker:

    python -m ralr_tune.own.serve MODULE:FUNCTION [--folder FOLDER] [--check]

It imports the function once, and then trains one trial after another: the worker answers "ready" with the path of the
next trial's description (see child.messages). A trial that raises ends the process, after it said why.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ralr_tune import client
from ralr_tune.own import random_states
from ralr_tune.own.trial import StudyLink, Trial

Function = Callable[[Trial], object]

_MAX_MESSAGE = 2000
"""Characters of an error message."""


class NotFound(Exception):
    """The target is not a function of one argument that can be imported."""


def main(arguments: Sequence[str]) -> None:
    """Serves trials until the worker ends; with `--check`, only tries to import the function."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--folder")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    if given.folder and given.folder not in map(os.path.abspath, sys.path):
        sys.path.insert(0, given.folder)
    sys.argv[1:] = []
    try:
        function = find(given.target)
    except NotFound as error:
        client.exchange({"type": "failed", "kind": "bug", "message": str(error)})
        sys.exit(f"error: {error}")
    if not given.check:
        serve(function)


def serve(function: Function) -> None:
    """Trains one trial after another, until one fails or the worker ends."""
    while True:
        answer = client.exchange({"type": "ready"})
        if answer is None:
            sys.exit("error: RALR_TUNE_SOCKET is not set: a study starts this program")
        content = json.loads(Path(answer["trial"]).read_text(encoding="utf-8"))
        _log_to(content["log"])
        try:
            with _surroundings_restored():
                train(function, Trial(content, StudyLink(content["token"])))
        except BaseException as error:
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"[:_MAX_MESSAGE]
            client.exchange({"type": "failed", "kind": failure_kind(error), "message": message})
            sys.exit(1)
        _free_memory()


def train(function: Function, trial: Trial) -> None:
    """One trial; the code may leave by `sys.exit()`."""
    random_states.seed_all(trial.seed)
    try:
        function(trial)
    except SystemExit as left:
        if left.code not in (None, 0):
            raise


def find(target: str) -> Function:
    """The function that `package.module:name` names. Raises NotFound, naming the target and what is wrong."""
    module, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's code may raise anything
        if not isinstance(error, ModuleNotFoundError | AttributeError):
            traceback.print_exc()
        raise NotFound(
            f"task.target = {json.dumps(target)}: cannot be imported: {type(error).__name__}: {error}"
        ) from None
    problem = _problem_of(found)
    if problem:
        raise NotFound(f"task.target = {json.dumps(target)}: {problem}; must be a function of one argument, the trial")
    function: Function = found
    return function


def failure_kind(error: BaseException) -> str:
    """The kind of failure, as the study treats it (see errors.FailureKind)."""
    names = {each.__name__ for each in type(error).__mro__}
    out_of_memory = names & {"MemoryError", "OutOfMemoryError"} or "out of memory" in str(error).lower()
    return "oom" if out_of_memory else "bug"


def _problem_of(found: Any) -> str | None:
    if not callable(found):
        return f"is a {type(found).__name__}"
    try:
        inspect.signature(found).bind(None)
    except TypeError as error:
        return f"takes other arguments ({error})"
    except ValueError:  # a built-in function without a signature
        pass
    return None


def _log_to(path: str) -> None:
    """Everything that is printed from now on, also by libraries and child processes, goes to this file."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


@contextmanager
def _surroundings_restored() -> Iterator[None]:
    """Arguments, folder, environment and torch's global settings are for every trial what they were for the first."""
    folder, arguments, variables, path = Path.cwd(), list(sys.argv), dict(os.environ), list(sys.path)
    torch = sys.modules.get("torch")
    settings = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()) if torch else None
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os.chdir(folder)
    sys.argv[:], sys.path[:] = arguments, path
    os.environ.clear()
    os.environ.update(variables)
    if torch and settings:
        torch.set_default_dtype(settings[0])
        torch.set_grad_enabled(settings[1])
        torch.set_num_threads(settings[2])


def _free_memory() -> None:
    """Everything but the imported code and the CUDA context."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1:])
