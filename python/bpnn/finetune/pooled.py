"""A classifier on the mean of a text's rows: a bare encoder, pooling over its real tokens, and a linear map.

    y = W dropout(pool(x)) + b,   pool: mean or max over the tokens of a text, or its first row

Files are those of sentence-transformers (Reimers and Gurevych 2019): Transformer, `1_Pooling`, and the map as `2_Dense`, so that
sentence-transformers reads the logits as embeddings and anybody can read the encoder alone; the labels are in `config.json`.
"""
from __future__ import annotations

import json
import os
import warnings
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np

import bpnn
from bpnn import nn
from bpnn.models._encoder import BareEncoder
from bpnn.models._layers import classification_loss
from bpnn.models._outputs import ModelOutput
from bpnn.models._pretrained import ModelConfig, PreTrainedModel
from bpnn.models.sentence import FLAGS, KINDS, POOLINGS, SETTINGS, _pooling, listed_parts
from bpnn.nn import init
from bpnn.pretrained import Weights, open_pretrained, open_weights, resolve, save_weights
from bpnn.pretrained.safetensors_file import read_json
from bpnn.utils._files import write_text

__all__ = ["PooledClassifier", "pooling_of"]

IDENTITY = "torch.nn.modules.linear.Identity"
PACKAGE = "sentence_transformers.models."


class PooledClassifier(PreTrainedModel):
    """An encoder (BERT, RoBERTa, DistilBERT), pooled, with a linear map to the labels of its configuration.

    pooling: "mean" over the tokens, special ones among them, "max" over them in each number, or "cls": the first row.
    dropout: of what is pooled; by default the configuration's for classifiers. max_seq_length: tokens of a text that were read in
    training, for the files.
    """

    base_model_prefix = "model"
    heads: ClassVar[tuple[str, ...]] = ("classifier.*",)

    def __init__(
        self, config: ModelConfig, pooling: str = "mean", dropout: float | None = None, max_seq_length: int | None = None
    ):
        super().__init__(config)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: expected {', '.join(POOLINGS)}, got {pooling!r}")
        self.pooling, self.max_seq_length = pooling, max_seq_length
        self.model = bare_encoder(config)
        self.dropout = nn.Dropout(_dropout_of(config) if dropout is None else dropout)
        self.classifier = nn.Linear(int(self.model.embeddings.word_embeddings.weight.shape[1]), config.num_labels)
        self.start(self.classifier)

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, position_ids: Any = None,
        inputs_embeds: Any = None, labels: Any = None, **asked: Any,
    ) -> ModelOutput:
        """`logits` (B, num_labels) of tokens (B, T); with `labels` also the `loss` that `problem_type` says.

        Arguments as in `BertModel` and `BertForSequenceClassification`.
        """
        alone = self.pooling == "cls"
        if alone:
            asked["first_only"] = True
        encoded = self.model(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **asked)
        pooled = encoded.first() if alone else encoded.layout.pool(encoded.rows, self.pooling)
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return ModelOutput(
            loss=loss, logits=logits, hidden_states=encoded._values.get("hidden_states"), attentions=encoded.get("attentions")
        )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, config: ModelConfig | None = None, pooling: str | None = None,
        dropout: float | None = None, revision: str | None = None, local_files_only: bool | None = None,
        ignore_mismatched_sizes: bool = False, **changes: Any,
    ) -> Self:
        """The classifier of a folder or a name of the Hugging Face hub, ready to use (`eval()`).

        pooling: by default what `1_Pooling/config.json` says, else "mean". A linear `2_Dense` without activation is the map to the
        labels; where there is none, or with `ignore_mismatched_sizes` one of another size, new numbers are drawn with a warning.
        changes: keys of the configuration, such as `num_labels=3`.

        Raises `ValueError` naming the file for a model that is no BERT, RoBERTa or DistilBERT, or has parts that this class lacks;
        `RuntimeError` naming the tensors that do not fit.
        """
        folder = resolve(name_or_path, revision=revision, local_files_only=local_files_only)
        inner, told, dense = _parts(folder)
        source = open_pretrained(inner)
        if config is None:
            config = _config_class(source.config, source.path).from_dict(source.config, source=source.path, **changes)
        elif changes:
            raise TypeError(f"config: with a configuration given, expected no other keys, got {', '.join(changes)}")
        settings = read_json(path) if os.path.isfile(path := os.path.join(inner, SETTINGS)) else {}
        with init.skip_init():
            model = cls(config, pooling or told or "mean", dropout, settings.get("max_seq_length"))
        model.model.load_file(source.weights)
        model._load_head(None if dense is None else open_weights(dense), source.path, ignore_mismatched_sizes)
        return model.eval()

    @bpnn.no_grad()
    def _load_head(self, weights: Weights | None, path: str, ignore_mismatched_sizes: bool) -> None:
        """The map to the labels from the tensors of `2_Dense`, or new numbers."""
        names = {"linear.weight": self.classifier.weight, "linear.bias": self.classifier.bias}
        misfits = [
            f"{name}: expected {tuple(parameter.shape)}, got {weights.shape(name) if name in weights else 'none'}"
            for name, parameter in names.items() if weights is not None
            and (name not in weights or weights.shape(name) != tuple(parameter.shape))
        ]
        if weights is not None and misfits and not ignore_mismatched_sizes:
            raise RuntimeError(f"{weights.path} does not fit {type(self).__name__}:\n  " + "\n  ".join(misfits))
        if weights is None or misfits:
            self.start(self.classifier)
            warnings.warn(f"{path}: has no classifier: new numbers were drawn; train the model before you use it", stacklevel=3)
            return
        for name, parameter in names.items():
            parameter.copy_(bpnn.from_numpy(np.array(weights[name], parameter.dtype)))

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, dtype: str | None = None, max_shard_size: int | None = 5_000_000_000,
    ) -> list[str]:
        """Write encoder, pooling and map as sentence-transformers reads them; returns the names of the encoder's files of weights.

        The tokenizer is saved by itself: `tokenizer.save_pretrained(folder)`.
        """
        path = os.fspath(folder)
        files = save_encoder(self, folder, ("2_Dense", "Dense"), dtype=dtype, max_shard_size=max_shard_size)
        outputs, width = self.classifier.weight.shape
        told = {"in_features": int(width), "out_features": int(outputs), "bias": True, "activation_function": IDENTITY}
        _write(path, "2_Dense/config.json", told)
        save_weights(
            self, os.path.join(path, "2_Dense"), dtype=dtype,
            rename=lambda name: f"linear.{name.removeprefix('classifier.')}" if name.startswith("classifier.") else None,
        )
        return files


