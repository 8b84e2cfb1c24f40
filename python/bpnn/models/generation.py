"""Writing on: `model.generate(input_ids, max_new_tokens=100)` of models that predict the next token.

    class GPT2LMHeadModel(GenerationMixin, GPT2PreTrainedModel): ...

Sizes: B prompts of T tokens, R rows followed at once (B times beams or results), V tokens in the vocabulary.
"""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

import bpnn
from bpcore.random import Generator, default_generator

from ._beams import BeamSearch
from ._cache import KeyValueCache
from ._decoder import token_numbers
from ._generation_config import GenerationConfig, Settings, merge
from ._layers import array_of, numbers
from ._outputs import ModelOutput
from ._sampling import Processor, draw, log_softmax, processors
from ._streamers import StopTexts, TextStream, TextStreamer

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
__all__ = ["GenerationConfig", "GenerationMixin", "TextStream", "TextStreamer"]


class Reader:
    """The model with its cache: gives the scores of the next token for rows of tokens, reading only what is new.

    mask: (B, T), 0 for the padding before a prompt; None: no padding. types: (B, T), the prompts' segments; what is written belongs
    to the last of them.
    """

    def __init__(self, model: Any, capacity: int, mask: np.ndarray | None, types: np.ndarray | None = None):
        self.model, self.mask, self.types = model, mask, types
        self.cache = KeyValueCache(capacity)
        self.padding = None if mask is None else (mask != 0).argmax(1)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """Read tokens (R, T); the scores of what comes next, (R, V), float32, a copy."""
        past = self.cache.length
        given: dict[str, Any] = {}
        if self.mask is not None:
            if past:
                self.mask = np.concatenate([self.mask, np.ones_like(tokens)], 1)
            given = {"attention_mask": self.mask, "position_ids": np.maximum(self.mask.cumsum(1) - 1, 0)[:, past:]}
        if self.types is not None:
            given["token_type_ids"] = self.types
            self.types = self.types[:, -1:]
        with bpnn.no_grad():
            output = self.model(tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1, **given)
        return np.array(output.logits.numpy()[:, -1], np.float32)

    def repeat(self, times: int) -> None:
        """Follow every row `times` times."""
        if times > 1:
            self.cache.repeat(times)
            if self.mask is not None:
                self.mask, self.padding = np.repeat(self.mask, times, 0), np.repeat(self.padding, times)  # type: ignore[arg-type]
            if self.types is not None:
                self.types = np.repeat(self.types, times, 0)


class Ends:
    """Which rows of tokens (R, L) are complete: by length, an end of text, or what the caller stops at."""

    def __init__(self, settings: Settings, tokenizer: Any):
        self.settings, self.texts = settings, StopTexts(settings.stop, tokenizer)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        ended = np.isin(tokens[:, -1], self.settings.eos)
        if tokens.shape[1] >= self.settings.max_length:
            ended[:] = True
        for stop in self.settings.stop_tokens:
            ended |= (tokens[:, -len(stop) :] == stop).all(1) if len(stop) <= tokens.shape[1] else False
        return ended | self.texts(tokens) if self.settings.stop else ended


