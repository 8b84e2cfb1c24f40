"""What BERT, RoBERTa and DistilBERT share: the way from tokens through the layers, and the heads on top.

An encoder computes on rows, one for each real token (see `Layout`); results are put back in their places when somebody looks.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.utils.checkpoint import checkpoint

from ._layers import (
    IGNORED,
    classification_loss,
    embedded_shape,
    in_range,
    numbers,
    prefix_length,
    span_loss,
    target_of,
    vocabulary_loss,
)
from ._outputs import Later, ModelOutput, only_by_name
from ._packing import Layout, real_places
from ._pretrained import PreTrainedModel


class EncoderOutput(ModelOutput):
    """A bare encoder's output, with the rows (N, H) that it computed and their `Layout`; or the rows of first tokens `alone`."""

    def __init__(self, rows: Any, layout: Layout, alone: bool = False, **values: Any):
        super().__init__(**values)
        self.__dict__.update(rows=rows, layout=layout, alone=alone)

    def first(self) -> Any:
        """The rows of the texts' first tokens, (B, H)."""
        return self.rows if self.alone else self.layout.first(self.rows)


class EncoderModel(PreTrainedModel):
    """The base of encoders. `packed = False` computes padding too, as other libraries do."""

    packed: bool = True


class BareEncoder(EncoderModel):
    """An encoder without a head: `embeddings`, which knows its `positions`, then the layers."""

    embeddings: Any

    def run(
        self, layers: Iterable[nn.Module], pooler: nn.Module | None, input_ids: Any, attention_mask: Any = None,
        token_type_ids: Any = None, position_ids: Any = None, inputs_embeds: Any = None, *, output_attentions: bool | None = None,
        output_hidden_states: bool | None = None, return_dict: bool | None = None, use_cache: bool | None = None,
        packed: bool = True, first_only: bool = False, prefix_key_values: Any = None,
    ) -> EncoderOutput:
        """Embed, go through the layers, pool. The arguments are those of `BertModel`."""
        if use_cache:
            raise ValueError("use_cache: expected False or None, an encoder reads a text at once")
        only_by_name(return_dict)
        weights: list[Any] | None = [] if self.asked("output_attentions", output_attentions) else None
        states: list[Any] | None = [] if self.asked("output_hidden_states", output_hidden_states) else None
        layers = list(layers)
        ahead = prefix_length(prefix_key_values, len(layers), self.recompute and self.training)
        tokens = self._tokens(input_ids, inputs_embeds, ahead)
        real = real_places(attention_mask, tokens.shape)
        # A row that is needed although the mask hides it: of a text without tokens, or the first of a text.
        lost = real is not None and not (real[:, 0] if first_only or pooler is not None else real.any(1)).all()
        layout = Layout(tokens.shape, real, self.packed and packed and weights is None and not lost)
        x = self.embeddings(
            layout.take(tokens) if inputs_embeds is None else layout.take_rows(inputs_embeds),
            layout.take(self._types(token_type_ids, tokens.shape)), layout.take(self._positions(position_ids, tokens, ahead)),
        )
        layouts = [layout] * len(layers) if prefix_key_values is None else [layout.behind(one) for one in prefix_key_values]
        alone = [first_only and weights is None and states is None and layer is layers[-1] for layer in layers]
        for layer, first, seen in zip(layers, alone, layouts):
            if states is not None:
                states.append(x)
            if self.recompute and self.training and weights is None:
                x = checkpoint(layer, x, seen, first)
            else:
                x = layer(x, seen, first, weights)
        if states is not None:
            states.append(x)
        return EncoderOutput(
            x, layout, alone=any(alone),
            last_hidden_state=None if first_only else Later(lambda: layout.pad(x)),
            pooler_output=None if pooler is None else pooler(x if any(alone) else layout.first(x)),
            hidden_states=None if states is None else Later(lambda: tuple(layout.pad(one) for one in states)),
            attentions=None if weights is None else tuple(weights),
        )

    def _tokens(self, input_ids: Any, inputs_embeds: Any, ahead: int) -> np.ndarray:
        """Tokens (B, T); -1 for what was embedded by the caller."""
        if inputs_embeds is not None:
            tokens, name = np.full(embedded_shape(input_ids, inputs_embeds), -1), "inputs_embeds"
        elif input_ids is not None:
            tokens, name = numbers(input_ids, "input_ids"), "input_ids"
        else:
            raise ValueError("input_ids: expected tokens, got None")
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(f"{name}: expected shape (B, T), T at least 1, got {tokens.shape}")
        longest = self.embeddings.longest - ahead
        if tokens.shape[1] > longest:
            raise ValueError(
                f"{name}: expected at most {longest} tokens (max_position_embeddings {self.config.max_position_embeddings}), "
                f"got {tokens.shape[1]}"
            )
        return tokens if inputs_embeds is not None else in_range(tokens, self.config.vocab_size, "input_ids", "tokens")

    def _types(self, token_type_ids: Any, shape: tuple[int, ...]) -> np.ndarray:
        if token_type_ids is None:
            return np.zeros(shape, np.int64)
        types = numbers(token_type_ids, "token_type_ids")
        if types.shape != shape:
            raise ValueError(f"token_type_ids: expected shape {shape}, as input_ids, got {types.shape}")
        return in_range(types, self.embeddings.types, "token_type_ids", "segments")

    def _positions(self, position_ids: Any, tokens: np.ndarray, ahead: int) -> np.ndarray:
        if position_ids is None:
            return np.broadcast_to(self.embeddings.positions(tokens, ahead), tokens.shape)
        positions = numbers(position_ids, "position_ids")
        if positions.shape not in (tokens.shape, (1, tokens.shape[1]), tokens.shape[1:]):
            raise ValueError(f"position_ids: expected shape {tokens.shape}, as input_ids, got {positions.shape}")
        return np.broadcast_to(in_range(positions, self.config.max_position_embeddings, "position_ids", "positions"), tokens.shape)


