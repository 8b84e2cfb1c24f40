"""An encoder and a decoder for translation and other texts from texts: Vaswani et al. 2017, "Attention is all you need".

    config = TransformerConfig(vocab_size=8000, d_model=256, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = TransformerForConditionalGeneration(config)
    model(input_ids, attention_mask, labels=labels).loss.backward()
    translations = model.generate(input_ids, attention_mask, num_beams=4)

Parameters are named as in Marian's and BART's files. Both halves compute real tokens only: N rows (of the source) or M rows (of the
target) with E features, H heads of D; text b is the rows from `starts[b]` to `starts[b + 1]`.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.nn import init

from ._beams import BeamSearch
from ._cache import KeyValueCache
from ._generation_config import Settings
from ._layers import IGNORED, in_range, numbers, target_of
from ._outputs import Later, ModelOutput
from ._packing import Layout, real_places
from ._pretrained import ModelConfig, PreTrainedModel
from ._transformer_layers import TransformerDecoderLayer, TransformerEncoderLayer, TransformerStack
from .generation import Ends

__all__ = ["TransformerConfig", "TransformerForConditionalGeneration", "TransformerModel"]


@dataclass(kw_only=True)
class TransformerConfig(ModelConfig):
    """Sizes under the keys that Marian and BART have for them.

    decoder_vocab_size: of the target; None: as the source. share_encoder_decoder_embeddings: one table for both, where there is
    one vocabulary. tie_word_embeddings: the target's table is the last map too. position_embedding_type: "sinusoidal" or "learned".
    normalize_before: norms before each part ("pre-norm") instead of behind. final_norm: one more norm behind each stack; None:
    where `normalize_before`. label_smoothing: of the loss in training. decoder_start_token_id: before the first token; None: bos.
    """

    model_type = "transformer"

    vocab_size: int = 32000
    decoder_vocab_size: int | None = None
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    max_position_embeddings: int = 512
    position_embedding_type: str = "sinusoidal"
    scale_embedding: bool = True
    normalize_before: bool = False
    final_norm: bool | None = None
    layer_norm_eps: float = 1e-5
    init_std: float = 0.02
    label_smoothing: float = 0.0
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = None

    @property
    def target_size(self) -> int:
        """The number of tokens of the target."""
        return self.vocab_size if self.decoder_vocab_size is None else self.decoder_vocab_size

    @property
    def start_token(self) -> int:
        """What stands before the first token of the target."""
        start = self.bos_token_id if self.decoder_start_token_id is None else self.decoder_start_token_id
        if start is None:
            raise ValueError("config: decoder_start_token_id: expected a token, or a bos_token_id; both are None")
        return start


class TransformerPreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = TransformerConfig
    base_model_prefix = "model"
    heads = ("lm_head.*",)
    ignored = ("*embed_positions.weight",)  # files may have the sines, too

    config: TransformerConfig

    def start(self, module: nn.Module) -> None:
        """Matrices uniform as Glorot has them, embeddings normal of deviation `init_std`, or 1 / sqrt(d_model) where scaled."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, 0.0, self.config.d_model**-0.5 if self.config.scale_embedding else self.config.init_std)
        else:
            super().start(module)


