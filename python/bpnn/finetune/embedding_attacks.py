"""Adversarial training of models that read tokens: a change of the embeddings that makes the loss larger, and training on it too.

    Trainer(model, optimizer, callbacks=[FGM(eps=0.2)])              # one step; also EmbeddingPGD, FreeLB

What is changed is the output of the table of tokens, x, before positions and norms are applied; the table itself may be frozen, or
adapters may be all that is trained. With g the gradient of the loss at x, norms are Euclidean, over all the tokens of one example.

What eps means depends on the size of the embeddings: 20 tokens of BERT or MiniLM have a norm of about 6, so 0.2 moves them by 3 %.
Too large a one keeps a fresh head from learning at all. Recipes that take 1.0 often mean the norm over a whole batch: per example
that is about 1 / sqrt(B).

An example's tokens are a row of (B, T, H), or those of (N, H) that `cu_seqlens` or `attention_mask` (padded or packed) tell.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import bpnn
from bpnn.models._packing import Layout
from bpnn.train.callbacks import Callback

from ._inputs import array_of, drawn_generator
from ._structure import token_tables

if TYPE_CHECKING:
    from bpnn.train import Trainer

__all__ = ["FGM", "EmbeddingPGD", "FreeLB"]


class EmbeddingAttack(Callback):
    """Base: sees every embedding of a training batch, in the order in which the model asks for them, and changes it.

    A pass is what `trainer.training_loss` computes, with one or more embeddings (R-Drop has two). `changes` has a change for each,
    `leaves` what they were added to, so that `leaf.grad` is the gradient at the embedding.
    """

    def __init__(self, eps: float) -> None:
        if not eps > 0:
            raise ValueError(f"eps: expected a number above 0, got {eps}")
        self.eps = eps
        self.changes: list[np.ndarray] | None = None
        self.leaves: list[Any] = []
        self._watching = False
        self._batch: Any = None
        self._handles: list[Any] = []

    # What a subclass says

    def start(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
        """The change of an embedding in the pass that the trainer makes; None: none."""
        return None

    # The hooks

    def on_fit_start(self, trainer: Trainer) -> None:
        others = [c for c in trainer.callbacks if isinstance(c, EmbeddingAttack) and c is not self]
        if others:
            both = f"{type(self).__name__} and {type(others[0]).__name__}"
            raise ValueError(f"callbacks: expected one attack on embeddings, got {both}")
        self._handles = [table.register_forward_hook(self._embedded) for table in token_tables(trainer.model)]

    def on_fit_exit(self, trainer: Trainer) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self.leaves, self.changes, self._batch, self._watching = [], [], None, None, False

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        self._batch, self.changes, self.leaves, self._watching = batch, None, [], True
        return batch

    def on_evaluate_start(self, trainer: Trainer) -> None:
        self._watching = False

    def _embedded(self, module: Any, args: Any, output: Any) -> Any:
        if not self._watching or not bpnn.is_grad_enabled():
            return None
        at = len(self.leaves)
        change = self.start(output.shape, output.dtype) if self.changes is None else self.changes[at]
        if change is not None:
            output = output + bpnn.from_numpy(change)
        if output.requires_grad:
            output.retain_grad()
        else:  # a frozen table
            output = output.detach().requires_grad_()
        self.leaves.append(output)
        if self.changes is None:
            self._first(change)
        return output

    def _first(self, change: np.ndarray | None) -> None:
        """Notes the change of an embedding of the trainer's own pass."""

    # For subclasses

    def gradients(self) -> list[np.ndarray]:
        """The gradients at the embeddings, after a backward pass; zeros where the loss does not depend on one."""
        if not self.leaves:
            raise ValueError("model: its table of tokens was not used; expected a model that reads tokens")
        return [np.zeros(x.shape, x.dtype) if x.grad is None else np.asarray(x.grad.detach().numpy()) for x in self.leaves]

    def examples(self, shape: tuple[int, ...]) -> Examples:
        """Which rows of an embedding belong to which example of the batch."""
        return Examples.of(self._batch, shape)

    def repeat(self, trainer: Trainer, batch: Any, changes: list[np.ndarray]) -> Any:
        """The loss of one more pass, with these changes."""
        self.changes, self.leaves, self._watching = changes, [], True
        try:
            loss, _, _ = trainer.training_loss(batch)
        finally:
            self._watching = False
        return loss


