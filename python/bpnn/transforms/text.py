"""Changes of texts that leave most of their meaning: more training examples for nothing, without a dictionary of synonyms.

    from bpnn.transforms import text
    augment = text.EasyAugmentation(alpha=0.1)
    augment("a moving and often funny film")            # "a often and moving funny film"
    augment(["one text", "another"])                    # a list of texts

Words are runs of letters and digits, with an apostrophe or a hyphen inside; of Chinese and Japanese each character is a word. What
lies between the words, spaces and marks, stays where it is.

Each text takes one 64-bit word from bpnn's generator (`bpnn.manual_seed`), so the same texts follow one by one and in lists.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from .base import Draws, Seeded, probability

__all__ = [
    "BackoffNoise", "BlankNoise", "CharacterNoise", "EasyAugmentation", "RandomDeletion", "RandomInsertion", "RandomSwap",
    "TextTransform", "split_words",
]

IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
LETTERS = rf"(?:(?![{IDEOGRAPHS}_])\w)"
WORD = re.compile(rf"[{IDEOGRAPHS}]|{LETTERS}+(?:['’-]{LETTERS}+)*")


def split_words(text: str) -> tuple[list[str], list[str]]:
    """The words of a text, and what is before, between and behind them: one more of these; joined in turn they are the text.

    >>> split_words("Don't stop, 今天!")
    (["Don't", 'stop', '今', '天'], ['', ' ', ', ', '', '!'])
    """
    words, gaps, end = [], [], 0
    for match in WORD.finditer(text):
        gaps.append(text[end : match.start()])
        words.append(match[0])
        end = match.end()
    return words, [*gaps, text[end:]]


def _joined(words: list[str], gaps: list[str]) -> str:
    return "".join(part for pair in zip(gaps, [*words, ""], strict=True) for part in pair)


class TextTransform(Seeded):
    """Base: a subclass writes `change(words, gaps, rng)`, which changes both lists or returns new ones."""

    def __call__(self, texts: Any) -> Any:
        """A text, or a list of texts, changed."""
        alone = isinstance(texts, str)
        given = [texts] if alone else list(texts)
        for text in given:
            if not isinstance(text, str):
                raise TypeError(f"texts: expected a string or a list of strings, got {type(text).__name__}")
        keys = Draws.make(len(given), self.generator).keys
        changed = [self.apply(text, np.random.Generator(np.random.PCG64(int(key)))) for text, key in zip(given, keys, strict=True)]
        return changed[0] if alone else changed

    def apply(self, text: str, rng: np.random.Generator) -> str:
        """The text changed by numbers of `rng`."""
        words, gaps = split_words(text)
        return _joined(*self.change(words, gaps, rng)) if words else text

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """Words, at least one, and gaps as they become; see `split_words`."""
        raise TypeError(f"{type(self).__name__} has no change")


# Easy data augmentation: Wei and Zou 2019 -----------------------------------------------------------------------------


def _times(alpha: float, words: list[str]) -> int:
    return max(1, int(alpha * len(words))) if alpha else 0


class RandomSwap(TextTransform):
    """Two words change places, `max(1, int(alpha n))` times in a text of n words. Wei and Zou 2019."""

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = probability(alpha)

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        if len(words) > 1:
            for _ in range(_times(self.alpha, words)):
                i, j = rng.choice(len(words), 2, replace=False)
                words[i], words[j] = words[j], words[i]
        return words, gaps


class RandomDeletion(TextTransform):
    """Each word is left out with probability `p`, with the space before it; one word at least remains. Wei and Zou 2019."""

    def __init__(self, p: float = 0.1) -> None:
        self.p = probability(p)

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        kept = rng.random(len(words)) >= self.p
        if not kept.any():
            kept[rng.integers(len(words))] = True
        left: list[str] = []
        between = [gaps[0]]
        for word, keep, gap in zip(words, kept, gaps[1:], strict=True):
            if keep:
                left.append(word)
                between.append(gap)
            else:  # what is around the word becomes one gap: its marks, and one space at most
                before = between[-1]
                between[-1] = before.rstrip() + gap if left or before.strip() else before + gap.lstrip()
        return left, between


class RandomInsertion(TextTransform):
    """A word of the text is said once more somewhere, `max(1, int(alpha n))` times in a text of n words.

    Wei and Zou 2019 insert synonyms of words of the text; without a dictionary it is the word itself.
    """

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = probability(alpha)

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        source = list(words)
        for _ in range(_times(self.alpha, source)):
            word, place = source[rng.integers(len(source))], int(rng.integers(len(words) + 1))
            neighbors = words[place - 1 : place] if place else words[:1]
            both = re.fullmatch(f"[{IDEOGRAPHS}]", word) and re.fullmatch(f"[{IDEOGRAPHS}]", neighbors[0])
            words.insert(place, word)
            gaps.insert(place if place else 1, "" if both else " ")
        return words, gaps


class EasyAugmentation(TextTransform):
    """One of swapping, deleting and inserting, each equally often: EDA without its synonyms. Wei and Zou 2019.

    alpha: the share of words that are changed; the paper takes 0.05 for a few hundred texts or many thousand, 0.1 between.
    """

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = probability(alpha)
        self._ways = (RandomSwap(alpha), RandomDeletion(alpha), RandomInsertion(alpha))

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        return self._ways[rng.integers(len(self._ways))].change(words, gaps, rng)


# Noise as smoothing: Xie et al. 2017 ----------------------------------------------------------------------------------


class BlankNoise(TextTransform):
    """Each word becomes `blank` with probability `p`, such as a tokenizer's mask token. Xie et al. 2017."""

    def __init__(self, p: float = 0.1, blank: str = "_") -> None:
        self.p, self.blank = probability(p), str(blank)

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        return [self.blank if hidden else word for word, hidden in zip(words, rng.random(len(words)) < self.p, strict=True)], gaps


