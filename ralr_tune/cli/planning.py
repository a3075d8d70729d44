"""`check`, `plan`, `preview` and `range`: what to know about a study before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ralr_tune.cli.options import AsJson, NoImports, Out, Storage, Study, example, home_expanded
from ralr_tune.cli.printing import print_json, say

group = typer.Typer()

REHEARSE = "Train a few epochs: is it reproducible, does it resume, does it use rate, seed and schedule?"
DRAWING = "An .html, .png or .svg file."
LOW = "Lowest learning rate.  [default: a tenth of what is usual for the optimizer]"
HIGH = "Highest learning rate.  [default: 30 times what is usual for the optimizer]"


@group.command(epilog=example("check studies/digits.toml"))
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
        print_json(study_schema())
    elif rehearsed:
        from ralr_tune.commands.rehearse import rehearse

        for line in rehearse(study, imports=not no_imports, storage=storage, out=out):
            say(line)
    else:
        say(check_study(study, imports=not no_imports, fast=fast, storage=storage, out=out))


@group.command(epilog=example("plan digits"))
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
    print_json(found.as_json()) if as_json else say(found.as_text())


@group.command(epilog=example("preview digits -o rates.html"))
def preview(
    study: Study,
    output: Annotated[Path | None, typer.Option("-o", "--output", callback=home_expanded, help=DRAWING)] = None,
    count: Annotated[int, typer.Option(min=1, max=50, help="Traces to draw per arm.")] = 3,
    storage: Storage = None,
    out: Out = None,
) -> None:
    """Draw the learning rates that the study would train with."""
    from ralr_tune.commands.preview import preview_study

    say(f"Open {preview_study(study, count=count, output=output, storage=storage, out=out)}")


@group.command(name="range", epilog=example("range digits"))
def range_test(
    study: Study,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Networks to train.")] = 3,
    steps: Annotated[int, typer.Option(min=100, max=100_000, help="Training steps of each.")] = 300,
    low: Annotated[float | None, typer.Option(help=LOW)] = None,
    high: Annotated[float | None, typer.Option(help=HIGH)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, ...")] = "auto",
    output: Annotated[Path | None, typer.Option("-o", "--output", callback=home_expanded, help=DRAWING)] = None,
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
    print_json(found.as_json()) if as_json else say(found.as_text())
    if not found.complete:
        raise typer.Exit(1)
