"""The next token (decoders: GPT-2, LLaMA …), or hidden ones (encoders: BERT …): texts, prompts with completions, conversations."""
from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import bpnn
from bpnn.data import DataError
from bpnn.data.instruct import (
    EncodingReport, LanguageExample, PackedCollate, PaddedCollate, encode_completion, encode_examples, language_examples,
)
from bpnn.models.auto import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from bpnn.nn import functional as F
from bpnn.pretrained import AutoTokenizer, resolve
from bpnn.utils.data.sampler import draw_seed

from ._masking import IGNORED, mask_tokens, ordinary
from ._task import Batch, TaskDataset, new_heads_expected, predicting, worst_of
from ._texts import VIRTUAL, TextTask, fill, limit_of, longest_of

LOGITS = 1 << 25  # numbers of logits that are made at once
WINDOW = 512  # tokens that are read at once, where neither settings nor model say less


class ModelLanguage(TextTask):
    """Settings: text (column), max_length (512 or what the model can), completion_only (True), mask_probability (0.15),
    max_new_tokens (64), seed.

    Decoders: rows of any kind that `language_examples` knows; the loss is of completions, or of what the assistant says. Texts
    longer than max_length are read in windows, others cut. A batch is its texts one after the other, without padding or attention
    from one to another. Encoders: texts alone, in windows; other tokens are hidden at each reading, the same for validation.
    A prediction is what the model writes behind a prompt, or puts in place of mask tokens.
    """

    name = "lm"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.masked = self.chat = False
        self.context: int | None = None  # tokens that the model reads at most

    # --- data --------------------------------------------------------------------------------------------------------------

    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        if labeled is False:
            return [self.example(table[i]) for i in range(len(table))]
        return list(language_examples(table, self.option("text")))

    def learn(self, examples: Sequence[Any], path: str) -> None:
        self.chat = any(example.kind == "messages" for example in examples)

    def example(self, value: Any) -> Any:
        """A prompt: a text (in a model for conversations what the user says), or a dictionary with prompt, text or messages."""
        if isinstance(value, Mapping):
            if isinstance(value.get("messages"), list):
                messages = [dict(message) for message in value["messages"]]
                while messages and messages[-1].get("role") == "assistant":
                    messages.pop()
                return LanguageExample(messages=messages, first=len(messages))
            names = (self.option("text"), "prompt", "question", "text")
            column = next((name for name in names if name and isinstance(value.get(name), str)), None)
            if column is None:
                raise ValueError(f"inputs: expected a column prompt, text or messages, got {', '.join(map(str, value))}")
            value = value[column]
        if not isinstance(value, str):
            raise TypeError(f"inputs: expected a text or a dictionary, got {type(value).__name__}")
        return LanguageExample(prompt=value)

    def dataset(self, examples: Sequence[Any], train: bool = False) -> TaskDataset:
        items: list[Batch] = []
        report, empty = 0, ""
        for i, example in enumerate(examples):
            if asks(example):
                items.append({"prompt": self.prompt_tokens(example), "length": 1, "example": i})
                continue
            if self.masked:
                items += [{**item, "example": i} for item in self._windows(example, i, train)]
                continue
            try:
                rows, told = self._encode(example)
            except DataError as error:  # nothing of it is within the limit
                report, empty = report + 1, empty or str(error)
                continue
            report += len(told.truncated)
            items += [{**row, "example": i} for row in rows]
        if examples and not items:
            others = f", nor in the other {len(examples) - 1} examples of that part" if len(examples) > 1 else ""
            raise DataError(f"{empty}{others}; give a larger max_length")
        return TaskDataset(items, report, train)

    def _encode(self, example: Any) -> tuple[list[Batch], EncodingReport]:
        rows, report = encode_examples(
            [example], self.tokenizer, max_length=self.max_length, too_long="windows" if example.kind == "text" else "truncate",
            completion_only=bool(self.option("completion_only", True)),
        )
        return rows, report

    def prompt_tokens(self, example: Any) -> list[int]:
        """The tokens of a prompt; of one that leaves too little room for an answer the last."""
        if example.messages is not None or (self.chat and self.tokenizer.chat_template is not None):
            messages = example.messages or [{"role": "user", "content": example.prompt}]
            ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        elif self.masked:
            return list(self.tokenizer(example.prompt, truncation=True, max_length=self.max_length)["input_ids"])
        else:
            ids, labels = encode_completion(example.prompt, " .", self.tokenizer)
            ids = ids[: next(i for i, label in enumerate(labels) if label != IGNORED)]
        if self.context is None:
            return list(ids)
        return list(ids[-max(self.context // 2, self.context - int(self.option("max_new_tokens", 64))) :])

    def _windows(self, example: Any, i: int, train: bool) -> list[Batch]:
        """Pieces of a text with special tokens around each; for validation with the tokens hidden that its number decides."""
        if example.kind != "text":
            raise DataError(f"{example.where}: expected texts for a model of hidden tokens, got {example.kind}")
        with self.tokenizer._lock:
            self.tokenizer.backend.enable_truncation(self.max_length)
            first = self.tokenizer.backend.encode(example.text)
        items: list[Batch] = []
        for n, one in enumerate([first, *first.overflowing]):
            item: Batch = {"input_ids": np.array(one.ids, np.int64), "length": len(one.ids), "where": example.where}
            item["fixed"] = np.array(one.special_tokens_mask, bool)
            if item["fixed"].all():
                continue
            if not train:
                item = self._hide(item, np.random.default_rng([int(self.option("seed", 0)), i, n]))
            items.append(item)
        return items

    def _hide(self, item: Batch, random: np.random.Generator) -> Batch:
        words = ordinary(len(self.tokenizer), self.tokenizer.all_special_ids)
        share = float(self.option("mask_probability", 0.15))
        ids, labels = mask_tokens(item["input_ids"], item["fixed"], self.tokenizer.mask_token_id, words, random, share)
        return {**item, "input_ids": ids, "labels": labels}

    def collate(self, items: Sequence[Batch]) -> Batch:
        if self.masked:
            hidden = [item if "labels" in item else self._hide(item, np.random.default_rng(draw_seed())) for item in items]
            batch = super().collate([{"input_ids": item["input_ids"]} for item in hidden])
            batch["labels"] = fill([item["labels"] for item in hidden], IGNORED)
            return batch
        if self.option("method") in VIRTUAL:
            return PaddedCollate(self.tokenizer.pad_token_id)(items)
        packed = PackedCollate()(items)
        # without the axis of one: the samples of a batch, by which losses of batches are weighed, are its tokens
        return {"input_ids": packed["input_ids"][0], "labels": packed["labels"][0], "cu_seqlens": packed["cu_seqlens"]}

    # --- the model ---------------------------------------------------------------------------------------------------------

    def load_model(self, path: str | os.PathLike[str]) -> Any:
        folder = resolve(path)
        kind = AutoConfig.from_pretrained(folder).model_type
        self.masked = kind not in AutoModelForCausalLM.classes and kind in AutoModelForMaskedLM.classes
        with new_heads_expected():
            model = (AutoModelForMaskedLM if self.masked else AutoModelForCausalLM).from_pretrained(folder, store=self._store())
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if self.masked and self.tokenizer.mask_token_id is None:
            raise ValueError(f"{self.tokenizer.source}: has no mask_token to hide tokens with")
        if self.masked and self.tokenizer.pad_token_id is None:
            raise ValueError(f"{self.tokenizer.source}: has no pad_token to fill texts up with")
        wanted, self.context = self.max_length, longest_of(model)
        self.max_length = limit_of(model, self.tokenizer, folder, wanted, self.reserved)
        if wanted is None:
            self.max_length = min(self.max_length, WINDOW)
        return model

    def _store(self) -> str | None:
        """How frozen weights are kept from the start; virtual tokens begin as rows of a table of float32."""
        base = self.option("base")
        return None if base in (None, "float32") or self.option("method") in VIRTUAL else base

    def load_saved(self, folder: str | os.PathLike[str]) -> Any:
        return self.load_model(folder)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "chat": self.chat}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.chat = state["chat"]

    # --- judging -----------------------------------------------------------------------------------------------------------

    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> list[dict[str, Any]]:
        """Of each example the mean "loss" over the "tokens" foretold, or of a prompt the "text" that the model gives."""
        count = max((item["example"] for item in dataset), default=-1) + 1
        found: list[dict[str, Any]] = [{"loss": 0.0, "tokens": 0} for _ in range(count)]
        with predicting(model):
            for item in dataset:
                if "prompt" in item:
                    found[item["example"]] |= self._answer(model, item["prompt"])
            for group in self._groups([item for item in dataset if "prompt" not in item], batch_size):
                for item, (loss, tokens) in zip(group, self._losses(model, group), strict=True):
                    found[item["example"]]["loss"] += loss
                    found[item["example"]]["tokens"] += tokens
        for one in found:
            one["loss"] = one["loss"] / one["tokens"] if one["tokens"] else math.nan
        return found

    def _groups(self, items: Sequence[Batch], batch_size: int) -> list[list[Batch]]:
        """Items that are read at once: up to `batch_size` texts whose logits have room, where batches have no padding."""
        room = LOGITS // len(self.tokenizer)
        single = self.masked or self.option("method") in VIRTUAL
        groups: list[list[Batch]] = []
        tokens = 0
        for item in items:
            if single or not groups or len(groups[-1]) >= batch_size or tokens + item["length"] > room:
                groups.append([])
                tokens = 0
            groups[-1].append(item)
            tokens += item["length"]
        return groups

    def _losses(self, model: Any, items: Sequence[Batch]) -> list[tuple[float, int]]:
        """The sum of the losses of each item, and over how many tokens."""
        batch = self.collate(items)
        if len(items) == 1:
            target = batch["labels"] if self.masked else batch["labels"][..., 1:]
            tokens = int((target != IGNORED).sum())
            return [(model(**batch).loss.item() * tokens if tokens else 0.0, tokens)]
        labels = batch.pop("labels")[1:]  # place t foretells token t + 1; the first of each text is not foretold
        logits = model(**batch).logits[:-1]
        losses = F.cross_entropy(logits, bpnn.from_numpy(labels), ignore_index=IGNORED, reduction="none").numpy()
        parts = batch["cu_seqlens"][1:-1] - 1
        sums = np.split(losses.astype(np.float64), parts)
        counts = np.split(labels != IGNORED, parts)
        return [(float(loss.sum()), int(count.sum())) for loss, count in zip(sums, counts, strict=True)]

    def _answer(self, model: Any, prompt: list[int]) -> dict[str, Any]:
        if self.masked:
            ids = np.array(prompt, np.int64)
            places = ids == self.tokenizer.mask_token_id
            logits = model(input_ids=ids[None]).logits.numpy()[0]
            ids[places] = logits[places].argmax(-1)
            words = [self.tokenizer.decode([int(i)]).strip() for i in ids[places]]
            return {"text": self.tokenizer.decode(ids, skip_special_tokens=True), "words": " ".join(words)}
        new = int(self.option("max_new_tokens", 64))
        if self.context is not None:
            new = max(1, min(new, self.context - len(prompt)))
        written = np.asarray(model.generate(np.array([prompt], np.int64), max_new_tokens=new))[0, len(prompt) :]
        return {"text": self.tokenizer.decode(written, skip_special_tokens=True)}

    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {key: one[key] for key in ("text", "words") if key in one} if "text" in one
            else {"loss": one["loss"], "perplexity": perplexity(one["loss"]), "tokens": one["tokens"]}
            for one in outputs
        ]

    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        """The mean loss over all tokens foretold and its exponential, the perplexity."""
        tokens = sum(one["tokens"] for one in outputs)
        loss = sum(one["loss"] * one["tokens"] for one in outputs if one["tokens"]) / tokens if tokens else math.nan
        return {self.samples: len(examples), "tokens": tokens, "loss": loss, "perplexity": perplexity(loss)}

    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        losses = [one["loss"] if one["tokens"] else -math.inf for one in outputs]
        return [
            {"where": examples[i].where, "text": spelled(examples[i]), "tokens": outputs[i]["tokens"], "loss": losses[i]}
            for i in worst_of(losses, n) if outputs[i]["tokens"]
        ]


def asks(example: Any) -> bool:
    """Whether an example is a prompt to write on."""
    if example.messages is not None:
        return bool(example.first == len(example.messages))
    return example.text is None and example.completion is None


def spelled(example: Any) -> str:
    """An example as one text."""
    if example.messages is not None:
        return "\n".join(f"{message['role']}: {message['content']}" for message in example.messages)
    return str(example.text if example.text is not None else (example.prompt or "") + (example.completion or ""))


def perplexity(loss: float) -> float:
    """exp(loss); infinity where that is too large."""
    return math.exp(loss) if loss < 700 else math.inf
