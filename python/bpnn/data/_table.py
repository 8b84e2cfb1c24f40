"""A table in memory: columns of values, and for each row where it was read."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .idx import DataError

Array = np.ndarray[Any, np.dtype[Any]]


class Table:
    """Rows of named columns; a value is a text (CSV, TSV) or what JSON and Parquet have, None where a row lacks it.

    path: the file. columns: the names. named: False where the file had no header, and the names are column1, column2, … .

    >>> table = Table.from_rows({"text": ["good", "bad"], "label": [1, 0]})
    >>> len(table), table[1], table.where(1)
    (2, {'text': 'bad', 'label': 0}, 'data[1]')
    """

    def __init__(
        self, data: Mapping[str, list[Any]], path: str, lines: Sequence[int] | Array | None = None, *, form: str = "{path}:{line}",
        named: bool = True, files: Sequence[str] | None = None, file: Array | None = None,
    ) -> None:
        self._data = dict(data)
        self.path, self.named = path, named
        self._form = form
        self._files = list(files) if files is not None else [path]
        self._file = file  # number of the file of each row; None: all are of the first
        count = len(next(iter(self._data.values()), ()))
        self._lines: Array = np.arange(count) if lines is None else np.asarray(lines, np.int64)
        for name, values in self._data.items():
            if len(values) != len(self._lines):
                raise ValueError(f"{path}: column {name!r}: expected {len(self._lines)} values, as many as rows, got {len(values)}")

    @property
    def columns(self) -> list[str]:
        return list(self._data)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {name: values[i] for name, values in self._data.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Table({self.path!r}, {len(self):,} rows of {', '.join(self.columns)})"

    def column(self, name: str) -> list[Any]:
        """The values of a column. Raises `DataError` that lists the columns there are."""
        if name not in self._data:
            raise DataError(f"{self.path}: expected a column {name!r}, got {self.described()}")
        return self._data[name]

    def described(self) -> str:
        """What columns there are, for a message."""
        names = ", ".join(map(repr, self.columns)) or "none"
        return names if self.named else f"{names} (no header was found; header=True takes the first line as one)"

    def where(self, i: int) -> str:
        """File and line of row `i`: "reviews.csv:17"; rows without lines: "reviews.parquet: row 17", "data[16]"."""
        file = self._files[0 if self._file is None else int(self._file[i])]
        return self._form.format(path=file, line=int(self._lines[i]))

    def take(self, indices: Sequence[int] | Array) -> Table:
        """The table of these rows."""
        chosen = np.asarray(indices, np.int64)
        numbers = chosen.tolist()
        data = {name: [values[i] for i in numbers] for name, values in self._data.items()}
        file = None if self._file is None else self._file[chosen]
        return Table(data, self.path, self._lines[chosen], form=self._form, named=self.named, files=self._files, file=file)

    def keep(self, columns: Sequence[str]) -> Table:
        """The table of these columns."""
        data = {name: self.column(name) for name in columns}
        return Table(data, self.path, self._lines, form=self._form, named=self.named, files=self._files, file=self._file)

    def with_columns(self, data: Mapping[str, list[Any]]) -> Table:
        """The same rows, where they were read, with other columns."""
        return Table(data, self.path, self._lines, form=self._form, named=True, files=self._files, file=self._file)

    @staticmethod
    def join(tables: Sequence[Table]) -> Table:
        """The rows of several tables of the same columns, such as the pieces of one data set."""
        first = tables[0]
        if len(tables) == 1:
            return first
        for other in tables[1:]:
            if other.columns != first.columns:
                raise DataError(f"{other.path}: expected the columns {', '.join(first.columns)}, as in {first.path}, got "
                                f"{other.described()}")
        data = {name: [value for table in tables for value in table.column(name)] for name in first.columns}
        lines = np.concatenate([table._lines for table in tables])
        begins = np.cumsum([0, *(len(table._files) for table in tables)])
        file = np.concatenate([
            begin + (np.zeros(len(table), np.int64) if table._file is None else table._file) for begin, table in zip(begins, tables)
        ])
        files = [name for table in tables for name in table._files]
        return Table(data, first.path, lines, form=first._form, named=first.named, files=files, file=file)

    @classmethod
    def from_rows(cls, rows: Any, name: str = "data") -> Table:
        """A table of data in memory: a list of dicts, a dict of lists, or (texts, labels); also a data frame of pandas.

        Raises `DataError` for anything else, and where columns differ in length.
        """
        if isinstance(rows, Table):
            return rows
        if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
            rows = {str(column): rows[column].tolist() for column in rows.columns}
        if isinstance(rows, tuple) and len(rows) == 2 and not isinstance(rows[0], Mapping):
            rows = {"text": rows[0], "label": rows[1]}
        if isinstance(rows, Mapping):
            data = {str(key): _listed(values, name, key) for key, values in rows.items()}
        else:
            data = gather(_dicts(rows, name))
        sizes = {key: len(values) for key, values in data.items()}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{key}: {size}" for key, size in sizes.items())
            raise DataError(f"{name}: expected columns of one length, got {found}")
        if not sizes or not next(iter(sizes.values())):
            raise DataError(f"{name}: expected rows, got none")
        return cls(data, name, form="{path}[{line}]")


def _listed(values: Any, name: str, key: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"{name}: column {key!r}: expected a list of values, got {type(values).__name__}")
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _dicts(rows: Any, name: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise DataError(f"{name}: expected a list of dicts, a dict of lists or (texts, labels), got {type(rows).__name__}")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}[{i}]: expected a dict of column and value, got {type(row).__name__} {str(row)[:40]!r}")
        yield row


def gather(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of rows that may lack some: None there."""
    data: dict[str, list[Any]] = {}
    for i, row in enumerate(rows):
        for name, value in row.items():
            if name not in data:
                data[name] = [None] * i
            data[name].append(value)
        if len(row) != len(data):
            for values in data.values():
                if len(values) == i:
                    values.append(None)
    return data