class GenerationMixin:
    """`generate` and `stream`, for models whose `forward` takes `input_ids`, `attention_mask`, `position_ids`, `past_key_values`,
    `use_cache` and `logits_to_keep` and gives `logits`."""

    config: Any
    virtual_tokens: int = 0  # places in front of every prompt that take room in the cache

    @cached_property
    def generation_config(self) -> GenerationConfig:
        """The model's own settings: of `generation_config.json`, else the special tokens of `config.json`; may be set."""
        own: dict[str, Any] = {name: getattr(self.config, name, None) for name in SPECIAL}
        return GenerationConfig(**own)

    def came_from(self, path: str) -> None:
        """Read the settings that lie beside the weights."""
        if os.path.isdir(path):
            with suppress(FileNotFoundError):
                own, read = self.generation_config, GenerationConfig.from_pretrained(path)
                for name in SPECIAL:
                    if getattr(read, name) is None:
                        setattr(read, name, getattr(own, name))
                self.generation_config = read

    def save_pretrained(self, folder: str | os.PathLike[str], **given: Any) -> list[str]:
        """As `PreTrainedModel.save_pretrained`, with `generation_config.json`."""
        files: list[str] = super().save_pretrained(folder, **given)  # type: ignore[misc]
        self.generation_config.save_pretrained(folder)
        return files

    @property
    def context(self) -> int | None:
        """The most tokens that the model reads; None: no limit."""
        for name in ("context", "n_positions", "max_position_embeddings"):
            limit = getattr(self.config, name, None)
            if limit is not None:
                return int(limit)
        return None

    def generate(
        self, input_ids: Any = None, attention_mask: Any = None, *, inputs: Any = None, token_type_ids: Any = None,
        generation_config: GenerationConfig | None = None, tokenizer: Any = None, seed: int | None = None, streamer: Any = None,
        **settings: Any,
    ) -> Any:
        """The prompts with what the model writes on, (R, L) int64: names, meanings and defaults of `transformers`.

        input_ids, or `inputs`: (B, T), or (T,) for one prompt; shorter ones are padded on the left; None: the start token.
        attention_mask: (B, T), 0 for padding; by default where `pad_token_id` stands, if that is not an end of text.
        token_type_ids: (B, T), for models that have segments; what is written belongs to the last one. settings,
        generation_config: see `GenerationConfig`; what is not said there is as `model.generation_config` says. tokenizer: for
        `stop` texts. seed: of the numbers drawn with `do_sample`; by default they come from `bpnn.random`. streamer: an object that
        gets the prompt and every new token by `put(array)`, then `end()`, such as `TextStreamer`; or a function of the new tokens
        (R,).

        return_dict_in_generate: a `ModelOutput` with `sequences`, and if asked for `scores` (output_scores; a tuple of (R, V), as
        they were after the filters), `logits` (output_logits), of beams `sequences_scores` and `beam_indices`.

        A text ends with the context at the latest, with a warning where more was asked for. Raises `ValueError` naming input_ids
        for prompts longer than the context, or padded on the right; `IndexError` for a token that there is not.
        """
        prompts, reader, wanted = self._prepare(input_ids, inputs, attention_mask, token_type_ids, generation_config, settings)
        ends, random = Ends(wanted, tokenizer), _random(seed)
        kept: dict[str, list[Any]] = {"logits": [], "scores": []}
        try:
            if wanted.num_beams > 1:
                if streamer is not None:
                    raise ValueError("streamer: beams are known at the end only; expected None with num_beams above 1")
                return self._beams(prompts, reader, wanted, ends, random, kept)
            rows = np.repeat(prompts, wanted.rows, 0)
            put = _put(streamer)
            if hasattr(streamer, "put"):
                streamer.put(rows)
            columns = [rows]
            for tokens in self._steps(rows, reader, wanted, ends, random, kept):
                columns.append(tokens[:, None])
                put(tokens)
        finally:
            if hasattr(streamer, "end"):
                streamer.end()  # also where Ctrl-C comes between: the line on the terminal is finished
        return _output(wanted, np.concatenate(columns, 1), kept)

    def stream(
        self, input_ids: Any = None, attention_mask: Any = None, *, inputs: Any = None, token_type_ids: Any = None,
        generation_config: GenerationConfig | None = None, tokenizer: Any = None, seed: int | None = None, **settings: Any,
    ) -> Iterator[np.ndarray]:
        """As `generate`, one step at a time: `for tokens in model.stream(ids): …` gets the new tokens (R,). No beams."""
        prompts, reader, wanted = self._prepare(input_ids, inputs, attention_mask, token_type_ids, generation_config, settings)
        if wanted.num_beams > 1:
            raise ValueError(f"num_beams: beams are known at the end only; expected 1, got {wanted.num_beams}")
        return self._steps(np.repeat(prompts, wanted.rows, 0), reader, wanted, Ends(wanted, tokenizer), _random(seed))

    def _prepare(
        self, input_ids: Any, inputs: Any, attention_mask: Any, token_type_ids: Any, given: GenerationConfig | None,
        said: dict[str, Any],
    ) -> tuple[np.ndarray, Reader, Settings]:
        """Prompts (B, T), what reads them, and the settings; all checked."""
        own = self.generation_config
        if input_ids is not None and inputs is not None:
            raise ValueError("inputs: expected None beside input_ids, it is another name of the same")
        input_ids = inputs if input_ids is None else input_ids
        if input_ids is None:
            start = said.get("bos_token_id", own.bos_token_id)
            if start is None:
                raise ValueError("input_ids: expected a prompt, for the model has no start token (bos_token_id)")
            input_ids = [[start]]
        prompts = np.atleast_2d(token_numbers(numbers(input_ids, "input_ids"), self.config.vocab_size))
        if prompts.size == 0:
            raise ValueError(f"input_ids: expected prompts of at least one token, got shape {prompts.shape}")
        types = None if token_type_ids is None else np.atleast_2d(numbers(token_type_ids, "token_type_ids"))
        if types is not None and types.shape != prompts.shape:
            raise ValueError(f"token_type_ids: expected shape {prompts.shape}, as input_ids, got {types.shape}")
        settings = merge(own, given, said, prompts.shape[1])
        mask = _mask(attention_mask, prompts, settings)
        longest = prompts.shape[1] if mask is None else int((mask != 0).sum(1).max())
        padding = prompts.shape[1] - longest
        if self.context is not None:
            if longest > self.context:
                raise ValueError(f"input_ids: expected at most {self.context} tokens, the model's context, got {longest}")
            room = max(self.context, longest + 1) + padding  # the token after a full context is never read
            if settings.max_length > room:
                if said.keys() & {"max_new_tokens", "max_length"}:
                    new = settings.max_length - prompts.shape[1]
                    warnings.warn(f"max_new_tokens: {new} after a prompt of {longest} tokens are more than the model's context of "
                                  f"{self.context}; the text ends with the context", stacklevel=3)
                settings.max_length = room
        return prompts, Reader(self, settings.max_length - 1 + self.virtual_tokens, mask, types), settings

    def _steps(
        self, rows: np.ndarray, reader: Reader, settings: Settings, ends: Ends, random: np.random.Generator,
        kept: dict[str, list[Any]] | None = None,
    ) -> Iterator[np.ndarray]:
        """The next token of each row (R,), until all have ended. rows: (R, T), every prompt as often as there are results of it."""
        length, times = rows.shape[1], settings.rows
        texts = np.empty((len(rows), settings.max_length), np.int64)
        texts[:, :length] = rows
        logits = np.repeat(reader.read(rows[::times]), times, 0)
        reader.repeat(times)
        change = processors(settings, reader.padding)
        going = np.ones(len(rows), bool)
        while True:
            scores = _processed(change, texts[:, :length], logits, settings, kept)
            tokens = draw(scores, random) if settings.do_sample else scores.argmax(1)
            if settings.pad is not None:
                tokens = np.where(going, tokens, settings.pad)
            texts[:, length] = tokens
            length += 1
            going &= ~ends(texts[:, :length])
            yield tokens
            if not going.any():
                return
            logits = reader.read(tokens[:, None])

    def _beams(
        self, prompts: np.ndarray, reader: Reader, settings: Settings, ends: Ends, random: np.random.Generator,
        kept: dict[str, list[Any]],
    ) -> Any:
        search = BeamSearch(prompts, settings, random)
        logits = np.repeat(reader.read(prompts), settings.num_beams, 0)
        reader.repeat(settings.num_beams)
        change = processors(settings, reader.padding)
        while True:
            texts = search.texts
            scores = _processed(change, texts, log_softmax(logits), settings, kept, logits)
            rows = search.step(scores, ends)
            if search.done:
                break
            reader.cache.reorder(rows, prompts.shape[1])
            logits = reader.read(search.texts[:, -1:])
        sequences, scores, rows = search.results()
        return _output(settings, sequences, kept, sequences_scores=scores if settings.output_scores else None, beam_indices=rows)


