"""The commands: options, help, and printing. `commands/` does the work; each module is imported when its command runs.

No heavy package (torch, optuna, plotly, sqlalchemy) is imported here, so that `--help` is fast; a test checks this.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ralr_tune.invocation import command, program

if TYPE_CHECKING:
    from ralr_tune.commands.locate import StudyLocation
    from ralr_tune.commands.report import Report
    from ralr_tune.commands.run import RunOptions

app = typer.Typer(
    help="Does RALR (amplifying the learning rate at random) help on your task? Find out with a fair search.",
    epilog=f"Start with: {command('run', 'digits')}    (--debug after any command shows tracebacks)",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


class Format(StrEnum):
    """File formats of an exported configuration."""

    toml = "toml"
    json = "json"
    yaml = "yaml"
    python = "python"


class Until(StrEnum):
    """The last stage that a worker works on."""

    search = "search"
    test = "test"


class StopSignal(StrEnum):
    """Signals that engines send before a time limit."""

    usr1 = "USR1"
    usr2 = "USR2"


def _not_empty(url: str | None) -> str | None:
    """Refuse an empty URL: an unset shell variable would otherwise select the default database."""
    if url is not None and not url.strip():
        raise typer.BadParameter("is empty; give a database URL, or leave the option out")
    return url


def _expand_home(path: Path | None) -> Path | None:
    """A shell replaces the ~ of `--out ~/x`, and not that of `--out=~/x`."""
    from ralr_tune.machine.home import expand_home

    try:
        return None if path is None else expand_home(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Study = Annotated[str, typer.Argument(metavar="STUDY", help="A name in studies/, or the path of a study file.")]
STUDY_OR_RECORD = "A name in studies/, the path of a study file, or a file of `export --record`."
StudyOrRecord = Annotated[str, typer.Argument(metavar="STUDY", help=STUDY_OR_RECORD)]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Database URL (sqlite, postgresql, mysql). Overrides RALR_TUNE_STORAGE and the study file.",
        callback=_not_empty,
    ),
]


def _parse_slots(value: Any) -> Any:
    from ralr_tune.tasks.slots import parse_slots

    return parse_slots(str(value))  # typer also passes the default, which is not a string


SLOTS = "Trials that a worker trains at the same time as one network: a number, or auto."
WORKERS = "Worker processes; workers on one GPU share its memory equally.  [default: one per GPU, or one per core]"
SHARING = "Number of workers on this GPU, including this one; limits it to an equal share of the memory."
LAUNCHER = "How to start workers: local (processes), inprocess (threads), ray, slurm, or one of an installed package."
INDEX = "A number in its name.  [default: what the engine says (Slurm, Kubernetes), otherwise 0]"
STOP_ON = "A further signal that means: save everything and stop. For engines that send it before a time limit."
REHEARSE = "Train a few epochs: is it reproducible, does it resume, does it use rate, seed and schedule?"
INTERVAL = "With --watch: at least so many seconds between two queries of the database; a slow one is asked less often."
DRAWING = "An .html, .png or .svg file."
RECORD = "Write the whole study, its curves included, to FILE (.json.gz): `report FILE` needs no database."
LOW = "Lowest learning rate.  [default: a tenth of what is usual for the optimizer]"
HIGH = "Highest learning rate.  [default: 30 times what is usual for the optimizer]"
TO_FILE = "File to write.  [default: print it]"
NEXT_TO = "Folder for weights and score.  [default: next to CONFIG]"
ARTIFACTS = (
    "Where to keep checkpoints and logs, for workers without a shared OUT: s3://BUCKET/PREFIX, gs://..., a folder."
)
LAUNCHER_OPTION = "An option of the launcher; may be repeated."
Slots = Annotated[Any, typer.Option(metavar="N|auto", parser=_parse_slots, help=SLOTS)]
Init = Annotated[bool, typer.Option("--init", help="Create study and plan for workers started elsewhere, then exit.")]
NEW_GENERATION = "Begin again with the whole budget if data or code changed since the study's earlier trials."
NewGeneration = Annotated[bool, typer.Option("--new-generation", help=NEW_GENERATION)]
NoWorkers = Annotated[bool, typer.Option("--no-workers", help="Wait for workers started elsewhere, then report.")]
MIRROR = "Also show the study there: tensorboard[=FOLDER], mlflow=URI or wandb[=PROJECT]; may be repeated."
TO = "Where: tensorboard[=FOLDER], mlflow=URI or wandb[=PROJECT]; may be repeated.  [default: from RALR_TUNE_MIRROR]"
NOTIFY = "A URL (webhook) or command that is told once that the study has ended or failed.  [default: RALR_TUNE_NOTIFY]"
POLL = "Seconds between two readings of the study."
ONCE = "Send what is stored so far, and end."
Notify = Annotated[list[str] | None, typer.Option(metavar="URL|COMMAND", help=NOTIFY)]
Force = Annotated[bool, typer.Option("--force", help="Use a SQLite file on a network file system anyway.")]
OUT = "Folder for report, logs and checkpoints.  [default: runs/STUDY]"
Out = Annotated[Path | None, typer.Option(callback=_expand_home, help=OUT)]
NoImports = Annotated[bool, typer.Option("--no-imports", help="Refuse a file that imports custom code.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of text.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]


@app.callback()
def _main() -> None:
    from ralr_tune.secrecy import HidingFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(HidingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _example(arguments: str) -> str:
    return f"Example: {program()} {arguments}"


@app.command(epilog=_example("run digits --workers 2"))
def run(
    study: Study,
    workers: Annotated[int | None, typer.Option(help=WORKERS)] = None,
    devices: Annotated[str, typer.Option(help="auto, cpu, or a list such as cuda:0,cuda:1.")] = "auto",
    trials: Annotated[int | None, typer.Option(help="Search trials per arm.  [default: from the study file]")] = None,
    hours: Annotated[float | None, typer.Option(help="Stop after this many hours; the same command resumes.")] = None,
    slots: Slots = 1,
    launcher: Annotated[str, typer.Option(metavar="NAME", help=LAUNCHER)] = "local",
    launcher_option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=LAUNCHER_OPTION)] = None,
    confirm: Annotated[bool, typer.Option("--confirm/--no-confirm", help="Confirm and test the winners.")] = True,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option(help="Print only the answer.")] = False,
    init: Init = False,
    no_workers: NoWorkers = False,
    no_imports: NoImports = False,
    new_generation: NewGeneration = False,
    mirror: Annotated[list[str] | None, typer.Option(metavar="TRACKER[=PLACE]", help=MIRROR)] = None,
    notify: Notify = None,
    force: Force = False,
    artifacts: Annotated[str | None, typer.Option(metavar="URL", help=ARTIFACTS)] = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Search all arms, confirm the winners, test, report and export. Run the same command again to resume."""
    from ralr_tune.commands.run import RunOptions
    from ralr_tune.launch.registry import parse_options

    options = RunOptions(
        storage=storage,
        out=out,
        artifacts=artifacts,
        trials=trials,
        hours=hours,
        confirm=confirm,
        imports=not no_imports,
        force=force,
        new_generation=new_generation,
        start_workers=not no_workers,
        workers=workers,
        devices=devices,
        slots=slots,
        launcher=launcher,
        launcher_options=parse_options(launcher_option or ()),
        mirror=mirror or (),
        notify=notify or (),
    )
    _run(study, options, launcher_option or [], init=init, as_json=as_json, quiet=quiet)


