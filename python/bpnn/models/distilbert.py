"""DistilBERT: BERT's network with half the layers, without segments and pooler, under other names (Sanh et al. 2019)."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import bpnn
from bpnn import nn

from ._encoder import BareEncoder, EncoderModel, EncoderOutput, MaskedLMHead, SequenceHead, SpanHead, TokenHead
from ._layers import activation_name
from ._packing import Layout
from ._pretrained import ModelConfig
from .bert import two_labels

EPSILON = 1e-12  # of the normalizations; no key of the configuration


@dataclass(kw_only=True)
class DistilBertConfig(ModelConfig):
    """The keys of DistilBERT's `config.json`; `hidden_size` and other common names are understood too."""

    model_type = "distilbert"
    aliases: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers", "intermediate_size": "hidden_dim",
    }

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0


class Embeddings(nn.Module):
    """Rows of tokens: `dropout(norm(word + position))`."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.dim, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, EPSILON)
        self.dropout = nn.Dropout(config.dropout)
        self.longest, self.types = config.max_position_embeddings, 1

    def positions(self, tokens: np.ndarray, ahead: int = 0) -> np.ndarray:
        """The positions of tokens (B, T) behind some others: 0 … T - 1 where there are none."""
        return np.arange(ahead, ahead + tokens.shape[1])

    def forward(self, tokens: Any, types: np.ndarray, positions: np.ndarray) -> Any:
        """(N,) each, types all 0; (N, H). tokens: or a Tensor (N, H) in place of rows of their table."""
        words = self.word_embeddings(bpnn.from_numpy(tokens)) if isinstance(tokens, np.ndarray) else tokens
        x = words + self.position_embeddings(bpnn.from_numpy(positions))
        return self.dropout(self.LayerNorm(x))


class DistilBertSelfAttention(nn.Module):
    def __init__(self, config: DistilBertConfig):
        super().__init__()
        size, self.heads = config.dim, config.n_heads
        if size % self.heads:
            raise ValueError(f"config: dim {size} is no multiple of n_heads {self.heads}")
        self.q_lin, self.k_lin, self.v_lin = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.out_lin = nn.Linear(size, size)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, x: Any, asking: Any, layout: Layout, weights: list[Any] | None = None) -> Any:
        """x: (N, H); asking, y: x, or the rows of the first tokens alone, (B, H)."""
        dropout = self.dropout.p if self.training else 0.0
        q, k, v = self.q_lin(asking), self.k_lin(x), self.v_lin(x)
        return self.out_lin(layout.attend(q, k, v, self.heads, dropout, weights, first=asking is not x))


class FFN(nn.Module):
    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(config.dim, config.hidden_dim), nn.Linear(config.hidden_dim, config.dim)
        self.activation = activation_name(config.activation, "activation")
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Any) -> Any:
        """x, y: (N, H)."""
        return self.dropout(self.lin2(self.lin1(x, activation=self.activation)))


class TransformerBlock(nn.Module):
    """Attention, then two linear maps with an activation between; each added to its input and normalized."""

    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.attention = DistilBertSelfAttention(config)
        self.sa_layer_norm = nn.LayerNorm(config.dim, EPSILON)
        self.ffn = FFN(config)
        self.output_layer_norm = nn.LayerNorm(config.dim, EPSILON)

    def forward(self, x: Any, layout: Layout, first: bool = False, weights: list[Any] | None = None) -> Any:
        """x: (N, H); the result too, or (B, H) with `first`: the texts' first tokens alone."""
        asking = layout.first(x) if first else x
        x = self.sa_layer_norm(self.attention(x, asking, layout, weights), residual=asking)[0]
        return self.output_layer_norm(self.ffn(x), residual=x)[0]


class Transformer(nn.Module):
    def __init__(self, config: DistilBertConfig):
        super().__init__()
        self.layer = nn.ModuleList([TransformerBlock(config) for _ in range(config.n_layers)])


