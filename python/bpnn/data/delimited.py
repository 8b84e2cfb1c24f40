"""CSV and TSV: fields, header, and complaints with the line that an editor shows.

CSV has quotes (RFC 4180), TSV none, as corpora are published; which character separates fields and whether the first line is a
header is taken from the content only where it leaves no doubt.
"""
from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from ._table import Table
from .columns import KNOWN, SHORT, is_number
from .idx import DataError
from .sources import LIMIT

Record = tuple[int, list[str]]  # line where it begins, fields
DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
SAMPLE = 200  # records that are looked at
QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"')


def read_delimited(
    lines: Iterable[str], name: str, *, delimiter: str | None = None, header: bool | None = None, quotes: bool = True,
    limit: int = LIMIT, columns: list[str] | None = None,
) -> Table:
    """The table in `lines` of a file `name`.

    delimiter: None: of CSV a comma, semicolon, tab or bar, whichever divides all rows alike. header: whether the first line names
    the columns (None: seen from it; without, they are column1, column2 …). columns: names that are wanted; where the first line
    has them all it is the header. Empty lines are skipped. Raises `DataError` with the line of what is wrong.
    """
    first = list(islice(lines, SAMPLE))
    if delimiter is None:
        delimiter = _delimiter(first, name) if first else ","
    given = chain(first, lines)
    records = _quoted(given, name, delimiter, limit) if quotes else _plain(given, delimiter)
    sample = list(islice(records, SAMPLE))
    if not sample:
        raise DataError(f"{name}: is empty; expected rows")
    names = _header(sample, name, header, columns)
    named = names is not None
    if names is None:
        names = [f"column{i}" for i in range(1, len(sample[0][1]) + 1)]
    else:
        del sample[0]
        if not sample:
            raise DataError(f"{name}: has a header ({', '.join(names)}) but no rows")
    data: dict[str, list[Any]] = {column: [] for column in names}
    numbers: list[int] = []
    batch = sample
    while batch:
        for line, fields in batch:
            if len(fields) != len(names):
                raise DataError(f"{name}:{line}: {_count(fields, names, named, delimiter, quotes)}")
        some, rows = zip(*batch)
        numbers += some
        for values, new in zip(data.values(), zip(*rows)):
            values += new
        batch = list(islice(records, 8192))
    return Table(data, name, np.array(numbers), named=named)


def _count(fields: list[str], names: list[str], named: bool, delimiter: str, quotes: bool) -> str:
    mark = DELIMITERS.get(delimiter, repr(delimiter))
    what = f" ({', '.join(names)})" if named else ", as in the first row"
    plural = "s" * (len(names) != 1)
    hint = ""
    if not quotes and any(field.startswith('"') and field.count('"') % 2 for field in fields):
        hint = "; quotes=True reads fields in quotes, which may go over lines"
    elif quotes and delimiter == "," and len(fields) > len(names):
        hint = "; a text with commas needs quotes around it"
    got = f"{len(fields)}: {delimiter.join(fields)[:60]!r}"
    return f"expected {len(names)} field{plural}{what} with {mark} between, got {got}{hint}"


# Records --------------------------------------------------------------------------------------------------------------