class BackoffNoise(TextTransform):
    """Words become others, as a language model backs off to what it knows of single words. Xie et al. 2017.

    kind: "unigram": each word with probability `p`, by a word drawn as often as it is in `texts`; "kneser-ney": word x_i with
    probability `p N(x_{i-1} ·) / c(x_{i-1})`, the more the more different words follow the one before, by a word x drawn in
    proportion to `N(· x)`, how many different words it follows. c counts how often a word has one behind it, N different pairs;
    words of one text follow each other. A word that `texts` has not is followed by none.
    """

    def __init__(self, texts: Iterable[str], p: float = 0.1, kind: str = "unigram") -> None:
        if kind not in ("unigram", "kneser-ney"):
            raise ValueError(f"kind: expected 'unigram' or 'kneser-ney', got {kind!r}")
        self.p, self.kind = probability(p), kind
        counts: Counter[str] = Counter()
        pairs: set[tuple[str, str]] = set()
        followed: Counter[str] = Counter()  # how often a word has one behind it
        for text in texts:
            words, _ = split_words(text)
            counts.update(words)
            pairs.update(pairwise(words))
            followed.update(words[:-1])
        weights: Counter[str] = counts if kind == "unigram" else Counter(second for _, second in pairs)
        if not weights:
            raise ValueError(f"texts: expected some with {'a word' if kind == 'unigram' else 'two words'}, got none")
        self._words = sorted(weights)
        self._sums = np.cumsum([weights[word] for word in self._words])
        branches = Counter(first for first, _ in pairs)
        self._rates = {word: self.p * branches[word] / followed[word] for word in branches}

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        if self.kind == "unigram":
            rates = np.full(len(words), self.p)
        else:
            rates = np.array([0.0, *(self._rates.get(word, 0.0) for word in words[:-1])])
        chosen = rng.random(len(words)) < rates
        drawn = np.searchsorted(self._sums, rng.integers(self._sums[-1], size=len(words)), side="right")
        return [self._words[new] if noisy else word for word, noisy, new in zip(words, chosen, drawn, strict=True)], gaps


# Characters -----------------------------------------------------------------------------------------------------------


class CharacterNoise(TextTransform):
    """Slips of the pen: each character of a word, with probability `p`, changes places with the next, is left out, said twice, or
    becomes another character of the text. A word keeps one character at least. After Belinkov and Bisk 2018.
    """

    def __init__(self, p: float = 0.05) -> None:
        self.p = probability(p)

    def change(self, words: list[str], gaps: list[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        alphabet = "".join(words)
        return [self._slip(word, alphabet, rng) for word in words], gaps

    def _slip(self, word: str, alphabet: str, rng: np.random.Generator) -> str:
        letters = list(word)
        slips, ways = rng.random(len(letters)) < self.p, rng.integers(4, size=len(letters))
        others = rng.integers(len(alphabet), size=len(letters))
        for i in range(len(letters)):
            if not slips[i]:
                continue
            if ways[i] == 0 and i + 1 < len(letters):
                letters[i], letters[i + 1] = letters[i + 1], letters[i]
            elif ways[i] == 1 and sum(map(len, letters)) > len(letters[i]):
                letters[i] = ""
            elif ways[i] == 2:
                letters[i] *= 2
            else:
                letters[i] = alphabet[others[i]]
        return "".join(letters)
