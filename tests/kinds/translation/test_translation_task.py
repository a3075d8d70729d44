"""The task and its trials: losses, scores, accumulation, resuming, and a whole study."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ralr_tune import run
from ralr_tune.errors import DataError, StudyFileError
from ralr_tune.kinds.translation.kind import KIND
from ralr_tune.kinds.translation.options import TranslationOptions
from ralr_tune.kinds.translation.scores import Scorer
from ralr_tune.kinds.translation.shown import shown_examples
from ralr_tune.kinds.translation.task import TranslationTask
from ralr_tune.kinds.translation.trial import TranslationTrial
from ralr_tune.metric import Metric
from ralr_tune.studyfile import StudySpec
from ralr_tune.tasks.trial import TrialStage
from ralr_tune.training.memory import MemoryBudget, micro_batches
from tests.kinds.translation.conftest import WORDS, MakeStudy, MakeText, tables
from tests.studies import loaded_task


def trial_of(spec: StudySpec, *, stage: TrialStage = "search", lr: float = 5e-3, **more: Any) -> TranslationTrial:
    configuration = spec.configuration("monotone", {"lr": lr})
    return KIND.trial_in_stage(loaded_task(spec), configuration, stage=stage, seed=1, **more)


def test_the_loss_is_the_mean_over_real_pieces(make_study: MakeStudy) -> None:
    task: TranslationTask = loaded_task(make_study())
    model = task.build_model(1).eval()
    (batch, *_) = task.batches("train", seed=1, epoch=0, batch_size=200, options=TranslationOptions())
    total, count = 0.0, 0
    for padded in zip(batch.sources, batch.targets, strict=True):
        source, target = (side[side != 0][None] for side in padded)
        logits = model(source, target[:, :-1])[0]
        total += F.cross_entropy(logits, target[0, 1:], reduction="sum", label_smoothing=0.1).item()
        count += target.shape[1] - 1
    assert batch.weight == count
    found = task.loss(model, batch, options=TranslationOptions(label_smoothing=0.1)).item()
    assert found == pytest.approx(total / count, rel=1e-4)


def test_leaving_out_the_logits_of_padding_changes_no_gradient(make_study: MakeStudy) -> None:
    task: TranslationTask = loaded_task(make_study())
    (batch, *_) = task.batches("train", seed=1, epoch=0, batch_size=200, options=TranslationOptions())
    assert (batch.targets == 0).any()
    model, other = task.build_model(1), task.build_model(1)
    task.loss(model, batch, options=TranslationOptions(label_smoothing=0.1)).backward()
    logits, wanted = other(batch.sources, batch.targets[:, :-1]).flatten(0, 1), batch.targets[:, 1:].flatten()
    F.cross_entropy(logits, wanted, ignore_index=0, label_smoothing=0.1).backward()
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, another.grad)


def test_the_loss_of_a_split_does_not_depend_on_the_batches(make_study: MakeStudy) -> None:
    task = loaded_task(make_study())
    model = task.build_model(1)
    found = [task.mean_loss(model, "validation", batch_size=size) for size in (1, 3, 64)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
    translations = [task.translations(model, "validation", 2, batch_size=size) for size in (2, 7, 64)]
    assert translations[0] == translations[1] == translations[2]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_steps_are_as_many_as_batches(make_study: MakeStudy, accumulate: int) -> None:
    task = loaded_task(make_study(task={"accumulate": accumulate}))
    for epoch in range(3):
        batches = list(task.batches("train", seed=5, epoch=epoch, batch_size=50))
        assert len(batches) == task.steps("train", 50, epoch, seed=5)
    assert sum(len(part) for each in batches for part in micro_batches(each, None)) == 60


def test_accumulated_gradients_are_those_of_all_pairs_together(make_study: MakeStudy) -> None:
    """Three batches of which each is a part of one step: the step must be that of their mean over all pieces."""
    spec = make_study(task={"accumulate": 100}, training={"optimizer": "sgd", "epochs": 1})
    trial, task = trial_of(spec), loaded_task(spec)
    (batch,) = task.batches("train", seed=1, epoch=0, batch_size=120)
    model = task.build_model(1)
    options = TranslationOptions()
    loss = sum(task.loss(model, part, options=options) * part.weight for part in batch.accumulated()) / batch.weight
    loss.backward()
    before = [weight.clone() for weight in trial.state.model.parameters()]
    assert trial.state.step(batch, 0.5, None).item() == pytest.approx(loss.item(), rel=1e-5)
    for old, new, weight in zip(before, trial.state.model.parameters(), model.parameters(), strict=True):
        if weight.grad is not None:
            torch.testing.assert_close(new, old - 0.5 * weight.grad, rtol=1e-3, atol=1e-5)


def test_it_learns_the_language_and_beam_search_is_used_where_it_is_judged(
    make_text: MakeText, make_study: MakeStudy
) -> None:
    shape = {"layers": 1, "width": 32, "heads": 2, "feedforward": 64, "norm": "pre"}
    spec = make_study(make_text(train=400), task={"model_options": shape}, training={"epochs": 12, "batch_size": 400})
    trial = trial_of(spec, stage="confirm", lr=1e-2)
    records = list(trial.epochs())
    assert records[-1].others["loss"] < records[0].others["loss"] / 2
    assert records[0].others.keys() == {"loss", "chrf"}
    task = loaded_task(spec)
    outputs = task.translations(trial.state.model, "validation", 2)
    assert records[-1].value == task.scores("validation", outputs)["bleu"]
    assert trial.evaluate("validation") == records[-1].value > 20
    loss = {"loss": trial.measure("validation", 11)["loss"]}
    assert trial.evaluate_all("validation") == loss | task.scores("validation", outputs)
    examples = trial.examples()
    assert examples is not None
    assert examples["outputs"] == outputs
    words = {word for output in outputs for word in output.split()}
    assert len(words & set(WORDS.values())) >= 8


@pytest.mark.parametrize(("model", "precision"), [("transformer_tiny", "bfloat16"), ("lstm", "float32")])
def test_a_resumed_trial_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, make_study: MakeStudy, model: str, precision: str
) -> None:
    """With everything that draws or remembers: dropout, accumulation, average of the weights, clipping."""
    training = {"epochs": 3, "label_smoothing": 0.1, "ema_decay": 0.9, "clip_norm": 1.0, "precision": precision}
    spec = make_study(task={"model": model, "dropout": 0.3, "accumulate": 2}, training=training)
    whole = trial_of(spec)
    expected = list(whole.epochs())
    for epochs in (1, 2):
        with closing(trial_of(spec, checkpoint=tmp_path / f"{epochs}.ckpt").epochs()) as running:
            for _ in range(epochs):
                next(running)
        resumed = trial_of(spec, checkpoint=tmp_path / f"{epochs}.ckpt")
        assert len(resumed.curve) == epochs
        list(resumed.epochs())
        assert [(each.value, each.train_loss, each.others) for each in resumed.curve] == [
            (each.value, each.train_loss, each.others) for each in expected
        ]
        for one, other in zip(whole.state.model.parameters(), resumed.state.model.parameters(), strict=True):
            assert torch.equal(one, other)


def test_the_last_epoch_of_confirm_is_judged_by_beam_search_with_and_without_averaging(make_study: MakeStudy) -> None:
    spec = make_study(study={"metric": "chrf"}, task={"beam": 3}, training={"ema_decay": 0.5})
    trial, task = trial_of(spec, stage="confirm"), loaded_task(spec)
    first, last = trial.epochs()
    assert first.others.keys() == {"loss", "bleu", "chrf_without_ema"}
    for value, model in ((last.value, trial.state.judged), (last.others["chrf_without_ema"], trial.state.model)):
        assert value == task.score("validation", task.translations(model, "validation", 3))


def test_micro_batches_train_the_same(make_study: MakeStudy) -> None:
    spec = make_study(training={"epochs": 1, "optimizer": "sgd"})
    plain, small = trial_of(spec), trial_of(spec)
    small.memory = MemoryBudget(training=2, since=1)
    one, other = next(plain.epochs()), next(small.epochs())
    assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
    assert other.others["loss"] == pytest.approx(one.others["loss"], rel=1e-3)


def test_a_diverged_network_is_noticed(make_study: MakeStudy) -> None:
    task = loaded_task(make_study())
    model = task.build_model(1)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    assert math.isnan(task.evaluate(model, "validation"))
    assert all(math.isnan(value) for value in task.measure(model, "validation").values())


ODD = "a\u2028red dog\x0bruns\rfast\x85 and\x0c eats\u2029 ."
"""Characters that end a line for Python's `splitlines`, but not for sacrebleu."""


