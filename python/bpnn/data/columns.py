"""Which column is what, by its name or, where names say nothing, by its content; never a guess where two would do."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._table import Table
from .idx import DataError

# The first of a line is the plain name: it wins over the others.
TEXT = ("text", "sentence", "review", "content", "comment", "tweet", "body", "message", "document", "utterance", "article",
        "text_a", "sentence1", "review_text", "review_body", "reviewtext")
LABEL = ("label", "labels", "class", "category", "sentiment", "target", "y", "intent", "emotion", "topic", "polarity", "label_text")
NUMBER = ("score", "label", "labels", "target", "y", "rating", "stars", "value", "similarity", "similarity_score", "sentiment",
          "grade")
PAIRS = (("text", "text_pair"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("text1", "text2"), ("text_a", "text_b"),
         ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"), ("question", "passage"),
         ("query", "passage"), ("query", "document"), ("sentence_a", "sentence_b"))
OTHERS = ("id", "idx", "index", "guid", "title", "question", "context", "answer", "answers", "answer_text", "answer_start",
          "prompt", "completion", "response", "instruction", "input", "output", "messages", "conversations", "anchor", "query",
          "tokens", "tags", "words", "ner_tags", "pos_tags", "image", "path", "file", "filename", "file_name", "user", "date",
          "timestamp", "name", "source", "split")
# With these names alone a first line may be data: texts are labelled so.
KNOWN = frozenset((*TEXT, *LABEL, *NUMBER, *OTHERS, *(name for pair in PAIRS for name in pair)))
SHORT = 40  # characters of a label, at most
SAMPLE = 5000


def is_number(value: Any) -> bool:
    """Whether a value is a finite number or a text that spells one."""
    if isinstance(value, bool) or value is None:
        return False
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return abs(number) < float("inf") and not (isinstance(value, str) and "_" in value)


def by_name(table: Table, names: Sequence[str], what: str, option: str, taken: Sequence[str | None] = ()) -> str | None:
    """The column that has one of `names`, letters of either case; None without one, `DataError` where it could be several."""
    found = [column for column in table.columns if column.strip().lower() in names and column not in taken]
    plain = [column for column in found if column.strip().lower() == names[0]]
    if len(plain) == 1:
        return plain[0]
    if len(found) > 1:
        raise DataError(f"{table.path}: {' and '.join(map(repr, found))} could be the {what}: say which with {option}=")
    return found[0] if found else None


def by_content(table: Table, taken: Sequence[str | None] = ()) -> tuple[list[str], list[str]]:
    """(columns that look like labels, columns that look like texts) among those not `taken`.

    Labels: texts or whole numbers that are short and few: no more than a fifth of the rows, or two. Texts: the longer ones, mostly
    distinct, no numbers.
    """
    labels, texts = [], []
    for name in table.columns:
        if name in taken:
            continue
        values = [value for value in table.column(name)[:SAMPLE] if value is not None]
        if not values or not all(isinstance(value, (str, int)) for value in values):
            continue
        spelled = [str(value).strip() for value in values]
        distinct = set(spelled)
        whole = all(value.lstrip("+-").isdigit() for value in distinct)
        if 1 <= len(distinct) <= max(2, min(200, len(values) // 5)) and max(map(len, distinct)) <= SHORT and (
                whole or not all(map(is_number, distinct))):
            labels.append(name)
        elif not all(map(is_number, distinct)):
            texts.append(name)
    return labels, texts


def text_column(table: Table, given: str | None, taken: Sequence[str | None] = (), option: str = "text") -> str:
    """The column of texts: the one `given`, else found. Raises `DataError` that lists the columns and says what to give."""
    if given is not None:
        table.column(given)
        return given
    found = by_name(table, TEXT, "text", option, taken)
    if found is not None:
        return found
    left = [name for name in table.columns if name not in taken]
    if len(left) == 1:
        return left[0]
    _, texts = by_content(table, taken)
    if len(texts) == 1:
        return texts[0]
    raise DataError(f"{table.path}: which column is the text? There are {table.described()}: say which with {option}=")


def label_column(table: Table, given: str | None, taken: Sequence[str | None] = ()) -> str | None:
    """The column of labels: the one `given`, else found; None where none looks like it. Raises `DataError` where several do."""
    if given is not None:
        table.column(given)
        return given
    found = by_name(table, LABEL, "label", "label", taken)
    if found is not None or len(table.columns) - len([name for name in taken if name]) < 1:
        return found
    # A name that says something else (title, country) is not taken for a label unless it alone is left beside a text.
    if table.named and len(table.columns) > 2:
        return None
    labels, _ = by_content(table, taken)
    if len(labels) == 2 == len(table.columns):
        # Of a few rows texts repeat as little as labels; numbers are no texts.
        labels = [name for name in labels if all(map(is_number, table.column(name)))] or labels
    if len(labels) > 1:
        raise DataError(f"{table.path}: {' and '.join(map(repr, labels))} could be the label: say which with label=")
    return labels[0] if labels else None


def number_column(table: Table, given: str | None, taken: Sequence[str | None] = ()) -> str | None:
    """The column of numbers for regression: the one `given`, else found by name, or the only one that has nothing but numbers."""
    if given is not None:
        table.column(given)
        return given
    found = by_name(table, NUMBER, "label", "label", taken)
    if found is not None:
        return found
    numeric = [name for name in table.columns if name not in taken and all(map(is_number, table.column(name)))]
    return numeric[0] if len(numeric) == 1 else None
