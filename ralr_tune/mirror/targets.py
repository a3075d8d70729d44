"""`--to TRACKER[=PLACE]`: which tracker, and where; everything that can be wrong is said before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from ralr_tune.errors import UsageError
from ralr_tune.invocation import install
from ralr_tune.machine.home import expand_home
from ralr_tune.mirror.runs import TrackedStudy
from ralr_tune.mirror.tracker import Tracker
from ralr_tune.nearest import nearest
from ralr_tune.secrecy import MASK, masked_url

VARIABLE = "RALR_TUNE_MIRROR"
"""Targets for a mirror without `--to`, one a line."""
LIBRARIES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""The package that each tracker needs; extras of the same names install them."""

_PROJECT = re.compile(r"(?:[^\s/\\#?%:]+/)?[^/\\#?%:]{1,128}")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Target:
    """One tracker and its place."""

    kind: str
    place: str
    """TensorBoard's folder, MLflow's URI, W&B's project."""

    def __str__(self) -> str:
        """As in `--to`, without a password."""
        return f"{self.kind}={masked_url(self.place)}"

    @property
    def is_remote(self) -> bool:
        """Whether it may be away for a while, and is waited for."""
        return self.kind == "wandb" or self.place.startswith(("http://", "https://", "databricks"))

    def tracker(self, study: TrackedStudy, out: Path) -> Tracker:
        """Connects to nothing yet."""
        if self.kind == "tensorboard":
            from ralr_tune.mirror.tensorboard import TensorBoard

            return TensorBoard(study, Path(self.place))
        if self.kind == "mlflow":
            from ralr_tune.mirror.mlflow import MLflow

            return MLflow(study, self.place)
        from ralr_tune.mirror.wandb import WandB

        return WandB(study, self.place, out)


def parse_targets(given: Sequence[str], out: Path, option: str = "--to") -> list[Target]:
    """The targets of `given`, or otherwise of RALR_TUNE_MIRROR. Raises UsageError, beginning with `option`.

    `out`: the study's out folder. Folders are made absolute, so that another process finds them.
    """
    texts = list(given) or [line.strip() for line in os.environ.get(VARIABLE, "").splitlines() if line.strip()]
    targets = [_parse(text, out, option) for text in texts]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"{option} {target}: given twice")
    return targets


def _parse(text: str, out: Path, option: str) -> Target:
    kind, equals, place = text.partition("=")
    shown = f"{option} {masked_url(text)}"
    if kind not in _PLACES:
        close = nearest(kind, _PLACES)
        allowed = "tensorboard[=FOLDER], mlflow=URI, wandb[=PROJECT]"
        raise UsageError(
            f"{shown}: unknown tracker; " + (f"did you mean {close[0]!r}?" if close else f"allowed: {allowed}")
        )
    if equals and not place.strip():
        raise UsageError(f"{shown}: nothing after =")
    if MASK in place:
        raise UsageError(f"{shown}: {MASK} stands for a password; write it")
    if find_spec(LIBRARIES[kind]) is None:
        raise UsageError(f"{shown}: the package {LIBRARIES[kind]} is not installed; type: {install(kind)}")
    try:
        return Target(kind, _PLACES[kind](place, out))
    except ValueError as error:
        raise UsageError(f"{shown}: {error}") from None


def _folder(place: str, out: Path) -> str:
    folder = expand_home(Path(place)).absolute() if place else (out / "tensorboard").absolute()
    if "://" in place:
        raise ValueError("must be a folder of this machine")
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    if not existing.is_dir():
        raise ValueError(f"{existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{existing} is not writable; give a folder that you can write to")
    return str(folder)


def _uri(place: str, out: Path) -> str:
    uri = place or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ValueError("where is it? Give mlflow=URI, or set MLFLOW_TRACKING_URI")
    try:
        parts = urlsplit(uri)
        has_server = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ValueError("not a URL; allowed: http://HOST:PORT") from None
    if parts.scheme in ("http", "https"):
        if not has_server:
            raise ValueError("a URL without a server; allowed: http://HOST:PORT")
        return uri
    if parts.scheme.partition("+")[0] in _DATABASES or uri == "databricks" or parts.scheme in ("file", "databricks"):
        return uri
    raise ValueError(
        "allowed: http://HOST:PORT, https://HOST, sqlite:///FILE, postgresql://..., mysql://..., databricks"
    )


def _project(place: str, out: Path) -> str:
    project = place or os.environ.get("WANDB_PROJECT") or "ralr-tune"
    if not _PROJECT.fullmatch(project):
        raise ValueError("allowed: PROJECT or ENTITY/PROJECT, at most 128 characters, none of / \\ # ? % :")
    mode = os.environ.get("WANDB_MODE", "online").lower()
    if mode not in ("online", "offline", "dryrun", "run"):
        raise ValueError(f"WANDB_MODE={mode} sends nothing; allowed: online, offline")
    if mode in ("online", "run") and not _has_wandb_key():
        raise ValueError("no API key: set WANDB_API_KEY, type `wandb login`, or set WANDB_MODE=offline")
    return project


def _has_wandb_key() -> bool:
    import wandb

    return bool(wandb.api.api_key)


_PLACES: Mapping[str, Callable[[str, Path], str]] = {"tensorboard": _folder, "mlflow": _uri, "wandb": _project}
"""How each tracker reads its place; "" is the default. Raises ValueError."""
