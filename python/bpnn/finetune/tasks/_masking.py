"""Masked language modelling: which tokens are hidden, and behind what. Devlin et al. 2018, section 3.1."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._task import Array

SHARE = 0.15
IGNORED = -100


def mask_tokens(
    tokens: Array, fixed: Array, mask_token: int, words: Array, random: np.random.Generator, share: float = SHARE
) -> tuple[Array, Array]:
    """(tokens with some hidden, labels): each token is chosen with probability `share`, at least one of them.

    Of those chosen 80 % become `mask_token`, 10 % one of `words`, 10 % stay. Labels are the tokens where chosen, else -100.
    fixed: bool, True for what is never chosen (special tokens). All (T,).
    """
    free = np.flatnonzero(~fixed)
    if not len(free):
        return tokens, np.full_like(tokens, IGNORED)
    chosen = free[random.random(len(free)) < share]
    if not len(chosen):
        chosen = free[[int(random.integers(len(free)))]]
    labels = np.full_like(tokens, IGNORED)
    labels[chosen] = tokens[chosen]
    kind = random.random(len(chosen))
    hidden = tokens.copy()
    hidden[chosen[kind < 0.8]] = mask_token
    swapped = chosen[(kind >= 0.8) & (kind < 0.9)]
    hidden[swapped] = words[random.integers(len(words), size=len(swapped))]
    return hidden, labels


def ordinary(size: int, special: Sequence[int]) -> Array:
    """The numbers of a vocabulary's tokens that are not special."""
    return np.setdiff1d(np.arange(size), np.asarray(special, np.int64))
