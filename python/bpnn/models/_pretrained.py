"""What every pretrained architecture shares: configuration, files in and out, starting values.

    class GPT2LMHeadModel(PreTrainedModel):
        config_class = GPT2Config               # a dataclass with the keys of config.json
        base_model_prefix = "transformer"       # files of the bare model lack it, files of models with a head have it
        heads = ("lm_head.*",)                  # names outside the base model: may be missing in a file, or too much
        ignored = ("*.attn.bias",)              # names that old files have and nobody needs

Parameters carry the names and shapes that they have in Hugging Face's files.
"""
from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

import bpnn
from bpnn import nn
from bpnn.nn import init
from bpnn.nn.modules.stored import StoredEmbedding, StoredLinear, Storing, check_kind
from bpnn.pretrained import PretrainedConfig, Weights, load_into, open_pretrained, resolve, save_weights, write_config
from bpnn.pretrained.loading import matches

from ._token_tables import TokenTables

# Keys of a configuration that files seldom have, and that may be given all the same
COMMON_KEYS = ("num_labels", "output_attentions", "output_hidden_states", "return_dict", "use_cache")
# Options of transformers' loader, and what may be said as it changes nothing here; None: anything
EMPTY_OPTIONS: Mapping[str, Sequence[Any] | None] = {
    "attn_implementation": None, "device_map": (None, "cpu", "auto", {"": "cpu"}), "force_download": (None, False),
    "low_cpu_mem_usage": None, "output_loading_info": (None, False), "quantization_config": (None,), "resume_download": None,
    "subfolder": (None, ""), "token": None, "trust_remote_code": (None, False), "use_safetensors": (None, True), "variant": (None,),
    "weights_only": None,
}