class TransformerModel(TransformerPreTrainedModel):
    """Encoder and decoder without the map to the vocabulary."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        if config.share_encoder_decoder_embeddings and config.target_size != config.vocab_size:
            raise ValueError("config: share_encoder_decoder_embeddings: expected False where decoder_vocab_size, "
                             f"{config.target_size}, is not vocab_size, {config.vocab_size}")
        source = nn.Embedding(config.vocab_size, config.d_model)
        target = source if config.share_encoder_decoder_embeddings else nn.Embedding(config.target_size, config.d_model)
        self.encoder = TransformerStack(config, [TransformerEncoderLayer(config) for _ in range(config.encoder_layers)], source)
        self.decoder = TransformerStack(config, [TransformerDecoderLayer(config) for _ in range(config.decoder_layers)], target)
        self.post_init()

    def encode(self, input_ids: Any, attention_mask: Any = None) -> tuple[Any, Layout]:
        """The rows (N, E) that the encoder makes of the real tokens of input_ids (B, S), and where they lie."""
        tokens, positions, layout = _rows(input_ids, attention_mask, self.config, self.config.vocab_size, "input_ids")
        return self.encoder.run(self.encoder.embed(tokens, positions), layout.cu_seqlens), layout

    def decode(self, tokens: Any, mask: Any, memory: Any, source: Layout) -> tuple[Any, Layout]:
        """The rows (M, E) that the decoder makes of tokens (B, T), and where they lie."""
        tokens, positions, layout = _rows(tokens, mask, self.config, self.config.target_size, "decoder_input_ids")
        if layout.batch != source.batch:
            raise ValueError(f"decoder_input_ids: expected {source.batch} texts, as in input_ids, got {layout.batch}")
        x = self.decoder.embed(tokens, positions)
        return self.decoder.run(x, memory, layout.cu_seqlens, source.cu_seqlens), layout

    def forward(
        self, input_ids: Any, attention_mask: Any = None, decoder_input_ids: Any = None, decoder_attention_mask: Any = None,
    ) -> ModelOutput:
        """`last_hidden_state` (B, T, E) of decoder_input_ids (B, T) and `encoder_last_hidden_state` (B, S, E); 0 at padding."""
        memory, source = self.encode(input_ids, attention_mask)
        rows, target = self.decode(decoder_input_ids, decoder_attention_mask, memory, source)
        return ModelOutput(last_hidden_state=target.pad(rows), encoder_last_hidden_state=Later(lambda: source.pad(memory)))


def _rows(given: Any, mask: Any, config: TransformerConfig, vocabulary: int, name: str) -> tuple[Any, Any, Layout]:
    """Tokens and positions (N,) of the real places of (B, T), and their layout; errors name the argument."""
    if given is None:
        raise ValueError(f"{name}: expected token numbers, got None")
    tokens = numbers(given, name)
    if tokens.ndim != 2:
        raise ValueError(f"{name}: expected shape (B, T), got {tokens.shape}")
    if tokens.shape[1] > config.max_position_embeddings:
        raise ValueError(f"{name}: expected at most {config.max_position_embeddings} tokens (max_position_embeddings), "
                         f"got {tokens.shape[1]}")
    in_range(tokens, vocabulary, name, "tokens")
    try:
        layout = Layout(tokens.shape, real_places(mask, tokens.shape))
    except ValueError as error:
        raise ValueError(f"{name.removesuffix('input_ids')}{error}") from None  # decoder_attention_mask
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return layout.take(tokens), layout.take(positions), layout


class TransformerForConditionalGeneration(TransformerPreTrainedModel):
    """Encoder, decoder and the map to the target's tokens."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.model = TransformerModel(config)
        self.lm_head = nn.Linear(config.d_model, config.target_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.decoder.embed_tokens.weight
        else:
            self.start(self.lm_head)

    def forward(
        self, input_ids: Any, attention_mask: Any = None, decoder_input_ids: Any = None, decoder_attention_mask: Any = None, *,
        labels: Any = None,
    ) -> ModelOutput:
        """`logits` (B, T, V) of what follows each of decoder_input_ids (B, T), and with labels the `loss`.

        input_ids (B, S) with attention_mask (B, S), 0 for padding, which is not computed. labels (B, T), -100 where nothing counts:
        the mean cross-entropy, smoothed in training as `config.label_smoothing` says; without decoder_input_ids these are the
        labels, moved one place to the right behind the start token. The logits beside a loss are computed when asked for. Also
        `encoder_last_hidden_state` (B, S, E). Raises `IndexError` and `ValueError` naming the argument.
        """
        config, mask, target = self.config, decoder_attention_mask, None
        if labels is not None:
            given = numbers(labels, "labels")
            if decoder_input_ids is None:
                if given.ndim != 2:
                    raise ValueError(f"labels: expected shape (B, T), got {given.shape}")
                decoder_input_ids = _moved(given, config)
                mask = _until_last(given) if mask is None else mask
            else:
                decoder_input_ids = numbers(decoder_input_ids, "decoder_input_ids")
            target = target_of(given, decoder_input_ids.shape, config.target_size)
        memory, source = self.model.encode(input_ids, attention_mask)
        rows, layout = self.model.decode(decoder_input_ids, mask, memory, source)
        loss, hidden = None, Later(lambda: source.pad(memory))
        if target is not None:
            loss = F.linear_cross_entropy(
                rows, self.lm_head.weight, bpnn.from_numpy(layout.take(target)),
                label_smoothing=config.label_smoothing if self.training else 0.0,
            )
        logits = layout.pad(self.lm_head(rows)) if loss is None else Later(lambda: layout.pad(self.lm_head(rows)))
        return ModelOutput(loss=loss, logits=logits, encoder_last_hidden_state=hidden)

    def generate(
        self, input_ids: Any, attention_mask: Any = None, *, num_beams: int = 1, max_new_tokens: int = 64,
        length_penalty: float = 1.0,
    ) -> Any:
        """The most probable texts that beam search finds for input_ids (B, S), int64 (B, T).

        Each begins with the start token and ends with eos, or after max_new_tokens, and is filled up with pad. Scores are the sums
        of log-probabilities divided by length ** length_penalty. num_beams=1 takes the most probable token each time.
        """
        config = self.config
        for name, count in (("num_beams", num_beams), ("max_new_tokens", max_new_tokens)):
            if count < 1:
                raise ValueError(f"{name}: expected 1 or more, got {count}")
        ends = np.atleast_1d([] if config.eos_token_id is None else config.eos_token_id).astype(np.int64)
        settings = Settings(
            max_length=1 + min(max_new_tokens, config.max_position_embeddings), num_beams=num_beams,
            length_penalty=length_penalty, eos=ends, pad=config.pad_token_id,
        )
        was, _ = self.training, self.eval()
        try:
            with bpnn.no_grad():
                decoding = _Decoding(self, input_ids, attention_mask, settings)
                starts = np.full((len(decoding.lengths), 1), config.start_token)
                search, complete = BeamSearch(starts, settings, np.random.default_rng(0)), Ends(settings, None)
                while not search.done:
                    rows = search.step(decoding.step(search.texts[:, -1]), complete)
                    decoding.cache.reorder(rows)
        finally:
            self.train(was)
        tokens, _, rows = search.results()
        tokens[:, 1:][rows < 0] = config.pad_token_id or 0
        return bpnn.from_numpy(tokens)


class _Decoding:
    """A batch whose sources are read: what a step needs for the token after the newest."""

    def __init__(self, model: Any, input_ids: Any, attention_mask: Any, settings: Settings):
        memory, source = model.model.encode(input_ids, attention_mask)
        self.model, self.decoder = model, model.model.decoder
        self.lengths = np.diff(source.cu_seqlens)
        # Real tokens first, whatever side the padding was on.
        width = int(self.lengths.max(initial=1))
        memory = Layout((source.batch, width), np.arange(width) < self.lengths[:, None]).pad(memory)
        self.known = [layer.encoder_attn.remember(memory) for layer in self.decoder.layers]
        self.cache = KeyValueCache(capacity=settings.max_length)
        self.never = [] if settings.pad is None or settings.pad in settings.eos else [settings.pad]

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """The log-probabilities (B K, V) of what follows the newest tokens (B K,)."""
        x, late = self.decoder.embed(tokens, np.full(len(tokens), self.cache.length)), None
        for i, layer in enumerate(self.decoder.layers):
            x, late = layer.step(x, late, i, self.cache, self.known[i], self.lengths)
        self.cache.advance(1)
        found = F.log_softmax(self.model.lm_head(self.decoder.finish(x, late)), -1).numpy()
        found[:, self.never] = -np.inf
        return found


def _moved(labels: np.ndarray, config: TransformerConfig) -> np.ndarray:
    """Labels (B, T) one place to the right, the start token first, pad where they do not count."""
    tokens = np.empty_like(labels)
    tokens[:, :1], tokens[:, 1:] = config.start_token, labels[:, :-1]
    tokens[tokens == IGNORED] = config.pad_token_id or 0
    return tokens


def _until_last(labels: np.ndarray) -> np.ndarray:
    """True up to the last label of each row that counts."""
    counts = labels != IGNORED
    return np.flip(np.logical_or.accumulate(np.flip(counts, 1), 1), 1)
