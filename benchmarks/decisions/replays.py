"""Replays, in several processes, each kept as soon as it is done: a run that was stopped continues.

A file of JSON lines holds one line for each world, replay and policy, with the fingerprint of all that decides it:
curves, code and versions. Lines with another fingerprint are ignored.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from benchmarks.decisions import habits, package, ray_asha
from benchmarks.decisions.decision import Policy
from benchmarks.decisions.measures import DIFFERENCES, Figures, Outcome, as_json, figures, outcome
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.tables import ARMS, FOLDER, Table, plan_of
from benchmarks.decisions.worlds import Match, SimulatedWorld, World
from ralr_tune.errors import UsageError

ROOT = Path(__file__).parents[2]
_DECIDE = (
    "benchmarks/decisions",
    "ralr_tune/search",
    "ralr_tune/analysis",
    "ralr_tune/kinds/simulated",
    "ralr_tune/studyfile",
)
"""The code that decides what a replay gives."""


class Known(NamedTuple):
    """What there is to compare, and why the rest is not there."""

    worlds: Mapping[str, World]
    policies: Mapping[str, Policy]
    missing: Sequence[str]


@cache
def known(folder: Path = FOLDER) -> Known:
    """All worlds and policies that this machine has. `folder`: of the recorded tables."""
    found: list[World] = [SimulatedWorld(arm) for arm in ARMS]
    missing = []
    for file in sorted(folder.glob("*.toml")):
        try:
            table = Table.of(plan_of(file.stem, folder=folder))
            found += [RecordedWorld(table, arm) for arm in ARMS]
        except UsageError as error:
            missing.append(str(error))
    policies = [*habits.POLICIES[:2], ray_asha.POLICY, *habits.POLICIES[2:], *package.POLICIES]
    if reason := ray_asha.missing():
        policies.remove(ray_asha.POLICY)
        missing.append(f"policy {ray_asha.POLICY.name}: {reason}")
    return Known({each.name: each for each in found}, {each.name: each for each in policies}, missing)


class Task(NamedTuple):
    """A replay of one world by some policies."""

    world: str
    replay: int
    policies: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """The file of finished replays."""

    file: Path
    folder: Path = FOLDER

    def read(self) -> dict[tuple[str, int, str], list[Outcome]]:
        """Outcomes by (world, replay, policy), of the present code and tables."""
        if not self.file.exists():
            return {}
        marks = {name: fingerprint(world.identity) for name, world in known(self.folder).worlds.items()}
        found = {}
        for line in self.file.read_text().splitlines():
            try:
                held = json.loads(line)
            except ValueError:
                continue  # a process was killed while it wrote the last line
            if marks.get(held["world"]) == held["fingerprint"]:
                outcomes = [Outcome(**each) for each in held["outcomes"]]
                found[held["world"], held["replay"], held["policy"]] = outcomes
        return found

    def add(self, task: Task, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        """Appends a finished replay."""
        mark = fingerprint(known(self.folder).worlds[task.world].identity)
        lines = [
            {"world": task.world, "replay": task.replay, "policy": name, "fingerprint": mark,
             "outcomes": list(map(as_json, each))}
            for name, each in outcomes.items()
        ]  # fmt: skip
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+") as file:
            if file.tell() and not self.file.read_text().endswith("\n"):
                file.write("\n")
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def waiting(self, worlds: Sequence[str], policies: Sequence[str], replays: int) -> list[Task]:
        """What is not done, replay by replay, so that all worlds advance evenly."""
        done = self.read()
        tasks = [
            Task(world, replay, tuple(name for name in policies if (world, replay, name) not in done))
            for replay in range(replays)
            for world in worlds
        ]
        return [task for task in tasks if task.policies]

    def figures(self, worlds: Sequence[str], policies: Sequence[str], replays: int) -> dict[str, list[Figures]]:
        """By world: the figures of each policy over the first `replays` replays."""
        by: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
        for (world, replay, policy), outcomes in self.read().items():
            if replay < replays:
                by[world, policy] += outcomes
        return {
            world: [figures(policy, by[world, policy]) for policy in policies if by[world, policy]] for world in worlds
        }


def run(
    tasks: Sequence[Task], processes: int, folder: Path = FOLDER
) -> Iterator[tuple[Task, dict[str, list[Outcome]]]]:
    """Every task with the outcomes of its policies, as soon as they are known; one process is this one."""
    if processes == 1:
        yield from ((task, replayed(task, folder)) for task in tasks)
        return
    waiting, running = iter(tasks), dict[Future[dict[str, list[Outcome]]], Task]()
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        while True:
            for task in islice(waiting, 2 * processes - len(running)):
                running[pool.submit(replayed, task, folder)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def replayed(task: Task, folder: Path = FOLDER) -> dict[str, list[Outcome]]:
    """The outcomes of one replay by policy, one for each of DIFFERENCES."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    there = known(folder)
    match, searches, found = Match(there.worlds[task.world], task.replay), dict[Any, Any](), dict[str, list[Outcome]]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental samplers; t-tests of constant values
        for name in task.policies:
            policy = there.policies[name]
            if policy.search not in searches:
                searches[policy.search] = policy.search(match)
            found[name] = list(_outcomes(match, policy, searches[policy.search]))
    return found


def _outcomes(match: Match, policy: Policy, searched: Any) -> Iterable[Outcome]:
    for difference in DIFFERENCES:
        yield outcome(match, policy.decide(match, searched, match.shifts(difference)), difference)


@cache
def fingerprint(identity: str) -> str:
    """Of the curves of the world with this identity, and of the code and the libraries that decide on them."""
    digest = hashlib.sha256(identity.encode())
    for folder in _DECIDE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    for name in ("optuna", "numpy", "scipy", "ray"):
        try:
            digest.update(f"{name} {metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            digest.update(name.encode())
    return digest.hexdigest()[:16]
