"""Beam search: the texts of the highest probability, as far as a few candidates a text can tell."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np


def beam_search(
    step: Callable[[np.ndarray], np.ndarray], reorder: Callable[[np.ndarray], None], batch: int, beams: int, limit: int, *,
    start: int, ends: int | list[int] | None, banned: int | None = None, length_penalty: float = 1.0,
) -> list[list[int]]:
    """For each of `batch` texts the best continuation of `start`: at most `limit` more tokens, up to one of `ends`.

    step: the newest tokens (batch · beams,) → log-probabilities (batch · beams, V) of the next. reorder: from now on candidate i is
    what candidate `rows[i]` was. A text's score is the sum of its log-probabilities divided by its length ** length_penalty; a text
    is done when no candidate can beat the `beams` best that have ended, were it to end now. `banned` is never taken.
    """
    if beams < 1:
        raise ValueError(f"num_beams: expected 1 or more, got {beams}")
    last = set(ends if isinstance(ends, (list, tuple)) else [] if ends is None else [ends])
    scores = np.full((batch, beams), -np.inf)
    scores[:, 0] = 0
    tokens = np.full((batch, beams, 1), start)
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
    done = np.zeros(batch, bool)
    for length in range(1, limit + 1):
        if done.all():
            break
        found = step(tokens[:, :, -1].reshape(-1)).astype(np.float64).reshape(batch, beams, -1)
        if banned is not None:
            found[:, :, banned] = -np.inf
        size = found.shape[2]
        total = (scores[:, :, None] + found).reshape(batch, -1)
        count = min((1 + max(len(last), 1)) * beams, total.shape[1])
        best = np.argpartition(-total, count - 1, axis=1)[:, :count]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(total, best, 1), 1, kind="stable"), 1)
        parents, newest = np.zeros((batch, beams), np.int64), np.full((batch, beams), start)
        for b in np.flatnonzero(~done):
            going = 0
            fresh = np.full(beams, -np.inf)
            for rank, place in enumerate(best[b]):
                parent, token = divmod(int(place), size)
                score = total[b, place]
                if token in last:
                    if rank < beams and score > -np.inf:
                        ended[b].append((score / length**length_penalty, [*tokens[b, parent].tolist(), token]))
                elif going < beams:
                    fresh[going], parents[b, going], newest[b, going] = score, parent, token
                    going += 1
            scores[b] = fresh
            ended[b] = sorted(ended[b], key=lambda pair: -pair[0])[:beams]
            done[b] = len(ended[b]) == beams and ended[b][-1][0] >= fresh[0] / length**length_penalty
        reorder((np.arange(batch)[:, None] * beams + parents).reshape(-1))
        tokens = np.concatenate([np.take_along_axis(tokens, parents[:, :, None], 1), newest[:, :, None]], 2)
    for b in np.flatnonzero(~done):
        ended[b] += [(score / limit**length_penalty, row.tolist()) for score, row in zip(scores[b], tokens[b]) if score > -np.inf]
    return [max(texts, key=lambda pair: pair[0])[1] if texts else [start] for texts in ended]
