"""Resolve a name to its study file, and a study to its storage and out folder.

Functions import database code when they need it, so that a mistyped name or an invalid study file fails fast.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ralr_tune.errors import StorageError, UsageError
from ralr_tune.invocation import Variable, command, relative_to_cwd
from ralr_tune.nearest import nearest
from ralr_tune.store.location import DATABASE, given_url, storage_url
from ralr_tune.studyfile import StudySpec, load_study_file
from ralr_tune.studyfile.sections import NAME_PATTERN

if TYPE_CHECKING:
    from ralr_tune.store.address import Address
    from ralr_tune.store.database import Storage

log = logging.getLogger(__name__)

_SHIPPED = (Path(__file__).parent.parent / "studies", Path(__file__).parent.parent.parent / "studies")
"""Shipped study files: in a wheel, and in a checkout."""
_SUFFIXES = (".toml", ".json", ".yaml", ".yml")


@dataclass(frozen=True)
class StudyLocation:
    """A study's name, its study file if there is one, its storage URL and out folder."""

    name: str
    spec: StudySpec | None
    storage_url: str
    out: Path
    typed: str = ""
    """STUDY as it was typed: a path, or the name."""

    def command(self, verb: str, *more: str) -> str:
        """A command on this study, as it may be typed, with `more` words at its end; `run` needs its file."""
        file = "STUDY.toml" if self.spec is None else self.typed or self.name
        study = file if verb == "run" else self.name
        from ralr_tune.store.address import parse_address

        return again(verb, study, parse_address(self.storage_url), self.out, name=self.name, more=more)


def locate(
    study: str,
    *,
    storage: str | None = None,
    out: Path | None = None,
    stored_first: bool = False,
    imports: bool = True,
) -> StudyLocation:
    """Resolve STUDY (a name in studies/, a path, or the name of a stored study) to its location.

    `storage` overrides RALR_TUNE_STORAGE, which overrides the study file; the default is OUT/study.db. With
    `stored_first`, if a storage is given, a name means a stored study: a file of that name in studies/ may hold a
    study of another name. If `imports` is False, a file whose task kind is imported code is refused.
    Raises UsageError for an empty or unknown name, StudyFileError for an invalid file.
    """
    if not study.strip():
        raise UsageError(f"STUDY {study!r}: is empty; give a name in studies/, or the path of a study file")
    given = given_url(storage)
    path = None if stored_first and given and not _is_path(study) else find_file(study)
    spec = None if path is None else load_study_file(path, imports=imports)
    name = study if spec is None else spec.name
    if spec is None and not NAME_PATTERN.fullmatch(study):
        allowed = "not a study name (letters, digits, '.', '_', '-')"
        raise UsageError(f"STUDY {study!r}: no such file, and {allowed}; {_similar(study)}")
    folder = out or Path("runs") / name
    if spec is None and given is None and not (folder / DATABASE).exists():
        raise UsageError(unknown_study(study))
    return StudyLocation(name, spec, storage_url(storage, spec, folder), folder, study)


def again(
    verb: str,
    study: str,
    address: Address,
    out: Path | None = None,
    *,
    name: str | None = None,
    more: Sequence[str] = (),
) -> str:
    """A command on a study, ready to type: with --out and --storage unless it finds the same study without them.

    `name`: the study's, if `study` is the path of its file. `more`: further options.
    """
    usual = Path("runs") / (name or study)
    folder = usual if out is None else relative_to_cwd(out)
    words: list[str | Path | Variable] = [verb, study]
    if address.file != (folder / DATABASE).absolute() or given_url(None):
        words += address.arguments()
    if folder != usual:
        words += ["--out", folder]
    return command(*words, *more)


def find_file(study: str) -> Path | None:
    """The study file of a path or name: ./studies/NAME.toml first, then the shipped study files.

    A name may have folders: paper/NAME.
    """
    if study.endswith(_SUFFIXES):
        return Path(study)
    path = Path(study)
    return study_files().get(study) or (path if os.sep in study and path.exists() else None)


def is_packaged(path: Path) -> bool:
    """Whether a study file belongs to the installed package: an upgrade would undo a change of it."""
    return _SHIPPED[0] in path.parents


def _is_path(study: str) -> bool:
    """Whether it cannot be the name of a stored study."""
    return study.endswith(_SUFFIXES) or os.sep in study


def study_files() -> dict[str, Path]:
    """All study files by name, sorted, those in folders last; a file in ./studies hides the shipped one of its name."""
    found: dict[str, Path] = {}
    for folder in (Path("studies"), *_SHIPPED):
        for path in (path for path in folder.rglob("*.toml") if path.is_file()):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return dict(sorted(found.items(), key=lambda item: (item[0].count("/"), item[0])))


def unknown_study(study: str) -> str:
    """The message for a STUDY that is neither a file nor stored here."""
    return f"STUDY {study!r}: no such study file, and no study stored in runs/{study}; {_similar(study)}"


def _similar(study: str) -> str:
    names = [*study_files()]
    close = nearest(study, names)
    shown = [name for name in names if "/" not in name]  # those in folders, such as paper/, would triple the list
    return f"did you mean {close[0]!r}?" if close else f"known studies: {', '.join(shown) or 'none'}"


@contextmanager
def naming(typed: Callable[[str], str]) -> Iterator[None]:
    """Inside, an error over tables names the whole command that helps: `typed(verb)`."""
    from ralr_tune.store.schema import Unprepared

    try:
        yield
    except Unprepared as error:
        raise StorageError(error.message(typed(error.verb))) from error


@contextmanager
def opened(where: StudyLocation) -> Iterator[Storage]:
    """Open the storage of a study that was started; raises StorageError if there is none.

    A SQLite file on a network file system only gives a warning: the user started the study with --force.
    """
    from ralr_tune.store.address import parse_address
    from ralr_tune.store.database import open_storage
    from ralr_tune.store.file import network_problem

    if problem := network_problem(parse_address(where.storage_url)):
        log.warning("%s; open it only on the machine that runs its workers", problem)
    with naming(where.command):
        storage = open_storage(where.storage_url)
    try:
        yield storage
    finally:
        storage.dispose()


@contextmanager
def existing(url: str, *, force: bool = False) -> Iterator[Storage | None]:
    """The storage at this URL; None if there is none yet, or none with tables of this version.

    Raises StorageError if it cannot be reached, UsageError for a SQLite file on a network without `force`.
    """
    from ralr_tune.store.address import parse_address
    from ralr_tune.store.database import open_storage
    from ralr_tune.store.file import refuse_network
    from ralr_tune.store.schema import Unprepared

    address, storage = parse_address(url), None
    if not address.file or address.file.exists():
        if not force:
            refuse_network(address)
        with suppress(Unprepared):
            storage = open_storage(url)
    try:
        yield storage
    finally:
        if storage is not None:
            storage.dispose()