# --- heads ---------------------------------------------------------------------------------------------------------------------


class Head(EncoderModel):
    """A bare encoder, named as files name it, with something on top."""

    def post_init(self) -> None:
        """Draw the starting values of what is on top; the bare encoder has its own."""
        for name, child in self.named_children():
            for module in child.modules() if name != self.base_model_prefix else ():
                self.start(module)

    def encode(
        self, input_ids: Any, attention_mask: Any, *, target: np.ndarray | None = None, packed: bool = True, **given: Any,
    ) -> EncoderOutput:
        """What the bare encoder makes of the tokens; with padding where labels, `target` (B, T), count there."""
        tokens = numbers(input_ids, "input_ids") if input_ids is not None else None
        embedded = given.get("inputs_embeds")
        shape = tokens.shape if tokens is not None else None if embedded is None else tuple(embedded.shape[:-1])
        if target is not None and shape is not None:
            if target.shape != shape:
                raise ValueError(f"labels: expected shape {shape}, as input_ids, got {target.shape}")
            real = real_places(attention_mask, target.shape)
            packed = packed and (real is None or bool((target[~real] == IGNORED).all()))
        return self.base_model(tokens, attention_mask, packed=self.packed and packed, **given)

    def output(self, encoded: EncoderOutput, **values: Any) -> ModelOutput:
        """The head's values, and what else was asked for."""
        return ModelOutput(**values, hidden_states=encoded._values.get("hidden_states"), attentions=encoded.get("attentions"))


