"""`run`: everything, from a study file to an answer. Running it again resumes where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.commands.artifacts import checked_store, record_store, tidy
from ralr_tune.commands.locate import again, find_file, naming, unknown_study
from ralr_tune.commands.mirror import mirrored
from ralr_tune.commands.notify import Notifier, parse_recipients
from ralr_tune.commands.preloading import preload
from ralr_tune.commands.run.data import ShowData, inspected
from ralr_tune.commands.run.options import RunOptions, with_fields
from ralr_tune.commands.run.plan import store_plan
from ralr_tune.commands.run.refusals import check_options, refuse_unshared, trainable
from ralr_tune.errors import Interrupted, RalrTuneError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.folder import folder_token
from ralr_tune.launch.launcher import Job, Launcher
from ralr_tune.launch.registry import make_launcher
from ralr_tune.launch.supervisor import Observer, Supervisor
from ralr_tune.mirror.targets import parse_targets
from ralr_tune.objects.url import StoreUrl, parse_store
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.identity import agree, identity_of
from ralr_tune.search.stages import advance
from ralr_tune.store import studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.artifacts import StoredPlace
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.file import refuse_network
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.location import storage_url
from ralr_tune.studyfile import StudySpec, load_study_file
from ralr_tune.studyfile.reading import is_path

if TYPE_CHECKING:
    from ralr_tune.commands.report import Report

Progress = Callable[[Storage, str], None]
"""Called a few times per second while workers run."""

Starting = Callable[[int], None]
"""Called once with the number of workers, before they start; 0 if they are started elsewhere."""

Stopping = Callable[[], None]
"""Called at once when the user asks to stop, before the workers have saved their state."""


def run(
    spec: StudySpec | str | os.PathLike[str],
    options: RunOptions | None = None,
    *,
    progress: Progress | bool | None = None,
    show_data: ShowData | None = None,
    starting: Starting | None = None,
    stopping: Stopping | None = None,
    **fields: Any,
) -> Report:
    """Create or resume a study, search all arms, confirm, test, report and export.

        report = ralr_tune.run("my_study.toml", workers=2)      # the path of a file, or a name in studies/

    Args:
        spec: a study, the path of a study file, or a name in studies/.
        options: where and how.
        progress: None shows the progress on a terminal and in a notebook, True everywhere (as lines in a log), False
            nowhere. A function is called instead, a few times a second, with the open storage and the study's name.
        show_data: called with what the data hold, before workers start; None shows it with the progress.
        starting: called with the number of workers, before they start.
        stopping: called when the user asks to stop (Ctrl-C), while the workers save their state.
        fields: fields of `RunOptions` by name: `run(spec, workers=2, trials=8)`.

    Raises UsageError before anything is started, DataError before the first trial if data cannot be read, TrialError
    when a failed trial ends the study, Interrupted (resumable) on Ctrl-C, StorageError without the database.
    """
    options = with_fields(options, fields)
    _check_progress(progress)
    file = None if isinstance(spec, StudySpec) else spec
    spec = _study(spec, options.imports)
    check_options(spec, options)
    launcher, places = _launcher_and_places(options) if options.start_workers else (None, [])
    out, url = _location(spec, options)
    targets, recipients = parse_targets(options.mirror, out, "--mirror"), parse_recipients(options.notify)
    refuse_unshared(url, options.launcher, launcher, len(places))
    here = launcher is not None and not launcher.remote
    store = checked_store(options.artifacts, remote=not here)
    spec = trainable(spec, url, options, places if here else [])
    _make_folder(out)
    with (
        _watched(progress, show_data) as (seen, shown),
        _database(spec.name, url, out, options, store) as opened,
        _notifying(Notifier(recipients, opened, spec.name, out), confirm=options.confirm),
    ):
        ledger = store_plan(opened, spec, options, out)
        token = _token(opened, spec, out, launcher, record_store(opened, ledger, store))
        job = _job(opened.url, spec, options, out, token)
        tick = partial(_tick, launcher, partial(seen, opened, spec.name) if seen else None)
        with mirrored(spec.name, opened.url, out, targets):
            if advance(ledger, opened, spec, job.until) is not None:
                data = inspected(opened, spec, out, shown, here=here)
                if here:
                    agree(ledger, identity_of(spec, data))
                (starting or _ignore)(len(places))
                _workers(launcher, job, places, spec, ledger, stopping).wait(options.hours, tick)
                tidy(opened, ledger, ArtifactStore(job.out / "checkpoints", spec, ledger.key))
            from ralr_tune.commands.report import make_report  # imported by now, if workers started: see _tick

            return make_report(opened, spec.name, out, file=None if file is None else os.fspath(file))


def _ignore(workers: int) -> None:
    """In place of `starting`."""


def _check_progress(progress: object) -> None:
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise UsageError(f"progress = {progress!r}; allowed: True, False, None, a function of storage and study name")


@contextmanager
def _notifying(notifier: Notifier, *, confirm: bool) -> Iterator[None]:
    """Notify of the end, or of an error that ends the study; a user who stops it, or gave a wrong option, knows."""
    try:
        yield
    except (Interrupted, UsageError):
        raise
    except RalrTuneError as error:
        notifier.failed(error)
        raise
    notifier.ended(confirm=confirm)


def _tick(launcher: Launcher | None, seen: Callable[[], None] | None) -> None:
    """Called while workers run: the first call prepares the report, the others show the progress."""
    if launcher is None or not launcher.in_process:  # two threads that import parts of one package may block each other
        preload()
    if seen is not None:
        seen()


@contextmanager
def _watched(
    progress: Progress | bool | None, show_data: ShowData | None
) -> Iterator[tuple[Progress | None, ShowData | None]]:
    """What to call while the study runs: the user's functions, or those of a display."""
    from ralr_tune.commands.watching import display, is_watched

    if progress is True or (progress is None and is_watched()):
        with display() as shown:
            yield shown.update, show_data or shown.show_data
    else:
        yield progress or None, show_data


