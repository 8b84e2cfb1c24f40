"""The scores of a training batch that count, as rows of classes, whatever the head."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import bpnn
from bpnn.models._decoder import next_tokens
from bpnn.models._decoder_heads import NextTokenHead
from bpnn.models._layers import IGNORED
from bpnn.nn import functional as F
from bpnn.train.batches import prediction_of

from ._inputs import array_of
from ._structure import pretrained_in

if TYPE_CHECKING:
    from bpnn.train import Trainer


def counted_rows(trainer: Trainer, batch: Any, output: Any, target: Any) -> list[tuple[Any, np.ndarray | None]]:
    """(logits (N, C), classes (N,) or None) of what counts: one pair, two for the first and last tokens of answers.

    Logits (B, C) are rows already. Of (B, T, C) those count whose label is not -100, labels moved by one where a model predicts the
    next token; without labels those that `attention_mask` shows. With a loss of the trainer's classes are dimension 1, as in
    `F.cross_entropy`. Classes that are no whole numbers come as None. Raises `ValueError` where the output has no logits.
    """
    told = batch if isinstance(batch, Mapping) else {}
    ends = [(f"{end}_logits", f"{end}_positions") for end in ("start", "end")]
    if all(getattr(output, name, None) is not None for name, _ in ends):
        return [_span(getattr(output, name), told.get(positions)) for name, positions in ends]
    logits = prediction_of(output)
    if not isinstance(logits, bpnn.Tensor) or logits.ndim < 2:
        raise ValueError(f"model: expected logits (B, C) or (B, T, C), got {getattr(logits, 'shape', type(logits).__name__)}")
    if trainer.loss is not None and logits.ndim > 2:
        logits = logits.permute(0, *range(2, logits.ndim), 1)
    classes = None if target is None else array_of(target)
    if classes is not None and classes.dtype.kind not in "iu":
        classes = None
    if classes is not None and logits.ndim > 2:
        found = pretrained_in(trainer.model)
        if found is not None and isinstance(found[1], NextTokenHead):
            classes = next_tokens(classes, tuple(logits.shape[:-1]), logits.shape[-1], told.get("cu_seqlens"))
    if classes is not None and classes.size != np.prod(logits.shape[:-1]):
        raise ValueError(f"labels: expected a class for each of the logits {tuple(logits.shape)}, got {classes.shape}")
    seen = np.ones(logits.shape[:-1], bool) if classes is None else classes.reshape(logits.shape[:-1]) != IGNORED
    if classes is None and logits.ndim == 3 and told.get("attention_mask") is not None:
        mask = array_of(told["attention_mask"])
        seen = mask != 0 if mask.shape == seen.shape else seen
    rows, kept = logits.reshape(-1, logits.shape[-1]), np.flatnonzero(seen)
    if len(kept) < len(rows):
        rows = F.embedding(bpnn.from_numpy(kept), rows)
    return [(rows, None if classes is None else classes.reshape(-1)[kept].astype(np.int64))]


def _span(logits: Any, positions: Any) -> tuple[Any, np.ndarray | None]:
    """Those of the examples whose answer lies in the text; a negative place counts as 0, as in the models' loss."""
    if positions is None:
        return logits, None
    places = array_of(positions).reshape(-1).astype(np.int64).clip(0)
    kept = np.flatnonzero(places < logits.shape[1])
    return (logits if len(kept) == len(logits) else F.embedding(bpnn.from_numpy(kept), logits)), places[kept]
