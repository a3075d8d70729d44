"""The event files, read back by TensorBoard and compared with the ledger value by value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ralr_tune.errors import UsageError
from ralr_tune.mirror.targets import parse_targets
from ralr_tune.mirror.tensorboard import TensorBoard
from ralr_tune.store.database import Storage
from tests.commands.conftest import Cli, cli, study_file
from tests.mirror.studies import Values, expected, library, mirror, outcomes, parameters, tracked, whole

library("tensorboard")

__all__ = ["cli", "study_file"]


def read_back(folder: Path) -> tuple[Values, dict[str, str], dict[str, dict[str, object]]]:
    """Scalars, the texts `outcome` and `verdict`, and hyperparameters, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    values: Values = {}
    texts, params = {}, {}
    for run in sorted({file.parent for file in folder.rglob("events.*")}):
        name = run.relative_to(folder).as_posix()
        read = EventAccumulator(str(run), size_guidance={"tensors": 0, "scalars": 0}).Reload()
        for tag in read.Tags()["scalars"]:
            events = read.Scalars(tag)
            assert len({event.step for event in events}) == len(events), f"{name} {tag}: a point twice"
            values[name, tag] = {event.step: event.value for event in events}
        for tag in read.Tags()["tensors"]:
            *_, last = read.Tensors(tag)
            texts[f"{name} {tag.partition('/')[0]}"] = last.tensor_proto.string_val[0].decode()
        for tag, content in read.summary_metadata.items():
            if tag == "_hparams_/session_start_info":
                started = HParamsPluginData.FromString(content.plugin_data.content).session_start_info
                kinds = {key: value.WhichOneof("kind") for key, value in started.hparams.items()}
                params[name] = {key: getattr(started.hparams[key], kind) for key, kind in kinds.items()}
    return values, texts, params


def check(storage: Storage, folder: Path) -> None:
    values, texts, params = read_back(folder)
    as_stored = {
        place: {step: np.float32(value) for step, value in found.items()} for place, found in expected(storage).items()
    }
    assert values == as_stored  # TensorBoard stores 32 bits
    assert {name: texts[f"{name} outcome"] for name in outcomes(storage)} == outcomes(storage)
    for name, found in parameters(storage).items():
        assert params[name].items() >= found.items()
        assert params[name]["arm"] == name.partition("/")[0]
    assert "ralr's recipe by" in texts["study verdict"]


def test_a_finished_study(finished: Storage, tmp_path: Path) -> None:
    (target,) = parse_targets(["tensorboard"], tmp_path / "out")
    mirror(finished, tmp_path / "out", target)
    check(finished, tmp_path / "out/tensorboard/sim")
    before = sorted((tmp_path / "out/tensorboard").rglob("*"))
    for out in ("out", "another"):
        (target,) = parse_targets([f"tensorboard={tmp_path}/out/tensorboard"], tmp_path / out)
        mirror(finished, tmp_path / out, target)
    assert sorted((tmp_path / "out/tensorboard").rglob("*")) == before
    shutil.rmtree(tmp_path / "out/tensorboard")  # the file that remembers is then wrong
    mirror(finished, tmp_path / "out", target)
    check(finished, tmp_path / "out/tensorboard/sim")


def test_what_a_killed_mirror_left_is_completed(finished: Storage, tmp_path: Path) -> None:
    for count, run in enumerate(whole(finished)):
        tracker = TensorBoard(tracked(finished), tmp_path)
        tracker.send(run, run.points[: count % len(run.points)])  # and was killed before it wrote the outcome
        tracker.close()
        for file in (tmp_path / "sim" / run.name).iterdir():
            if count % 3 == 0:  # in the middle of a point
                file.write_bytes(file.read_bytes()[: -(1 + count)])
    (target,) = parse_targets([f"tensorboard={tmp_path}"], tmp_path / "out")
    mirror(finished, tmp_path / "out", target)
    check(finished, tmp_path / "sim")


def test_the_folder_of_another_study_is_refused(finished: Storage, tmp_path: Path) -> None:
    (tmp_path / "sim").mkdir()
    (tmp_path / "sim/ralr_tune.json").write_text(json.dumps({"study": "sim", "id": "other"}))
    (target,) = parse_targets([f"tensorboard={tmp_path}"], tmp_path / "out")
    with pytest.raises(UsageError, match="holds another study named sim; give another folder"):
        mirror(finished, tmp_path / "out", target)


def test_run_starts_one_mirror_that_ends_with_it(cli: Cli, study_file: object, tmp_path: Path) -> None:
    assert callable(study_file)
    study_file(search={"trials": 2}, confirm={"top": 1, "seeds": 2})
    ran = cli("run", "sim.toml", "--workers", 1, "--launcher", "inprocess", "--mirror", "tensorboard", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    _, texts, _ = read_back(tmp_path / "runs/sim/tensorboard/sim")
    assert texts["study verdict"].startswith(ran.out.strip()[:40])
    assert texts["ralr/search-0 outcome"] == "complete"
    assert (tmp_path / "runs/sim/logs/mirror.log").read_text() == ""
    again = cli("mirror", "sim", "--to", "tensorboard", "--once")
    assert (again.code, again.out) == (0, "")
