"""Texts as lists of tokens: words for languages that put spaces between them, characters for Chinese and its kin.

>>> words("It's not bad; I don't mind.")
['it', "'s", 'not', 'bad', ';', 'i', 'do', "n't", 'mind', '.']
>>> characters("房间 很好, OK！")
['房', '间', '很', '好', ',', 'o', 'k', '!']
"""
from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# The Penn Treebank's way with English contractions: do n't, it 's, they 've. Numbers and words are runs of \w, and any other
# character is a token by itself.
_WORD = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\w+|[^\w\s]")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})


def words(text: str) -> list[str]:
    """Lower-cased words, contractions split ("don't": do, n't), each punctuation mark a token.

    Text that was split into such tokens already, with spaces between them, gives the same tokens again.
    """
    return _WORD.findall(text.translate(_QUOTES).lower())


def characters(text: str) -> list[str]:
    """Every character but spaces, lower-cased; full-width letters, digits and marks as their usual forms (Unicode's NFKC)."""
    return [character for character in unicodedata.normalize("NFKC", text).lower() if not character.isspace()]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"words": words, "characters": characters}
