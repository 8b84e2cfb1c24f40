"""Beam search: of each prompt the `num_beams` most probable continuations so far are followed at once.

Sizes: B prompts, M beams, K candidates a step, V tokens in the vocabulary, L tokens at most. Rules of `transformers`: a candidate
that ends goes among the ended texts if it is one of the best M of the step; ended texts compete by their log-probability divided by
(number of new tokens)^length_penalty.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._generation_config import Settings
from ._sampling import draw_several, greatest

NEVER = np.float32(-1e9)  # the score of what is not there


@dataclass
class Texts:
    """Texts of each prompt: tokens (B, ., L), scores (B, .), rows that their new tokens came from (B, ., new); `ended` (B, .)."""

    tokens: np.ndarray
    scores: np.ndarray
    rows: np.ndarray
    ended: np.ndarray

    def take(self, places: np.ndarray) -> Texts:
        """Those at `places` (B, .)."""
        pick = lambda x: np.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), 1)  # noqa: E731
        return Texts(pick(self.tokens), pick(self.scores), pick(self.rows), pick(self.ended))

    def beside(self, other: Texts) -> Texts:
        """Those of both."""
        names = ("tokens", "scores", "rows", "ended")
        return Texts(*(np.concatenate([getattr(self, name), getattr(other, name)], 1) for name in names))


class BeamSearch:
    """The state between two steps of the model. `running.tokens[..., :length]` are what the model has read or is to read next."""

    def __init__(self, prompts: np.ndarray, settings: Settings, random: np.random.Generator):
        """prompts: (B, T)."""
        self.settings, self.random = settings, random
        self.prompt = self.length = prompts.shape[1]
        B, M, L = len(prompts), settings.num_beams, settings.max_length
        # What fills up shorter texts is the first end where the padding is token 0 too, as in transformers.
        filler = (settings.pad or int(settings.eos[0])) if settings.eos.size else settings.pad or 0
        tokens = np.full((B, M, L), filler, np.int64)
        tokens[..., : self.prompt] = prompts[:, None]
        scores = np.full((B, M), NEVER, np.float32)
        rows = np.full((B, M, L - self.prompt), -1, np.int64)
        self.finished = Texts(tokens, scores, rows, np.zeros((B, M), bool))
        self.running = Texts(tokens, scores.copy(), rows, np.zeros((B, M), bool))
        self.running.scores[:, 0] = 0  # the beams are still the same: the first alone counts
        self.improvable = np.ones((B, 1), bool)
        self.done = False

    def step(self, log_probabilities: np.ndarray, ends) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Take the log-probabilities (B M, V) of the next token; the row (B M) that each beam goes on from.

        ends: (tokens (R, length), int) -> (R,), whether a text is complete.
        """
        s, running = self.settings, self.running
        B, M = running.scores.shape
        V = log_probabilities.shape[-1]
        total = (log_probabilities.reshape(B, M, V) + running.scores[:, :, None]).reshape(B, M * V)
        count = min(max(2, 1 + len(s.eos)) * M, M * V)
        best = draw_several(total, count, self.random) if s.do_sample else greatest(total, count)  # (B, K)
        candidates = running.take(best // V)
        candidates.scores = np.take_along_axis(total, best, 1)
        candidates.tokens[..., self.length] = best % V
        candidates.rows[..., self.length - self.prompt] = best // V + M * np.arange(B)[:, None]
        self.length += 1
        ended = ends(candidates.tokens[..., : self.length].reshape(B * count, self.length)).reshape(B, count)

        going = Texts(candidates.tokens, candidates.scores + ended.astype(np.float32) * NEVER, candidates.rows, candidates.ended)
        self.running = going.take(greatest(going.scores, M))
        self._keep_ended(candidates, ended)
        self._look_ahead(ended)
        return self.running.rows[..., self.length - 1 - self.prompt].reshape(-1)

    def _keep_ended(self, candidates: Texts, ended: np.ndarray) -> None:
        """Let candidates that ended, of the best M, compete with the ended texts that there are."""
        s, M = self.settings, self.settings.num_beams
        candidates.ended = ended & (np.arange(ended.shape[1]) < M)
        scores = candidates.scores / np.float32((self.length - self.prompt) ** s.length_penalty)
        full = self.finished.ended.all(1, keepdims=True) & (s.early_stopping is True)
        for hopeless in (full, ~self.improvable, ~candidates.ended):
            scores = scores + hopeless.astype(np.float32) * NEVER
        candidates.scores = scores
        both = self.finished.beside(candidates)
        self.finished = both.take(greatest(both.scores, M))

    def _look_ahead(self, ended: np.ndarray) -> None:
        """Whether the search is over: nothing can become better (or that is not asked for), or nothing can go on."""
        s, finished = self.settings, self.finished
        longest = s.max_length if s.early_stopping == "never" and s.length_penalty > 0 else self.length
        possible = self.running.scores[:, :1] / np.float32((longest - self.prompt) ** s.length_penalty)
        worst = np.where(finished.ended, finished.scores.min(1, keepdims=True), NEVER)
        self.improvable &= (possible > worst).any(1, keepdims=True)
        enough = s.early_stopping is True and bool(finished.ended.all())
        self.done = not self.improvable.any() or enough or bool(ended.all())

    @property
    def texts(self) -> np.ndarray:
        """What the model reads, (B M, length)."""
        return self.running.tokens[..., : self.length].reshape(-1, self.length)

    def results(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The `num_return_sequences` best of each prompt: tokens (R, .), scores (R,), rows (R, .; -1 behind the end)."""
        count = self.settings.num_return_sequences
        tokens, scores, rows = (getattr(self.finished, name)[:, :count] for name in ("tokens", "scores", "rows"))
        rows = rows.reshape(-1, rows.shape[-1])
        new = int((rows >= 0).sum(1).max(initial=0))
        return tokens.reshape(len(rows), -1)[:, : self.prompt + new], scores.reshape(-1), rows[:, :new]