def save_encoder(
    pooled: Any, folder: str | os.PathLike[str], *parts: tuple[str, str], dtype: str | None = None,
    max_shard_size: int | None = None,
) -> list[str]:
    """Write `pooled.model`, its pooling and limit as sentence-transformers reads them; `parts`: folder and type of what follows."""
    path = os.fspath(folder)
    every = [("", "Transformer"), ("1_Pooling", "Pooling"), *parts]
    for part, _ in every:
        os.makedirs(os.path.join(path, part), exist_ok=True)
    files = pooled.model.save_pretrained(path, dtype=dtype, max_shard_size=max_shard_size)
    _write(path, "modules.json", [
        {"idx": i, "name": str(i), "path": at, "type": PACKAGE + kind} for i, (at, kind) in enumerate(every)
    ])
    modes = {f"pooling_mode_{name}": pooled.pooling == mode for mode, name in FLAGS.items()}
    embeddings = pooled.model.embeddings
    _write(path, "1_Pooling/config.json", {"word_embedding_dimension": int(embeddings.word_embeddings.weight.shape[1]), **modes})
    limit = pooled.max_seq_length or embeddings.longest
    _write(path, SETTINGS, {"max_seq_length": limit, "do_lower_case": bool(getattr(pooled, "lower", False))})
    return list(files)


def bare_encoder(config: ModelConfig) -> BareEncoder:
    """The network of a configuration, without a pooler. Raises `ValueError` for what is no encoder of texts."""
    if config.model_type not in KINDS:
        raise ValueError(f"config: model_type: expected {', '.join(KINDS)}, got {config.model_type!r}")
    name = KINDS[config.model_type]
    given = {} if name == "DistilBert" else {"add_pooling_layer": False}
    made: BareEncoder = getattr(import_module(f"bpnn.models.{name.lower()}"), f"{name}Model")(config, **given)
    return made


def pooling_of(folder: str) -> str | None:
    """The pooling that a folder's `modules.json` names; None where there is none. Raises `ValueError` naming a damaged file."""
    return _parts(folder)[1] if os.path.isdir(folder) else None


def _config_class(content: dict[str, Any], path: str) -> type[ModelConfig]:
    kind = content.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"{path}: model_type: expected {', '.join(KINDS)}, got {kind!r}")
    found: type[ModelConfig] = getattr(import_module(f"bpnn.models.{KINDS[kind].lower()}"), f"{KINDS[kind]}Config")
    return found


def _dropout_of(config: Any) -> float:
    """The dropout before a classifier, under the names that the three architectures have for it."""
    for key in ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob"):
        if (value := getattr(config, key, None)) is not None:
            return float(value)
    return 0.1


def _write(folder: str, name: str, content: Any) -> None:
    write_text(os.path.join(folder, name), json.dumps(content, indent=2) + "\n")


def _parts(folder: str) -> tuple[str, str | None, str | None]:
    """The folder of the network, the pooling that the files name, the folder of the map; None for what there is not."""
    path = os.path.join(folder, "modules.json")
    if not os.path.isfile(path):
        return folder, None, None
    inner, pooling, dense = folder, None, None
    for i, (kind, at) in enumerate(listed_parts(path)):
        if kind == "Transformer" and i == 0:
            inner = at
        elif kind == "Pooling" and i == 1:
            pooling = _pooling(os.path.join(at, "config.json"))
        elif kind == "Dense" and i == 2:
            settings = read_json(os.path.join(at, "config.json"))
            linear = settings.get("activation_function") == IDENTITY and settings.get("bias", True)
            dense = at if linear else None  # with an activation it is a part of the embedding, not a map to labels
        elif kind != "Normalize":
            raise ValueError(f"{path}: expected Transformer, Pooling and perhaps Dense and Normalize, got {kind!r} as part {i}")
    return inner, pooling, dense