@dataclass(kw_only=True)
class ModelConfig(PretrainedConfig):
    """Keys of `config.json` that all architectures have."""

    architectures: list[str] | None = None
    id2label: dict[int, Any] | None = None
    label2id: dict[Any, Any] | None = None
    problem_type: str | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    @classmethod
    def fields_of(cls, *given: Mapping[str, Any], source: str) -> dict[str, Any]:
        """As `PretrainedConfig.fields_of`; `num_labels=3` stands for three labels without names."""
        count: Any = None
        parts = [dict(part) for part in given]
        for part in parts:  # the last that says something of labels
            count = part.pop("num_labels", None if part.get("id2label") is not None else count)
        values = super().fields_of(*parts, source=source)
        if count is not None:
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
                raise TypeError(f"{source}: num_labels: expected a number of labels, got {count!r}")
            if values.get("id2label") is None or len(values["id2label"]) != count:
                values |= _labels(int(count))
        return values

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "id2label" and value is not None:  # JSON has text for keys
            try:
                value = {int(key): label for key, label in value.items()}
            except (ValueError, TypeError):
                raise ValueError(f"config: id2label: expected numbers as keys, got {list(value)}") from None
        super().__setattr__(name, value)

    @property
    def num_labels(self) -> int:
        """The number of labels that a classifier tells apart; 2 where the file does not say. Another number: without names."""
        return 2 if self.id2label is None else len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if self.id2label is None or len(self.id2label) != count:
            labels = _labels(count)
            self.id2label, self.label2id = labels["id2label"], labels["label2id"]

    def label_name(self, index: int) -> str:
        """The name of a label."""
        return str((self.id2label or {}).get(int(index), f"LABEL_{index}"))

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds; what is not known is left out."""
        own = ("architectures", "id2label", "label2id", "problem_type", "pad_token_id", "bos_token_id", "eos_token_id")
        absent = {key for key in own if getattr(type(self), key, None) is None}  # null says something where the default is a number
        return {key: value for key, value in super().to_dict().items() if value is not None or key not in absent}


def _labels(count: int) -> dict[str, Any]:
    """Labels without names."""
    names = [f"LABEL_{i}" for i in range(count)]
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


class PreTrainedModel(TokenTables, nn.Module):
    """The base of pretrained models; see the head of this file for what a subclass declares."""

    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    base_model_prefix: ClassVar[str] = ""
    heads: ClassVar[Sequence[str]] = ()
    ignored: ClassVar[Sequence[str]] = ()

    def __init__(self, config: ModelConfig):
        super().__init__()
        if not isinstance(config, self.config_class):
            raise TypeError(f"config: expected a {self.config_class.__name__}, got {type(config).__name__}")
        self.config = config
        self.stored: dict[str, str] = {}  # the types of the tensors in the file that the model came from
        self.recompute = False

    # --- what a subclass says ----------------------------------------------------------------------------------------------

    def start(self, module: nn.Module) -> None:
        """Draw the starting values of one module (not of those inside it); `initializer_range` is the deviation."""
        deviation = getattr(self.config, "initializer_range", 0.02)
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, 0.0, deviation)
            if module.padding_idx is not None:
                with bpnn.no_grad():
                    module.weight[module.padding_idx] = 0
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            module.reset_parameters()

    # --- the same for all --------------------------------------------------------------------------------------------------

    def post_init(self) -> None:
        """The last line of every `__init__`: draw the starting values."""
        for module in self.modules():
            self.start(module)

    @property
    def base_model(self) -> nn.Module:
        """The model without its head."""
        return getattr(self, self.base_model_prefix) if self.base_model_prefix in self._modules else self

    def asked(self, name: str, given: bool | None) -> bool:
        """Whether something such as `output_hidden_states` is asked for: by the call, else by the configuration."""
        return bool(self.config.extra.get(name, False) if given is None else given)

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the parameters have; tied ones count once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def gradient_checkpointing_enable(self, enable: bool = True) -> None:
        """Compute the activations of each layer again in backward instead of storing them: less memory, a third more time."""
        for module in self.modules():
            if hasattr(module, "recompute"):
                module.recompute = enable

    def gradient_checkpointing_disable(self) -> None:
        """Store activations again."""
        self.gradient_checkpointing_enable(False)

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """A model with starting values."""
        return cls(config)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, config: ModelConfig | None = None, revision: str | None = None,
        local_files_only: bool | None = None, cache_dir: str | os.PathLike[str] | None = None, dtype: Any = None,
        torch_dtype: Any = None, ignore_mismatched_sizes: bool = False, store: str | None = None, **changes: Any,
    ) -> Self:
        """The model of a Hugging Face folder, a name of the hub, a GGUF file or llama2.c's `.bin`, ready to use (`eval()`).

        config: instead of the file's. changes: keys of the configuration, such as `num_labels=3`; options of transformers' loader
        that change nothing here, such as `device_map="cpu"`, are left out. dtype, or torch_dtype: float32 (the default, also
        "auto", whatever the file has) or float64. revision, local_files_only, cache_dir: see `bpnn.pretrained.resolve`.

        store: "bfloat16" or "int8" keeps the weights of linear maps in so many bits and frozen, for adapters on top of them: see
        `bpnn.finetune.store_frozen`. The model is never there as a whole in float32.

        A head that the file lacks gets starting values, with a warning that names it; with `ignore_mismatched_sizes` also a head
        of another size. A head that the model lacks is left out. Raises one `RuntimeError` that names the file and every other
        tensor that is missing, unexpected or has another shape; `ValueError` for another architecture, dtype or option; `TypeError`
        naming a key that neither the configuration nor the file has.
        """
        kind = real_type(torch_dtype if dtype is None else dtype)
        changes = _without_options(changes)
        if store is not None:
            check_kind(store, "store")
        path = resolve(name_or_path, revision=revision, local_files_only=local_files_only, cache_dir=cache_dir)
        source = open_pretrained(path)
        if config is None:
            known = {*cls.config_class.__dataclass_fields__, *cls.config_class.aliases, *source.config, *COMMON_KEYS}
            if unknown := sorted({*changes} - known):
                raise TypeError(
                    f"{', '.join(unknown)}: neither an option of from_pretrained nor a key of {cls.config_class.__name__} "
                    f"or {source.path}"
                )
            config = cls.config_class.from_dict(source.config, source=source.path, **changes)
        elif changes:
            raise TypeError(f"config: with a configuration given, expected no other keys, got {', '.join(changes)}")
        with init.skip_init():
            model = cls(config)
        if kind is not None:
            model.to(kind)
        model.load_file(source.weights, ignore_mismatched_sizes, store)
        model.came_from(source.path)
        return model.eval()

    def came_from(self, path: str) -> None:
        """A place to read what else lies beside the weights; `path` is the folder or file that they were read from."""

    @bpnn.no_grad()
    def load_file(self, weights: Weights, ignore_mismatched_sizes: bool = False, store: str | None = None) -> None:
        """Copy a file's tensors into the parameters; see `from_pretrained`."""
        smaller = None if store is None else Storing(self, store)
        prefix = self.base_model_prefix + "." if self.base_model_prefix else ""
        kinds: dict[str, str] = {}
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items() if matches(name, self.heads)}
        misfits: set[str] = set()

        def rename(name: str) -> str | None:
            if ignore_mismatched_sizes and name in weights and shapes.get(name) not in (None, weights.entries[name].shape):
                misfits.add(name)
                return None
            kinds[name] = weights.kind(name) if name in weights else ""
            return name

        done = load_into(
            self, weights, rename=rename, prefixes=[prefix] if prefix else (), ignore=[*self.ignored, *self.heads],
            optional=self.heads, loaded=smaller,
        )
        modules, missing = dict(self.named_modules()), list(done.missing)
        if missing:
            told = [f"{name} of this size" if name in misfits else name for name in missing]
            _warn(f"{weights.path}: has no {', '.join(told)}: new numbers were drawn; train the model before you use it")
            for name in dict.fromkeys(item.rpartition(".")[0] for item in missing):
                own = modules[name]._parameters.items()  # of these some may have been read: a head's matrix tied to the embedding
                read = [(p, p.clone()) for key, p in own if p is not None and f"{name}.{key}".lstrip(".") not in missing]
                self.start(modules[name])
                for parameter, numbers in read:
                    parameter.copy_(numbers)
        tied: dict[int, list[str]] = {}  # the file may have a tied tensor under any of its names
        for name, tensor in self.state_dict(keep_vars=True).items():
            tied.setdefault(id(tensor), []).append(name)
        for names in tied.values():
            forms = [form for name in names for form in (name, prefix + name, name.removeprefix(prefix))]
            kind = next((kinds[form] for form in forms if form in kinds), "")
            self.stored |= dict.fromkeys(names, {"BF16": "bfloat16", "F16": "float16"}.get(kind, ""))

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, dtype: str | None = None, max_shard_size: int | None = 5_000_000_000,
    ) -> list[str]:
        """Write `config.json` and `model.safetensors` as `transformers` reads them; returns the names of the weights' files.

        dtype: "float32", "float16" or "bfloat16" for all tensors. By default a tensor gets the type that it had in its file if
        that loses nothing, so what was not changed gets the same bytes. max_shard_size: bytes a file.
        """
        if any(isinstance(module, (StoredLinear, StoredEmbedding)) for module in self.modules()):
            raise ValueError(
                "save_pretrained: weights of this model are kept as bfloat16 or int8; bpnn.finetune.make_dense(model) makes them "
                "float32 again, or save the adapters alone"
            )
        config = {**self.config.to_dict(), "architectures": [type(self).__name__]}
        config.pop("torch_dtype", None)
        kinds: dict[str, str] = {}
        for name, tensor in self.state_dict().items():
            kind = dtype or self.stored.get(name) or ""
            if kind and (dtype or _lossless(tensor.numpy(), kind)):
                kinds[name] = kind
        told = set(kinds.values()) if len(kinds) == len(self.state_dict()) else set()
        config["dtype"] = told.pop() if len(told) == 1 else str(np.dtype(next(iter(self.parameters())).dtype))
        files = save_weights(self, folder, dtype=kinds, max_shard_size=max_shard_size)
        write_config(folder, config)
        return files


