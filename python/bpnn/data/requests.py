"""Short requests to an assistant and what they ask for, written for bpnn: 240 sentences, 40 of each of six intents.

>>> from bpnn.data.requests import path
>>> from bpnn.data.tables import read_table
>>> table = read_table(path())
>>> len(table), sorted(set(table.column("intent")))
(240, ['alarm', 'calendar', 'lights', 'music', 'shopping', 'weather'])
"""
from __future__ import annotations

from pathlib import Path

__all__ = ["path"]


def path() -> Path:
    """The file: a header, then a sentence and its intent a line, divided by a tab."""
    return Path(__file__).with_name("requests.tsv")
