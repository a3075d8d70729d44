"""The commands as users type them: help, usage errors, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ralr_tune
from ralr_tune.store.database import open_storage
from ralr_tune.studyfile.registry import BUILT_IN
from tests.commands.conftest import Cli

COMMANDS = [
    *("run", "worker", "check", "plan", "preview", "range", "status", "mirror", "report", "export", "train"),
    *("dashboard", "doctor", "repair", "gc", "studies"),
]
HEAVY = ["torch", "torchvision", "optuna", "plotly", "sqlalchemy", "scipy", "pandas", "rich.live"]


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from ralr_tune.__main__ import main\n"
        "try:\n    main(['run', '--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_check_for_heavy_modules_can_fail() -> None:
    script = f"import sys, scipy\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['scipy']"


@pytest.mark.parametrize("program", [["-m", "ralr_tune"], ["-c", "from ralr_tune.__main__ import main; main()"]])
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path: Path, program: list[str]) -> None:
    (tmp_path / "typer.py").write_text("import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(60)\n")
    places = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(ralr_tune.__file__).parents[1]}"}
    done = subprocess.run(
        [sys.executable, *program, "studies"], env=os.environ | places, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli_inside: Cli, command: str) -> None:
    ran = cli_inside(command, "--help")
    assert ran.code == 0
    assert re.search(rf"Example: (\S+|'.+') -m ralr_tune {command}\b", " ".join(ran.out.split()))


def test_the_list_of_commands_is_the_contract(cli_inside: Cli) -> None:
    listed = re.findall(r"^  ([a-z]+)  ", cli_inside("--help").out.split("Commands:")[1], flags=re.MULTILINE)
    assert listed == COMMANDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "digits"], "did you mean 'run'"),
        (["run"], "missing argument 'study'"),
        (["run", "digits", "--workers", "two"], "--workers"),
        (["run", "digits", "--workers", "0"], "--workers 0: allowed: at least 1"),
        (["run", "digits", "--trials", "0"], "--trials 0: allowed: at least 1"),
        (["run", "digits", "--hours", "-1"], "--hours -1.0: allowed: more than 0"),
        (["run", "digits", "--devices", "gpu"], "--devices gpu"),
        (["run", "digitz"], "did you mean 'digits'"),
        (["run", "no/such.toml"], "no/such.toml: no such file"),
        (["run", "digits", "--init", "--workers", "2"], "--workers and --init: give one of the two"),
        (["run", "digits", "--init", "--devices", "cpu"], "--devices and --init"),
        (["run", "digits", "--init", "--hours", "1"], "--hours and --init"),
        (["run", "digits", "--init", "--no-confirm"], "--no-confirm and --init"),
        (["run", "digits", "--init", "--json"], "--json and --init"),
        (["run", "digits", "--init", "--no-workers"], "--no-workers and --init"),
        (["run", "digits", "--no-workers", "--devices", "cpu"], "--devices and --no-workers"),
        (["status", "digits", "--storage", ""], "--storage '': is empty"),
        (["check"], "check needs either a study or --schema; give one of the two"),
        (["check", "digits", "--schema"], "check needs either a study or --schema; give one of the two"),
        (
            ["status", "digits", "--storage", "redis://db"],
            "storage url (--storage, or storage.url): 'redis' is not supported; allowed: sqlite",
        ),
        (["status", "../evil"], "no such file"),
        (["check", ""], "study '': is empty; give a name in studies/, or the path of a study file"),
        (["run", " "], "study ' ': is empty"),
        (["status", "no such"], "not a study name"),
        (["preview", "digits", "-o", "rates.pdf"], "must end in .html, .png or .svg"),
        (["dashboard", "digits", "--host", "0.0.0.0"], "give --token"),
        (["export", "digits", "--format", "xml"], "--format"),
        (["status", "digits", "--watch", "--json"], "--watch and --json: give one of the two"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(cli_inside: Cli, arguments: list[str], message: str) -> None:
    ran = cli_inside(*arguments)
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) == 1
    assert message in ran.err.lower()


def test_every_mistake_in_a_file_is_one_line(cli_inside: Cli, study_file: Callable[..., Path]) -> None:
    path = study_file(training={"lr": -1.0, "momentun": 0.9}, study={"baseline": "monoton"})
    for command in ("check", "run"):
        ran = cli_inside(command, path.name)
        assert ran.code == 2
        lines = ran.err.splitlines()
        assert all(line.startswith("error: sim.toml: ") for line in lines)
        assert len(lines) == 3
        assert "training.lr = -1.0" in ran.err
        assert "did you mean 'momentum'?" in ran.err
        assert "did you mean 'monotone'?" in ran.err


def test_debug_shows_the_traceback_anywhere_on_the_line(cli_inside: Cli) -> None:
    for arguments in (["--debug", "check", "digitz"], ["check", "digitz", "--debug"]):
        ran = cli_inside(*arguments)
        assert ran.code == 2
        assert "Traceback" in ran.err


def test_an_unreachable_database_is_code_1_with_its_password_masked(
    cli_inside: Cli, study_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_storage.__kwdefaults__, "patience_s", 0.1)
    study_file()
    ran = cli_inside("status", "sim.toml", "--storage", "postgresql://me:s3cret@127.0.0.1:1/none")
    assert ran.code == 1
    assert ran.err.startswith("error: ")
    assert "s3cret" not in ran.err + ran.out


def test_shipped_studies_are_found_from_any_folder(cli_inside: Cli) -> None:
    folder = Path(ralr_tune.__file__).parents[1] / "studies"
    shipped = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")}
    lines = cli_inside("studies").out.splitlines()
    assert {line.split()[0] for line in lines} == shipped
    assert lines[-1].startswith("paper/")  # folders last
    assert "The RALR paper's ResNet-110 on CIFAR-100." in "".join(lines)  # one sentence, also over several lines
    assert cli_inside("check", "digits").code == 0


def test_a_local_file_hides_a_shipped_one(cli_inside: Cli, study_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    study_file(study={"name": "digits"}).rename(tmp_path / "studies" / "digits.toml")
    assert "8 trials" not in cli_inside("check", "digits").out
    assert "4 trials per arm" in cli_inside("check", "digits").out


def test_study_files_may_be_in_folders(cli_inside: Cli, study_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "studies/paper").mkdir(parents=True)
    study_file(study={"name": "inner"}).rename(tmp_path / "studies/paper/resnet.toml")
    assert "paper/resnet" in [line.split()[0] for line in cli_inside("studies").out.splitlines()]
    assert "Study inner" in cli_inside("check", "paper/resnet").out
    wrong = cli_inside("check", "paper/resnt")
    assert wrong.code == 2
    assert "did you mean 'paper/resnet'?" in wrong.err


def test_a_study_whose_data_are_not_here_is_described_nevertheless(cli_inside: Cli) -> None:
    (line,) = (line for line in cli_inside("studies").out.splitlines() if line.startswith("cifar100_resnet20"))
    assert re.search(r"CIFAR-100.*\(1 problem, see `.*check cifar100_resnet20`\)", line)


def test_the_schema_is_json(cli_inside: Cli) -> None:
    schema = cli_inside("check", "--schema").json()
    files = [schema["$defs"][each["$ref"].rpartition("/")[2]] for each in schema["anyOf"]]  # one for each kind of task
    assert len(files) == len(BUILT_IN)
    assert all({"study", "task", "training", "arms", "search"} <= set(file["properties"]) for file in files)
