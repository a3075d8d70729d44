"""A sentence that knows which of its words are the verdict."""

from __future__ import annotations


class Sentence(str):
    """`before + verdict + after` as plain text; the parts say what to set off where text has emphasis."""

    before: str
    verdict: str
    after: str

    def __new__(cls, before: str, verdict: str, after: str) -> Sentence:
        made = super().__new__(cls, before + verdict + after)
        made.before, made.verdict, made.after = before, verdict, after
        return made