class MaskedLMHead(Head):
    """Scores of all tokens for every place."""

    def transform(self, rows: Any) -> Any:
        """What happens to rows (N, H) before they meet the table of tokens."""
        raise TypeError(f"{type(self).__name__} has no transform")

    def decoder(self) -> nn.Linear:
        """The map to scores, whose weight is the table of tokens where `tie_word_embeddings` says so."""
        raise TypeError(f"{type(self).__name__} has no decoder")

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, position_ids: Any = None,
        inputs_embeds: Any = None, labels: Any = None, **asked: Any,
    ) -> ModelOutput:
        """`logits` (B, T, V); with `labels` (B, T), -100 for what does not count, also the `loss`, mean cross-entropy.

        With labels the loss is computed in chunks of the rows that count, logits are made when somebody looks at them. They are 0
        at padding. Other arguments and results: see the bare model.
        """
        target = None if labels is None else target_of(labels, None, self.config.vocab_size)
        encoded = self.encode(
            input_ids, attention_mask, target=target, token_type_ids=token_type_ids, position_ids=position_ids,
            inputs_embeds=inputs_embeds, **asked,
        )
        rows, layout, decoder = encoded.rows, encoded.layout, self.decoder()
        if target is None:
            return self.output(encoded, logits=layout.pad(decoder(self.transform(rows))))
        target = layout.take(target)
        counted = np.flatnonzero(target != IGNORED)
        chosen = self.transform(rows if len(counted) == len(rows) else F.embedding(bpnn.from_numpy(counted), rows))
        loss = vocabulary_loss(decoder, chosen, bpnn.from_numpy(target[counted]))
        return self.output(encoded, loss=loss, logits=Later(lambda: layout.pad(decoder(self.transform(rows)))))


class SequenceHead(Head):
    """Scores of a text."""

    def score(self, encoded: EncoderOutput) -> Any:
        """Logits (B, num_labels)."""
        raise TypeError(f"{type(self).__name__} has no score")

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, position_ids: Any = None,
        inputs_embeds: Any = None, labels: Any = None, **asked: Any,
    ) -> ModelOutput:
        """`logits` (B, num_labels); with `labels` also the `loss` that `problem_type` says: see `classification_loss`.

        Only the first token is looked at: of the last layer no other is computed. Other arguments: see the bare model.
        """
        encoded = self.encode(
            input_ids, attention_mask, token_type_ids=token_type_ids, position_ids=position_ids, inputs_embeds=inputs_embeds,
            first_only=True, **asked,
        )
        logits = self.score(encoded)
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return self.output(encoded, loss=loss, logits=logits)


class TokenHead(Head):
    """Scores of every token: `classifier(dropout(x))`."""

    dropout: nn.Dropout
    classifier: nn.Linear

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, position_ids: Any = None,
        inputs_embeds: Any = None, labels: Any = None, **asked: Any,
    ) -> ModelOutput:
        """`logits` (B, T, num_labels), 0 at padding; with `labels` (B, T), -100 for what does not count, the `loss`.

        Other arguments and results: see the bare model.
        """
        target = None if labels is None else target_of(labels, None, self.config.num_labels)
        encoded = self.encode(
            input_ids, attention_mask, target=target, token_type_ids=token_type_ids, position_ids=position_ids,
            inputs_embeds=inputs_embeds, **asked,
        )
        layout, loss = encoded.layout, None
        scores = self.classifier(self.dropout(encoded.rows))
        if target is not None:
            loss = F.cross_entropy(scores, bpnn.from_numpy(layout.take(target)), ignore_index=IGNORED)
        return self.output(encoded, loss=loss, logits=Later(lambda: layout.pad(scores)))


class SpanHead(Head):
    """Scores of every token as the first and the last of an answer: `qa_outputs(x)`."""

    qa_outputs: nn.Linear

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, position_ids: Any = None,
        inputs_embeds: Any = None, start_positions: Any = None, end_positions: Any = None, **asked: Any,
    ) -> ModelOutput:
        """`start_logits` and `end_logits` (B, T); with `start_positions` and `end_positions` (B) also the `loss`.

        Without positions the logits of padding are minus infinity. The loss is a softmax over all places, also those of padding, as
        `transformers` has it: with positions nothing is packed. Other arguments: see the bare model.
        """
        trained = start_positions is not None and end_positions is not None
        encoded = self.encode(
            input_ids, attention_mask, packed=not trained, token_type_ids=token_type_ids, position_ids=position_ids,
            inputs_embeds=inputs_embeds, **asked,
        )
        scores = encoded.layout.pad(self.qa_outputs(self.before_span(encoded.rows)), -np.inf)
        start, end = scores[..., 0], scores[..., 1]
        loss = span_loss(start, end, start_positions, end_positions) if trained else None
        return self.output(encoded, loss=loss, start_logits=start, end_logits=end)

    def before_span(self, rows: Any) -> Any:
        """What happens to the rows before `qa_outputs`."""
        return rows