def _workers(
    launcher: Launcher | None,
    job: Job,
    places: list[Place],
    spec: StudySpec,
    ledger: Ledger,
    stopping: Stopping | None,
) -> Supervisor | Observer:
    if launcher is None:
        return Observer(job, spec, ledger)
    return Supervisor(launcher, job, places, ledger, stopping or (lambda: None))


def _study(given: StudySpec | str | os.PathLike[str], imports: bool) -> StudySpec:
    """A study, or that of the file which a path or a name in studies/ means."""
    if isinstance(given, StudySpec):
        return given
    if not is_path(given):
        raise UsageError(f"spec = {given!r}; allowed: a study, the path of a study file, or a name in studies/")
    path = find_file(os.fspath(given))
    if path is None:
        raise UsageError(unknown_study(os.fspath(given)))
    return load_study_file(path, imports=imports)


def init(spec: StudySpec, options: RunOptions) -> str:
    """Create a study and its plan as `run` does, so that workers started elsewhere can join; safe to repeat.

    Raises the errors of `run`. Returns one line that describes the study.
    """
    check_options(spec, options)
    out, url = _location(spec, options)
    launcher = None if options.launcher == "local" else _launcher(options)
    places = launcher.places(options.devices, options.workers) if launcher else []
    refuse_unshared(url, options.launcher, launcher, len(places))
    store = checked_store(options.artifacts, remote=True)
    spec = trainable(spec, url, options, [])
    _make_folder(out)
    with _database(spec.name, url, out, options, store) as opened:
        ledger = store_plan(opened, spec, options, out)
        place = record_store(opened, ledger, store)
        planned = sum(row.stage == "search" for row in ledger.rows(curves=False))
        name = spec.name
        if launcher:
            token = _token(opened, spec, out, launcher, place)
            join = launcher.prepare(_job(opened.url, spec, options, out, token), places)
        else:
            join = again("worker", name, opened.address, out)
        return f"study {name} is ready in {opened.masked}: {planned} trials planned; join with: {join}"


def preview(spec: StudySpec, options: RunOptions) -> str | None:
    """What the launcher would submit, if its options ask for that in place of a run. Raises UsageError."""
    if not options.start_workers:
        return None
    launcher = make_launcher(options.launcher, options.launcher_options)
    if not launcher.dry_run:
        return None
    out, url = _location(spec, options)
    places = launcher.places(options.devices, options.workers)
    refuse_unshared(url, options.launcher, launcher, len(places))
    if options.artifacts is not None:
        parse_store(os.fspath(options.artifacts), remote=launcher.remote)
    return launcher.preview(_job(url, spec, options, out), places)


def _launcher(options: RunOptions) -> Launcher:
    """The launcher that starts workers. Raises UsageError for one that is asked to start none."""
    launcher = make_launcher(options.launcher, options.launcher_options)
    if launcher.dry_run:
        raise UsageError(
            "--launcher-option dry-run=true: only `run` on the command line, without --init, prints a script"
        )
    return launcher


def _launcher_and_places(options: RunOptions) -> tuple[Launcher, list[Place]]:
    launcher = _launcher(options)
    return launcher, launcher.places(options.devices, options.workers)


def _location(spec: StudySpec, options: RunOptions) -> tuple[Path, str]:
    """The out folder and the storage URL."""
    out = options.out or Path("runs") / spec.name
    return out, storage_url(options.storage, spec, out)


def _token(
    storage: Storage, spec: StudySpec, out: Path, launcher: Launcher | None, place: StoredPlace | None
) -> str | None:
    """What remote workers must find in the out folder, unless artifacts have a store and it need not be shared."""
    if launcher is None or not launcher.remote or (place is not None and not launcher.needs_out):
        return None
    with studies.study_lock(storage, spec.name):
        return folder_token(out)


def _job(url: str, spec: StudySpec, options: RunOptions, out: Path, token: str | None = None) -> Job:
    return Job(
        study=spec.name,
        storage_url=url,
        out=out.absolute(),
        until="test" if options.confirm else "search",
        slots=options.slots,
        imports=options.imports,
        force=options.force,
        folder_token=token,
    )


@contextmanager
def _database(study: str, url: str, out: Path, options: RunOptions, store: StoreUrl | None) -> Iterator[Storage]:
    """Open the study's storage; creates it if it does not exist. A store needs tables of this version."""
    studies.quiet_optuna()
    address = parse_address(url)
    if not options.force:
        refuse_network(address)
    with naming(lambda verb: again(verb, study, address, out)):
        opened = open_storage(url, create=True, write=store is not None)
    try:
        yield opened
    finally:
        opened.dispose()


def _make_folder(out: Path) -> None:
    """Create the out folder. Raises UsageError if it cannot be created or is not writable."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out {out}: the folder cannot be created: {error.strerror}; give another with --out"
        ) from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: the folder is not writable; give one that you can write to")
