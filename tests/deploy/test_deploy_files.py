"""The guarantees of docker-compose.yml and Dockerfile, checked in the files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ralr_tune import __version__
from ralr_tune.commands.dashboard import MIN_TOKEN
from ralr_tune.commands.locate import locate
from tests.deploy.compose import COMPOSE, ROOT, instructions, loaded

SERVICES: dict[str, Any] = loaded({})["services"]
OUR_SERVICES = [name for name in SERVICES if name != "database"]
LASTING = ["database", "worker", "worker-cpu", "report", "dashboard"]
VERSIONED = re.compile(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w.-]+)?")


def test_it_is_valid_against_the_compose_schema() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    if not checker.exists():
        pytest.skip("check-jsonschema is not installed")
    command = [str(checker), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_images_are_pinned_by_version() -> None:
    for name, service in SERVICES.items():
        assert VERSIONED.fullmatch(service["image"]), name
    for name in OUR_SERVICES:
        assert SERVICES[name]["image"] == f"ralr-tune:{__version__}"
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", base)


@pytest.mark.parametrize("name", SERVICES)
def test_containers_have_minimal_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "privileged" not in service
    assert service["networks"] == (["database", "outside"] if name == "dashboard" else ["database"])
    assert loaded({})["networks"]["database"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_services_restart_if_that_helps(name: str) -> None:
    restart = SERVICES[name]["restart"]
    assert (restart != "no") == (name in LASTING)
    assert restart != "always"
    if name in ("worker", "worker-cpu", "report"):
        assert restart.startswith("on-failure:")  # a failed study must not be retried forever
        assert SERVICES[name]["stop_grace_period"] == "2m"


def test_only_the_dashboard_is_reachable_and_only_from_this_machine() -> None:
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["dashboard"]
    assert SERVICES["dashboard"]["ports"] == ["127.0.0.1:8080:8080"]
    assert loaded({"PORT": "9000"})["services"]["dashboard"]["ports"] == ["127.0.0.1:9000:8080"]
    assert "--write" not in SERVICES["dashboard"]["command"]


def test_secrets_are_files_and_nowhere_else() -> None:
    parsed = loaded({})
    names = ("database_password", "dashboard_token")
    assert parsed["secrets"] == {name: {"file": f"./secrets/{name}"} for name in names}
    for name, service in SERVICES.items():
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|TOKEN|SECRET", variable):
                assert variable.endswith("_FILE"), name
                assert value.removeprefix("/run/secrets/") in service["secrets"], name
            assert not re.search(r"://[^/@]*:[^/@]*@", value), name
    assert SERVICES["database"]["environment"]["POSTGRES_USER"] == "ralr"
    assert "trust" not in COMPOSE.read_text()


@pytest.mark.parametrize("name", ["worker", "worker-cpu", "report", "dashboard"])
def test_every_service_waits_for_the_study(name: str) -> None:
    needs = SERVICES[name]["depends_on"]
    assert needs["init"] == {"condition": "service_completed_successfully"}
    assert SERVICES["init"]["depends_on"] == {"database": {"condition": "service_healthy"}}


def test_servers_have_health_checks() -> None:
    assert {name for name in SERVICES if "healthcheck" in SERVICES[name]} == {"database", "dashboard"}
    user, database = (SERVICES["database"]["environment"][key] for key in ("POSTGRES_USER", "POSTGRES_DB"))
    assert SERVICES["database"]["healthcheck"]["test"][-3:] == [
        "--host=127.0.0.1", f"--username={user}", f"--dbname={database}"
    ]  # fmt: skip
    assert SERVICES["init"]["environment"]["RALR_TUNE_STORAGE"] == f"postgresql://{user}@database/{database}"


def test_profiles_choose_the_workers() -> None:
    assert {name: SERVICES[name].get("profiles", []) for name in SERVICES if "profiles" in SERVICES[name]} == {
        "worker": ["gpu"],
        "worker-cpu": ["cpu"],
    }
    assert not any("container_name" in service for service in SERVICES.values())  # a fixed name prevents scaling
    devices = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}]


def test_without_a_profile_the_workers_are_those_for_gpus() -> None:
    """Otherwise `docker compose up --scale worker=4` would not know the service. (--profile overrides .env.)"""
    lines = [line for line in (ROOT / ".env").read_text().splitlines() if not line.startswith("#")]
    assert lines == [f"COMPOSE_PROFILES={SERVICES['worker']['profiles'][0]}"]


def test_the_study_is_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = loaded({"STUDY": "mine"})["services"]
    for name in OUR_SERVICES:
        assert SERVICES[name]["command"][1] == "digits"
        assert chosen[name]["command"][1] == "mine"
    monkeypatch.chdir(ROOT)
    assert locate("digits").name == "digits"  # workers look for the name inside the study file


def test_the_image_runs_unprivileged_and_contains_no_secret() -> None:
    words = [word for word, _ in instructions()]
    (user,) = [rest for word, rest in instructions() if word == "USER"]
    assert user == "10001:10001"
    assert words.index("USER") < words.index("ENTRYPOINT")
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"(?i)(password|token|secret)\s*=", text)
    assert "ADD" not in words
    assert "--no-cache-dir" in text
    assert "rm -rf /var/lib/apt/lists/*" in text
    for word, rest in instructions():
        if word == "COPY":
            assert not rest.startswith(". "), "whatever lies around would be copied"


def copied() -> list[str]:
    """The files that the build copies from the folder."""
    lines = [rest.split() for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    return [source for line in lines for source in line[:-1]]


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == set(copied())
    assert all((ROOT / source).exists() for source in copied())


@pytest.mark.slow
def test_a_wheel_can_be_built_from_the_copied_files(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build backend is not installed, and tests download nothing")
    for source in copied():
        path = ROOT / source
        shutil.copytree(path, tmp_path / source) if path.is_dir() else shutil.copy(path, tmp_path / source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert len(list((tmp_path / "dist").glob("ralr_tune-*.whl"))) == 1


def test_make_secrets_creates_each_once(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)

    def make() -> dict[str, str]:
        command = ["make", "secrets", f"PYTHON={sys.executable}"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return {path.name: path.read_text().strip() for path in (tmp_path / "secrets").iterdir()}

    made = make()
    assert set(made) == set(loaded({})["secrets"])
    assert all(len(secret) >= MIN_TOKEN for secret in made.values())
    assert len(set(made.values())) == 2
    assert make() == made
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0  # no other user of this machine
    for name in made:
        assert (tmp_path / "secrets" / name).stat().st_mode & 0o777 == 0o444  # but the containers' users can


DOCUMENT = (ROOT / "docs/deploy.md").read_text()


def test_the_document_names_every_service_and_setting() -> None:
    assert set(re.findall(r"^\| `([\w-]+)`", DOCUMENT, flags=re.MULTILINE)) == set(SERVICES)
    assert set(re.findall(r"--profile (\w+)", DOCUMENT)) == {"gpu", "cpu"}
    assert set(re.findall(r"^make (\w+)", DOCUMENT, flags=re.MULTILINE)) == {"secrets"}
    variables = set(re.findall(r"\$\{(\w+):-", COMPOSE.read_text()))
    assert variables <= set(re.findall(r"`\$?([A-Z_]+)`", DOCUMENT))
