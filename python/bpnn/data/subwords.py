"""Vocabularies of language models: characters, or pieces of words that are pairs of bytes merged again and again.

Both write the `tokenizer.json` that `bpnn.pretrained.AutoTokenizer` and `transformers` read.
"""
from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..utils._files import write_text
from .idx import DataError

__all__ = ["BytePairVocabulary", "CharacterVocabulary", "load_language_vocabulary"]

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
PIECE = 1 << 20  # characters encoded at a time


class CharacterVocabulary:
    """Every character of a text is a token; their numbers go by code point.

    >>> vocabulary = CharacterVocabulary.build("to be or not")
    >>> vocabulary.tokens
    [' ', 'b', 'e', 'n', 'o', 'r', 't']
    >>> vocabulary.decode(vocabulary.encode("not to be"))
    'not to be'
    """

    kind = "characters"

    def __init__(self, characters: Iterable[str]) -> None:
        self.tokens = sorted(set(characters))
        self._points = np.array([ord(token) for token in self.tokens], np.uint32)

    @classmethod
    def build(cls, text: str) -> CharacterVocabulary:
        """The characters of a text."""
        return cls(map(chr, np.unique(_points(text)).tolist()))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> np.ndarray:
        """Numbers, int64 (N,). Raises `ValueError` naming a character that is not there."""
        points = _points(text)
        numbers = np.searchsorted(self._points, points).clip(max=max(len(self) - 1, 0))
        wrong = self._points[numbers] != points if len(self) else np.ones(len(points), bool)
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(f"text: {text[at]!r} (character {at + 1}) is none of the {len(self)} characters of the vocabulary")
        return numbers.astype(np.int64)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers."""
        return "".join(self.tokens[number] for number in numbers)

    def save(self, folder: str | os.PathLike[str], context: int | None = None) -> None:
        """Write `tokenizer.json` and its settings; `context` is the longest text that the model reads."""
        content: dict[str, Any] = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False},
            "post_processor": None, "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(self.tokens)}, "unk_token": "<unk>"},
        }
        write_text(Path(folder) / FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        _save_settings(folder, context)


class BytePairVocabulary:
    """Byte pairs as in GPT-2: 256 bytes and the pairs that are most frequent in a text; needs the package `tokenizers`."""

    kind = "bpe"

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    @classmethod
    def build(cls, text: str, size: int) -> BytePairVocabulary:
        """At most `size` pieces, learned from a text: Sennrich et al. 2016, on bytes as in Radford et al. 2019."""
        if size < 257:
            raise ValueError(f"size: expected 257 or more (there are 256 bytes), got {size}")
        tokenizers = _library()
        levels = tokenizers.pre_tokenizers.ByteLevel
        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
        backend.pre_tokenizer = levels(add_prefix_space=False)
        backend.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(levels.alphabet()), show_progress=False)
        backend.train_from_iterator(_pieces(text), trainer)
        return cls(backend)

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size())

    def encode(self, text: str) -> np.ndarray:
        """Numbers, int64 (N,)."""
        parts = [np.array(self.backend.encode(piece).ids, np.int64) for piece in _pieces(text)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers; U+FFFD for bytes that are no characters."""
        return str(self.backend.decode([int(number) for number in numbers], skip_special_tokens=False))

    def save(self, folder: str | os.PathLike[str], context: int | None = None) -> None:
        """Write `tokenizer.json` and its settings; `context` is the longest text that the model reads."""
        write_text(Path(folder) / FILE, self.backend.to_str(pretty=True) + "\n")
        _save_settings(folder, context)


def load_language_vocabulary(folder: str | os.PathLike[str]) -> CharacterVocabulary | BytePairVocabulary:
    """What `save` wrote. Raises `DataError` naming the file where it is damaged or another's."""
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = content["model"]
        if model["type"] == "WordLevel":
            vocabulary = CharacterVocabulary(model["vocab"])
            if model["vocab"] != {token: i for i, token in enumerate(vocabulary.tokens)}:
                raise ValueError("its characters are not numbered by code point")
            return vocabulary
    except OSError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from None
    try:
        return BytePairVocabulary(_library().Tokenizer.from_file(str(path)))
    except ImportError:
        raise
    except Exception as error:  # the package raises no other class
        raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from None


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of about a million characters that end with a line."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + PIECE) + 1 if start + PIECE < len(text) else len(text)
        if not end:
            end = start + PIECE
        yield text[start:end]
        start = end


def _save_settings(folder: str | os.PathLike[str], context: int | None) -> None:
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if context is not None:
        settings["model_max_length"] = context
    write_text(Path(folder) / SETTINGS, json.dumps(settings, indent=2) + "\n")


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError("byte pairs need the package tokenizers: pip install 'bpnn[hf]'") from None
    return tokenizers
