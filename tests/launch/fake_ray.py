"""A `ray` whose tasks are threads of this process, for tests without Ray.

It knows what `launch/ray.py` uses. tests/engines has the same tests with a real cluster.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Sequence
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class RayError(Exception):
    pass


class TaskCancelledError(RayError):
    pass


class Task:
    """An object reference."""

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread = Thread(target=self._run, args=(function, arguments), daemon=True)
        self.thread.start()

    def _run(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        try:
            self.result = function(*arguments)
        except BaseException as error:
            self.error = error


class Remote:
    def __init__(self, function: Callable[..., Any], log: list[Any]) -> None:
        self._function, self._log = function, log

    def options(self, **given: Any) -> Remote:
        assert {"num_cpus", "num_gpus", "max_retries"} <= set(given)
        self._log.append(given)
        return self

    def remote(self, *arguments: Any) -> Task:
        return Task(self._function, arguments)


class FakeRay(ModuleType):
    """The module; `submitted` holds the options of every task."""

    exceptions = SimpleNamespace(RayError=RayError, TaskCancelledError=TaskCancelledError)

    def __init__(self, **resources: float) -> None:
        super().__init__("ray")
        self.submitted: list[dict[str, Any]] = []
        self.resources = {"CPU": 4.0, **resources}
        self.address: str | None = None
        self._private = SimpleNamespace(worker=SimpleNamespace(print_to_stdstream=print))

    def is_initialized(self) -> bool:
        return self.address is not None

    def init(self, address: str, **_: Any) -> None:
        if address == "127.0.0.1:1":
            raise ConnectionError("Could not find any running Ray instance.\nMore.")
        self.address = address

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, function: Callable[..., Any]) -> Remote:
        return Remote(function, self.submitted)

    def wait(self, tasks: list[Task], num_returns: int, timeout: float) -> tuple[list[Task], list[Task]]:
        end = time.monotonic() + timeout
        while any(task.thread.is_alive() for task in tasks) and time.monotonic() < end:
            time.sleep(0.05)
        ended = [task for task in tasks if not task.thread.is_alive()]
        return ended, [task for task in tasks if task not in ended]

    def get(self, task: Task) -> Any:
        if task.error is not None:
            raise task.error
        return task.result

    def cancel(self, task: Task, force: bool) -> None:
        number = ctypes.c_ulong(task.thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(KeyboardInterrupt))


def install(monkeypatch: pytest.MonkeyPatch, **resources: float) -> FakeRay:
    made = FakeRay(**resources)
    monkeypatch.setitem(sys.modules, "ray", made)
    return made
