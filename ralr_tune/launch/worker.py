"""A worker: claims and trains rows of one study until none are left."""

from __future__ import annotations

import gc
import logging
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from threading import Thread
from types import FrameType

from ralr_tune.errors import Interrupted, StorageError
from ralr_tune.invocation import command
from ralr_tune.launch.devices import Place
from ralr_tune.launch.engine import node
from ralr_tune.launch.folder import check_shared
from ralr_tune.launch.launcher import LAUNCHER_VARIABLE, Job
from ralr_tune.launch.signals import Requests, handling
from ralr_tune.search.identity import agree, identity_of
from ralr_tune.search.logs import worker_log
from ralr_tune.search.published import open_published
from ralr_tune.search.session import Session
from ralr_tune.search.slot_pool import SlotPool
from ralr_tune.search.stages import advance
from ralr_tune.search.stopping import Stop
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.telling import settle
from ralr_tune.store import studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.failures import RETRY_S
from ralr_tune.store.file import refuse_network
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.schema import Unprepared
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.studyfile.imports import imports_of, refuse_imports
from ralr_tune.studyfile.kind import Kind
from ralr_tune.tasks.slots import SerialTrainer

log = logging.getLogger(__name__)

PARENT_POLL_S = 1.0
"""Seconds between two checks that the launcher still runs."""
IDLE_S = 0.5
"""Seconds to wait if other workers hold all remaining rows of the stage."""

_PACKAGES = ("ralr-tune", "optuna", "numpy", "sqlalchemy")


def work(job: Job, place: Place, *, stop: Stop | None = None) -> None:
    """Work on the job's study until it is done.

    Raises Interrupted if asked to stop (its row is released and will resume from its checkpoint), TrialError if a
    failed trial ends the study, DiskError if no checkpoint can be written to `job.out`, StorageError if the database
    lacks the study, is unreachable for minutes, or is a SQLite file on a network file system (unless `job.force`), and
    UsageError if the study imports code although `job.imports` is false, if `job.out` does not hold
    `job.folder_token`, if the store of the study's artifacts cannot be used here, or if a shared GPU has too little
    free memory.
    """
    studies.quiet_optuna()
    if job.folder_token is not None:
        check_shared(job.out, job.folder_token)
    address = parse_address(job.storage_url)
    if not job.force:
        refuse_network(address)
    try:
        storage = open_storage(job.storage_url, write=True, retry_s=RETRY_S)
    except Unprepared as error:
        raise StorageError(error.message(command(error.verb, job.study, *address.arguments()))) from error
    try:
        kept = studies.stored(storage, job.study)
        spec = parse_study(
            kept.text,
            source=f"study {job.study} in {storage.masked}",
            imports=job.imports,
            fingerprint=kept.fingerprint,
        )
        if not job.imports:
            refuse_imports(imports_of(spec))
        set_threads(place, spec.kind)
        take_share(place, spec.kind)
        session = _session(job, place, spec, storage, stop or Stop())
        if session.published is not None:
            session.published.check(session.stop)
        background = None if session.published is None else session.published.background
        with worker_log(background, session.owner):
            _work(session, job, place)
    finally:
        storage.dispose()


def _session(job: Job, place: Place, spec: StudySpec, storage: Storage, stop: Stop) -> Session:
    ledger = Ledger(storage, job.study, spec.storage.lease_s)
    session = Session(
        spec=spec,
        storage=storage,
        ledger=ledger,
        tasks=Tasks(spec, device=place.device, cache=job.out / "data"),
        out=job.out,
        owner=f"{node()}:{os.getpid()}:{place.index}",
        stop=stop,
    )
    session.published = open_published(storage, session.artifacts)
    return session


def _work(session: Session, job: Job, place: Place) -> None:
    spec = session.spec
    spec.kind.import_training()
    task = session.tasks.first()  # unreadable or changed data must be noticed before a row is claimed
    found = environment(place, spec.kind)
    agree(session.ledger, identity_of(spec, spec.kind.inventory_of(task), _training_versions(found, spec.kind)))
    keep_memory(spec.kind)
    studies.set_environment(session.storage, job.study, found)
    with without_gc_of_imports():
        _recover(session)
        _work_until_done(session, job)


def _work_until_done(session: Session, job: Job) -> None:
    stage = advance(session.ledger, session.storage, session.spec, job.until)
    task, kind = session.tasks.only(), session.spec.kind
    # trials of different tasks cannot be fused into one network
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
                time.sleep(IDLE_S)  # other workers may release rows
            else:
                _recover(session)
                stage = advance(session.ledger, session.storage, session.spec, job.until)
    session.tidy()  # since the last time, other workers may have tested what this machine has the weights of


def _recover(session: Session) -> None:
    """Complete or remove what crashed workers left behind, in Optuna and in the out folder."""
    settle(session)
    session.tidy()


def set_threads(place: Place, kind: Kind) -> None:
    """Give torch the place's threads, if the kind of task needs torch."""
    if not kind.needs_torch:
        return
    import torch

    torch.set_num_threads(place.threads)


def take_share(place: Place, kind: Kind) -> None:
    """Limit this process to its share of a GPU's memory; call it before data is loaded and before any row is claimed.

    Raises UsageError if that share is hardly free.
    """
    if not kind.needs_torch:
        return
    from ralr_tune.machine import sharing

    sharing.take_share(place.device, place.sharing)


def keep_memory(kind: Kind) -> None:
    """Keep freed memory in the process, so that training steps need not ask the system for it."""
    if not kind.needs_torch:
        return
    from ralr_tune.training.memory import keep_freed

    keep_freed()


@contextmanager
def without_gc_of_imports() -> Iterator[None]:
    """Inside, Python's garbage collector ignores existing objects: imports create 400,000 of them, and one pass over
    them takes 0.2 s, as long as several epochs of a small network (measured)."""
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


def _training_versions(found: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """The part of an environment on which results may depend."""
    names = ("ralr-tune", "numpy", "python", *kind.packages)
    return {name: found[name] for name in names if name in found} | {"device": found["device"].partition(":")[0]}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def stop_with_launcher() -> None:
    """Stop cleanly when the launcher that started this process is gone: killed, or its terminal closed.

    Otherwise its workers would keep training unnoticed, alongside those of the next `run`.
    """
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is not None:
        Thread(target=_stop_after, args=(int(launcher),), name="launcher-watch", daemon=True).start()


def _stop_after(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def stop_on_signals(stop: Stop, *others: signal.Signals) -> Iterator[None]:
    """First SIGINT, SIGTERM or one of `others`: save the state and stop. A later one (see `signals.Requests`): exit at
    once."""
    requests = Requests()

    def handle(number: int, frame: FrameType | None) -> None:
        if requests.is_repeat():
            return
        if stop.requested:
            os._exit(Interrupted.exit_code)
        stop.request()

    with handling(handle, signal.SIGINT, signal.SIGTERM, *others):
        yield
