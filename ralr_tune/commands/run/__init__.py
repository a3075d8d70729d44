"""`run`: everything, from a study file to an answer. Running it again resumes where it stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ralr_tune.analysis.starting import start_sentences
from ralr_tune.commands.artifacts import checked_store, record_store, tidy
from ralr_tune.commands.budget import with_split, with_stored_split
from ralr_tune.commands.connections import refuse_shortage
from ralr_tune.commands.locate import again, existing, find_file, naming, unknown_study
from ralr_tune.commands.mirror import mirrored
from ralr_tune.commands.notify import Notifier, parse_recipients
from ralr_tune.commands.preloading import preload
from ralr_tune.commands.problems import problems, refuse
from ralr_tune.commands.starting import start_problems, taken
from ralr_tune.commands.timing import measured_apart
from ralr_tune.errors import DataError, Interrupted, RalrTuneError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.folder import folder_token
from ralr_tune.launch.launcher import Job, Launcher
from ralr_tune.launch.registry import make_launcher
from ralr_tune.launch.supervisor import Observer, Supervisor
from ralr_tune.machine.home import expand_home
from ralr_tune.mirror.targets import parse_targets
from ralr_tune.objects.url import StoreUrl, parse_store
from ralr_tune.records import Inventory
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.budget import budget_sentence
from ralr_tune.search.identity import agree, begin_generation, identity_of, needs_contents
from ralr_tune.search.stages import advance, plan_search, withdraw_audits
from ralr_tune.search.tasks import data_inventory
from ralr_tune.store import starts, studies
from ralr_tune.store.address import parse_address
from ralr_tune.store.artifacts import StoredPlace
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.file import refuse_network
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.location import storage_url
from ralr_tune.studyfile import StudySpec, load_study_file, parse_study
from ralr_tune.studyfile.changes import changes
from ralr_tune.studyfile.imports import imports_of, refuse_imports
from ralr_tune.studyfile.reading import Reading, is_path
from ralr_tune.studyfile.values import one_of
from ralr_tune.tasks.slots import Slots, parse_slots

if TYPE_CHECKING:
    from ralr_tune.commands.report import Report

log = logging.getLogger(__name__)

Progress = Callable[[Storage, str], None]
"""Called a few times per second while workers run."""

ShowData = Callable[[Inventory], None]
"""Called once, before workers start."""

Starting = Callable[[int], None]
"""Called once with the number of workers, before they start; 0 if they are started elsewhere."""

Stopping = Callable[[], None]
"""Called at once when the user asks to stop, before the workers have saved their state."""


@dataclass(frozen=True)
class RunOptions:
    """Where and how to run a study."""

    storage: str | None = None
    """SQLAlchemy URL; None: RALR_TUNE_STORAGE, then the study file's, then OUT/study.db."""
    out: Path | None = None
    """Folder for report, logs and checkpoints; None: runs/STUDY."""
    artifacts: str | os.PathLike[str] | None = None
    """Where checkpoints are kept, so that workers on any machine resume them: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or
    a shared folder; None: as in the first run, otherwise in `out`."""
    trials: int | None = None
    """Search trials per arm and block; None: from the study file."""
    hours: float | None = None
    """Stop after this many hours; everything is saved, and the report covers the results so far."""
    confirm: bool = True
    """False: stop after the search and its audits."""
    imports: bool = True
    """False: refuse a file that imports custom code (such as its network), here and in every worker."""
    force: bool = False
    """Accept a SQLite file on a network file system, although its locks are unreliable there."""
    new_generation: bool = False
    """True: if data or code differ from those of the study's earlier trials, begin a new generation: the whole budget
    again, pooled with nothing. If they do not differ, the newest generation is resumed."""
    start_workers: bool = True
    """False: start no workers, and wait until workers started elsewhere have finished."""
    workers: int | None = None
    """Number of workers; None: one per GPU, or one per CPU core."""
    devices: str = "auto"
    """"auto", or a list such as "cuda:0,cuda:1" or "cpu"."""
    slots: Slots = 1
    """Trials that a worker trains at the same time as one network; "auto" times a few steps to choose the number."""
    launcher: str = "local"
    """How to start the workers: "local" (processes), "inprocess" (threads of this process, for tests and small
    notebooks), or the name of an entry point in the group `ralr_tune.launchers`."""
    launcher_options: Mapping[str, object] = field(default_factory=dict)
    """Further options of the launcher; each launcher declares its own."""
    mirror: Sequence[str] = ()
    """Trackers that show the study while it runs: "tensorboard", "mlflow=URI", "wandb=PROJECT"."""
    notify: Sequence[str] = ()
    """URLs and commands that are told once that the study has ended, has failed, or that its verdict stands."""

    def __post_init__(self) -> None:
        """Refuses values of a wrong type with a UsageError, and takes texts where a path or a list is meant."""
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if not allowed.takes(value):
                raise UsageError(f"{name} = {value!r}; allowed: {allowed.words}")
        try:
            out = None if self.out is None else expand_home(self.out)
        except ValueError as error:
            raise UsageError(f"out = {self.out!r}: {error}") from None
        meant = {
            "out": out,
            "devices": self.devices if isinstance(self.devices, str) else ",".join(self.devices),
            "slots": parse_slots(str(self.slots)),
            "mirror": (self.mirror,) if isinstance(self.mirror, str) else tuple(self.mirror),
            "notify": (self.notify,) if isinstance(self.notify, str) else tuple(self.notify),
        }
        for name, value in meant.items():
            object.__setattr__(self, name, value)