def _run(
    study: str, options: RunOptions, launcher_option: list[str], *, init: bool, as_json: bool, quiet: bool
) -> None:
    from ralr_tune.commands import run as runs
    from ralr_tune.commands.locate import locate, unknown_study
    from ralr_tune.commands.notify import shown_words
    from ralr_tune.errors import UsageError
    from ralr_tune.secrecy import masked_url

    worker_options: dict[str, object] = {"--workers": options.workers, "--devices": _unless("auto", options.devices)}
    worker_options |= {"--slots": _unless(1, options.slots), "--launcher": _unless("local", options.launcher)}
    worker_options |= {"--launcher-option": launcher_option or None}
    run_options: dict[str, object] = {"--no-workers": not options.start_workers, "--hours": options.hours}
    run_options |= {"--no-confirm": not options.confirm, "--json": as_json}
    run_options |= {"--mirror": [masked_url(each) for each in options.mirror] or None}
    run_options |= {"--notify": shown_words(options.notify) or None}
    other_options: dict[str, object] = {
        "--trials": options.trials,
        "--quiet": quiet,
        "--no-imports": not options.imports,
    }
    other_options |= {"--force": options.force, "--new-generation": options.new_generation}
    other_options |= {"--artifacts": options.artifacts}
    starts_none = worker_options if options.launcher == "local" else {}  # another launcher may prepare what to submit
    _refuse_together("--init", starts_none | run_options if init else {})
    _refuse_together("--no-workers", {} if options.start_workers else worker_options)
    where = locate(study, storage=options.storage, out=options.out, imports=options.imports)
    if where.spec is None:
        raise UsageError(unknown_study(study))
    options = replace(options, storage=where.storage_url, out=where.out)
    if init:
        _say(runs.init(where.spec, options)[: 0 if quiet else None])
        return
    chosen = worker_options | run_options | other_options
    _run_and_show(where, options, chosen, as_json=as_json, quiet=quiet)


