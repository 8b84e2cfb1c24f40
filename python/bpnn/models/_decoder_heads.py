"""Heads on top of a decoder: the next token, and what kind of text it is."""
from __future__ import annotations

from typing import Any

import numpy as np

import bpnn

from ._decoder import last_places, next_tokens, token_numbers
from ._layers import classification_loss, numbers, vocabulary_loss
from ._outputs import Later, ModelOutput
from .generation import GenerationMixin


class NextTokenHead(GenerationMixin):
    """`forward` and `generate` of a model with a `base_model` and an `lm_head`."""

    base_model: Any
    lm_head: Any

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, *, labels: Any = None, logits_to_keep: int = 0, **given: Any,
    ) -> ModelOutput:
        """`logits` (B, T, V), with `labels` also the `loss`; other arguments and results are those of the model without a head.

        labels: (B, T), usually `input_ids` themselves: place t is to predict label t + 1; -100 does not count. The loss is made in
        chunks, the logits beside it only when somebody looks at them. logits_to_keep: of so many last tokens only (0: all).
        """
        output = self.base_model(input_ids, attention_mask, **given)
        x, loss = output.last_hidden_state, None
        if labels is not None:
            target = next_tokens(labels, x.shape[:-1], self.config.vocab_size, given.get("cu_seqlens"))
            loss = vocabulary_loss(self.lm_head, x.reshape(-1, x.shape[-1]), bpnn.from_numpy(target.reshape(-1)))
        kept = x[..., -logits_to_keep:, :] if logits_to_keep else x
        logits = self.lm_head(kept) if loss is None else Later(lambda: self.lm_head(kept))
        return ModelOutput(
            loss=loss, logits=logits, past_key_values=output.past_key_values, hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class LastTokenHead:
    """`forward` of a model with a `base_model` and a `score` of the last token that is no padding (`pad_token_id`)."""

    config: Any
    base_model: Any
    score: Any

    def forward(self, input_ids: Any = None, attention_mask: Any = None, *, labels: Any = None, **given: Any) -> ModelOutput:
        """`logits` (B, num_labels) of B texts, with `labels` the `loss` that `problem_type` says: see `classification_loss`.

        With `inputs_embeds` nothing says what padding is: the last place is looked at, as in `transformers`.
        """
        embedded = given.get("inputs_embeds")
        tokens: Any = None if embedded is not None else token_numbers(input_ids, self.config.vocab_size)
        starts = None if given.get("cu_seqlens") is None else numbers(given["cu_seqlens"], "cu_seqlens")
        if starts is not None and starts.ndim == 1 and (np.diff(starts) == 0).any():
            raise ValueError(f"cu_seqlens: expected texts of at least one token, got {starts.tolist()}")
        output = self.base_model(input_ids if tokens is None else tokens, attention_mask, **given)
        x = output.last_hidden_state
        if starts is None:
            places = np.full(len(x), x.shape[1] - 1) if tokens is None else last_places(tokens, self.config.pad_token_id)
            last = x[bpnn.arange(len(x)), bpnn.from_numpy(places)]
        else:
            last = x.reshape(-1, x.shape[-1])[bpnn.from_numpy(starts[1:] - 1)]
        logits = self.score(last)
        return ModelOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config), logits=logits,
            past_key_values=output.past_key_values, hidden_states=output.hidden_states, attentions=output.attentions,
        )
