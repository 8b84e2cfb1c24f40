"""Files of examples as a `Table`: CSV, TSV, JSON-lines, JSON, Parquet, lines of text, CoNLL's tokens; from disk or any address."""
from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from ._table import Table
from .delimited import read_delimited
from .idx import DataError
from .json_tables import read_json, read_json_lines
from .sources import LIMIT, Source, open_source, read_all, text_lines

LARGEST = 512 << 20  # bytes of a .json, which is read as a whole
FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".txt": "txt", ".text": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "json", ".parquet": "parquet", ".pq": "parquet", ".conll": "conll", ".iob": "conll", ".iob2": "conll", ".bio": "conll",
}
PACKED = (".gz", ".bz2", ".xz")
TAG = re.compile(r"O|[BIESLU]-\S+")


def read_table(
    source: Any, *, columns: Sequence[str] | None = None, format: str | None = None, delimiter: str | None = None,
    header: bool | None = None, quotes: bool | None = None, text: str = "lines", limit: int = LIMIT,
) -> Table:
    """The rows of a file, or of data in memory (see `Table.from_rows`).

    source: a path, the path of a member of a zip archive ("all.zip/train.tsv") or an address of fsspec; packed with gzip, bzip2 or
    xz or not; UTF-8, or UTF-16/32 with a byte order mark; lines ending with \\n or \\r\\n. The ending says what it is:

    - .csv: divided by commas, semicolons, tabs or bars (`delimiter`), with fields in quotes. .tsv: by tabs, quotes are as any
      letter (`quotes=True`: as in CSV). `header`: whether the first line names the columns; None: seen from the content, an error
      where that leaves a doubt. Without names they are column1, column2 … .
    - .jsonl, .ndjson: an object a line. .json: a list of objects, or the articles of SQuAD as rows id, question, context, answers.
    - .parquet (needs pyarrow), a row is named by its number from 1.
    - .txt: a column "text" of its lines; `text="whole"`: one row with all of it. Where all lines have as many tabs it is read as
      .tsv, where they are tokens with tags as .conll: "tokens" and "tags", a sentence a row.

    columns: keep these alone. format: csv, tsv, jsonl, json, parquet, txt or conll instead of the ending's. limit: bytes of a line,
    or of a field in quotes: no more is read before the error.

    Raises `DataError` "FILE:LINE: what was expected, what came"; `ImportError` where pyarrow or fsspec is missing.
    """
    if not isinstance(source, (str, os.PathLike)):
        table = Table.from_rows(source)
        return table if columns is None else table.keep(columns)
    if text not in ("lines", "whole"):
        raise ValueError(f"text: expected 'lines' or 'whole', got {text!r}")
    if limit < 1:
        raise ValueError(f"limit: expected 1 or more, got {limit}")
    kind = format_of(source) if format is None else format
    if kind not in set(FORMATS.values()):
        raise ValueError(f"format: expected one of {', '.join(sorted(set(FORMATS.values())))}, got {format!r}")
    name = os.fspath(source)
    if kind == "parquet":
        table = _parquet(source, columns)
    elif kind == "json":
        whole = read_all(source, LARGEST, "; a .jsonl has a row in each line and any size")
        table = read_json(_whole(whole, name), name)
    else:
        with open_source(source) as stream:
            lines = text_lines(stream, name, limit)
            if kind == "jsonl":
                table = read_json_lines(lines, name)
            elif kind == "conll":
                table = _tagged(lines, name)
            elif kind == "txt":
                table = _text(lines, name, text, header)
            else:
                mark = "\t" if kind == "tsv" and delimiter is None else delimiter
                quoted = kind == "csv" if quotes is None else quotes
                wanted = list(columns) if columns else None
                table = read_delimited(
                    lines, name, delimiter=mark, header=header, quotes=quoted, limit=limit, columns=wanted
                )
    return table if columns is None else table.keep(columns)