class _Allowed(NamedTuple):
    """What a field of `RunOptions` may be."""

    takes: Callable[[Any], bool]
    words: str


def _is_none_or(kind: type, value: object) -> bool:
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_devices(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list | tuple) and bool(value) and all(map(_is_text, value)))


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(each, str) for each in value))


_COUNT = _Allowed(partial(_is_none_or, Integral), "a whole number, or None")
_YES_OR_NO = _Allowed(lambda value: isinstance(value, bool), "True or False")
_ALLOWED: Mapping[str, _Allowed] = {
    "storage": _Allowed(
        lambda value: value is None or _is_text(value), 'a database URL ("sqlite:///study.db"), or None'
    ),
    "out": _Allowed(lambda value: value is None or is_path(value), "the path of a folder, or None"),
    "artifacts": _Allowed(lambda value: value is None or is_path(value), "the URL or the folder of a store, or None"),
    "trials": _COUNT,
    "workers": _COUNT,
    "hours": _Allowed(partial(_is_none_or, Real), "a number of hours, or None"),
    "confirm": _YES_OR_NO,
    "imports": _YES_OR_NO,
    "force": _YES_OR_NO,
    "new_generation": _YES_OR_NO,
    "start_workers": _YES_OR_NO,
    "devices": _Allowed(_is_devices, 'a text such as "auto" or "cuda:0,cuda:1", or a list of devices'),
    "mirror": _Allowed(_is_texts, 'texts such as "tensorboard" or "mlflow=http://127.0.0.1:5000"'),
    "notify": _Allowed(_is_texts, "URLs and commands, as texts"),
    "launcher": _Allowed(_is_text, "the name of a launcher"),
    "launcher_options": _Allowed(lambda value: isinstance(value, Mapping), "a dict of the launcher's options"),
}


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
    options = _options(options, fields)
    _check_progress(progress)
    file = None if isinstance(spec, StudySpec) else spec
    spec = _study(spec, options.imports)
    _check_options(spec, options)
    launcher, places = _launcher_and_places(options) if options.start_workers else (None, [])
    out, url = _location(spec, options)
    targets, recipients = parse_targets(options.mirror, out, "--mirror"), parse_recipients(options.notify)
    _refuse_unshared(url, options.launcher, launcher, len(places))
    here = launcher is not None and not launcher.remote
    store = checked_store(options.artifacts, remote=not here)
    spec = _trainable(spec, url, options, places if here else [])
    _make_folder(out)
    with (
        _watched(progress, show_data) as (seen, shown),
        _database(spec.name, url, out, options, store) as opened,
        _notifying(Notifier(recipients, opened, spec.name, out), confirm=options.confirm),
    ):
        ledger = _planned(opened, spec, options, out)
        token = _token(opened, spec, out, launcher, record_store(opened, ledger, store))
        job = _job(opened.url, spec, options, out, token)
        tick = partial(_tick, launcher, partial(seen, opened, spec.name) if seen else None)
        with mirrored(spec.name, opened.url, out, targets):
            if advance(ledger, opened, spec, job.until) is not None:
                data = _inspect_data(opened, spec, out, shown, here=here)
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