@pytest.mark.parametrize(
    ("scorer", "options"),
    [
        (Scorer("13a", lowercase=False), []),
        (Scorer("intl", lowercase=True), ["-tok", "intl", "-lc", "--chrf-lowercase"]),
    ],
)
def test_scores_are_those_of_sacrebleus_command(tmp_path: Path, scorer: Scorer, options: list[str]) -> None:
    outputs = [ODD, "Two men, one cat!", "Zwölf Boxkämpfer jagen „Viktor“ …", ""]
    references = [ODD.replace("dog", "cat"), "two men and a cat !", "zwölf Boxkämpfer jagten Viktor ...", "nothing"]
    for name, lines in (("out", outputs), ("ref", references)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "out", "-m", "bleu", "chrf", "-w", "6", *options]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    found = {each["name"]: each for each in json.loads(printed)}
    assert list(scorer.scores(outputs, references).values()) == pytest.approx(
        [found["BLEU"]["score"], found["chrF2"]["score"]], abs=1e-6
    )
    assert list(scorer.signatures().values()) == [found["BLEU"]["signature"], found["chrF2"]["signature"]]
    with pytest.raises(ValueError, match="4 outputs and 1 references"):
        scorer.scores(outputs, references[:1])


def test_the_vocabulary_is_part_of_the_tasks_identity(make_text: MakeText, make_study: MakeStudy) -> None:
    folder = make_text()
    first = loaded_task(make_study(folder))
    assert loaded_task(make_study(folder)).identity == first.identity
    with (folder / "train.xx").open("a") as one, (folder / "train.yy").open("a") as other:
        one.write("zebra zebra\n")
        other.write("zebra zebra ja\n")
    assert loaded_task(make_study(folder)).identity != first.identity


