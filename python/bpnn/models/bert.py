"""BERT: an encoder with learned positions and normalization behind each part (Devlin et al. 2018).

Sizes: B texts of T tokens, N rows of real tokens, H numbers a row in `num_attention_heads` heads, V tokens in the vocabulary.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import bpnn
from bpnn import nn

from ._encoder import BareEncoder, EncoderModel, EncoderOutput, MaskedLMHead, SequenceHead, SpanHead, TokenHead
from ._layers import activation_name
from ._packing import Layout
from ._pretrained import ModelConfig


@dataclass(kw_only=True)
class BertConfig(ModelConfig):
    """The keys of BERT's `config.json`."""

    model_type = "bert"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0


class BertEmbeddings(nn.Module):
    """Rows of tokens: `dropout(norm(word + segment + position))`."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.longest, self.types = config.max_position_embeddings, config.type_vocab_size

    def positions(self, tokens: np.ndarray, ahead: int = 0) -> np.ndarray:
        """The positions of tokens (B, T) behind some others: 0 … T - 1 where there are none."""
        return np.arange(ahead, ahead + tokens.shape[1])

    def forward(self, tokens: Any, types: np.ndarray, positions: np.ndarray) -> Any:
        """(N,) each; (N, H). tokens: or a Tensor (N, H) in place of rows of their table."""
        words = self.word_embeddings(bpnn.from_numpy(tokens)) if isinstance(tokens, np.ndarray) else tokens
        places = self.position_embeddings(bpnn.from_numpy(positions))
        x = words + self.token_type_embeddings(bpnn.from_numpy(types)) + places
        return self.dropout(self.LayerNorm(x))


class BertSelfAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        size, self.heads = config.hidden_size, config.num_attention_heads
        if size % self.heads:
            raise ValueError(f"config: hidden_size {size} is no multiple of num_attention_heads {self.heads}")
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: Any, asking: Any, layout: Layout, weights: list[Any] | None = None) -> Any:
        """x: (N, H); asking, y: x, or the rows of the first tokens alone, (B, H)."""
        dropout = self.dropout.p if self.training else 0.0
        return layout.attend(
            self.query(asking), self.key(x), self.value(x), self.heads, dropout, weights, first=asking is not x
        )


class BertOutput(nn.Module):
    """`norm(dropout(dense(y)) + x)`: behind attention and behind the wide layer."""

    def __init__(self, config: BertConfig, inputs: int):
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, y: Any, x: Any) -> Any:
        """y: (N, inputs); x: (N, H)."""
        return self.LayerNorm(self.dropout(self.dense(y)), residual=x)[0]


class BertAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config, config.hidden_size)


class BertIntermediate(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation_name(config.hidden_act)

    def forward(self, x: Any) -> Any:
        """(N, H) to (N, intermediate_size)."""
        return self.dense(x, activation=self.activation)


class BertLayer(nn.Module):
    """Attention, then two linear maps with an activation between; each added to its input and normalized."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config, config.intermediate_size)

    def forward(self, x: Any, layout: Layout, first: bool = False, weights: list[Any] | None = None) -> Any:
        """x: (N, H); the result too, or (B, H) with `first`: the texts' first tokens alone."""
        asking = layout.first(x) if first else x
        x = self.attention.output(self.attention.self(x, asking, layout, weights), asking)
        return self.output(self.intermediate(x), x)


