"""Texts to vectors whose angles tell how close the texts are in meaning (Reimers and Gurevych 2019).

    encoder = SentenceEncoder.from_pretrained("folder or hub name")      # what sentence-transformers wrote, or a plain BERT
    vectors = encoder.encode(["That is a happy person", "That is a happy dog"])
    vectors[0] @ vectors[1]                                              # the cosine of their angle
"""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Self

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import init
from bpnn.pretrained import AutoTokenizer, open_pretrained, resolve
from bpnn.pretrained.safetensors_file import read_json
from bpnn.utils._files import write_text

from ._encoder import BareEncoder
from .roberta import RobertaConfig

POOLINGS = ("mean", "cls", "max")
KINDS = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", **dict.fromkeys(RobertaConfig.also, "Roberta")}
SETTINGS = "sentence_bert_config.json"


class SentenceEncoder(nn.Module):
    """A bare encoder, its tokenizer, and how the rows of a text become one vector.

    pooling: "mean" over the tokens, "max" over them in each number, or "cls": the first one. max_seq_length: tokens of a text that
    are read, those that the tokenizer adds among them; by default what the model can. lower: whether texts are lowercased first.
    """

    def __init__(
        self, model: BareEncoder, tokenizer: Any, pooling: str = "mean", max_seq_length: int | None = None, lower: bool = False
    ):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: expected {', '.join(POOLINGS)}, got {pooling!r}")
        self.model, self.tokenizer, self.pooling, self.lower = model, tokenizer, pooling, lower
        limits = [n for n in (max_seq_length, tokenizer.model_max_length, model.embeddings.longest) if n is not None]
        self.max_seq_length = min(limits)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, pooling: str | None = None, revision: str | None = None,
        local_files_only: bool | None = None, dtype: Any = None,
    ) -> Self:
        """The encoder of a folder or a name of the Hugging Face hub, ready to use (`eval()`).

        What sentence-transformers left in `modules.json`, `1_Pooling/config.json` and `sentence_bert_config.json` is followed where
        it is there; `pooling` goes first, and is "mean" where nothing says another. Raises `ValueError` naming the file for a model
        that is no BERT, RoBERTa or DistilBERT, or that has other parts behind the pooling; and what `BertModel.from_pretrained`
        raises.
        """
        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"pooling: expected {', '.join(POOLINGS)}, got {pooling!r}")
        folder = resolve(name_or_path, revision=revision, local_files_only=local_files_only)
        inner, told = _parts(folder)
        settings = _read(os.path.join(inner, SETTINGS))
        model = _bare(inner)
        if dtype is not None:
            model.to(dtype)
        encoder = cls(
            model, AutoTokenizer.from_pretrained(inner), pooling or told or "mean", settings.get("max_seq_length"),
            bool(settings.get("do_lower_case")),
        )
        return encoder.eval()

    def forward(self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
        """The vectors of texts as tokens (B, T): (B, H), not normalized. Differentiable; arguments as in `BertModel`."""
        if self.pooling == "cls":
            return self.model(input_ids, attention_mask, token_type_ids, first_only=True).first()
        output = self.model(input_ids, attention_mask, token_type_ids)
        return output.layout.pool(output.rows, self.pooling)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, not more than `max_seq_length`."""
        cleaned = [text.strip().lower() if self.lower else text.strip() for text in texts]
        return self.tokenizer(cleaned, truncation=True, max_length=self.max_seq_length)["input_ids"] if cleaned else []

    def encode(
        self, texts: str | Sequence[str], batch_size: int = 32, normalize: bool = True, *,
        progress: Callable[[int], Any] | None = None,
    ) -> np.ndarray:
        """The vectors of texts, (n, width), in their order; of one text, (width,). Nothing is dropped out, nothing recorded.

        normalize: to length 1. Texts of like length are computed together, `batch_size` at a time; `progress` is told how many
        each time. Raises `TypeError` for what is no text, `ValueError` for a batch_size below 1.
        """
        if isinstance(texts, str):
            return np.asarray(self.encode([texts], batch_size, normalize, progress=progress)[0])
        texts = list(texts)
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts: expected texts, got {type(text).__name__} at {i}")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
        return self.encode_tokens(self.tokenize(texts), batch_size, normalize, progress=progress)

    def encode_tokens(
        self, tokens: Sequence[Sequence[int]], batch_size: int = 32, normalize: bool = True, *,
        progress: Callable[[int], Any] | None = None,
    ) -> np.ndarray:
        """`encode` of what `tokenize` gave."""
        lengths = np.array([len(one) for one in tokens], int)
        order = np.argsort(-lengths, kind="stable")  # the longest first: what does not fit into memory fails at once
        table = self.model.embeddings.word_embeddings.weight
        vectors = np.empty((len(tokens), table.shape[1]), table.dtype)
        training = self.training
        self.eval()
        try:
            with bpnn.no_grad():
                for begin in range(0, len(order), batch_size):
                    chosen = order[begin : begin + batch_size]
                    vectors[chosen] = self(*self._batch([tokens[i] for i in chosen])).numpy()
                    if progress is not None:
                        progress(len(chosen))
        finally:
            self.train(training)
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _batch(self, tokens: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        length = max(1, *map(len, tokens))
        padding = self.model.config.pad_token_id or 0
        ids = np.array([[*one, *[padding] * (length - len(one))] for one in tokens], np.int64)
        return ids, np.arange(length) < np.array([[len(one)] for one in tokens])

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model, tokenizer and settings as sentence-transformers reads them."""
        path = os.fspath(folder)
        os.makedirs(os.path.join(path, "1_Pooling"), exist_ok=True)
        self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        kind = "sentence_transformers.models."
        parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
        modules = [{"idx": i, "name": str(i), "path": at, "type": kind + name} for i, (at, name) in enumerate(parts)]
        modes = {f"pooling_mode_{name}": self.pooling == mode for mode, name in FLAGS.items()}
        _write(os.path.join(path, "modules.json"), modules)
        _write(os.path.join(path, "1_Pooling", "config.json"), {"word_embedding_dimension": self.width, **modes})
        _write(os.path.join(path, SETTINGS), {"max_seq_length": self.max_seq_length, "do_lower_case": self.lower})

    @property
    def width(self) -> int:
        """The numbers of a vector."""
        return int(self.model.embeddings.word_embeddings.weight.shape[1])


FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}  # pooling_mode_… in 1_Pooling/config.json