def _processed(
    change: list[Processor], texts: np.ndarray, scores: np.ndarray, settings: Settings, kept: dict[str, list[Any]] | None,
    logits: np.ndarray | None = None,
) -> np.ndarray:
    """Scores after the filters, which may use their memory; what was asked for is kept."""
    if kept is not None and settings.return_dict_in_generate and settings.output_logits:
        kept["logits"].append(bpnn.from_numpy((scores if logits is None else logits).copy()))
    for function in change:
        scores = function(texts, scores)
    if kept is not None and settings.return_dict_in_generate and settings.output_scores:
        kept["scores"].append(bpnn.from_numpy(scores.copy()))
    return scores


def _output(settings: Settings, sequences: np.ndarray, kept: dict[str, list[Any]], **arrays: np.ndarray | None) -> Any:
    result = bpnn.from_numpy(np.ascontiguousarray(sequences))
    if not settings.return_dict_in_generate:
        return result
    more = {name: None if x is None else bpnn.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
    return ModelOutput(sequences=result, **{name: tuple(values) or None for name, values in kept.items()}, **more)


def _random(seed: int | None) -> np.random.Generator:
    return (default_generator() if seed is None else Generator().manual_seed(seed)).numpy


def _put(streamer: Any) -> Callable[[np.ndarray], Any]:
    """What gets the new tokens."""
    put = streamer.put if hasattr(streamer, "put") else (lambda tokens: None) if streamer is None else streamer
    if not callable(put):
        raise TypeError(f"streamer: expected a function or an object with put and end, got {type(streamer).__name__}")
    return put  # type: ignore[no-any-return]


def _mask(attention_mask: Any, prompts: np.ndarray, settings: Settings) -> np.ndarray | None:
    """The mask of padding on the left, as int64, or None where there is none."""
    if attention_mask is None:
        if settings.pad is None or settings.pad in settings.eos or not (prompts == settings.pad).any():
            return None
        mask = (prompts != settings.pad).astype(np.int64)
    else:
        given = array_of(attention_mask, "attention_mask")
        mask = np.atleast_2d(given != 0).astype(np.int64)
        if mask.shape != prompts.shape:
            raise ValueError(f"attention_mask: expected shape {prompts.shape}, got {given.shape}")
    if mask.all():
        return None
    late = np.flatnonzero(mask[:, -1] == 0)
    if late.size:
        raise ValueError(
            f"input_ids: text {late[0]} ends with padding; expected padding on the left (tokenizer.padding_side = 'left')")
    return mask
