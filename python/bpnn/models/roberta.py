"""RoBERTa: BERT's network with other positions and other heads (Liu et al. 2019)."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import bpnn
from bpnn import nn

from ._encoder import EncoderOutput, MaskedLMHead, SequenceHead, SpanHead, TokenHead
from .bert import BertConfig, BertEmbeddings, BertModel, BertPreTrainedModel, dropout_of, two_labels


@dataclass(kw_only=True)
class RobertaConfig(BertConfig):
    """The keys of RoBERTa's `config.json`."""

    model_type = "roberta"
    also: ClassVar[Sequence[str]] = ("camembert", "xlm-roberta")

    vocab_size: int = 50265
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2


class RobertaEmbeddings(BertEmbeddings):
    """BERT's; the positions are counted from `pad_token_id` + 1 on, and padding stands at `pad_token_id`."""

    def __init__(self, config: BertConfig):
        if config.pad_token_id is None:
            raise ValueError("config: pad_token_id: expected a number, RoBERTa counts positions from there; got null")
        super().__init__(config)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size, config.pad_token_id)
        self.padding, self.longest = config.pad_token_id, config.max_position_embeddings - config.pad_token_id - 1

    def positions(self, tokens: np.ndarray, ahead: int = 0) -> np.ndarray:
        """The positions of tokens (B, T): how many tokens that are no padding there have been, and `pad_token_id`."""
        real = tokens != self.padding
        return (real.cumsum(1) + ahead) * real + self.padding


class RobertaPreTrainedModel(BertPreTrainedModel):
    config_class = RobertaConfig
    base_model_prefix = "roberta"
    heads = ("lm_head.*", "classifier.*", "qa_outputs.*", "*pooler.*")


class RobertaModel(RobertaPreTrainedModel, BertModel):
    """RoBERTa without a head; see `BertModel`. Of `position_ids` the first is `pad_token_id` + 1."""

    embeddings_class = RobertaEmbeddings


class RobertaLMHead(nn.Module):
    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.bias = nn.Parameter(bpnn.zeros(config.vocab_size))
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)


class RobertaForMaskedLM(MaskedLMHead, RobertaPreTrainedModel):
    """Scores of all tokens for every place. `lm_head.decoder.weight` is the table of tokens."""

    def __init__(self, config: RobertaConfig):
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.lm_head = RobertaLMHead(config)
        self.post_init()
        if config.tie_word_embeddings:
            self.lm_head.decoder.weight = self.roberta.embeddings.word_embeddings.weight
            self.lm_head.decoder.bias = self.lm_head.bias

    def transform(self, rows: Any) -> Any:
        """`norm(gelu(dense(x)))`, (N, H)."""
        head = self.lm_head
        return head.layer_norm(head.dense(rows, activation="gelu"))

    def decoder(self) -> nn.Linear:
        """H to V."""
        return self.lm_head.decoder


class RobertaClassificationHead(nn.Module):
    """`out_proj(dropout(tanh(dense(dropout(x)))))` of the first token."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = dropout_of(config)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Any) -> Any:
        """(B, H) to (B, num_labels)."""
        x = self.dense(self.dropout(x), activation="tanh")
        return self.out_proj(self.dropout(x))


class RobertaForSequenceClassification(SequenceHead, RobertaPreTrainedModel):
    """Scores of a text; see `RobertaClassificationHead`."""

    def __init__(self, config: RobertaConfig):
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.classifier = RobertaClassificationHead(config)
        self.post_init()

    def score(self, encoded: EncoderOutput) -> Any:
        """(B, num_labels)."""
        return self.classifier(encoded.first())


class RobertaForTokenClassification(TokenHead, RobertaPreTrainedModel):
    """Scores of every token: `classifier(dropout(x))`."""

    def __init__(self, config: RobertaConfig):
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.dropout = dropout_of(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class RobertaForQuestionAnswering(SpanHead, RobertaPreTrainedModel):
    """Scores of every token as the first and the last of an answer."""

    def __init__(self, config: RobertaConfig):
        super().__init__(config)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, two_labels(config))
        self.post_init()
