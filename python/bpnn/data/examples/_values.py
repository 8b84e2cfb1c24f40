"""Values of a row, checked one by one."""
from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from .._table import Table
from ..columns import is_number
from ..idx import DataError


def shown(value: Any) -> str:
    """A value for a message: short, with its type where that is what is wrong."""
    if value is None:
        return "none"
    spelled = repr(value)
    return spelled if len(spelled) <= 60 else spelled[:57] + "…" + spelled[0]


def a_text(value: Any, table: Table, i: int, column: str) -> str:
    """A text that is not empty."""
    if isinstance(value, str):
        if value.strip():
            return value
        raise DataError(f"{table.where(i)}: {column}: expected a text, got an empty one")
    kind = "" if value is None else f" ({type(value).__name__})"
    raise DataError(f"{table.where(i)}: {column}: expected a text, got {shown(value)}{kind}")


def a_number(value: Any, table: Table, i: int, column: str) -> float:
    """A finite number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{table.where(i)}: {column}: expected a number, got none")
    if not is_number(value):
        hint = "; numbers have a point, no comma" if isinstance(value, str) and is_number(value.strip().replace(",", ".")) else ""
        raise DataError(f"{table.where(i)}: {column}: expected a number, got {shown(value)}{hint}")
    return float(value)


def spelled(value: Any, table: Table, i: int, column: str) -> str:
    """A label as text: a text without blanks at its ends, a whole number, true or false."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))  # what data frames make of whole numbers with gaps
    if isinstance(value, (int, bool)):
        return str(value)
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value)) or isinstance(value, str)
    kind = "none" if missing else f"{shown(value)} ({type(value).__name__})"
    raise DataError(f"{table.where(i)}: {column}: expected a label, got {kind}")


def labels_of(table: Table, column: str, labels: Collection[Any] | None) -> list[str]:
    """The labels of a column: of the list `labels`, or else two kinds or more, all numbers or all words."""
    values = [spelled(value, table, i, column) for i, value in enumerate(table.column(column))]
    if labels is not None:
        allowed = {str(label) for label in labels}
        for i, value in enumerate(values):
            if value not in allowed:
                raise DataError(f"{table.where(i)}: {column}: expected one of the labels {listed(labels)}, got {value!r}")
        return values
    distinct = sorted(set(values))
    numeric = [is_number(value) for value in distinct]
    if any(numeric) and not all(numeric):
        words = {value for value, number in zip(distinct, numeric) if not number}
        number = next(i for i, value in enumerate(values) if value not in words)
        word = next(i for i, value in enumerate(values) if value in words)
        many = sum(value in words for value in values) * 2 > len(values)
        (odd, rule), (kind, other) = ((number, word), ("a word", "number")) if many else ((word, number), ("a number", "word"))
        raise DataError(f"{table.where(odd)}: {column}: expected {kind} as in {table.where(rule)} ({values[rule]!r}), got the "
                        f"{other} {values[odd]!r}; if both are labels, give labels=")
    if len(distinct) < 2:
        raise DataError(f"{table.path}: {column}: expected at least two labels, got {distinct[0]!r} alone in all "
                        f"{len(values):,} rows")
    return values


def listed(values: Collection[Any], most: int = 20) -> str:
    """The first of some values for a message."""
    names = [repr(str(value)) for value in values]
    return ", ".join(names[:most]) + (f" … ({len(names):,} in all)" if len(names) > most else "")


def columns_of(table: Table, names: Sequence[str], what: str) -> list[str]:
    """The columns with these names, letters of either case. Raises `DataError` for one that is missing."""
    lower = {column.strip().lower(): column for column in table.columns}
    for name in names:
        if name not in lower:
            raise DataError(f"{table.path}: expected columns {what}, got {table.described()}")
    return [lower[name] for name in names]
