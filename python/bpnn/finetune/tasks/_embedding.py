"""An encoder whose pooled rows are compared: near where texts belong together. Reimers and Gurevych 2019; Henderson et al. 2017.

    multiple_negatives   -log softmax_j(20 cos(a_i, p_j))[i]: of all texts of the batch the own one is the positive
    cosine               (cos(a, b) - score)²
    triplet              max(0, |a - p| - |a - n| + 5)
"""
from __future__ import annotations

import os
from typing import Any, Self

import numpy as np

import bpnn
from bpnn.models._outputs import ModelOutput
from bpnn.models._pretrained import ModelConfig, PreTrainedModel
from bpnn.models.sentence import SentenceEncoder
from bpnn.nn import functional as F

from ..pooled import bare_encoder, save_encoder

LOSSES = ("multiple_negatives", "cosine", "triplet")
SCALE, MARGIN = 20.0, 5.0  # those of sentence-transformers
NOT_NEGATIVE = -1e4  # a logit that has no share in the softmax


class EmbeddingModel(PreTrainedModel):
    """A bare encoder whose pooled rows are compared: `loss` and `logits` of texts that come in groups.

    A batch of n examples has n anchors, then their n partners, then perhaps n negatives, in `input_ids` (2n or 3n, T).
    """

    base_model_prefix = "model"

    def __init__(self, config: ModelConfig, pooling: str = "mean", loss: str = "multiple_negatives"):
        super().__init__(config)
        self.pooling, self.loss = pooling, loss
        self.max_seq_length: int | None = None
        self.lower = False
        self.model = bare_encoder(config)

    @classmethod
    def of(cls, encoder: SentenceEncoder, loss: str) -> Self:
        """Around the network of `encoder`."""
        if loss not in LOSSES:
            raise ValueError(f"loss: expected {', '.join(LOSSES)}, got {loss!r}")
        with bpnn.nn.init.skip_init():
            model = cls(encoder.model.config, encoder.pooling, loss)
        model.model = encoder.model
        return model

    def embed(self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, **given: Any) -> Any:
        """The vectors (B, H) of texts, not normalized."""
        if self.pooling == "cls":
            return self.model(input_ids, attention_mask, token_type_ids, first_only=True, **given).first()
        output = self.model(input_ids, attention_mask, token_type_ids, **given)
        return output.layout.pool(output.rows, self.pooling)

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None, same: Any = None,
        **given: Any,
    ) -> ModelOutput:
        """`embeddings` (B, H); with labels (n,) also `loss` and `logits`.

        labels: n scores for "cosine", with logits (n,), the cosines. For the others which partner is the own one, 0 … n - 1, with
        logits (n, n), or (n, 2n) with negatives: the scaled cosines, and for "triplet" minus the distances. same: bool, shaped as
        the logits, True for what is near an anchor without being its own partner, and so is no negative.
        """
        x = self.embed(input_ids, attention_mask, token_type_ids, **given)
        if labels is None:
            return ModelOutput(embeddings=x)
        n = len(labels)
        if x.shape[0] % n or x.shape[0] // n not in (2, 3):
            raise ValueError(f"input_ids: expected two or three texts for each of {n} labels, got {x.shape[0]}")
        anchors, others = x[:n], x[n:]
        if self.loss == "cosine":
            wanted = bpnn.from_numpy(np.asarray(labels, x.dtype))
            logits = F.cosine_similarity(anchors, others[:n])
            return ModelOutput(loss=F.mse_loss(logits, wanted), logits=logits, embeddings=x)
        target = bpnn.from_numpy(np.asarray(labels, np.int64))
        if self.loss == "triplet":
            if others.shape[0] != 2 * n:
                raise ValueError("labels: the triplet loss takes a negative text for each anchor, got none")
            logits = -_distances(anchors, others)
            rows = bpnn.arange(n)
            near, far = logits[rows, target], logits[rows, target + n]
            losses: Any = F.relu(far - near + MARGIN)
            return ModelOutput(loss=losses.mean(), logits=logits, embeddings=x)
        own: Any = F.normalize(anchors)
        partners: Any = F.normalize(others)
        logits = own @ partners.T * SCALE
        if same is not None:
            logits = bpnn.where(bpnn.from_numpy(np.asarray(same, bool)), NOT_NEGATIVE, logits)
        return ModelOutput(loss=F.cross_entropy(logits, target), logits=logits, embeddings=x)

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, dtype: str | None = None, max_shard_size: int | None = 5_000_000_000,
    ) -> list[str]:
        """Write encoder and pooling as sentence-transformers reads them; the tokenizer is saved by itself."""
        return save_encoder(self, folder, dtype=dtype, max_shard_size=max_shard_size)


def _distances(a: Any, b: Any) -> Any:
    """Euclid's distances (n, m) of rows (n, H) and (m, H); their derivative is finite where they are 0."""
    squared = ((a.unsqueeze(1) - b.unsqueeze(0)) ** 2).sum(-1)
    return (squared + 1e-12).sqrt()
