"""Sentences and their translations: Tatoeba's pairs as manythings.org offers them, a line `English<TAB>other<TAB>source` each."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .idx import DataError

LARGEST = 256 << 20  # bytes of one file


@dataclass(frozen=True)
class SentencePairs:
    """Sentences and their translations, as many of both; the same sentence may have several."""

    source: list[str]
    target: list[str]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, places: Sequence[int] | np.ndarray) -> SentencePairs:
        """The pairs at these places."""
        return SentencePairs([self.source[i] for i in places], [self.target[i] for i in places])


def find_tatoeba(data: str | os.PathLike[str] | None = None, language: str = "cmn") -> Path | None:
    """The file of English sentences with their translations in `data`, else in BPNN_DATA; None where there is none.

    data: the file, its folder, or the folder above, which has it in `tatoeba-cmn-eng`. language: Tatoeba's letters for it.
    """
    given = data if data is not None else os.environ.get("BPNN_DATA") or None
    if given is None:
        return None
    name = f"{language}.txt"
    places = (Path(given), Path(given) / f"tatoeba-{language}-eng" / name, Path(given) / name)
    return next((place for place in places if place.is_file()), None)


def load_tatoeba(data: str | os.PathLike[str] | None = None, language: str = "cmn") -> SentencePairs:
    """English sentences and translations: 26,388 pairs with Mandarin Chinese ("cmn"), in simplified and traditional characters.

    See `find_tatoeba` for the arguments. Raises `DataError` naming file and line. Tatoeba, CC BY 2.0 FR.
    """
    path = find_tatoeba(data, language)
    if path is None:
        place = data if data is not None else os.environ.get("BPNN_DATA")
        if place is None:
            raise DataError(f"no {language}.txt is known: give it, or set BPNN_DATA to the folder above tatoeba-{language}-eng")
        raise DataError(f"{place}: holds no {language}.txt")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MiB")
    source, target = [], []
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode("utf-8").strip("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: expected UTF-8 ({error.reason})") from None
        if not text:
            continue
        fields = text.split("\t")
        if len(fields) < 2 or not fields[0].strip() or not fields[1].strip():
            raise DataError(f"{path}:{number}: expected English<TAB>translation, got {text[:40]!r}")
        source.append(fields[0].strip())
        target.append(fields[1].strip())
    if not source:
        raise DataError(f"{path}: expected lines English<TAB>translation, got none")
    return SentencePairs(source, target)


def split_pairs(
    pairs: SentencePairs, validation: int = 1000, test: int = 1000, seed: int = 0
) -> tuple[SentencePairs, SentencePairs, SentencePairs]:
    """(training, validation, test), drawn by `seed`, such that no sentence of one part is in another, on either side.

    Pairs that share a sentence, or are linked by others that do, stay together; so the held-out parts may have a few pairs more
    than asked for. Raises `ValueError` where there are too few.
    """
    group = _linked(pairs)
    order = np.random.Generator(np.random.Philox(seed)).permutation(int(group.max(initial=-1)) + 1)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    sizes = np.bincount(group, minlength=len(order))[order]
    # A large group in a small part would make it monotonous: those of more than a hundredth are for training.
    small = np.where(sizes * 100 <= max(min(validation, test), 100), sizes, 0)
    ends = np.cumsum(small)
    first, second = np.searchsorted(ends, test) + 1, np.searchsorted(ends, test + validation) + 1
    if test + validation >= int(small.sum()):
        raise ValueError(f"pairs: expected more than {test + validation}, got {len(pairs)}")
    place = rank[group]
    held = small[place] > 0
    parts = ~held | (place >= second), held & (place >= first) & (place < second), held & (place < first)
    training, other, last = (pairs.take(np.flatnonzero(part)) for part in parts)
    return training, other, last


def _linked(pairs: SentencePairs) -> np.ndarray:
    """(N,) the number of the group that a pair is in, 0, 1, …: groups share no sentence."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number: dict[tuple[int, str], int] = {}
    both = zip(pairs.source, pairs.target)
    ends = np.array([[number.setdefault((i, text), len(number)) for i, text in enumerate(pair)] for pair in both]).reshape(-1, 2)
    links = coo_array((np.ones(len(ends), np.int8), ends.T), shape=(len(number), len(number)))
    return np.asarray(connected_components(links, directed=False)[1])[ends[:, 0]] if len(ends) else np.zeros(0, np.int64)


def chinese_script(text: str) -> str:
    """ "simplified" or "traditional" characters: what the character set GB 2312 has all of, and the other.

    >>> chinese_script("我们说汉语。"), chinese_script("我們說漢語。")
    ('simplified', 'traditional')
    """
    try:
        text.encode("gb2312")
    except UnicodeEncodeError:
        return "traditional"
    return "simplified"
