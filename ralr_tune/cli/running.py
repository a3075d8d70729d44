"""`run` and `worker`: the commands that work on the trials of a study."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ralr_tune.cli.options import AsJson, NoImports, Notify, Out, Storage, Study, example, refuse_together
from ralr_tune.cli.printing import print_report, say

if TYPE_CHECKING:
    from ralr_tune.commands.locate import StudyLocation
    from ralr_tune.commands.run.options import RunOptions

group = typer.Typer()


class Until(StrEnum):
    """The last stage that a worker works on."""

    search = "search"
    test = "test"


class StopSignal(StrEnum):
    """Signals that engines send before a time limit."""

    usr1 = "USR1"
    usr2 = "USR2"


def _parse_slots(value: Any) -> Any:
    from ralr_tune.tasks.slots import parse_slots

    return parse_slots(str(value))  # typer also passes the default, which is not a string


SLOTS = "Trials that a worker trains at the same time as one network: a number, or auto."
WORKERS = "Worker processes; workers on one GPU share its memory equally.  [default: one per GPU, or one per core]"
SHARING = "Number of workers on this GPU, including this one; limits it to an equal share of the memory."
LAUNCHER = "How to start workers: local (processes), inprocess (threads), ray, slurm, or one of an installed package."
INDEX = "A number in its name.  [default: what the engine says (Slurm, Kubernetes), otherwise 0]"
STOP_ON = "A further signal that means: save everything and stop. For engines that send it before a time limit."
ARTIFACTS = (
    "Where to keep checkpoints and logs, for workers without a shared OUT: s3://BUCKET/PREFIX, gs://..., a folder."
)
LAUNCHER_OPTION = "An option of the launcher; may be repeated."
MIRROR = "Also show the study there: tensorboard[=FOLDER], mlflow=URI or wandb[=PROJECT]; may be repeated."
Slots = Annotated[Any, typer.Option(metavar="N|auto", parser=_parse_slots, help=SLOTS)]
Init = Annotated[bool, typer.Option("--init", help="Create study and plan for workers started elsewhere, then exit.")]
NEW_GENERATION = "Begin again with the whole budget if data or code changed since the study's earlier trials."
NewGeneration = Annotated[bool, typer.Option("--new-generation", help=NEW_GENERATION)]
NoWorkers = Annotated[bool, typer.Option("--no-workers", help="Wait for workers started elsewhere, then report.")]
Force = Annotated[bool, typer.Option("--force", help="Use a SQLite file on a network file system anyway.")]


@group.command(epilog=example("run digits --workers 2"))
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
    from ralr_tune.commands.run.options import RunOptions
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
    refuse_together("--init", starts_none | run_options if init else {})
    refuse_together("--no-workers", {} if options.start_workers else worker_options)
    where = locate(study, storage=options.storage, out=options.out, imports=options.imports)
    if where.spec is None:
        raise UsageError(unknown_study(study))
    options = replace(options, storage=where.storage_url, out=where.out)
    if init:
        say(runs.init(where.spec, options)[: 0 if quiet else None])
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
    print_report(report, as_json=as_json, quiet=quiet)
    display.ended(report.card.cost)


def _unless(default: object, value: object) -> object:
    """The value of an option, or None if it is the default."""
    return None if value == default else value


@group.command(epilog=example("worker digits --storage postgresql://me@db/tuning"))
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
