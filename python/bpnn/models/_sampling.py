"""From a model's scores to the next tokens: what changes scores, in `transformers`' order, and the draw.

Sizes: R texts, V tokens in the vocabulary, L tokens read so far. Scores are float32, as there.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._generation_config import Settings

# (tokens (R, L), scores (R, V)) -> scores; may write into the scores that it gets
Processor = Callable[[np.ndarray, np.ndarray], np.ndarray]
LOWEST = np.float32(-np.inf)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return e


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def processors(settings: Settings, padding: np.ndarray | None = None) -> list[Processor]:
    """What the settings ask for, in order. padding: (R,), how many tokens at the beginning of each text are none."""
    found: list[Processor] = []
    if settings.repetition_penalty != 1.0:
        found.append(lambda tokens, scores: penalize(scores, tokens, settings.repetition_penalty, padding))
    if settings.no_repeat_ngram_size > 0:
        found.append(lambda tokens, scores: forbid_repeats(scores, tokens, settings.no_repeat_ngram_size))
    if settings.eos.size and settings.min_length > 0:
        found.append(lambda tokens, scores: forbid_ends(scores, tokens, settings.eos, settings.min_length))
    if settings.do_sample:
        if settings.temperature != 1.0:
            found.append(lambda tokens, scores: np.divide(scores, np.float32(settings.temperature), out=scores))
        if settings.top_k > 0:
            found.append(lambda tokens, scores: keep_top_k(scores, max(settings.top_k, settings.keep)))
        if settings.top_p < 1.0:
            found.append(lambda tokens, scores: keep_top_p(scores, settings.top_p, settings.keep))
        if settings.min_p is not None:
            least = settings.min_p
            found.append(lambda tokens, scores: keep_min_p(scores, least, settings.keep))
    return found


def penalize(scores: np.ndarray, tokens: np.ndarray, penalty: float, padding: np.ndarray | None = None) -> np.ndarray:
    """Make tokens that are there already less probable (Keskar et al. 2019)."""
    for row, own in enumerate(tokens):
        seen = np.unique(own if padding is None else own[padding[row] :])
        score = scores[row, seen]
        scores[row, seen] = np.where(score < 0, score * np.float32(penalty), score / np.float32(penalty))
    return scores


def forbid_repeats(scores: np.ndarray, tokens: np.ndarray, size: int) -> np.ndarray:
    """No `size` tokens in a row twice."""
    if tokens.shape[1] + 1 >= size and tokens.shape[1] >= size:
        grams = np.lib.stride_tricks.sliding_window_view(tokens, size, axis=1)  # (R, L - size + 1, size)
        ends = tokens[:, None, tokens.shape[1] + 1 - size :]
        again = (grams[..., :-1] == ends).all(-1)
        for row in range(len(tokens)):
            scores[row, grams[row, again[row], -1]] = LOWEST
    return scores


def forbid_ends(scores: np.ndarray, tokens: np.ndarray, eos: np.ndarray, least: int) -> np.ndarray:
    """No end of a text before `least` tokens."""
    if tokens.shape[1] < least:
        scores[:, eos[(eos >= 0) & (eos < scores.shape[1])]] = LOWEST
    return scores


def keep_top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """The k greatest scores, and what equals the last of them (Fan et al. 2018)."""
    if k < scores.shape[1]:
        scores[scores < np.partition(scores, -k, axis=1)[:, -k, None]] = LOWEST
    return scores


def keep_top_p(scores: np.ndarray, p: float, keep: int = 1) -> np.ndarray:
    """The most probable tokens that have the probability `p` together, at least `keep` (Holtzman et al. 2020)."""
    for own in scores:
        possible = np.flatnonzero(own != LOWEST)
        order = possible[np.argsort(own[possible], kind="stable")]
        below = np.cumsum(softmax(own[order]), dtype=np.float64).astype(np.float32)  # summed in double, as PyTorch does
        gone = below <= np.float32(1 - p)
        gone[-keep:] = False
        own[order[gone]] = LOWEST
    return scores


def keep_min_p(scores: np.ndarray, least: float, keep: int = 1) -> np.ndarray:
    """The tokens with at least this share of the greatest probability, at least `keep` (Nguyen et al. 2024)."""
    probabilities = softmax(scores)
    gone = probabilities < np.float32(least) * probabilities.max(-1, keepdims=True)
    keep = min(keep, scores.shape[1])
    np.put_along_axis(gone, np.argpartition(probabilities, -keep, axis=1)[:, -keep:], False, 1)
    scores[gone] = LOWEST
    return scores


def draw(scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A token for each row of scores (R, V) by its probability; one random number a row."""
    tokens = np.empty(len(scores), np.int64)
    for row, (own, number) in enumerate(zip(scores, random.random(len(scores)))):
        possible = np.flatnonzero(own != LOWEST)
        below = np.cumsum(softmax(own[possible]), dtype=np.float64)
        if not (len(below) and np.isfinite(below[-1])):
            raise FloatingPointError("logits: expected finite numbers to draw a token from, got NaN or no possible token")
        tokens[row] = possible[min(np.searchsorted(below, number * below[-1], "right"), len(possible) - 1)]
    return tokens


def draw_several(scores: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` different places of each row by their probabilities, in turn: the greatest of the scores with Gumbel noise."""
    return greatest(scores + random.gumbel(size=scores.shape).astype(np.float32), count)


def greatest(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` greatest of each row, greatest first."""
    if count < scores.shape[1]:
        places = np.argpartition(scores, -count, axis=1)[:, -count:]
        places.sort(axis=1)
    else:
        places = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.take_along_axis(places, np.argsort(-np.take_along_axis(scores, places, 1), axis=1, kind="stable"), 1)
