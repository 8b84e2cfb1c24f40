"""What decoders without a head share: the way from tokens through the layers, with or without a cache."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.utils.checkpoint import checkpoint

from ._cache import KeyValueCache
from ._decoder import Reading, read, token_numbers
from ._layers import add_and_norm, embedded_shape, prefix_length
from ._outputs import ModelOutput, only_by_name
from ._pretrained import PreTrainedModel


class BareDecoder(PreTrainedModel):
    """A decoder without a head. A subclass says what its `stack` is, its `table` of tokens, and how it does `embed`.

    A layer takes the stream in two parts, x and the `change` that the next norm adds to it (None: there is none yet), the
    `Reading`, what else `embed` gives, and a list for its attention weights or None; it returns the two parts.
    """

    def stack(self) -> tuple[Iterable[nn.Module], nn.Module, int | None]:
        """The layers, the norm behind them, and the most positions that there are (None: no limit)."""
        raise TypeError(f"{type(self).__name__} has no stack")

    def table(self) -> Any:
        """The table of tokens."""
        raise TypeError(f"{type(self).__name__} has no table")

    def embed(self, words: Any, types: np.ndarray | None, reading: Reading) -> tuple[Any, ...]:
        """Of rows of the table (B, T, H), and segments (B, T): x (B, T, H), then what every layer takes beside it."""
        raise TypeError(f"{type(self).__name__} has no embed")

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, *, position_ids: Any = None, token_type_ids: Any = None,
        past_key_values: KeyValueCache | None = None, use_cache: bool | None = None, cu_seqlens: Any = None,
        output_hidden_states: bool | None = None, output_attentions: bool | None = None, return_dict: bool | None = None,
        inputs_embeds: Any = None, prefix_key_values: Any = None,
    ) -> ModelOutput:
        """`last_hidden_state` (B, T, H), and where asked for `past_key_values`, `hidden_states`, `attentions`.

        input_ids: (B, T), or (N,) with `cu_seqlens`, where several texts lie one after the other. attention_mask: (B, T), 0 for
        padding (with a cache: of everything it holds too). position_ids: 0 … T - 1 by default; where they do not go up one by one,
        without mask and cache, another text begins. token_type_ids: as input_ids, for models that have segments. use_cache: give
        back, or go on with, a `KeyValueCache`; without gradients. inputs_embeds: a Tensor (B, T, H) in place of rows of the table
        of tokens. prefix_key_values: a pair of keys and values (P, G, D) for each layer, which every text sees in front of its own
        as if they were P tokens. Raises `IndexError` and `ValueError` naming the argument.
        """
        only_by_name(return_dict)
        layers, norm, context = self.stack()
        layers = list(layers)
        if inputs_embeds is None:
            tokens = token_numbers(input_ids, self.config.vocab_size)
            words = self.table()(bpnn.from_numpy(tokens))
        else:
            tokens, words = np.zeros(embedded_shape(input_ids, inputs_embeds), np.int64), inputs_embeds
        ahead = prefix_length(prefix_key_values, len(layers), self.recompute and self.training)
        types = None if token_type_ids is None else token_numbers(token_type_ids, self.config.vocab_size, "token_type_ids")
        if types is not None and types.shape != tokens.shape:
            raise ValueError(f"token_type_ids: expected shape {tokens.shape}, as input_ids, got {types.shape}")
        if use_cache and past_key_values is None:
            past_key_values = KeyValueCache()
        reading = read(tokens, attention_mask, position_ids, past_key_values, cu_seqlens, context, ahead)
        reading.prefix = prefix_key_values
        x, *more = self.embed(words, types, reading)
        states: list[Any] | None = [] if self.asked("output_hidden_states", output_hidden_states) else None
        weights: list[Any] | None = [] if self.asked("output_attentions", output_attentions) else None
        change = None
        for layer in layers:
            if states is not None:
                states.append(x if change is None else x + change)
            if self.recompute and self.training and weights is None:
                x, change = checkpoint(layer, x, change, reading, *more)
            else:
                x, change = layer(x, change, reading, *more, weights)
        x, _ = add_and_norm(norm, x, change)
        if past_key_values is not None:
            past_key_values.advance(tokens.shape[-1])
        return ModelOutput(
            last_hidden_state=x, past_key_values=past_key_values, hidden_states=None if states is None else (*states, x),
            attentions=None if weights is None else tuple(weights),
        )