def _run_and_show(
    where: StudyLocation, options: RunOptions, chosen: Mapping[str, object], *, as_json: bool, quiet: bool
) -> None:
    """Run with a live display, and print the report; Interrupted names the command that resumes, with its options."""
    from ralr_tune.commands.arguments import given_words
    from ralr_tune.commands.progress import Display
    from ralr_tune.commands.run import preview, run
    from ralr_tune.errors import Interrupted

    assert where.spec is not None
    if (text := preview(where.spec, options)) is not None:
        typer.echo(text, nl=False)
        return
    if not (quiet or as_json):
        logging.getLogger("ralr_tune.commands.run").setLevel(logging.INFO)
    display = Display(quiet=quiet or as_json, until="test" if options.confirm else "search")
    try:
        with display:
            report = run(
                where.typed,
                options,
                progress=display.update,
                show_data=display.show_data,
                starting=display.starting,
                stopping=display.stopping,
            )
    except (KeyboardInterrupt, Interrupted) as stopped:
        resume = where.command("run", *given_words(chosen))
        raise Interrupted(f"{str(stopped) or 'interrupted; everything is saved'}; resume with: {resume}") from None
    _print_report(report, as_json=as_json, quiet=quiet)
    display.ended(report.card.cost)


def _unless(default: object, value: object) -> object:
    """The value of an option, or None if it is the default."""
    return None if value == default else value


def _refuse_together(option: str, others: Mapping[str, object]) -> None:
    """Raise UsageError for the first of `others` that is given: it has no effect together with `option`."""
    from ralr_tune.errors import UsageError

    for name, given in others.items():
        if given is not None and given is not False:
            raise UsageError(f"{name} and {option}: give one of the two")


def _say(text: str) -> None:
    """Print text, escaped for a terminal, whose lines break between words; "" prints nothing."""
    from ralr_tune.commands.terminal import readable, wrapped

    if text:
        width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
        typer.echo(wrapped(readable(text), width))


def _print_report(report: Report, *, as_json: bool, quiet: bool = False) -> None:
    if as_json:
        _print_json(report.as_json())
        return
    _say(report.answer if quiet else "\n".join([report.as_text(), "", *report.next_steps()]))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


