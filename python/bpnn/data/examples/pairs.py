"""Texts that belong together, for embeddings: two with a score, or an anchor with a positive and perhaps a negative one."""
from __future__ import annotations

from dataclasses import dataclass

from .._table import Table
from ..columns import PAIRS
from ..idx import DataError
from ._values import a_number, a_text

SCORES = ("score", "label", "similarity", "similarity_score")
ANCHORS = (("anchor", "positive"), ("query", "positive"), ("sentence", "positive"))


@dataclass(frozen=True, slots=True)
class PairExample:
    """Two texts; their score, or a third text that is far from the first; both may be missing."""

    first: str
    second: str
    score: float | None = None
    negative: str | None = None
    where: str = ""


def pair_examples(
    table: Table, text: str | None = None, text_pair: str | None = None, label: str | None = None, *, negative: str | None = None,
) -> list[PairExample]:
    """Examples of pairs: columns sentence1, sentence2 and score, or anchor, positive and perhaps negative; found by name or given.

    All rows have a score, or none. Raises `DataError` for missing columns (lists those there are), empty texts, scores that are
    no numbers.
    """
    for given in (text, text_pair, label, negative):
        if given is not None:
            table.column(given)
    lower = {column.strip().lower(): column for column in table.columns}
    if (text is None) != (text_pair is None):
        raise DataError(f"{table.path}: expected both text= and text_pair=, or none of them; there are {table.described()}")
    if text is None:
        text, text_pair = next(((lower[a], lower[b]) for a, b in (*ANCHORS, *PAIRS) if a in lower and b in lower), (None, None))
    if text is None or text_pair is None:
        raise DataError(f"{table.path}: expected columns sentence1, sentence2 and score, or anchor, positive and negative, got "
                        f"{table.described()}: say which are the texts with text= and text_pair=")
    if label is None:
        label = next((lower[name] for name in SCORES if name in lower and lower[name] not in (text, text_pair)), None)
    if negative is None:
        negative = lower.get("negative")
    examples = []
    for i, (first, second) in enumerate(zip(table.column(text), table.column(text_pair))):
        examples.append(PairExample(
            a_text(first, table, i, text), a_text(second, table, i, text_pair),
            None if label is None else a_number(table.column(label)[i], table, i, label),
            None if negative is None else a_text(table.column(negative)[i], table, i, negative), table.where(i),
        ))
    return examples
