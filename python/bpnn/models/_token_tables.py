"""The tables of tokens of a pretrained model: the one on its way in, and the map to scores on its way out."""
from __future__ import annotations

from typing import Any

import bpnn
from bpnn import nn
from bpnn.nn import init
from bpnn.nn.modules.stored import SCORES as OUTPUTS
from bpnn.nn.modules.stored import TOKENS as INPUTS
from bpnn.nn.modules.stored import StoredEmbedding


class TokenTables:
    """Methods of `PreTrainedModel` for models with one table of tokens."""

    config: Any
    base_model: Any

    @property
    def device(self) -> str:
        """"cpu"."""
        return "cpu"

    @property
    def dtype(self) -> Any:
        """The type of the parameters."""
        return next(iter(self.parameters())).dtype  # type: ignore[attr-defined]

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of tokens. Raises `TypeError` for a model that reads no tokens, or has not one table."""
        holder, name = self._input()
        return getattr(holder, name)  # type: ignore[no-any-return]

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        """Put another table in its place; a map to scores that is tied to it stays tied."""
        holder, name = self._input()
        setattr(holder, name, table)
        self.config.vocab_size = table.weight.shape[0]
        self.tie_weights()

    def get_output_embeddings(self) -> nn.Linear | None:
        """The map to scores of tokens; None: the model has none."""
        return next(iter(self._places(self, OUTPUTS, nn.Linear)), (None, None, None))[2]

    def tie_weights(self) -> None:
        """Make the map to scores share the table of tokens, where `tie_word_embeddings` says so."""
        for holder, _, output in self._places(self, OUTPUTS, nn.Linear)[:1]:
            if getattr(self.config, "tie_word_embeddings", False):
                output.weight = self.get_input_embeddings().weight
                output.out_features = output.weight.shape[0]
                if holder._parameters.get("bias") is not None:
                    output.bias = holder.bias

    @bpnn.no_grad()
    def resize_token_embeddings(self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None) -> nn.Embedding:
        """Make the vocabulary larger, with new rows drawn as for a new model, or smaller; returns the table.

        The map to scores goes along, and `config.vocab_size`. Make the optimizer afterwards: the parameters are new ones.
        """
        table = self.get_input_embeddings()
        if isinstance(table, StoredEmbedding):
            raise ValueError("resize_token_embeddings: the table is kept as bfloat16 or int8: change its size before store_frozen")
        old = table.weight.shape[0]
        count = old if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of:
            count = -(-count // pad_to_multiple_of) * pad_to_multiple_of
        if count < 1 or (table.padding_idx is not None and count <= table.padding_idx):
            raise ValueError(f"new_num_tokens: expected at least {(table.padding_idx or 0) + 1}, got {count}")
        if count == old:
            return table
        table.weight, table.num_embeddings = self._resized(table.weight, count), count
        for holder, _, output in self._places(self, OUTPUTS, nn.Linear)[:1]:
            tied = getattr(self.config, "tie_word_embeddings", False)
            output.weight = table.weight if tied else self._resized(output.weight, count)
            output.out_features = count
            if output.bias is not None:
                own, old_bias = holder._parameters.get("bias"), output.bias
                output.bias = self._resized(old_bias, count)
                if own is not None:  # BERT and RoBERTa have it under two names
                    holder.bias = output.bias if own is old_bias else self._resized(own, count)
        self.config.vocab_size = count
        return table

    def _resized(self, old: Any, count: int) -> nn.Parameter:
        """A parameter of `count` rows: the old ones, then new ones; a bias gets zeros."""
        rows = bpnn.zeros(count, *old.shape[1:], dtype=old.dtype)
        if old.ndim > 1:
            init.normal_(rows, 0.0, getattr(self.config, "initializer_range", 0.02))
        kept = min(count, old.shape[0])
        rows[:kept] = old.detach()[:kept]
        return nn.Parameter(rows, old.requires_grad)

    def _input(self) -> tuple[nn.Module, str]:
        found = self._places(self.base_model, INPUTS, nn.Embedding)
        if len(found) != 1:
            raise TypeError(f"{type(self).__name__}: has no table of tokens that could be asked for or changed")
        return found[0][0], found[0][1]

    @staticmethod
    def _places(root: Any, names: tuple[str, ...], kind: type) -> list[tuple[Any, str, Any]]:
        """(module, name, child) for the children of some name and kind."""
        return [
            (holder, name, child) for holder in root.modules() for name, child in holder.named_children()
            if name in names and isinstance(child, kind)
        ]