class FGM(EmbeddingAttack):
    """Adds the gradient of the loss at x + r to that at x: `r = eps g / |g|`.

    Miyato, Dai and Goodfellow 2017 ("fast gradient method"). A step takes two passes forward and two backward; the loss in the
    history is that at x. Place it behind callbacks that change the loss or the batch.
    """

    def __init__(self, eps: float = 0.2) -> None:
        super().__init__(eps)

    def on_backward_end(self, trainer: Trainer, batch: Any, weight: float) -> None:
        changes = [self.eps * self.examples(g.shape).unit(g) for g in self.gradients()]
        (self.repeat(trainer, batch, changes) * weight).backward()


class EmbeddingPGD(EmbeddingAttack):
    """Adds the gradient of the loss at x + r_K to that at x, r_0 = 0, `r_k = project(r_(k-1) + step_size g_(k-1) / |g_(k-1)|)`.

    The projection is onto the ball of radius eps; g_k is the gradient at x + r_k. Madry et al. 2018, on embeddings. A step takes
    `steps` + 1 passes; parameters get gradients from the first and the last.
    """

    def __init__(self, eps: float = 0.3, step_size: float = 0.1, steps: int = 3) -> None:
        super().__init__(eps)
        _check_steps(steps, step_size)
        self.step_size, self.steps = step_size, steps

    def on_backward_end(self, trainer: Trainer, batch: Any, weight: float) -> None:
        gradients = self.gradients()
        changes = [np.zeros_like(g) for g in gradients]
        for k in range(1, self.steps + 1):
            changes = [_ascended(self, r, g) for r, g in zip(changes, gradients, strict=True)]
            loss = self.repeat(trainer, batch, changes)
            if k == self.steps:
                (loss * weight).backward()
            else:
                found = bpnn.autograd.grad(loss, self.leaves, allow_unused=True)
                gradients = [np.zeros_like(r) if g is None else np.asarray(g.numpy()) for r, g in zip(changes, found, strict=True)]


