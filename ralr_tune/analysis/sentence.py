"""A sentence whose verdict is a separate part."""

from __future__ import annotations


class Sentence(str):
    """`before + verdict + after` as plain text; formats with emphasis highlight the verdict."""

    before: str
    verdict: str
    after: str

    def __new__(cls, before: str, verdict: str, after: str) -> Sentence:
        made = super().__new__(cls, before + verdict + after)
        made.before, made.verdict, made.after = before, verdict, after
        return made