def _options(options: RunOptions | None, fields: Mapping[str, Any]) -> RunOptions:
    """The options with these fields in place of theirs. UsageError for what are none, TypeError for unknown names."""
    if not isinstance(options, RunOptions | None):
        raise UsageError(f"options = {options!r}; allowed: RunOptions, or None; or give its fields by name")
    for name in fields:
        if name not in RunOptions.__dataclass_fields__:
            known = one_of(RunOptions.__dataclass_fields__, name)
            raise TypeError(f"run() got an unexpected keyword argument {name!r}; {known}")
    return replace(options or RunOptions(), **fields)


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
    _check_options(spec, options)
    out, url = _location(spec, options)
    launcher = None if options.launcher == "local" else _launcher(options)
    places = launcher.places(options.devices, options.workers) if launcher else []
    _refuse_unshared(url, options.launcher, launcher, len(places))
    store = checked_store(options.artifacts, remote=True)
    spec = _trainable(spec, url, options, [])
    _make_folder(out)
    with _database(spec.name, url, out, options, store) as opened:
        ledger = _planned(opened, spec, options, out)
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
    _refuse_unshared(url, options.launcher, launcher, len(places))
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


def _inspect_data(
    storage: Storage, spec: StudySpec, out: Path, show: ShowData | None, *, here: bool
) -> Inventory | None:
    """Verify the test data before the first trial, and show what the data hold. Raises DataError if unreadable.

    Unless workers run `here`, the data may be on their machines alone: each worker verifies them when it starts.
    """
    try:
        inventory = _comparable_data(storage, spec, out)
    except DataError as error:
        if here:
            raise
        log.info("the data are left to the workers to verify: %s", error)
        return None
    if inventory is not None and show is not None:
        show(inventory)
    return inventory


def _comparable_data(storage: Storage, spec: StudySpec, out: Path) -> Inventory | None:
    """The inventory of the data, with all that is needed to compare it with what earlier trials read."""
    inventory = data_inventory(spec, cache=out / "data")
    if inventory is None or not needs_contents(storage, spec.name, inventory):
        return inventory
    log.info("reading the data to compare them with those of earlier trials: their files are new or were modified")
    return data_inventory(spec, cache=out / "data", contents=True)


def _planned(storage: Storage, spec: StudySpec, options: RunOptions, out: Path) -> Ledger:
    """The rows of the whole budget, in a new generation if that is asked for."""
    if options.new_generation:
        _begin_generation(storage, spec, out)
    return _prepare(storage, spec, options.trials or spec.search.trials)


def _begin_generation(storage: Storage, spec: StudySpec, out: Path) -> None:
    """Begin a new generation if data or code changed; the report of the one before is kept in OUT/generation-N."""
    if spec.name not in studies.names(storage):
        return
    before = Ledger(storage, spec.name).generation
    found = begin_generation(storage, spec, identity_of(spec, _comparable_data(storage, spec, out)))
    if found is None:
        log.info("data and code are those of generation %d, which is resumed", before)
        return
    log.info("generation %d begins, with the whole budget: %s", before + 1, "; ".join(found))
    _set_aside(out, out / f"generation-{before}")


def _set_aside(out: Path, folder: Path) -> None:
    for name in ("report.html", "best", "figures"):
        if (out / name).exists() and not (folder / name).exists():
            folder.mkdir(exist_ok=True)
            (out / name).rename(folder / name)


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


def _refuse_unshared(url: str, name: str, launcher: Launcher | None, workers: int) -> None:
    """Refuse a file that workers on other machines cannot share, and a server with fewer connections than workers."""
    address = parse_address(url)
    if launcher and launcher.remote and address.file:
        raise UsageError(
            f"--launcher {name}: its workers run on other machines, which cannot share the SQLite file "
            f"{address.file}; give --storage postgresql://... or mysql://..."
        )
    refuse_shortage(url, workers)


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


def _check_options(spec: StudySpec, options: RunOptions) -> None:
    """Refuse impossible numbers and unwanted imports; log what the study file imports before that code runs."""
    _check_arguments(options.trials, options.hours)
    _check_imports(spec, options.imports)


