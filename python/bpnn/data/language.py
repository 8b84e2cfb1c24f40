"""Running text to learn a language from: files to one text, and windows of its tokens.

    text = read_text(["input.txt"])
    vocabulary = CharacterVocabulary.build(text)              # or BytePairVocabulary, see `subwords`
    batches = RandomWindows(vocabulary.encode(text), context=128, batch_size=16, length=100)
"""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bpnn

from .idx import DataError

__all__ = ["ConsecutiveWindows", "RandomWindows", "compact", "read_text", "text_files"]

MARK = b"\xef\xbb\xbf"  # some editors begin files with it


def text_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that `paths` name: each itself, or all `.txt` files in it and below where it is a folder, by name."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*.txt") if file.is_file())
            if not inside:
                raise DataError(f"{path}: has no .txt files")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    return found


def read_text(paths: Sequence[str | os.PathLike[str]]) -> str:
    """The text of files (UTF-8) and of all `.txt` files in folders, one after the other, each ended by a line break.

    A single file is taken as it is. Line ends become `\\n`. Raises `DataError` with file and line for what is no text.
    """
    files = text_files(paths)
    texts = [_read(file) for file in files]
    if len(texts) > 1:
        texts = [text if text.endswith("\n") else text + "\n" for text in texts]
    return "".join(texts)


def _read(file: Path) -> str:
    whole = file.read_bytes()
    content = whole.removeprefix(MARK)
    if not content:
        raise DataError(f"{file}: is empty")
    zero = content.find(b"\0")
    if zero >= 0:
        raise DataError(f"{file}:{_line(content, zero)}: has a zero byte; expected text in UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.start + len(whole) - len(content) + 1
        raise DataError(f"{file}:{_line(content, error.start)}: not UTF-8 ({error.reason}, byte {byte:,} of the file)") from None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _line(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1


def compact(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """Token numbers in the smallest type that holds `vocabulary` of them."""
    return tokens.astype(np.min_scalar_type(max(vocabulary - 1, 0)))


# Windows --------------------------------------------------------------------------------------------------------------


def _batch(tokens: np.ndarray, starts: np.ndarray, context: int) -> tuple[Any, Any]:
    """(inputs, targets), int64 Tensors (B, T): T tokens from each start, and the token after each."""
    rows = tokens[starts[:, None] + np.arange(context + 1)].astype(np.int64)
    return bpnn.from_numpy(np.ascontiguousarray(rows[:, :-1])), bpnn.from_numpy(np.ascontiguousarray(rows[:, 1:]))


def _check(tokens: np.ndarray, context: int, batch_size: int) -> None:
    if context < 1 or batch_size < 1:
        raise ValueError(f"context, batch_size: expected 1 or more, got {context}, {batch_size}")
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(f"tokens: expected whole numbers (N,), got {tokens.dtype} {tokens.shape}")
    if len(tokens) <= context:
        raise ValueError(f"tokens: expected more than the {context} of a window, got {len(tokens)}")


class RandomWindows:
    """Batches from random places of a text, for training: (inputs, targets), each (batch_size, context).

    A pass has `length` batches; all passes together `total` (None: no limit). Batch number n depends on `seed` and n alone, so
    that a run that goes on from `state_dict` sees what it would have seen. `end_pass()` ends the present pass early.

    >>> windows = RandomWindows(np.arange(100), context=4, batch_size=2, length=3)
    >>> x, y = next(iter(windows))
    >>> x.shape, bool((y == x + 1).all())
    ((2, 4), True)
    """

    def __init__(
        self, tokens: np.ndarray, context: int, batch_size: int, length: int, total: int | None = None, seed: int = 0
    ) -> None:
        _check(tokens, context, batch_size)
        if length < 1:
            raise ValueError(f"length: expected 1 or more, got {length}")
        self.tokens, self.context, self.batch_size = tokens, context, batch_size
        self.length, self.total, self.seed = length, total, seed
        self._given = 0  # batches, in all
        self._position = 0  # of them in this pass
        self._end = False

    def __len__(self) -> int:
        return self.length

    def batch(self, number: int) -> tuple[Any, Any]:
        """Batch `number`, counted from 0."""
        rng = np.random.default_rng((self.seed, number))
        return _batch(self.tokens, rng.integers(0, len(self.tokens) - self.context, self.batch_size), self.context)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """The rest of the present pass; a whole one where the last was finished."""
        self._end = False
        while self._position < self.length and not self._end and (self.total is None or self._given < self.total):
            number = self._given
            self._given, self._position = number + 1, self._position + 1
            yield self.batch(number)
        self._position = 0

    def end_pass(self) -> None:
        """No more batches in this pass."""
        self._end = True

    def state_dict(self) -> dict[str, int]:
        return {"given": self._given, "position": self._position, "batch_size": self.batch_size, "context": self.context}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was: the next pass is the rest of its pass."""
        for name in ("batch_size", "context"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{name}: the state is of windows with {state[name]}, not {getattr(self, name)}")
        self._given, self._position = state["given"], state["position"]


class ConsecutiveWindows:
    """Windows side by side, for scores: (inputs, targets), each (up to batch_size, context), the same at every pass.

    windows: take only so many, evenly spread over the text (None: all). What is left at the end of the text is not in it.
    """

    def __init__(self, tokens: np.ndarray, context: int, batch_size: int, windows: int | None = None) -> None:
        _check(tokens, context, batch_size)
        count = (len(tokens) - 1) // context
        chosen = np.arange(count) if windows is None or windows >= count else np.arange(windows) * count // windows
        self.tokens, self.context, self.batch_size, self.starts = tokens, context, batch_size, chosen * context

    def __len__(self) -> int:
        return -(-len(self.starts) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for first in range(0, len(self.starts), self.batch_size):
            yield _batch(self.tokens, self.starts[first : first + self.batch_size], self.context)

    @property
    def rest(self) -> tuple[Any, Any] | None:
        """The last tokens, too few for a window, as a batch of one; None where there are none."""
        count = (len(self.tokens) - 1) // self.context * self.context
        left = len(self.tokens) - 1 - count
        return _batch(self.tokens, np.array([count]), left) if left else None