def _plain(lines: Iterable[str], delimiter: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\n")
        if line.strip():
            yield number, line.split(delimiter)


def _quoted(lines: Iterable[str], name: str, delimiter: str, limit: int) -> Iterator[Record]:
    held: list[str] = []  # the lines of the present record
    start = 1

    def feed() -> Iterator[str]:
        size = 0
        for line in lines:
            size = size + len(line) if held else len(line)
            held.append(line)
            if size > limit and len(held) > 1:
                at, _ = _open_quote(held, start, delimiter)
                raise DataError(f"{name}:{at}: a quoted field begins here and is longer than {limit:,} characters: is its quote "
                                "closed? (limit= allows more)")
            yield line

    # The csv module's own limit is one for the whole process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * limit))
    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield start, fields
            start = reader.line_num + 1
            held.clear()
    except csv.Error as error:
        raise DataError(_complaint(held, start, delimiter, name, str(error))) from None


def _complaint(held: list[str], start: int, delimiter: str, name: str, error: str) -> str:
    if "new-line" in error:
        return f"{name}:{start}: has a carriage return in a field that is not quoted; expected lines that end with \\n or \\r\\n"
    at, after = _open_quote(held, start, delimiter)
    if after is None:
        return f"{name}:{at}: a quoted field begins here and its quote is never closed"
    line, rest = after
    place = "" if line == at else f" (it begins in line {at})"
    return (f"{name}:{line}: expected {delimiter!r} or the end of the line after a quoted field{place}, got {rest[:20]!r}; a quote "
            'inside of a quoted field is written twice ("")')


def _open_quote(held: list[str], start: int, delimiter: str) -> tuple[int, tuple[int, str] | None]:
    """The line where the last quoted field of a record begins, and (line, text) of what wrongly follows it, None for nothing."""
    text = "".join(held)
    at, place = start, 0
    while place < len(text):
        if text[place] == '"':
            at = start + text.count("\n", 0, place)
            found = QUOTED.match(text, place)
            if found is None:
                return at, None
            place = found.end()
            if place < len(text) and text[place] not in (delimiter, "\n"):
                return at, (start + text.count("\n", 0, place), text[place:].split("\n")[0])
            place += 1
        else:
            ends = [end for end in (text.find(delimiter, place), text.find("\n", place)) if end >= 0]
            place = min(ends, default=len(text)) + 1
    return at, None


# What the content says ------------------------------------------------------------------------------------------------


def _delimiter(lines: list[str], name: str) -> str:
    """The character that divides all rows of a sample alike; a comma where none does."""
    fitting, first = [], {}
    for mark in DELIMITERS:
        try:
            rows = [row for row in csv.reader(lines, delimiter=mark) if row]
        except csv.Error:
            continue
        if len(lines) == SAMPLE and len(rows) > 1:
            del rows[-1]  # it may go on behind the sample
        if rows and len(rows[0]) > 1:
            first[mark] = len(rows[0])
            if all(len(row) == len(rows[0]) for row in rows):
                fitting.append(mark)
    if len(fitting) > 1:
        which = " or ".join(DELIMITERS[mark] for mark in fitting)
        raise DataError(f"{name}: fields could be divided by {which}: say which with delimiter=")
    if fitting:
        return fitting[0]
    return "," if "," in first or not first else max(first, key=lambda mark: first[mark])


def _header(sample: list[Record], name: str, header: bool | None, wanted: list[str] | None) -> list[str] | None:
    """The names of the columns where the first record has them, None where it is data."""
    line, fields = sample[0]
    names = [field.strip() for field in fields]
    if header is None and wanted and set(wanted) <= set(names):
        header = True
    if header is None:
        header = _is_header(sample, name)
    if not header:
        return None
    names = [given or f"column{i}" for i, given in enumerate(names, 1)]  # pandas writes its row numbers without a name
    twice = sorted({given for given in names if names.count(given) > 1})
    if twice:
        raise DataError(f"{name}:{line}: the header names {', '.join(map(repr, twice))} twice; expected different names")
    return names


def _is_header(sample: list[Record], name: str) -> bool:
    line, first = sample[0]
    rows = [fields for _, fields in sample[1:] if len(fields) == len(first)]
    names = [field.strip() for field in first]
    lower = [given.lower() for given in names]
    if any(map(is_number, names)) or max(map(len, names)) > 64 or not any(names):
        return False
    values = [{row[i].strip() for row in rows} for i in range(len(first))]
    again = any(given in seen for given, seen in zip(names, values) if given)
    known = any(given in KNOWN for given in lower)
    if known and not again:
        return True
    if len(first) == 1:
        return False
    # A column of numbers under a name that is none is a header; a name that comes again among few values is one of the values.
    few = [len(seen) <= max(2, len(rows) // 5) and max(map(len, seen), default=0) <= SHORT for seen in values]
    if any(given in seen for given, seen, short in zip(names, values, few) if short):
        return False
    if rows and any(seen and all(map(is_number, seen)) for seen in values):
        return True
    if any(len(given.split()) > 4 for given in names):
        return False
    raise DataError(f"{name}:{line}: cannot tell whether the first line, {', '.join(names)[:60]!r}, names the columns: say it with "
                    "header=True or header=False")