def _check_arguments(trials: int | None, hours: float | None) -> None:
    if trials is not None and trials < 1:
        raise UsageError(f"--trials {trials}: allowed: at least 1")
    if hours is not None and not hours > 0:
        raise UsageError(f"--hours {hours}: allowed: more than 0")


def _check_imports(spec: StudySpec, allowed: bool) -> None:
    """Log what the study file imports before that code runs, or refuse it."""
    if not allowed:
        refuse_imports(imports_of(spec))
    for named in imports_of(spec):
        log.info("%s", named)


def _trainable(spec: StudySpec, url: str, options: RunOptions, here: Sequence[Place]) -> StudySpec:
    """The study with the split of its budget. `here`: the places of workers on this machine.

    Raises what `_check_trainable` and `with_split` raise.
    """
    spec = with_stored_split(spec, url, force=options.force)
    _check_trainable(spec, url, options, here=bool(here))
    spec = with_split(spec, partial(measured_apart, spec, here[0]) if here else None)
    if sentence := budget_sentence(spec):
        log.info("%s", sentence)
    return spec


def _check_trainable(spec: StudySpec, url: str, options: RunOptions, *, here: bool) -> None:
    """Refuse, before anything is created, a study that cannot be trained.

    Unless workers run `here`, data and code that are not on this machine may be on theirs.
    """
    if _has_started(spec, url, options.force):
        return  # it could be trained, and what is left to do may not need its data
    found = [*problems(spec), *start_problems(spec, url)]
    refuse([each for each in found if here or not each.absent], Reading(f"study {spec.name}", (), spec))
    for each in found:
        log.info("left to the workers to check: %s", each.line)


def _has_started(spec: StudySpec, url: str, force: bool) -> bool:
    """Whether trials of this very study file have started."""
    with existing(url, force=force) as storage:
        if storage is None or spec.name not in studies.names(storage):
            return False
        same = studies.stored(storage, spec.name).text == spec.text
        return same and any(row.attempt for row in Ledger(storage, spec.name).rows(curves=False))


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


def _prepare(storage: Storage, spec: StudySpec, trials: int) -> Ledger:
    """Bring the stored study up to date: registration, an Optuna study per arm and block, the budget as rows."""
    with studies.study_lock(storage, spec.name):
        start = taken(storage, spec)
        _register(storage, spec)
        ledger = Ledger(storage, spec.name, spec.storage.lease_s)
        for arm in spec.arms:
            for block in range(1, spec.search.blocks + 1):
                study = studies.optuna_study(storage, ledger.optuna_name(arm, block), metric=spec.metric)
                if start is not None:
                    starts.save(study, start)
        for line in start_sentences(start, spec.search.blocks):
            log.info("%s", line)
        plan_search(ledger, spec, trials)
        ledger.reopen_failed()
        withdraw_audits(ledger, spec)
    return ledger


def _register(storage: Storage, spec: StudySpec) -> None:
    if spec.name not in studies.names(storage):
        studies.register(storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        return
    stored = studies.stored(storage, spec.name)
    if stored.text == spec.text and stored.fingerprint == spec.fingerprint:
        return
    ledger = Ledger(storage, spec.name)
    before = parse_study(stored.text, source=f"{spec.name} (as stored)", fingerprint=stored.fingerprint)
    found = changes(before, spec, judged=any(row.attempt for row in ledger.rows("judge", curves=False)))
    refused = [str(change) for change in found if not change.applied]
    if refused and not _withdraw_unstarted(ledger):
        raise UsageError(
            f"study {spec.name} in {storage.masked} was started with another study file, and new trials would not "
            f"be comparable with its trials: {'; '.join(refused)}. Give the study another name, or change the file back"
        )
    for change in found:
        log.info("study file changed: %s", f"{change.key} (no trial has started)" if refused else change)
    studies.update_text(storage, spec.name, text=spec.text, fingerprint=spec.fingerprint)


def _withdraw_unstarted(ledger: Ledger) -> bool:
    """Withdraw the plan if none of its trials has started; any other study file may then replace the stored one."""
    rows = ledger.rows(curves=False)
    if any(row.attempt for row in rows):
        return False
    for arm, block in {(row.arm, row.block) for row in rows}:
        ledger.withdraw(arm, block, keep=0)
    return True
