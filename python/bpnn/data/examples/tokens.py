"""Tokens with a tag each: names, parts of speech."""
from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .._table import Table
from ..columns import by_name
from ..idx import DataError
from ._values import listed, shown, spelled

TOKENS = ("tokens", "words", "text", "sentence")
TAGS = ("tags", "labels", "ner_tags", "pos_tags", "label", "ner", "pos", "upos")


@dataclass(frozen=True, slots=True)
class TokenExample:
    """The tokens of a sentence and their tags, None where there are none."""

    tokens: list[str]
    tags: list[str] | None = None
    where: str = ""


def token_examples(
    table: Table, text: str | None = None, label: str | None = None, *, labels: Collection[Any] | None = None,
    labeled: bool | None = None,
) -> list[TokenExample]:
    """Examples of tagging: columns tokens and tags (`text`, `label`: other names), lists, in CSV as JSON or divided by blanks.

    CoNLL's files are read so by `read_table`. labels: the tags that are allowed; None: those that come, at least two. labeled: as
    of `text_examples`. Raises `DataError` for missing columns, a sentence without tokens, more or fewer tags than tokens.
    """
    for given in (text, label):
        if given is not None:
            table.column(given)
    text = text or by_name(table, TOKENS, "tokens", "text")
    if text is None:
        raise DataError(f"{table.path}: expected columns tokens and tags, got {table.described()}: say which with text= and label=")
    if label is None and labeled is not False:
        label = by_name(table, TAGS, "tags", "label", (text,))
    if label is None and labeled:
        raise DataError(f"{table.path}: expected columns tokens and tags, got {table.described()}: say which with label=")
    allowed = None if labels is None else {str(value) for value in labels}
    found: set[str] = set()
    examples = []
    for i, value in enumerate(table.column(text)):
        tokens = _list(value, table, i, text)
        if not tokens:
            raise DataError(f"{table.where(i)}: {text}: expected tokens, got none")
        for token in tokens:
            if not isinstance(token, str) or not token:
                raise DataError(f"{table.where(i)}: {text}: expected tokens that are texts, got {shown(token)}")
        tags = None
        if label is not None:
            tags = [spelled(tag, table, i, label) for tag in _list(table.column(label)[i], table, i, label)]
            if len(tags) != len(tokens):
                raise DataError(f"{table.where(i)}: {label}: expected {len(tokens)} tags, as many as tokens, got {len(tags)}")
            unknown = [] if allowed is None else [tag for tag in tags if tag not in allowed]
            if unknown:
                raise DataError(f"{table.where(i)}: {label}: expected one of the tags {listed(labels or ())}, got {unknown[0]!r}")
            found.update(tags)
        examples.append(TokenExample(tokens, tags, table.where(i)))
    if label is not None and labels is None and len(found) < 2:
        raise DataError(f"{table.path}: {label}: expected at least two tags, got {listed(found)} alone")
    return examples


def _list(value: Any, table: Table, i: int, column: str) -> list[Any]:
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return value.split()
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return str(value).split()  # a bracket is a token too
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{table.where(i)}: {column}: expected a list, or a text divided by blanks, got {shown(value)}")
    return list(value)