def real_type(dtype: Any) -> Any:
    """float32 or float64 by any of its names; None, which is "auto" too, for the default. Raises `ValueError` for the rest."""
    if dtype is None or (isinstance(dtype, str) and dtype == "auto"):
        return None
    try:
        kind = np.dtype(str(dtype).removeprefix("torch.") if type(dtype).__module__ == "torch" else dtype)
    except TypeError:
        kind = None
    if kind not in (np.float32, np.float64):
        raise ValueError(f"dtype: expected float32, float64 or 'auto', got {dtype!r}")
    return kind


def _without_options(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What is not among `EMPTY_OPTIONS`; `ValueError` for an option that asks for what is not there."""
    for name, allowed in EMPTY_OPTIONS.items():
        if allowed is not None and name in changes and changes[name] not in allowed:
            raise ValueError(f"{name}: expected {' or '.join(map(repr, allowed))}, got {changes[name]!r}")
    return {key: value for key, value in changes.items() if key not in EMPTY_OPTIONS}


def _warn(message: str) -> None:
    """A warning that points at the line that called into bpnn."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("bpnn", "bpcore", "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _lossless(array: np.ndarray, kind: str) -> bool:
    """Whether the half type `kind` holds every number of `array`."""
    if array.dtype != np.float32:
        return False
    if kind == "bfloat16":
        return not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array.astype(np.float16).astype(np.float32), array, equal_nan=True))
