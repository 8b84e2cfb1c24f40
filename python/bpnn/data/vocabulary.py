"""Numbers for tokens."""
from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils._files import write_text
from .idx import DataError

PADDING, UNKNOWN = "<pad>", "<unk>"
FORMAT = "bpnn vocabulary"


class Vocabulary:
    """Tokens and their numbers, 0 to `len(vocabulary) - 1`: first the specials, then the rest.

    tokens: the other tokens, each once. specials: tokens that no text has. `unknown`, if it is among the tokens, stands for
    those that the vocabulary lacks; `padding` fills short texts up.

    >>> vocabulary = Vocabulary.build([["a", "fine", "film"], ["a", "film"]], min_freq=2)
    >>> vocabulary.tokens
    ['<pad>', '<unk>', 'a', 'film']
    >>> vocabulary.encode(["a", "bad", "film"]).tolist()
    [2, 1, 3]
    >>> vocabulary.decode([2, 1, 3])
    ['a', '<unk>', 'film']
    """

    def __init__(
        self,
        tokens: Iterable[str],
        specials: Sequence[str] = (PADDING, UNKNOWN),
        unknown: str | None = UNKNOWN,
        padding: str | None = PADDING,
    ) -> None:
        self.specials = list(specials)
        self.tokens = [*self.specials, *tokens]
        self._numbers = {token: number for number, token in enumerate(self.tokens)}
        for token in self.tokens:
            if not isinstance(token, str):
                raise TypeError(f"tokens: expected text, got {type(token).__name__}")
        if len(self._numbers) != len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise ValueError(f"tokens: expected each once, got {twice!r} more often")
        self.unknown = self._numbers.get(unknown) if unknown is not None else None
        self.padding = self._numbers.get(padding) if padding is not None else None

    @classmethod
    def build(
        cls,
        texts: Iterable[Iterable[str]],
        min_freq: int = 1,
        max_size: int | None = None,
        specials: Sequence[str] = (PADDING, UNKNOWN),
        unknown: str | None = UNKNOWN,
        padding: str | None = PADDING,
    ) -> Vocabulary:
        """The tokens that occur at least `min_freq` times in `texts` (lists of tokens), the most frequent first, equally frequent
        ones by their code points; at most `max_size` in all, specials included."""
        if min_freq < 1:
            raise ValueError(f"min_freq: expected 1 or more, got {min_freq}")
        if max_size is not None and max_size < len(specials):
            raise ValueError(f"max_size: expected at least the {len(specials)} specials, got {max_size}")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        found = sorted((-count, token) for token, count in counts.items() if count >= min_freq and token not in specials)
        room = len(found) if max_size is None else max_size - len(specials)
        return cls((token for _, token in found[:room]), specials, unknown, padding)

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens)

    def __getitem__(self, token: str) -> int:
        """The number of a token; that of `unknown` where it is not there. `KeyError` where there is none for unknown ones."""
        number = self._numbers.get(token, self.unknown)
        if number is None:
            raise KeyError(f"{token!r} is not in the vocabulary, which has no token for unknown ones")
        return number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        mine, theirs = ((v.tokens, v.specials, v.unknown, v.padding) for v in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, specials {', '.join(self.specials) or 'none'})"

    def encode(self, tokens: Iterable[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The numbers of a list of tokens, int64 (N,)."""
        return np.fromiter((self[token] for token in tokens), np.int64)

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The tokens of numbers. `IndexError` for one that is outside."""
        found = []
        for number in numbers:
            if not 0 <= number < len(self.tokens):
                raise IndexError(f"numbers: expected them in [0, {len(self.tokens) - 1}], got {number}")
            found.append(self.tokens[number])
        return found

    # Files ------------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it: as JSON where `path` ends in `.json`, else as text with a token a line, specials first.

        Text keeps no list of the specials: `load` is told what is unknown and padding. Raises `ValueError` for a token with a line
        break in a text file.
        """
        if Path(path).suffix.lower() == ".json":
            named = {"unknown": self.unknown, "padding": self.padding}
            content = {"format": FORMAT, "version": 1, "specials": self.specials, "tokens": self.tokens[len(self.specials):]}
            content |= {name: None if number is None else self.tokens[number] for name, number in named.items()}
            write_text(Path(path), json.dumps(content, ensure_ascii=False, indent=0) + "\n")
            return
        for token in self.tokens:
            if token.splitlines() != [token]:
                raise ValueError(f"tokens: {token!r} cannot be a line of a text file; save as .json")
        write_text(Path(path), "".join(f"{token}\n" for token in self.tokens))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], unknown: str | None = UNKNOWN, padding: str | None = PADDING
    ) -> Vocabulary:
        """Read what `save` wrote, or any text file with a token a line. `unknown` and `padding` matter for text files alone.

        Raises `DataError` naming the file, and the line, where it is damaged.
        """
        try:
            content = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: expected UTF-8 ({error.reason} at byte {error.start})") from None
        if Path(path).suffix.lower() == ".json":
            return cls._from_json(content, path)
        lines = content.split("\n")
        if lines[-1] == "":
            lines.pop()
        first: dict[str, int] = {}
        for number, token in enumerate(lines, 1):
            if token in first:
                raise DataError(f"{path}:{number}: {token!r} is the token of line {first[token]} already")
            first[token] = number
        specials = [token for token in lines if token in (unknown, padding)]
        if specials != lines[: len(specials)]:  # a file of another program: their places are kept
            specials = []
        return cls(lines[len(specials) :], specials, unknown, padding)

    @classmethod
    def _from_json(cls, content: str, path: str | os.PathLike[str]) -> Vocabulary:
        try:
            values = json.loads(content)
        except ValueError as error:
            raise DataError(f"{path}: damaged ({error})") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise DataError(f"{path}: not a vocabulary written by bpnn")
        if values.get("version") != 1:
            raise DataError(f"{path}: of version {values.get('version')}; this bpnn reads version 1")
        try:
            return cls(values["tokens"], values["specials"], values["unknown"], values["padding"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error})") from None
