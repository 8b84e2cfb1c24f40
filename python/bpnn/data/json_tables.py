"""Tables in JSON: an object a line, a list of objects, columns by name, or SQuAD's questions; errors name line and column."""
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ._table import Table, gather
from .idx import DataError

TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\n]')


def read_json_lines(lines: Iterable[str], name: str) -> Table:
    """JSON-lines: each line an object, empty lines skipped; a row that lacks a column has None there."""
    numbers: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.rstrip("\n"))
            except json.JSONDecodeError as error:
                opened = line.strip() in ("[", "{")
                hint = "; a .jsonl has a whole object in each line, a list of objects is a .json" if opened else ""
                raise DataError(f"{name}:{number}: broken JSON in column {error.colno} ({error.msg}){hint}") from None
            except RecursionError:
                raise DataError(f"{name}:{number}: JSON nested too deeply") from None
            if not isinstance(row, dict):
                raise DataError(f"{name}:{number}: expected an object {{…}}, got {_kind(row)}: {line.strip()[:40]!r}")
            numbers.append(number)
            yield row

    data = gather(rows())
    return _table(data, name, numbers)


class _Object(dict[str, Any]):
    """An object and the line where it begins."""

    __slots__ = ("line",)
    line: int


def read_json(text: str, name: str) -> Table:
    """A JSON file: a list of objects; an object with one such list ("data", "rows" …); an object of columns; SQuAD's articles."""
    if not text.strip():
        raise DataError(f"{name}: is empty; expected rows")
    begins = _begins(text)

    def located(pairs: list[tuple[str, Any]]) -> _Object:
        made = _Object(pairs)
        made.line = next(begins, 1)
        return made

    try:
        whole = json.loads(text, object_pairs_hook=located)
    except json.JSONDecodeError as error:
        hint = "; a file with one object a line is named .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{name}:{error.lineno}: broken JSON in column {error.colno} ({error.msg}){hint}") from None
    except RecursionError:
        raise DataError(f"{name}: JSON nested too deeply") from None
    rows = whole
    if isinstance(whole, dict):
        lists = {key: value for key, value in whole.items() if isinstance(value, list) and value}
        tables = {key: value for key, value in lists.items() if isinstance(value[0], dict)}
        if len(tables) == 1 and len(lists) == 1:
            rows = next(iter(tables.values()))
        elif lists and len(lists) == len(whole):
            sizes = {key: len(value) for key, value in lists.items()}
            if len(set(sizes.values())) > 1:
                raise DataError(f"{name}: expected columns of one length, got {', '.join(f'{k}: {n}' for k, n in sizes.items())}")
            return Table(dict(lists), name, np.arange(1, next(iter(sizes.values())) + 1), form="{path}: row {line}")
        else:
            raise DataError(f"{name}: expected a list of objects, or an object with one such list, got an object of "
                            f"{', '.join(map(repr, list(whole)[:20])) or 'nothing'}")
    if not isinstance(rows, list):
        raise DataError(f"{name}: expected a list of objects, got {_kind(rows)}")
    for i, row in enumerate(rows):
        if not isinstance(row, _Object):
            line = f":{rows[i - 1].line}: after this row" if i else ":"
            raise DataError(f"{name}{line} expected an object {{…}} in the list, got {_kind(row)}: {str(row)[:40]!r}")
    if rows and "paragraphs" in rows[0]:
        rows = list(_questions(rows, name))
    return _table(gather(rows), name, [row.line for row in rows])


def _table(data: dict[str, list[Any]], name: str, numbers: list[int]) -> Table:
    if not numbers:
        raise DataError(f"{name}: is empty; expected rows")
    if not data:
        raise DataError(f"{name}:{numbers[0]}: expected objects with names and values, got empty ones")
    return Table(data, name, np.array(numbers))


def _begins(text: str) -> Iterator[int]:
    """The lines where objects begin, in the order in which they end."""
    line, opened = 1, []
    for found in TOKEN.finditer(text):
        mark = found.group()
        if mark == "\n":
            line += 1
        elif mark == "{":
            opened.append(line)
        elif mark == "}" and opened:
            yield opened.pop()


def _questions(articles: list[Any], name: str) -> Iterator[_Object]:
    """Rows id, question, context, answers of SQuAD's articles. Rajpurkar et al. (2016)."""
    for article in articles:
        for paragraph in _list(article, "paragraphs", name):
            if not isinstance(paragraph.get("context"), str):
                raise DataError(f"{name}:{paragraph.line}: expected a paragraph with a text 'context', got {', '.join(paragraph)}")
            for question in _list(paragraph, "qas", name):
                row = _Object(id=str(question.get("id", "")), question=question.get("question"), context=paragraph["context"])
                row["answers"] = [] if question.get("is_impossible") else question.get("answers")
                row.line = question.line
                yield row


def _list(holder: Any, key: str, name: str) -> list[Any]:
    found = holder.get(key)
    if not isinstance(found, list) or not all(isinstance(item, _Object) for item in found):
        raise DataError(f"{name}:{holder.line}: expected a list of objects {key!r}, got {_kind(found)}")
    return found


def _kind(value: Any) -> str:
    kinds = {list: "a list", _Object: "an object", dict: "an object", str: "a text", bool: "true or false", type(None): "null",
             int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)
