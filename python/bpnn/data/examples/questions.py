"""Questions whose answers are spans of a context."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .._table import Table
from ..idx import DataError
from ._values import a_text, columns_of, shown


@dataclass(frozen=True, slots=True)
class QuestionExample:
    """A question about a context and its answers: (text, place of its first character); none: it has no answer."""

    id: str
    question: str
    context: str
    answers: list[tuple[str, int]] = field(default_factory=list)
    where: str = ""


def question_examples(table: Table, *, labeled: bool | None = None, locate: bool = True) -> list[QuestionExample]:
    """Examples of question answering: columns question, context, perhaps id, and answers, or answer_text and answer_start.

    answers: SQuAD's [{"text": …, "answer_start": …}] or {"text": […], "answer_start": […]}, in CSV as JSON; an empty list says that
    the context has no answer. An answer must stand in the context at its place; where it stands at another, the nearest, that
    one is taken (`locate`), as data sets are off by some characters. Of several answers those that are not in the context are left
    out. labeled: True: raise where there are no answers at all.

    Raises `DataError` for missing columns, an empty question or context, a question none of whose answers is in the context.
    """
    question, context = columns_of(table, ("question", "context"), "question and context")
    lower = {column.strip().lower(): column for column in table.columns}
    pair = [lower.get("answer_text") or lower.get("answer"), lower.get("answer_start")]
    if "answers" not in lower and pair[0] is None and labeled:
        raise DataError(f"{table.path}: expected a column answers, or answer_text and answer_start, got {table.described()}")
    examples = []
    for i in range(len(table)):
        row = table[i]
        asked, told = a_text(row[question], table, i, question), a_text(row[context], table, i, context)
        if "answers" in lower:
            found = _answers(row[lower["answers"]], table, i, lower["answers"])
        elif pair[0] is not None:
            found = [] if row[pair[0]] in (None, "") else [(row[pair[0]], row[pair[1]] if pair[1] else None)]
        else:
            found = []
        places = [_placed(text, start, told, table, i, locate) for text, start in found]
        answers = [(text, start) for text, start in places if start >= 0]
        if found and not answers:
            raise DataError(f"{table.where(i)}: the answer {shown(found[0][0])} is not in the context")
        name = str(row[lower["id"]]) if "id" in lower and row[lower["id"]] not in (None, "") else str(i)
        examples.append(QuestionExample(name, asked, told, answers, table.where(i)))
    return examples


def _answers(value: Any, table: Table, i: int, column: str) -> list[tuple[Any, Any]]:
    """(text, start) of each answer, as they are in the file."""
    given = value
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except json.JSONDecodeError:
            raise DataError(f"{table.where(i)}: {column}: expected answers in JSON, got {shown(given)}") from None
    if value is None:
        return []
    if isinstance(value, dict) and isinstance(value.get("text"), list) and isinstance(value.get("answer_start"), list):
        if len(value["text"]) != len(value["answer_start"]):
            raise DataError(f"{table.where(i)}: {column}: expected as many starts as texts, got {shown(given)}")
        return list(zip(value["text"], value["answer_start"]))
    if isinstance(value, dict) and "text" in value:
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, dict) and "text" in item for item in value):
        raise DataError(f'{table.where(i)}: {column}: expected [{{"text": …, "answer_start": …}}], got {shown(given)}')
    return [(item["text"], item.get("answer_start")) for item in value]


def _placed(text: Any, start: Any, context: str, table: Table, i: int, locate: bool) -> tuple[str, int]:
    """An answer and the place where it stands, -1 for nowhere."""
    text = a_text(text, table, i, "answer")
    if isinstance(start, str) and start.strip().lstrip("-").isdigit():
        start = int(start)
    if isinstance(start, float) and start == int(start):
        start = int(start)
    if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
        raise DataError(f"{table.where(i)}: answer_start: expected a whole number, got {shown(start)}")
    if start is not None and start >= 0 and context.startswith(text, start):
        return text, start
    if not locate and start is not None:
        raise DataError(f"{table.where(i)}: expected the answer {shown(text)} at character {start} of the context, got "
                        f"{shown(context[max(start, 0) : max(start, 0) + len(text)])}")
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if not places:
        return text, -1
    return text, places[0] if start is None or start < 0 else min(places, key=lambda place: abs(place - start))