class DistilBertPreTrainedModel(EncoderModel):
    config_class = DistilBertConfig
    base_model_prefix = "distilbert"
    heads = ("vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*", "pre_classifier.*", "classifier.*", "qa_outputs.*")
    ignored = ("*position_ids",)

    config: DistilBertConfig

    def start(self, module: nn.Module) -> None:
        """Normal of deviation `initializer_range`; positions as sines where `sinusoidal_pos_embds` says so."""
        super().start(module)
        if isinstance(module, Embeddings) and self.config.sinusoidal_pos_embds:
            module.position_embeddings.sines = True
        if getattr(module, "sines", False):
            table = module.weight
            angles = np.arange(table.shape[0])[:, None] / 10000 ** (np.arange(0, table.shape[1], 2) / table.shape[1])
            with bpnn.no_grad():
                table[:, 0::2] = bpnn.from_numpy(np.sin(angles).astype(table.dtype))
                table[:, 1::2] = bpnn.from_numpy(np.cos(angles).astype(table.dtype)[:, : table.shape[1] // 2])


class DistilBertModel(DistilBertPreTrainedModel, BareEncoder):
    """DistilBERT without a head: tokens to hidden states."""

    def __init__(self, config: DistilBertConfig):
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.transformer = Transformer(config)
        self.post_init()

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, position_ids: Any = None,
        inputs_embeds: Any = None, **asked: Any,
    ) -> EncoderOutput:
        """`last_hidden_state` (B, T, H), 0 at padding; arguments and the other results as in `BertModel`, but without a pooler.

        token_type_ids: there are no segments; None or zeros.
        """
        return self.run(
            self.transformer.layer, None, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **asked
        )


class DistilBertForMaskedLM(MaskedLMHead, DistilBertPreTrainedModel):
    """Scores of all tokens for every place. `vocab_projector.weight` is the table of tokens."""

    def __init__(self, config: DistilBertConfig):
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.vocab_transform = nn.Linear(config.dim, config.dim)
        self.vocab_layer_norm = nn.LayerNorm(config.dim, EPSILON)
        self.vocab_projector = nn.Linear(config.dim, config.vocab_size)
        self.post_init()
        if config.tie_word_embeddings:
            self.vocab_projector.weight = self.distilbert.embeddings.word_embeddings.weight

    def transform(self, rows: Any) -> Any:
        """`vocab_layer_norm(activation(vocab_transform(x)))`, (N, H)."""
        map_, activation = self.vocab_transform, activation_name(self.config.activation, "activation")
        return self.vocab_layer_norm(map_(rows, activation=activation))

    def decoder(self) -> nn.Linear:
        """H to V."""
        return self.vocab_projector


class DistilBertForSequenceClassification(SequenceHead, DistilBertPreTrainedModel):
    """Scores of a text: `classifier(dropout(relu(pre_classifier(x))))` of the first token."""

    def __init__(self, config: DistilBertConfig):
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.pre_classifier = nn.Linear(config.dim, config.dim)
        self.classifier = nn.Linear(config.dim, config.num_labels)
        self.dropout = nn.Dropout(config.seq_classif_dropout)
        self.post_init()

    def score(self, encoded: EncoderOutput) -> Any:
        """(B, num_labels)."""
        x = self.pre_classifier(encoded.first(), activation="relu")
        return self.classifier(self.dropout(x))


class DistilBertForTokenClassification(TokenHead, DistilBertPreTrainedModel):
    """Scores of every token: `classifier(dropout(x))`."""

    def __init__(self, config: DistilBertConfig):
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.dim, config.num_labels)
        self.post_init()


class DistilBertForQuestionAnswering(SpanHead, DistilBertPreTrainedModel):
    """Scores of every token as the first and the last of an answer."""

    def __init__(self, config: DistilBertConfig):
        super().__init__(config)
        self.distilbert = DistilBertModel(config)
        self.qa_outputs = nn.Linear(config.dim, two_labels(config))
        self.dropout = nn.Dropout(config.qa_dropout)
        self.post_init()

    def before_span(self, rows: Any) -> Any:
        """`dropout(x)`."""
        return self.dropout(rows)