class FreeLB(EmbeddingAttack):
    """The mean of the gradients at x + r_0 … x + r_(K-1): every step of the ascent trains the parameters too.

    r_0 is uniform in [-eps, eps] / sqrt(n), n the numbers of the example's embeddings (0 at padding);
    `r_k = project(r_(k-1) + step_size g / |g|)`, onto the ball of radius eps. All K = `steps` passes have the same dropout. Zhu et
    al. 2020, algorithm 1. A step takes K passes; the loss in the history is that at x + r_0.

    Must be placed behind all callbacks that change the loss, or `fit` raises `ValueError`.
    """

    def __init__(self, eps: float = 0.3, step_size: float = 0.1, steps: int = 3) -> None:
        super().__init__(eps)
        _check_steps(steps, step_size)
        self.step_size, self.steps = step_size, steps
        self._noise: np.random.Generator | None = None
        self._state: Any = None
        self._started: list[np.ndarray] = []

    def on_fit_start(self, trainer: Trainer) -> None:
        behind = trainer.callbacks[[c is self for c in trainer.callbacks].index(True) + 1 :]
        late = [type(c).__name__ for c in behind if type(c).on_loss is not Callback.on_loss]
        if late:
            raise ValueError(f"callbacks: expected FreeLB behind {', '.join(late)}, which changes the loss")
        super().on_fit_start(trainer)

    def on_batch(self, trainer: Trainer, batch: Any) -> Any:
        self._noise, self._started = drawn_generator(), []
        self._state = bpnn.get_rng_state()  # from here on all passes draw the same
        return super().on_batch(trainer, batch)

    def start(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray | None:
        assert self._noise is not None
        examples = self.examples(shape)
        noise = self._noise.uniform(-self.eps, self.eps, shape) / np.sqrt(np.maximum(1, examples.sizes(shape)))
        return (noise * examples.real(shape)).astype(dtype)

    def _first(self, change: np.ndarray | None) -> None:
        assert change is not None
        self._started.append(change)

    def on_loss(self, trainer: Trainer, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        share = 1 / self.steps  # of the gradient; the value stays
        return loss * share + loss.detach() * (1 - share)

    def on_backward_end(self, trainer: Trainer, batch: Any, weight: float) -> None:
        changes = self._started
        after = bpnn.get_rng_state()
        for _ in range(1, self.steps):
            changes = [_ascended(self, r, g) for r, g in zip(changes, self.gradients(), strict=True)]
            bpnn.set_rng_state(self._state)
            (self.repeat(trainer, batch, changes) * weight).backward()
        bpnn.set_rng_state(after)


def _check_steps(steps: int, step_size: float) -> None:
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if not step_size > 0:
        raise ValueError(f"step_size: expected a number above 0, got {step_size}")


def _ascended(attack: Any, change: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """One step up the gradient and back onto the ball."""
    examples = attack.examples(change.shape)
    moved = change + attack.step_size * examples.unit(gradient)
    shrink = np.minimum(1, attack.eps / np.maximum(examples.norms(moved), np.finfo(np.float64).tiny))
    return (moved * shrink).astype(change.dtype)


# --- where examples are --------------------------------------------------------------------------------------------------------


class Examples:
    """Whose the rows of an embedding (B, T, H) or (N, H) are: `owner` (B, T) or (N,), examples counted from 0; -1: padding."""

    def __init__(self, owner: np.ndarray, count: int) -> None:
        self.owner, self.count = owner, count

    @classmethod
    def of(cls, batch: Any, shape: tuple[int, ...]) -> Examples:
        """Of the embedding of a batch. Raises `ValueError` where the batch does not tell."""
        told = batch if isinstance(batch, Mapping) else {}
        rows = tuple(shape[:-1])
        if told.get("cu_seqlens") is not None:
            starts = array_of(told["cu_seqlens"])
            if starts[-1] == np.prod(rows):
                return cls(np.repeat(np.arange(len(starts) - 1), np.diff(starts)).reshape(rows), len(starts) - 1)
        for name in ("attention_mask", "decoder_attention_mask", "labels", "input_ids"):
            found = cls._masked(name, told.get(name), rows)
            if found is not None:
                return found
        if len(rows) == 2:
            return cls(np.broadcast_to(np.arange(rows[0])[:, None], rows), rows[0])
        raise ValueError(f"batch: expected attention_mask or cu_seqlens that tell whose the {rows[0]} rows of the embedding are")

    @classmethod
    def _masked(cls, name: str, given: Any, rows: tuple[int, ...]) -> Examples | None:
        """By a mask (B, T), for an embedding of all its places or of the real ones alone."""
        array = None if given is None else array_of(given)
        if array is None or array.ndim != 2:
            return None
        if name == "labels":  # the target of a decoder that was given no mask: up to the last label that counts
            real = np.flip(np.logical_or.accumulate(np.flip(array != -100, 1), 1), 1)
        else:
            real = array != 0 if name != "input_ids" else np.ones(array.shape, bool)
        layout = Layout(array.shape, real)
        owner = np.where(real, np.arange(len(array))[:, None], -1)
        if rows == (len(layout),):
            return cls(layout.take(owner), len(array))
        if rows in (array.shape, (array.size,)):
            return cls(owner.reshape(rows), len(array))
        return None

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Of numbers, one for each row, the sums by example; at each row (…, 1), 0 at padding."""
        real = self.owner >= 0
        total = np.bincount(self.owner[real], values[real], self.count)
        return np.where(real, total[self.owner], 0)[..., None]

    def sizes(self, shape: tuple[int, ...]) -> np.ndarray:
        """How many numbers the embedding of each example has, at each row."""
        return self.sums(np.ones(self.owner.shape)) * shape[-1]

    def real(self, shape: tuple[int, ...]) -> np.ndarray:
        """1 for the rows of tokens, 0 for padding."""
        return (self.owner >= 0)[..., None].astype(np.float64)

    def norms(self, x: np.ndarray) -> np.ndarray:
        """The Euclidean norm of each example's x, at each row; 0 at padding."""
        return np.sqrt(self.sums(np.square(x, dtype=np.float64).sum(-1)))

    def unit(self, x: np.ndarray) -> np.ndarray:
        """x divided by its norm, by example; 0 where that is 0, and at padding."""
        norms = self.norms(x)
        scaled: np.ndarray = x * np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return scaled.astype(x.dtype)
