"""What happened in a run: one row an epoch, and the training loss between."""
from __future__ import annotations

import csv
import io
from typing import Any


class History:
    """`rows` holds one dictionary of numbers an epoch, `steps` holds (step, mean loss since the last entry, learning rate).

    `history["val_loss"]` is a column as a list (None where an epoch has no such value).
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps: list[list[float]] = []

    @property
    def columns(self) -> list[str]:
        """Every name that occurs, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, column: str) -> list[Any]:
        if column not in self.columns:
            raise KeyError(f"the history has no column {column!r}; it has {', '.join(self.columns) or 'none'}")
        return [row.get(column) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epochs: {', '.join(self.columns)})"

    def csv(self) -> str:
        """The rows as comma-separated values with a header line; numbers as Python writes them, so they read back exactly."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [dict(row) for row in self.rows], "steps": [list(step) for step in self.steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [dict(row) for row in state["rows"]]
        self.steps = [list(step) for step in state["steps"]]