def test_tasks_with_other_networks_share_the_text(make_study: MakeStudy) -> None:
    spec = make_study()
    metric = spec.metric
    first = KIND.load(spec.task, metric=metric, seed=0, device="cpu")
    other = spec.task.model_copy(update={"dropout": 0.5})
    second = KIND.load(other, metric=metric, seed=0, device="cpu", like=first)
    assert second.split("train") is first.split("train")
    assert second.identity != first.identity
    assert KIND.load(other, metric=metric, seed=1, device="cpu", like=first).split("train") is not first.split("train")


def test_changed_test_text_is_noticed(make_text: MakeText, make_study: MakeStudy, tmp_path: Path) -> None:
    folder = make_text()
    spec = make_study(folder)
    (tmp_path / "out").mkdir()
    task = KIND.load(spec.task, metric=spec.metric, seed=0, device="cpu", cache=tmp_path / "out/data")
    (folder / "test.yy").write_text("anders\n" * 12)
    with pytest.raises(DataError, match="the test pairs changed"):
        task.size("test")


def problems(spec: StudySpec) -> list[str]:
    return [each.line for each in KIND.problems(spec, sample=10)]


def test_all_problems_are_found_at_once(make_text: MakeText, make_study: MakeStudy) -> None:
    folder = make_text()
    assert problems(make_study(folder)) == []
    (folder / "test.xx").write_text("one\n")
    (folder / "val.xx").write_bytes(b"\xff" * 12)
    found = problems(make_study(folder, task={"model_options": {"width": 7}}))
    assert len(found) == 3
    assert "must be a multiple" in found[2]
    (missing,) = set(problems(make_study(make_text(), training={"optimizer": "no_such_package:Adam"})))
    assert "importing 'no_such_package' failed" in missing
    assert "at most" in problems(make_study(make_text(), task={"vocabulary": {"size": 9000}}))[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"languages": ["en", "en"]}}, "both are en"),
        ({"task": {"languages": ["en", "../x"]}}, "not a valid language"),
        ({"task": {"model": "transformer_bsae"}}, "did you mean 'transformer_base'"),
        ({"task": {"model_options": {"depth": 3}}}, "depth: not an option of these networks"),
        ({"search": {"prune_metric": "los"}}, "did you mean 'loss'"),
        ({"search": {"prune_metric": "bleu"}}, "is the study's metric"),
        ({"study": {"metric": "loss"}, "search": {"prune_metric": "chrf"}}, "measure nothing else every epoch"),
        ({"search": {"prune_metric": "loss", "pruner": "none"}}, "has no effect with the pruner none"),
        ({"schedule": {"warmup": 0.0}}, "schedule.warmup = 0.0; allowed: a warm-up above 0"),
    ],
)
def test_mistakes_of_the_study_file(make_study: MakeStudy, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        make_study(**changes)


@pytest.mark.slow
def test_a_whole_study_shows_translations_side_by_side(
    tmp_path: Path, make_text: MakeText, make_study: MakeStudy
) -> None:
    spec = make_study(make_text(train=30, held_out=6), training={"epochs": 1}, search={"prune_metric": "loss"})
    page = run(spec, workers=2, launcher="inprocess", out=tmp_path / "out").page.read_text()
    for part in ("Examples", "length ratio", "Random sentences", "tok:13a", "Pruned on validation loss (minimize)"):
        assert part in page


def kept(outputs: list[str]) -> dict[str, Any]:
    references = [f"the number {number} is red ." for number in range(50)]
    return {"sources": [str(number) for number in range(50)], "references": references, "outputs": outputs,
            "signatures": {"bleu": "s"}}  # fmt: skip


def test_the_most_improved_sentences_come_first(tmp_path: Path) -> None:
    references = kept([])["references"]
    base, better = ["wrong"] * 50, ["wrong"] * 49 + [references[49]]
    section = KIND.section.model_validate(tables(tmp_path)["task"])
    shown = shown_examples(section, {"monotone": kept(base), "ralr": kept(better)})
    improved = next(part for part in shown.parts if part.caption.startswith("Most improved"))
    assert [row[0] for row in improved.rows] == ["49"]
    assert not any(part.caption.startswith("Most worsened") for part in shown.parts)
    assert shown.parts[1].head[1] == "6 to 6 tokens"


def test_lengths_are_counted_in_the_tokens_of_bleu() -> None:
    assert Scorer("13a", lowercase=False).token_counts(["two words.", ""]) == [3, 0]
    assert Scorer("zh", lowercase=False).token_counts(["你好吗"]) == [3]


@pytest.mark.parametrize("content", [{}, {"outputs": 3}, kept(["too few"])])
def test_damaged_examples_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    section = KIND.section.model_validate(tables(tmp_path)["task"])
    with pytest.raises(DataError):
        shown_examples(section, {"ralr": content})


def test_with_the_loss_as_the_metric_nothing_is_translated(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TranslationTask, "translations", lambda *_, **__: pytest.fail("translated"))
    spec = make_study(study={"metric": "loss"})
    assert spec.metric == Metric("loss", "minimize")
    record = next(trial_of(spec).epochs())
    assert record.others == {}
    assert 0 < record.value < 10
