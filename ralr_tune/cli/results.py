"""`status`, `mirror`, `report`, `export`, `train` and `dashboard`: what a study has found so far."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from ralr_tune.cli.options import (
    AsJson,
    NoImports,
    Notify,
    Out,
    Storage,
    Study,
    example,
    home_expanded,
    refuse_together,
)
from ralr_tune.cli.printing import print_json, print_report, say

group = typer.Typer()


class Format(StrEnum):
    """File formats of an exported configuration."""

    toml = "toml"
    json = "json"
    yaml = "yaml"
    python = "python"


STUDY_OR_RECORD = "A name in studies/, the path of a study file, or a file of `export --record`."
StudyOrRecord = Annotated[str, typer.Argument(metavar="STUDY", help=STUDY_OR_RECORD)]
INTERVAL = "With --watch: at least so many seconds between two queries of the database; a slow one is asked less often."
RECORD = "Write the whole study, its curves included, to FILE (.json.gz): `report FILE` needs no database."
TO_FILE = "File to write.  [default: print it]"
NEXT_TO = "Folder for weights and score.  [default: next to CONFIG]"
TO = "Where: tensorboard[=FOLDER], mlflow=URI or wandb[=PROJECT]; may be repeated.  [default: from RALR_TUNE_MIRROR]"
POLL = "Seconds between two readings of the study."
ONCE = "Send what is stored so far, and end."


@group.command(epilog=example("status digits --watch"))
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
        print_json(found.as_json()) if as_json else say(found.as_text(log_end))


@group.command(epilog=example("mirror digits --to tensorboard"))
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


@group.command(epilog=example("report digits --png"))
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

        refuse_together(study, {"--storage": storage})
        print_report(make_report_from_file(Path(study), out, images=images), as_json=as_json)
        return
    from ralr_tune.commands.report import make_report

    where = locate(study, storage=storage, out=out)
    with opened(where) as database:
        file = where.typed if where.spec else None
        made = make_report(database, where.name, where.out, images=images, file=file)
    print_report(made, as_json=as_json)


@group.command(epilog=example("export digits --arm ralr --format python -o train_digits.py"))
def export(
    study: Study,
    arm: Annotated[str | None, typer.Option(help="Which arm.  [default: the arm with the best score]")] = None,
    trial: Annotated[int | None, typer.Option(help="Which trial of the arm.  [default: the chosen one]")] = None,
    format: Annotated[Format, typer.Option(help="Format of the file.")] = Format.toml,
    output: Annotated[Path | None, typer.Option("-o", "--output", callback=home_expanded, help=TO_FILE)] = None,
    record: Annotated[Path | None, typer.Option(metavar="FILE", callback=home_expanded, help=RECORD)] = None,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Export a configuration with everything that is needed to train it again, or the whole study as one file."""
    from ralr_tune.commands.locate import locate, opened

    where = locate(study, storage=storage, out=out)
    if record is not None:
        from ralr_tune.commands.record import write_record

        refuse_together("--record", {"--arm": arm, "--trial": trial, "--output": output})
        with opened(where) as database:
            say(write_record(database, where.name, where.out, record))
        return
    from ralr_tune.commands.export import export_study

    with opened(where) as database:
        text = export_study(database, where.name, arm=arm, trial=trial, form=format.value)
    if output is None:
        typer.echo(text, nl=False)
        return
    from ralr_tune.commands.files import write_text

    write_text(output, text)
    say(f"Wrote {output}")


@group.command(epilog=example("train runs/digits/best/ralr.toml"))
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="An exported configuration: .toml, .json or .yaml.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Training seed.  [default: from CONFIG]")] = None,
    quiet: Annotated[bool, typer.Option(help="Print only the score.")] = False,
    no_imports: NoImports = False,
    out: Annotated[Path | None, typer.Option(callback=home_expanded, help=NEXT_TO)] = None,
) -> None:
    """Train an exported configuration on train + validation, test it once, and write model.safetensors."""
    from ralr_tune.commands.train import train_configuration

    for line in train_configuration(config, device=device, seed=seed, imports=not no_imports, out=out):
        if not quiet or line.final:
            say(line.text)


@group.command(epilog=example("dashboard digits"))
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
