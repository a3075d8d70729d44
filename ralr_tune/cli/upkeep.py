"""`doctor`, `repair`, `gc` and `studies`: what there is on this machine, in databases and in folders."""

from __future__ import annotations

from typing import Annotated

import typer

from ralr_tune.cli.options import AsJson, Out, Storage, Study, example
from ralr_tune.cli.printing import print_json, say

group = typer.Typer()

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]


@group.command(epilog=example("doctor digits"))
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
    print_json(found.as_json()) if as_json else say(found.as_text())
    if not found.healthy:
        raise typer.Exit(1)


@group.command(epilog=example("repair digits --dry-run"))
def repair(
    study: Study, dry_run: DryRun = False, as_json: AsJson = False, storage: Storage = None, out: Out = None
) -> None:
    """Find and fix what is stuck in a study; safe while workers run."""
    from ralr_tune.commands.locate import locate
    from ralr_tune.commands.repair import repair_study

    found = repair_study(locate(study, storage=storage, out=out), dry_run=dry_run)
    print_json(found.as_json()) if as_json else say(found.as_text())


@group.command(epilog=example("gc digits --dry-run"))
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
    print_json(found.as_json()) if as_json else say(found.as_text())


@group.command(epilog=example("studies"))
def studies() -> None:
    """List the study files: those in ./studies and those that ship with ralr_tune."""
    from ralr_tune.commands.check import list_studies

    say("\n".join(list_studies()))
