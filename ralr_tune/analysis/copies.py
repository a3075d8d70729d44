"""What exact copies across the splits of a data set mean for scores. Imports no statistics: `run` shows this first."""

from __future__ import annotations

from ralr_tune.records import Inventory

MANY_COPIES = 0.01
"""Share of a split above which its copies are urgent (our choice). Public data sets have a few: 7 of CIFAR-100's
10,000 test images are also in train, too few to affect a verdict."""


def copies_sentences(inventory: Inventory | None, min_share: float = 0.0) -> list[str]:
    """Samples that are in several splits, with a pair as an example, for splits with at least `min_share` of copies."""
    if inventory is None:
        return []
    return [
        f"{found.count:,} of {inventory.size(found.split):,} {found.split} {inventory.unit} "
        f"{'is an exact copy' if found.count == 1 else 'are exact copies'} of {found.of} {inventory.unit} "
        f"({' = '.join(found.examples[0])}): {found.split} scores favour models that memorise them; "
        "delete all but one of each."
        for found in inventory.duplicates or ()
        if found.count >= min_share * inventory.size(found.split)
    ]