def _read(path: str) -> dict[str, Any]:
    return read_json(path) if os.path.isfile(path) else {}


def _write(path: str, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def listed_parts(path: str) -> list[tuple[str, str]]:
    """The kinds of the parts that a `modules.json` lists, such as "Pooling", and their folders; `ValueError` for another file."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        folder = os.path.dirname(path)
        return [(str(item["type"]).rpartition(".")[2], os.path.join(folder, item["path"])) for item in content]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected a list of parts with type and path ({error})") from None


def _parts(folder: str) -> tuple[str, str | None]:
    """The folder of the network, and the pooling that the files name (None: there is no `modules.json`)."""
    path = os.path.join(folder, "modules.json")
    if not os.path.isfile(path):
        return folder, None
    inner, pooling = folder, None
    for i, (kind, at) in enumerate(listed_parts(path)):
        if kind == "Transformer" and i == 0:
            inner = at
        elif kind == "Pooling" and i == 1:
            pooling = _pooling(os.path.join(at, "config.json"))
        elif kind != "Normalize":
            raise ValueError(f"{path}: expected Transformer, Pooling and perhaps Normalize, got {kind!r} as part {i}")
    return inner, pooling


def _pooling(path: str) -> str:
    content = read_json(path)
    names = {name: mode for mode, name in FLAGS.items()}
    flags = [key.removeprefix("pooling_mode_") for key, value in content.items() if value is True and "pooling_mode_" in key]
    found: list[Any] = [names.get(name, name) for name in flags] or [content.get("pooling_mode")]
    if len(found) != 1 or found[0] not in POOLINGS:
        raise ValueError(f"{path}: pooling_mode: expected one of {', '.join(POOLINGS)}, got {', '.join(map(str, found))}")
    return str(found[0])


def _bare(folder: str) -> BareEncoder:
    """The network of a folder, without the pooler that nobody asks here."""
    source = open_pretrained(folder)
    kind = source.config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"{source.path}: model_type: expected {', '.join(KINDS)}, got {kind!r}")
    name = KINDS[kind]
    module = import_module(f"bpnn.models.{name.lower()}")
    config = getattr(module, f"{name}Config").from_dict(source.config, source=source.path)
    given = {} if name == "DistilBert" else {"add_pooling_layer": False}
    with init.skip_init():
        model = getattr(module, f"{name}Model")(config, **given)
    model.load_file(source.weights)
    return model  # type: ignore[no-any-return]
