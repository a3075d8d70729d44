"""A worker: takes rows of one study until there are none left."""

from __future__ import annotations

import gc
import logging
import os
import platform
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from threading import Thread
from types import FrameType

from ralr_tune.errors import Interrupted, StorageError
from ralr_tune.invocation import command
from ralr_tune.launch.devices import Place
from ralr_tune.launch.folder import check_shared
from ralr_tune.launch.launcher import LAUNCHER_VARIABLE, Job
from ralr_tune.launch.signals import Requests, handling
from ralr_tune.search.session import Session
from ralr_tune.search.slot_pool import SlotPool
from ralr_tune.search.stages import advance
from ralr_tune.search.stopping import Stop
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.telling import settle
from ralr_tune.store import studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.database import open_storage
from ralr_tune.store.failures import PATIENCE_S
from ralr_tune.store.file import refuse_network
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.schema import Unprepared
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.imports import refuse_imports
from ralr_tune.studyfile.kind import Kind
from ralr_tune.tasks.slots import SerialTrainer

log = logging.getLogger(__name__)

ORPHAN_S = 1.0
"""How often a worker looks whether its launcher is still there."""
IDLE_S = 0.5
"""How long to wait when every row of the stage is in other hands."""

_PACKAGES = ("ralr-tune", "optuna", "numpy", "sqlalchemy")


def work(job: Job, place: Place, *, stop: Stop | None = None) -> None:
    """Work on the job's study until it is done.

    Raises Interrupted when asked to stop (the row in hand is free again and goes on from its checkpoint), TrialError
    when a failed trial ends the study, DiskError when `job.out` takes no checkpoint, StorageError when the database
    lacks the study, cannot be reached for minutes, or, without `job.force`, lies on a network file system as a SQLite
    file, UsageError, without `job.imports`, when the study names code to import, when `job.out` is not the folder of
    `job.folder_token`, and when a shared GPU has no room.
    """
    studies.quiet_optuna()
    if job.folder_token is not None:
        check_shared(job.out, job.folder_token)
    address = parse_address(job.storage_url)
    if not job.force:
        refuse_network(address)
    try:
        storage = open_storage(job.storage_url, patience_s=PATIENCE_S)
    except Unprepared as error:
        raise StorageError(error.message(command(error.verb, job.study, *address.arguments()))) from error
    try:
        spec = parse_study(
            studies.stored(storage, job.study).text,
            source=f"study {job.study} in {storage.masked}",
            imports=job.imports,
        )
        if not job.imports:
            refuse_imports(spec.kind, spec.task)
        set_threads(place, spec.kind)
        take_share(place, spec.kind)
        session = Session(
            spec=spec,
            storage=storage,
            ledger=Ledger(storage, job.study, spec.storage.lease_s),
            tasks=Tasks(spec, device=place.device, cache=job.out / "data"),
            out=job.out,
            owner=f"{socket.gethostname()}:{os.getpid()}:{place.index}",
            stop=stop or Stop(),
        )
        session.tasks.only()  # data that cannot be read are known before a row is claimed
        keep_memory(spec.kind)
        studies.set_environment(storage, job.study, environment(place, spec.kind))
        with without_gc_of_imports():
            _recover(session)
            _work_until_done(session, job)
    finally:
        storage.dispose()


def _work_until_done(session: Session, job: Job) -> None:
    stage = advance(session.ledger, session.storage, session.spec, job.until)
    task, kind = session.tasks.only(), session.spec.kind
    # trials of several tasks cannot be one network
    trainer = SerialTrainer() if task is None else kind.slot_trainer(task, job.slots)
    slots = SlotPool(session, trainer, lambda: session.ledger.remaining(stage) if stage else 0)
    with slots.held():
        while stage is not None:
            session.stop.check()
            row = None if slots.full else session.ledger.claim(session.owner, stage)
            if row is not None:
                log.info("row %d: arm %s, %s %d, attempt %d", row.id, row.arm, row.stage, row.ordinal, row.attempt)
                slots.take(row)
            elif slots:
                slots.train()
            elif session.ledger.remaining(stage):
                time.sleep(IDLE_S)  # rows that others hold may come back
            else:
                _recover(session)
                stage = advance(session.ledger, session.storage, session.spec, job.until)


def _recover(session: Session) -> None:
    """Complete or remove what crashes left behind, in Optuna and in the folder."""
    settle(session)
    session.artifacts.tidy(lambda: session.ledger.rows(curves=False))


def set_threads(place: Place, kind: Kind) -> None:
    """Give torch the place's threads, if the kind of task needs torch."""
    if not kind.needs_torch:
        return
    import torch

    torch.set_num_threads(place.threads)


def take_share(place: Place, kind: Kind) -> None:
    """Keep to this worker's part of a GPU that others share; before the data go there, and before any row is claimed.

    Raises UsageError where hardly anything of it is free.
    """
    if not kind.needs_torch:
        return
    from ralr_tune.machine import sharing

    sharing.take_share(place.device, place.sharing)


def keep_memory(kind: Kind) -> None:
    """Spare the steps of training the way to the system for memory."""
    if not kind.needs_torch:
        return
    from ralr_tune.training.memory import keep_freed

    keep_freed()


@contextmanager
def without_gc_of_imports() -> Iterator[None]:
    """Inside, Python's garbage collector ignores the objects that exist already: imports leave 400,000 of them, and one
    pass over them takes 0.2 s, as long as several epochs of a small network (measured)."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def environment(place: Place, kind: Kind) -> dict[str, str]:
    """Versions, device and machine, for the report."""
    found = {name: _version(name) for name in (*_PACKAGES, *kind.packages)}
    return {
        **{name: version for name, version in found.items() if version},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": place.device,
        "threads": str(place.threads),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def leave_with_launcher() -> None:
    """Stop, in order, once the launcher that started this process is gone: killed, or its terminal closed.

    Else its workers would train on unseen, beside those of the next `run`.
    """
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is not None:
        Thread(target=_leave_after, args=(int(launcher),), name="launcher-watch", daemon=True).start()


def _leave_after(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(ORPHAN_S)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """First SIGINT or SIGTERM: stop, keep everything. A later one (see `signals.Requests`): leave at once."""
    requests = Requests()

    def handle(number: int, frame: FrameType | None) -> None:
        if requests.is_repeat():
            return
        if stop.requested:
            os._exit(Interrupted.exit_code)
        stop.request()

    with handling(handle, signal.SIGINT, signal.SIGTERM):
        yield
