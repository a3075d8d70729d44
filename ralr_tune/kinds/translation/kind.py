"""The machine translation kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralr_tune.kinds.translation.metrics import METRICS, epoch_metrics
from ralr_tune.kinds.translation.options import TranslationOptions
from ralr_tune.kinds.translation.section import TranslationSection, TranslationTraining
from ralr_tune.machine.files import sha256_of
from ralr_tune.metric import Metric
from ralr_tune.records import Inventory, SourceFile
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.contradictions import Contradiction, Problem, missing_file
from ralr_tune.studyfile.exported import Exported
from ralr_tune.studyfile.kind import StagedKind, TaskSummary
from ralr_tune.tasks.examples import Examples
from ralr_tune.tasks.trial import TrainingSplit, TrialStage
from ralr_tune.training.kind import TorchKind

if TYPE_CHECKING:
    from ralr_tune.kinds.translation.task import TranslationTask
    from ralr_tune.kinds.translation.trial import TranslationTrial
    from ralr_tune.tasks.base import Task


class TranslationKind(StagedKind, TorchKind):
    """Parallel text of two languages."""

    name = "translation"
    metrics = METRICS
    section = TranslationSection
    training = TranslationTraining
    substitutes = {"languages": ("xx", "yy"), "data": {"source": "folder"}}
    packages = (*TorchKind.packages, "sentencepiece", "sacrebleu")
    changes = {
        ("data",): (False, "earlier trials may have used other text"),
        ("vocabulary",): (False, "earlier trials had other pieces"),
        (): (False, "the trials trained another network, or were scored otherwise"),
    }

    # ------------------------------------------------------------ training

    def options(self, values: Mapping[str, Any]) -> TranslationOptions:
        return TranslationOptions(**values)

    def epoch_metrics(self, section: TranslationSection, metric: Metric) -> Mapping[str, Metric]:
        return epoch_metrics(metric)

    def load(
        self,
        section: TranslationSection,
        *,
        metric: Metric,
        seed: int,
        device: str,
        cache: Path | None = None,
        like: Task | None = None,
    ) -> TranslationTask:
        from ralr_tune.kinds.translation.loading import load_task

        identity = self.identity(section, seed=seed, metric=metric)
        return load_task(section, metric=metric, seed=seed, device=device, identity=identity, cache=cache, like=like)

    def import_training(self) -> None:
        super().import_training()
        import ralr_tune.kinds.translation.trial  # noqa: F401

    def trial_in_stage(
        self,
        task: Any,
        configuration: Configuration,
        *,
        stage: TrialStage,
        seed: int,
        checkpoint: Path | None = None,
        earlier: Sequence[Path] = (),
        split: TrainingSplit = "train",
    ) -> TranslationTrial:
        from ralr_tune.kinds.translation.trial import TranslationTrial
        from ralr_tune.logs import warnings_to_log

        with warnings_to_log():
            return TranslationTrial(
                task, configuration, stage=stage, seed=seed, checkpoint=checkpoint, earlier=earlier, split=split
            )

    # ------------------------------------------------------------ the study file

    def missing(self, section: TranslationSection) -> Iterator[Contradiction]:
        yield from missing_file(("task", "data", "path"), section.data.path)
        if section.vocabulary.model is not None:
            yield from missing_file(("task", "vocabulary", "model"), section.vocabulary.model)

    def problems(self, spec: StudySpec, *, imports: bool = True, sample: int) -> Iterator[Problem]:
        from ralr_tune.kinds.translation.problems import study_problems

        yield from super().problems(spec, imports=imports, sample=sample)
        yield from study_problems(spec)

    # ------------------------------------------------------------ reporting

    def examine(self, section: TranslationSection) -> TaskSummary:
        from ralr_tune.kinds.translation.corpus import read_corpus

        pairs = read_corpus(section.data, section.languages, "train", seed=0).pairs
        return TaskSummary(f"{len(pairs):,} training pairs, {section.languages[0]} to {section.languages[1]}")

    def inventory(
        self,
        section: TranslationSection,
        *,
        seed: int,
        cache: Path | None = None,
        sample: int | None = None,
        contents: bool = False,
    ) -> Inventory:
        from ralr_tune.kinds.translation.loading import inventory_of_section

        return inventory_of_section(section, seed=seed, cache=cache)

    def inventory_of(self, task: TranslationTask) -> Inventory | None:
        return task.inventory

    def source_files(self, section: TranslationSection) -> Iterator[SourceFile]:
        model = section.vocabulary.model
        if model is not None:
            digest = sha256_of(Path(model).expanduser())
            yield SourceFile("task.vocabulary.model", f"vocabulary {Path(model).name}", (digest,) if digest else ())

    def examples(self, task: TranslationTask, trial: TranslationTrial) -> Mapping[str, Any] | None:
        return trial.examples()

    def shown_examples(self, section: TranslationSection, by_arm: Mapping[str, Mapping[str, Any]]) -> Examples:
        from ralr_tune.kinds.translation.shown import shown_examples

        return shown_examples(section, by_arm)

    def script(self, exported: Exported) -> str:
        from ralr_tune.kinds.translation.script import script

        return script(exported)

    def caches(self, out: Path) -> Iterator[tuple[Path, str]]:
        for path in sorted((out / "data").glob("vocabulary-*.model")):
            yield path, "vocabularies, trained again when needed"


KIND = TranslationKind()
