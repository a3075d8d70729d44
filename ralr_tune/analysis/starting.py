"""What a study took from an earlier one, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from ralr_tune.records import WarmStart


def start_sentence(start: WarmStart) -> str:
    """What every arm tries first."""
    count = len(start.trials)
    generation = f" (generation {start.generation})" if start.generation > 1 else ""
    return (
        f"Every arm first tries the same {count} configuration{'' if count == 1 else 's'}, the best search trials of "
        f"study {start.study}{generation}; none of its values and confirmation seeds is used."
    )


def start_sentences(start: WarmStart | None, blocks: int = 1) -> Iterator[str]:
    """What was taken, what was not, and what it means for a verdict on the schedules."""
    if start is None:
        return
    yield start_sentence(start)
    if blocks > 1:
        yield "All blocks begin with these: a verdict on the schedules is about searches that start from them."
    yield from (f"{note}." for note in start.notes)