class BertEncoder(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.ModuleList([BertLayer(config) for _ in range(config.num_hidden_layers)])


class BertPooler(nn.Module):
    """`tanh(dense(x))` of the first token."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Any) -> Any:
        """(B, H)."""
        return self.dense(x, activation="tanh")


class BertPreTrainedModel(EncoderModel):
    config_class = BertConfig
    base_model_prefix = "bert"
    heads = ("cls.*", "classifier.*", "qa_outputs.*", "*pooler.*")
    ignored = ("*position_ids",)

    config: BertConfig


class BertModel(BertPreTrainedModel, BareEncoder):
    """BERT without a head: tokens to hidden states.

    packed: compute padding not at all (the default; False: as other libraries do).
    """

    embeddings_class: type[BertEmbeddings] = BertEmbeddings

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        for key in ("is_decoder", "add_cross_attention"):
            if config.extra.get(key):
                raise ValueError(f"config: {key}: expected false, {type(self).__name__} is an encoder; got {config.extra[key]!r}")
        kind = config.extra.get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise ValueError(f"config: position_embedding_type: expected 'absolute', got {kind!r}")
        self.embeddings = self.embeddings_class(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.post_init()

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, position_ids: Any = None,
        inputs_embeds: Any = None, **asked: Any,
    ) -> EncoderOutput:
        """`last_hidden_state` (B, T, H), 0 at padding; `pooler_output` (B, H); where asked for `hidden_states`, `attentions`.

        input_ids: tokens (B, T). attention_mask: (B, T), 0 for padding, wherever it is. token_type_ids: segments (B, T), 0 by
        default. position_ids: (B, T), 0 … T - 1 by default. All may be Tensors, arrays or lists. inputs_embeds: a Tensor (B, T, H)
        in place of rows of the table of tokens. More that may be asked:

        output_hidden_states: the rows before each layer and behind the last, (B, T, H) each. output_attentions: weights
        (B, heads, T, T) of each layer; then padding is computed too. packed=False: it is computed anyhow. first_only=True: nobody
        wants other rows than those of the first tokens, so the last layer computes no others; there is no `last_hidden_state`.
        prefix_key_values: a pair of keys and values (P, heads, D) for each layer, which every text sees in front of its own as if
        they were P tokens.

        Raises `IndexError` for numbers out of range, `ValueError` for shapes that do not fit; both name the argument.
        """
        return self.run(
            self.encoder.layer, self.pooler, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **asked
        )


# --- heads ---------------------------------------------------------------------------------------------------------------------


def dropout_of(config: BertConfig) -> nn.Dropout:
    """The dropout before a classifier."""
    return nn.Dropout(config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout)


def two_labels(config: ModelConfig) -> int:
    """The outputs of question answering: 2. Raises `ValueError` where a configuration has another number of labels."""
    if config.num_labels != 2:
        raise ValueError(f"config: num_labels: expected 2, first and last token of an answer, got {config.num_labels}")
    return 2


class BertPredictionHeadTransform(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation_name(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Any) -> Any:
        """x, y: (N, H)."""
        return self.LayerNorm(self.dense(x, activation=self.activation))


class BertLMPredictionHead(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.bias = nn.Parameter(bpnn.zeros(config.vocab_size))
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)


class BertOnlyMLMHead(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.predictions = BertLMPredictionHead(config)


class BertForMaskedLM(MaskedLMHead, BertPreTrainedModel):
    """Scores of all tokens for every place. `cls.predictions.decoder.weight` is the table of tokens."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()
        if config.tie_word_embeddings:
            self.cls.predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
            self.cls.predictions.decoder.bias = self.cls.predictions.bias

    def transform(self, rows: Any) -> Any:
        """x, y: (N, H)."""
        return self.cls.predictions.transform(rows)

    def decoder(self) -> nn.Linear:
        """H to V."""
        return self.cls.predictions.decoder


class BertForSequenceClassification(SequenceHead, BertPreTrainedModel):
    """Scores of a text: `classifier(dropout(pooler_output))`."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.bert = BertModel(config)
        self.dropout = dropout_of(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def score(self, encoded: EncoderOutput) -> Any:
        """(B, num_labels)."""
        return self.classifier(self.dropout(encoded.pooler_output))


class BertForTokenClassification(TokenHead, BertPreTrainedModel):
    """Scores of every token: `classifier(dropout(x))`."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = dropout_of(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class BertForQuestionAnswering(SpanHead, BertPreTrainedModel):
    """Scores of every token as the first and the last of an answer."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, two_labels(config))
        self.post_init()
