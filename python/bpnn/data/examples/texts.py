"""Texts, or pairs of texts, with a label or a number."""
from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from .._table import Table
from ..columns import PAIRS, is_number, label_column, number_column, text_column
from ..idx import DataError
from ._values import a_number, a_text, labels_of


@dataclass(frozen=True, slots=True)
class TextExample:
    """A text, perhaps a second one, and its label: a text, a number for regression, None where there is none."""

    text: str
    pair: str | None = None
    label: Any = None
    where: str = ""


def text_examples(
    table: Table, text: str | None = None, text_pair: str | None = None, label: str | None = None, *,
    labels: Collection[Any] | None = None, labeled: bool | None = None,
) -> list[TextExample]:
    """Examples of classification; a label is a text, "1" where the file has the number 1.

    text, text_pair, label: columns; None: found by name (text, sentence, review …; premise and hypothesis …; label, class …), or
    by content where that leaves no doubt. labels: all that are allowed; None: those that come, at least two. labeled: True:
    raise where there is no column of labels; False: do not look for one.

    Raises `DataError` for a missing column (lists those there are), an empty text, a label that is missing or not allowed, one
    label alone, numbers and words mixed.
    """
    columns = _columns(table, text, text_pair, label, labeled, label_column)
    values: list[Any] = [None] * len(table) if columns[2] is None else list(labels_of(table, columns[2], labels))
    return _examples(table, columns, values)


def regression_examples(
    table: Table, text: str | None = None, text_pair: str | None = None, label: str | None = None, *, labeled: bool | None = None,
) -> list[TextExample]:
    """Examples of regression; a label is a finite number (score, label, rating …). Arguments and errors as of `text_examples`."""
    columns = _columns(table, text, text_pair, label, labeled, number_column)
    values: list[Any] = [None] * len(table)
    if columns[2] is not None:
        values = [a_number(value, table, i, columns[2]) for i, value in enumerate(table.column(columns[2]))]
        if labeled and len(set(values)) == 1 and len(values) > 1:
            what = f"{values[0]} in all {len(values):,} rows"
            raise DataError(f"{table.path}: {columns[2]}: expected numbers that differ, got {what}")
    return _examples(table, columns, values)


def find_labels(examples: list[TextExample]) -> list[str]:
    """All labels of examples in order: numbers by size, others by letters."""
    found = {str(example.label) for example in examples if example.label is not None}
    return sorted(found, key=float) if all(map(is_number, found)) else sorted(found)


Columns = tuple[str, str | None, str | None]


def _columns(
    table: Table, text: str | None, pair: str | None, label: str | None, labeled: bool | None, find: Callable[..., str | None],
) -> Columns:
    """The columns of text, second text, label."""
    for given in (text, pair, label):
        if given is not None:
            table.column(given)
    if text is None and pair is None:
        lower = {column.strip().lower(): column for column in table.columns if column != label}
        text, pair = next(((lower[a], lower[b]) for a, b in PAIRS if a in lower and b in lower), (None, None))
    if labeled is not False and label is None and (text is not None or len(table.columns) > 1):
        label = find(table, None, (text, pair))
    if labeled and label is None:
        raise DataError(f"{table.path}: which column is the label? There are {table.described()}: say which with label=")
    return text_column(table, text, (pair, label)), pair, label


def _examples(table: Table, columns: Columns, labels: list[Any]) -> list[TextExample]:
    text, pair, _ = columns
    texts = table.column(text)
    pairs = [None] * len(table) if pair is None else table.column(pair)
    return [
        TextExample(
            a_text(first, table, i, text), None if pair is None else a_text(second, table, i, pair), label, table.where(i),
        )
        for i, (first, second, label) in enumerate(zip(texts, pairs, labels))
    ]
