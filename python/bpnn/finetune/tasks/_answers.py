"""How close an answer is to those expected: exact match and F1, as the scripts of SQuAD and CMRC 2018 have them.

SQuAD (Rajpurkar et al. 2016): texts without capitals, punctuation and articles; F1 of bags of words. CMRC 2018 (Cui et al. 2019),
for texts with Chinese characters: each of them counts as a word, and F1 is that of the longest run that both have in common.
"""
from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

CHINESE = re.compile(r"[㐀-䶿一-鿿豈-﫿]")
SIGNS = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # that the script leaves out
PIECES = re.compile(r"""[㐀-䶿一-鿿豈-﫿]|[,;()\[\]"?!]|[^\s㐀-䶿一-鿿豈-﫿,;()\[\]"?!]+""")
ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def plain(text: str) -> str:
    """SQuAD's normalization.

    >>> plain("The  U.S. Army!")
    'us army'
    """
    without = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", without).split())


def pieces(text: str) -> list[str]:
    """CMRC's units: Chinese characters, and what stands between them divided by blanks; without Chinese signs and capitals.

    >>> pieces("在1998年，NBA 的")
    ['在', '1998', '年', 'nba', '的']
    """
    return PIECES.findall(text.lower().translate(SIGNS))


def common_run(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest run of units that both have."""
    best, row = 0, [0] * (len(b) + 1)
    for x in a:
        row = [0, *[row[j] + 1 if x == y else 0 for j, y in enumerate(b)]]
        best = max(best, *row)
    return best


def exact_match(said: str, answer: str) -> float:
    """1 where both are the same, normalized; else 0."""
    if CHINESE.search(answer) or CHINESE.search(said):
        return float("".join(pieces(said)) == "".join(pieces(answer)))
    return float(plain(said) == plain(answer))


def f1(said: str, answer: str) -> float:
    """2 · common / (units of both)."""
    if CHINESE.search(answer) or CHINESE.search(said):
        a, b = pieces(said), pieces(answer)
        common = common_run(a, b)
    else:
        a, b = plain(said).split(), plain(answer).split()
        common = sum((Counter(a) & Counter(b)).values())
    if not a or not b:
        return float(a == b)
    return 2 * common / (len(a) + len(b))


def answer_scores(said: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Percent of exact matches and mean F1, each with the answer that fits best; a question without answers expects ""."""
    exact, close = [], []
    for one, expected in zip(said, answers, strict=True):
        exact.append(max(exact_match(one, answer) for answer in expected or [""]))
        close.append(max(f1(one, answer) for answer in expected or [""]))
    return {"exact_match": 100 * sum(exact) / len(exact), "f1": 100 * sum(close) / len(close)}
