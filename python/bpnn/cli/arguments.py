"""Command lines: a parser that is brief about mistakes, and types of options."""
from __future__ import annotations

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong option costs one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def widths(text: str) -> list[int]:
    """`500,200` as [500, 200]; `none` as []."""
    sizes = [] if text == "none" else [int(part) for part in text.split(",")]
    if any(size < 1 for size in sizes):
        raise ValueError(text)
    return sizes


def ranged(kind: type, low: float, high: float = float("inf"), *, above: bool = False) -> Any:
    """An argparse type: a number of `kind` from `low` (or above it) to `high`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not (low < value if above else low <= value) or not value <= high or value == float("inf"):
            limit = f"above {low:g}" if above else f"at least {low:g}"
            raise argparse.ArgumentTypeError(f"expected {limit}" + (f" and at most {high:g}" if high < float("inf") else ""))
        return value

    parse.__name__ = "number" if kind is float else "whole number"
    return parse


widths.__name__ = "list of whole numbers above 0"
