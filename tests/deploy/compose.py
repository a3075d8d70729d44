"""docker-compose.yml and Dockerfile as data, and a substitute for Docker: runs the services' commands as processes.

The substitute replaces what a container sees: /run/secrets/NAME is the file of that secret, the host `database` is a
server of the test, and the image's entrypoint is this Python. Everything else is as in the files.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.waiting import LONG_S, until

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"


def loaded(environment: Mapping[str, str]) -> dict[str, Any]:
    """docker-compose.yml with its variables substituted, as `docker compose config` does."""

    def value(found: re.Match[str]) -> str:
        return environment.get(found[1]) or found[2]

    parsed: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+):-([^}]*)\}", value, COMPOSE.read_text()))
    return parsed


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, without comments, with continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    lines = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, _, rest in lines]


@dataclass
class Stack:
    """The services of docker-compose.yml, started one by one."""

    folder: Path
    """Replaces the image's working folder, with its volumes and mounts."""
    secrets: Path
    """Holds a file for each secret, named as in the compose file."""
    database: str
    """HOST:PORT of the server that replaces the service `database`."""
    port: int
    """The port of the dashboard."""
    variables: Mapping[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def services(self) -> dict[str, Any]:
        services: dict[str, Any] = loaded(self.variables)["services"]
        return services

    def start(self, service: str) -> subprocess.Popen[str]:
        log = (self.folder / f"{service}-{len(self.running)}.log").open("w")
        command, environment = self.command(service), self.environment(service)
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        self.running.append(process)
        return process

    def command(self, service: str) -> list[str]:
        entrypoint = dict(instructions())["ENTRYPOINT"]
        assert entrypoint == '["ralr-tune"]'
        words = [str(self.port) if word == "8080" else word for word in self.services[service]["command"]]
        return [sys.executable, "-m", "ralr_tune", *words]

    def environment(self, service: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RALR_TUNE_", "PG"))}
        return clean | {name: self._here(value) for name, value in self.services[service]["environment"].items()}

    def _here(self, value: str) -> str:
        return value.replace("/run/secrets/", f"{self.secrets}/").replace("@database/", f"@{self.database}/")

    def healthy(self, service: str, programs: Sequence[Path] = ()) -> bool:
        """Run the service's health check once."""
        test = self.services[service]["healthcheck"]["test"]
        assert test[0] == "CMD"
        words = [word.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}") for word in test[1:]]
        if words[0] == "python":
            words[0] = sys.executable
        if words[0] == "pg_isready":
            words += ["--port", self.database.rpartition(":")[2]]
        path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
        checked = subprocess.run(
            words, env=os.environ | {"PATH": path}, check=False, capture_output=True, timeout=LONG_S
        )
        return checked.returncode == 0

    def until_healthy(self, service: str, programs: Sequence[Path] = ()) -> None:
        until(lambda: self.healthy(service, programs), f"{service} is healthy")

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def down(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