@app.command(epilog=_example("worker digits --storage postgresql://me@db/tuning"))
def worker(
    study: Study,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for training.  [default: all cores]")] = None,
    index: Annotated[int | None, typer.Option(min=0, help=INDEX)] = None,
    sharing: Annotated[int, typer.Option(min=1, help=SHARING)] = 1,
    slots: Slots = 1,
    stop_on: Annotated[list[StopSignal] | None, typer.Option(help=STOP_ON)] = None,
    until: Annotated[Until, typer.Option(help="The last stage to work on.")] = Until.test,
    no_imports: NoImports = False,
    force: Force = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Join a study that `run` has created, from any machine that can reach its storage."""
    import signal

    from ralr_tune.commands.locate import locate
    from ralr_tune.launch import engine
    from ralr_tune.launch.devices import Place, places
    from ralr_tune.launch.folder import expected_token
    from ralr_tune.launch.launcher import Job
    from ralr_tune.launch.worker import stop_on_signals, stop_with_launcher, work
    from ralr_tune.search.stopping import Stop

    logging.getLogger("ralr_tune").setLevel(logging.INFO)
    where = locate(study, storage=storage, out=out, imports=not no_imports, stored_first=True)
    job = Job(
        where.name,
        where.storage_url,
        where.out,
        until=until.value,
        slots=slots,
        imports=not no_imports,
        force=force,
        folder_token=expected_token(),
    )
    place = places(device, 1)[0]
    index = engine.index() if index is None else index
    stop = Stop()
    with stop_on_signals(stop, *(signal.Signals[f"SIG{name.value}"] for name in stop_on or ())):
        stop_with_launcher()
        work(job, Place(index, place.device, threads or place.threads, sharing), stop=stop)


@app.command(epilog=_example("check studies/digits.toml"))
def check(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="A name in studies/, or a path.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of study files.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Check the file alone: try neither network nor data.")] = False,
    rehearsed: Annotated[bool, typer.Option("--rehearse", help=REHEARSE)] = False,
    no_imports: NoImports = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Validate a study file, its network and its data: report every mistake at once, with what is allowed."""
    from ralr_tune.commands.check import check_study, study_schema
    from ralr_tune.errors import UsageError

    if schema == (study is not None):
        raise UsageError("check needs either a STUDY or --schema; give one of the two")
    if fast and rehearsed:
        raise UsageError("--fast and --rehearse: the first trains nothing, the second does; give one of the two")
    if study is None:
        _print_json(study_schema())
    elif rehearsed:
        from ralr_tune.commands.rehearse import rehearse

        for line in rehearse(study, imports=not no_imports, storage=storage, out=out):
            _say(line)
    else:
        _say(check_study(study, imports=not no_imports, fast=fast, storage=storage, out=out))


@app.command(epilog=_example("plan digits"))
def plan(
    study: Study,
    devices: Annotated[str, typer.Option(help="auto, cpu, or a list such as cuda:0,cuda:1.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Worker processes to plan for.")] = None,
    as_json: AsJson = False,
    no_imports: NoImports = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Show arms, dimensions, trials, epochs and a time estimate (from a few timed steps) before you run a study."""
    from ralr_tune.commands.plan import plan_study

    found = plan_study(study, devices=devices, workers=workers, imports=not no_imports, storage=storage, out=out)
    _print_json(found.as_json()) if as_json else _say(found.as_text())


@app.command(epilog=_example("preview digits -o rates.html"))
def preview(
    study: Study,
    output: Annotated[Path | None, typer.Option("-o", "--output", callback=_expand_home, help=DRAWING)] = None,
    count: Annotated[int, typer.Option(min=1, max=50, help="Traces to draw per arm.")] = 3,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Draw the learning rates that the study would train with."""
    from ralr_tune.commands.preview import preview_study

    _say(f"Open {preview_study(study, count=count, output=output, storage=storage, out=out)}")


@app.command(name="range", epilog=_example("range digits"))
def range_test(
    study: Study,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Networks to train.")] = 3,
    steps: Annotated[int, typer.Option(min=100, max=100_000, help="Training steps of each.")] = 300,
    low: Annotated[float | None, typer.Option(help=LOW)] = None,
    high: Annotated[float | None, typer.Option(help=HIGH)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    output: Annotated[Path | None, typer.Option("-o", "--output", callback=_expand_home, help=DRAWING)] = None,
    as_json: AsJson = False,
    no_imports: NoImports = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Propose a range of learning rates to search: train a few networks while the rate grows (nothing is stored)."""
    from ralr_tune.commands.progress import StepBar
    from ralr_tune.commands.range import RangeOptions
    from ralr_tune.commands.range import range_test as test

    options = RangeOptions(seeds=seeds, steps=steps, low=low, high=high, device=device, output=output)
    with StepBar(quiet=as_json) as bar:
        found = test(study, options, imports=not no_imports, storage=storage, out=out, progress=bar.show)
    _print_json(found.as_json()) if as_json else _say(found.as_text())
    if not found.complete:
        raise typer.Exit(1)


@app.command(epilog=_example("status digits --watch"))
def status(
    study: Study,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the study is done.")] = False,
    interval: Annotated[float | None, typer.Option(metavar="SECONDS", help=INTERVAL)] = None,
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Show which trials are done, running, waiting and failed, and why."""
    from functools import partial

    from ralr_tune.commands.locate import locate, opened
    from ralr_tune.commands.progress import LONGEST_INTERVAL_S, REFRESH_S, watch_study
    from ralr_tune.commands.status import study_status, worker_log_end
    from ralr_tune.errors import UsageError

    if watch and as_json:
        raise UsageError("--watch and --json: give one of the two")
    if interval is not None and not (watch and REFRESH_S <= interval <= LONGEST_INTERVAL_S):
        allowed = f"{REFRESH_S:g} to {LONGEST_INTERVAL_S:g} seconds, together with --watch"
        raise UsageError(f"--interval {interval:g}: allowed: {allowed}")
    where = locate(study, storage=storage, out=out)
    with opened(where) as database:
        if watch:
            watch_study(database, where.name, interval_s=interval or REFRESH_S)
            return
        found = study_status(database, where.name)
        log_end = partial(worker_log_end, database, where.name, where.out / "logs")
        _print_json(found.as_json()) if as_json else _say(found.as_text(log_end))


@app.command(epilog=_example("mirror digits --to tensorboard"))
def mirror(
    study: Study,
    to: Annotated[list[str] | None, typer.Option(metavar="TRACKER[=PLACE]", help=TO)] = None,
    once: Annotated[bool, typer.Option("--once", help=ONCE)] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help=POLL)] = 5.0,
    notify: Notify = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Show a study in TensorBoard, MLflow or W&B while it runs, from any machine that can reach its storage."""
    from ralr_tune.commands.locate import locate
    from ralr_tune.commands.mirror import mirror_study, stop_with_run
    from ralr_tune.commands.notify import parse_recipients
    from ralr_tune.launch.worker import stop_on_signals
    from ralr_tune.mirror.targets import parse_targets
    from ralr_tune.search.stopping import Stop

    where = locate(study, storage=storage, out=out, stored_first=True)
    targets, recipients = parse_targets(to or (), where.out), parse_recipients(notify or ())
    stop = Stop()
    with stop_on_signals(stop):
        stop_with_run(stop)
        mirror_study(where, targets, recipients, stop=stop, once=once, interval_s=interval)


@app.command(epilog=_example("report digits --png"))
def report(
    study: StudyOrRecord,
    png: Annotated[bool, typer.Option("--png", help="Also write every figure as PNG.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="Also write every figure as SVG.")] = False,
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Write report.html from the results stored so far, or from a file that `export --record` wrote."""
    from ralr_tune.commands.locate import locate, opened
    from ralr_tune.store.location import RECORD_SUFFIX

    wanted: list[tuple[Literal["png", "svg"], bool]] = [("png", png), ("svg", svg)]
    images = [name for name, is_wanted in wanted if is_wanted]
    if study.endswith(RECORD_SUFFIX):
        from ralr_tune.commands.report import make_report_from_file

        _refuse_together(study, {"--storage": storage})
        _print_report(make_report_from_file(Path(study), out, images=images), as_json=as_json)
        return
    from ralr_tune.commands.report import make_report

    where = locate(study, storage=storage, out=out)
    with opened(where) as database:
        file = where.typed if where.spec else None
        made = make_report(database, where.name, where.out, images=images, file=file)
    _print_report(made, as_json=as_json)


@app.command(epilog=_example("export digits --arm ralr --format python -o train_digits.py"))
def export(
    study: Study,
    arm: Annotated[str | None, typer.Option(help="Which arm.  [default: the arm with the best score]")] = None,
    trial: Annotated[int | None, typer.Option(help="Which trial of the arm.  [default: the chosen one]")] = None,
    format: Annotated[Format, typer.Option(help="Format of the file.")] = Format.toml,
    output: Annotated[Path | None, typer.Option("-o", "--output", callback=_expand_home, help=TO_FILE)] = None,
    record: Annotated[Path | None, typer.Option(metavar="FILE", callback=_expand_home, help=RECORD)] = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Export a configuration with everything that is needed to train it again, or the whole study as one file."""
    from ralr_tune.commands.locate import locate, opened

    where = locate(study, storage=storage, out=out)
    if record is not None:
        from ralr_tune.commands.record import write_record

        _refuse_together("--record", {"--arm": arm, "--trial": trial, "--output": output})
        with opened(where) as database:
            _say(write_record(database, where.name, where.out, record))
        return
    from ralr_tune.commands.export import export_study

    with opened(where) as database:
        text = export_study(database, where.name, arm=arm, trial=trial, form=format.value)
    if output is None:
        typer.echo(text, nl=False)
        return
    from ralr_tune.commands.files import write_text

    write_text(output, text)
    _say(f"Wrote {output}")


@app.command(epilog=_example("train runs/digits/best/ralr.toml"))
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="An exported configuration: .toml, .json or .yaml.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Training seed.  [default: from CONFIG]")] = None,
    quiet: Annotated[bool, typer.Option(help="Print only the score.")] = False,
    no_imports: NoImports = False,
    out: Annotated[Path | None, typer.Option(callback=_expand_home, help=NEXT_TO)] = None,
) -> None:
    """Train an exported configuration on train + validation, test it once, and write model.safetensors."""
    from ralr_tune.commands.train import train_configuration

    for line in train_configuration(config, device=device, seed=seed, imports=not no_imports, out=out):
        if not quiet or line.final:
            _say(line.text)


@app.command(epilog=_example("dashboard digits"))
def dashboard(
    study: Study,
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080,
    write: Annotated[bool, typer.Option("--write", help="Allow changing and deleting studies in the browser.")] = False,
    token: Annotated[str | None, typer.Option(help="Require this token.  [default: RALR_TUNE_DASHBOARD_TOKEN]")] = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Browse the study in optuna-dashboard, read-only unless --write is given."""
    from ralr_tune.commands.dashboard import serve
    from ralr_tune.commands.locate import locate

    serve(locate(study, storage=storage, out=out), host=host, port=port, write=write, token=token)


@app.command(epilog=_example("doctor digits"))
def doctor(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="Also check its storage and data.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers planned: does the database allow them?")] = None,
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Check what a run needs: packages, machine, database, folder, browser; exit code 1 if there is a problem."""
    from ralr_tune.commands.doctor import diagnose

    found = diagnose(study, storage=storage, out=out, workers=workers)
    _print_json(found.as_json()) if as_json else _say(found.as_text())
    if not found.healthy:
        raise typer.Exit(1)


@app.command(epilog=_example("repair digits --dry-run"))
def repair(
    study: Study, dry_run: DryRun = False, as_json: AsJson = False, storage: Storage = None, out: Out = None
) -> None:
    """Find and fix what is stuck in a study; safe while workers run."""
    from ralr_tune.commands.locate import locate
    from ralr_tune.commands.repair import repair_study

    found = repair_study(locate(study, storage=storage, out=out), dry_run=dry_run)
    _print_json(found.as_json()) if as_json else _say(found.as_text())


@app.command(epilog=_example("gc digits --dry-run"))
def gc(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="One study.  [default: all in runs/]")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Remove checkpoints and weights of finished trials, and partly written files."""
    from ralr_tune.commands.gc import collect_garbage

    found = collect_garbage(study, storage=storage, out=out, dry_run=dry_run)
    _print_json(found.as_json()) if as_json else _say(found.as_text())


@app.command(epilog=_example("studies"))
def studies() -> None:
    """List the study files: those in ./studies and those that ship with ralr_tune."""
    from ralr_tune.commands.check import list_studies

    _say("\n".join(list_studies()))