def format_of(source: Source) -> str:
    """The format that the ending of a name tells. Raises `DataError` for one that is unknown."""
    name = os.fspath(source).split("::")[0].split("?")[0].lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    ending = os.path.splitext(name)[1]
    if ending not in FORMATS:
        raise DataError(f"{os.fspath(source)}: expected a file that ends with {', '.join(FORMATS)} (and {', '.join(PACKED)}), got "
                        f"{ending!r}; format= says what it is")
    return FORMATS[ending]


def _whole(content: bytes, name: str) -> str:
    return "".join(text_lines(io.BytesIO(content), name, len(content) + 1))


# Text and tokens ------------------------------------------------------------------------------------------------------


def _text(lines: Iterator[str], name: str, text: str, header: bool | None) -> Table:
    if text == "whole":
        whole = "".join(lines)
        if not whole.strip():
            raise DataError(f"{name}: is empty; expected text")
        return Table({"text": [whole]}, name, [1])
    first = list(islice(lines, 200))
    rest = chain(first, lines)
    filled = [line.rstrip("\n") for line in first if line.strip()]
    if _are_tagged(filled):
        return _tagged(rest, name)
    tabs = {line.count("\t") for line in filled}
    if len(tabs) == 1 and tabs != {0}:
        return read_delimited(rest, name, delimiter="\t", quotes=False, header=header)
    texts, numbers = [], []
    for number, line in enumerate(rest, 1):
        if line.strip():
            texts.append(line.rstrip("\n"))
            numbers.append(number)
    if not texts:
        raise DataError(f"{name}: is empty; expected a text a line")
    return Table({"text": texts}, name, np.array(numbers))


def _are_tagged(lines: list[str]) -> bool:
    rows = [line.split() for line in lines if not line.startswith(("-DOCSTART-", "#"))]
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        return False
    return all(TAG.fullmatch(row[-1]) for row in rows) and any("-" in row[-1] for row in rows)


def _tagged(lines: Iterator[str], name: str) -> Table:
    """CoNLL's lines: a token, perhaps other columns, its tag; an empty line between sentences. A row is named by its first line."""
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    numbers: list[int] = []
    width, inside = 0, False
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\n").split("\t") if "\t" in line else line.split()
        if not line.strip() or fields[0] == "-DOCSTART-":
            inside = False
            continue
        if line.startswith("# "):
            continue
        width = width or len(fields)
        if len(fields) < 2 or len(fields) != width:
            expected = f"{width} fields, as before" if width > 1 else "a token and its tag"
            raise DataError(f"{name}:{number}: expected {expected}, got {len(fields)}: {line.strip()[:60]!r}")
        if not inside:
            tokens.append([])
            tags.append([])
            numbers.append(number)
            inside = True
        tokens[-1].append(fields[0])
        tags[-1].append(fields[-1].strip())
    if not tokens:
        raise DataError(f"{name}: is empty; expected tokens with tags")
    return Table({"tokens": tokens, "tags": tags}, name, np.array(numbers))


# Parquet --------------------------------------------------------------------------------------------------------------


def _parquet(source: Source, columns: Sequence[str] | None) -> Table:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ImportError(f'{os.fspath(source)}: Parquet files need the package pyarrow: pip install "bpnn[data]"') from None
    name = os.fspath(source)
    with open_source(source) as stream:
        try:
            file = parquet.ParquetFile(stream)
            names = list(file.schema_arrow.names)
            missing = [column for column in columns or () if column not in names]
            if missing:
                raise DataError(f"{name}: expected a column {missing[0]!r}, got {', '.join(map(repr, names)) or 'none'}")
            read = file.read(list(columns) if columns else None)
        except (arrow.ArrowException, OSError) as error:
            raise DataError(f"{name}: is no Parquet file, or damaged ({str(error).splitlines()[0][:200]})") from None
    if not read.num_rows:
        raise DataError(f"{name}: has columns ({', '.join(names)}) but no rows" if names else f"{name}: is empty; expected rows")
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise DataError(f"{name}: has the columns {', '.join(map(repr, twice))} twice; expected different names")
    data: dict[str, list[Any]] = {column: read.column(column).to_pylist() for column in read.column_names}
    return Table(data, name, np.arange(1, read.num_rows + 1), form="{path}: row {line}")
