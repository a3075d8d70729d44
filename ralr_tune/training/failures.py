"""Converts errors of training to TrialError with the matching kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch._dynamo.exc import TorchDynamoException

from ralr_tune.errors import DataError, TrialError
from ralr_tune.training.memory import first_line, is_out_of_memory


@contextmanager
def trial_errors() -> Iterator[None]:
    """Inside the block, out-of-memory, data and compiler errors become TrialError; other errors are not changed."""
    try:
        yield
    except DataError as error:
        raise TrialError("data", str(error)) from error
    except TorchDynamoException as error:
        raise TrialError(
            "bug", f"training.compile: compilation failed: {first_line(error)}; set compile = false"
        ) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrialError("oom", first_line(error)) from error
