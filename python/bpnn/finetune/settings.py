"""What a fine-tuning run may be told: one table, from which the command's options, the keys of a YAML file and the docs are made.

>>> from bpnn.finetune.settings import Settings
>>> settings = Settings.build({"method": "lora", "epochs": 5}, {"epochs": 1})        # a file's keys, flags on top
>>> settings.method, settings.epochs, settings.learning_rate(parameters=22_000_000)
('lora', 1, 0.0005)
"""
from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

__all__ = ["Settings", "SettingsError", "read_yaml"]

TASKS = ("classify", "regress", "tokens", "qa", "embed", "lm", "image")
METHODS = ("full", "head", "frozen", "gradual", "lora", "dora", "ia3", "bitfit", "prompt", "prefix")
ADAPTERS = ("lora", "dora", "ia3", "prompt", "prefix")  # what is saved is an adapter in PEFT's layout, and the base stays as it is
LEARNING_RATES = {
    "full": 5e-5, "frozen": 5e-5, "gradual": 5e-5, "head": 1e-3, "bitfit": 1e-3, "lora": 5e-4, "dora": 5e-4, "ia3": 5e-3,
    "prompt": 1e-2, "prefix": 5e-3,
}  # fmt: skip
LARGE = 200_000_000  # parameters from which full fine-tuning gets a lower rate
LOGS = ("csv", "tensorboard", "wandb", "mlflow", "trackio")


class SettingsError(ValueError):
    """A setting that does not exist, has a wrong value, or does not go with another; one line for the user."""


def option(
    default: Any, help: str, group: str, kind: type = str, *, choices: Sequence[str] = (), low: float = -math.inf,
    high: float = math.inf, above: bool = False, many: bool = False, metavar: str | None = None,
) -> Any:
    """A field of `Settings`. kind: of its value, or with `many` of each. Numbers lie from `low` (or above it) to `high`."""
    told = {"help": help, "group": group, "kind": kind, "choices": tuple(choices), "low": low, "high": high, "above": above,
            "many": many, "metavar": metavar}  # fmt: skip
    return field(default=default, metadata=told)


GROUPS = {
    "data": "data", "model": "model and method", "training": "training", "technique": "regularization and other techniques",
    "run": "run",
}  # fmt: skip


@dataclass(kw_only=True)
class Settings:
    """All options of `bpnn finetune`, with their defaults; None: chosen by what the others say."""

    task: str = option("classify", "what the model learns to do", "data", choices=TASKS)
    data: str | None = option(None, "a table (.csv, .tsv, .jsonl, .parquet …), a folder of train, validation and test, a folder of "
                              "images, or an fsspec URL", "data", metavar="FILE|FOLDER")  # fmt: skip
    train: str | None = option(None, "the training part, where the parts are separate files", "data", metavar="FILE")
    validation: str | None = option(None, "the validation part: chooses the best epoch", "data", metavar="FILE")
    test: str | None = option(None, "the test part: looked at once, at the end", "data", metavar="FILE")
    validation_share: float = option(0.1, "held out of the training part where there is no validation part", "data", float, low=0,
                                     high=0.9, metavar="SHARE")  # fmt: skip
    test_share: float = option(0.1, "likewise for a test part", "data", float, low=0, high=0.9, metavar="SHARE")
    text: str | None = option(None, "column of the text (default: found by its name)", "data", metavar="COLUMN")
    text_pair: str | None = option(None, "column of a second text", "data", metavar="COLUMN")
    label: str | None = option(None, "column of the label", "data", metavar="COLUMN")
    labels: list[str] | None = option(None, "the labels there are; another one in the data is an error (default: those of the "
                                      "training part)", "data", many=True, metavar="A,B,…")  # fmt: skip
    max_length: int | None = option(None, "tokens of a text that are read (default: what model and data ask for)", "data", int,
                                    low=2, metavar="TOKENS")  # fmt: skip

    model: str | None = option(None, "a model folder, a name of the hub, or a .gguf file", "model", metavar="MODEL")
    method: str = option("full", "what is trained", "model", choices=METHODS)
    base: str = option("float32", "how frozen weights are stored", "model", choices=("float32", "bfloat16", "int8"))
    pooling: str | None = option(None, "how tokens become one vector, of tasks that need one (default: as the model says)", "model",
                                 choices=("cls", "mean", "max"))  # fmt: skip
    rank: int = option(8, "of lora and dora", "model", int, low=1, metavar="R")
    alpha: float = option(16.0, "of lora and dora: the adapters count alpha / rank", "model", float, low=0, above=True)
    lora_dropout: float = option(0.0, "of lora and dora: dropout before the adapters", "model", float, low=0, high=0.99, metavar="P")
    rslora: bool = option(False, "of lora and dora: count alpha / √rank instead", "model", bool)
    targets: list[str] | None = option(None, "of lora, dora and ia3: names of the linear maps that get an adapter (default: those "
                                       "that suit the architecture; all-linear: every one)", "model", many=True,
                                       metavar="NAME,…")  # fmt: skip
    virtual_tokens: int = option(20, "of prompt and prefix: how many", "model", int, low=1, metavar="N")
    merge: bool = option(False, "of lora, dora and ia3: leave a whole model, adapters merged in, instead of adapter files", "model",
                         bool)  # fmt: skip
    freeze: list[str] | None = option(None, "of frozen: names of parameters that are not trained, with * and ?", "model", many=True,
                                      metavar="PATTERN,…")  # fmt: skip
    freeze_layers: int | None = option(None, "of frozen: so many layers from the input are not trained, nor the embeddings",
                                       "model", int, low=0, metavar="K")  # fmt: skip
    unfreeze_every: float = option(1.0, "of gradual: epochs after which one more layer is trained", "model", float, low=0,
                                   above=True, metavar="EPOCHS")  # fmt: skip

    epochs: int = option(3, "passes over the training part", "training", int, low=1)
    batch_size: int = option(32, "examples a batch", "training", int, low=1, metavar="N")
    accumulate: int = option(1, "batches a step of the optimizer", "training", int, low=1, metavar="N")
    lr: float | None = option(None, "learning rate, the peak of the schedule (default by method: "
                              + ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())
                              + "; full from 200 million parameters 2e-05; lora and dora of lm 0.0002)", "training", float, low=0,
                              above=True)  # fmt: skip
    layer_decay: float | None = option(None, "each layer learns so much slower than the one above it, such as 0.9; 1/2.6 is ULMFiT's",
                                       "training", float, low=0, high=1, above=True, metavar="FACTOR")  # fmt: skip
    schedule: str = option("linear", "how the learning rate falls after the warm-up", "training",
                           choices=("linear", "cosine", "exponential", "constant"))  # fmt: skip
    warmup: float = option(0.1, "steps over which the rate rises first; below 1: a share of all", "training", float, low=0,
                           metavar="STEPS")  # fmt: skip
    weight_decay: float = option(0.01, "of AdamW, for matrices", "training", float, low=0)
    clip_norm: float = option(1.0, "largest norm of the gradient; 0: any", "training", float, low=0)
    patience: int | None = option(None, "stop after so many epochs without a better validation score", "training", int, low=1,
                                  metavar="EPOCHS")  # fmt: skip
    gradient_checkpointing: bool = option(False, "compute activations twice instead of storing them: less memory, a third more "
                                          "time", "training", bool)  # fmt: skip
    seed: int = option(0, "of the split, the head, the order and dropout: the same seed, the same bits", "training", int, low=0,
                       high=2**63 - 1)  # fmt: skip
    threads: int | None = option(None, "default: all processors", "training", int, low=1, high=1024)

    dropout: float | None = option(None, "of hidden states and attention (default: the model's own)", "technique", float, low=0,
                                   high=0.99, metavar="P")  # fmt: skip
    label_smoothing: float = option(0.0, "share of each label's probability given to all others", "technique", float, low=0,
                                    high=0.99, metavar="SHARE")  # fmt: skip
    adversarial: str | None = option(None, "also train on inputs moved so that the loss grows", "technique",
                                     choices=("fgm", "pgd", "freelb"))  # fmt: skip
    adversarial_epsilon: float | None = option(None, "how far they are moved (default: the technique's)", "technique", float, low=0,
                                               above=True, metavar="E")  # fmt: skip
    r_drop: float | None = option(None, "two passes with different dropout must agree; how much that counts, such as 1", "technique",
                                  float, low=0, above=True, metavar="ALPHA")  # fmt: skip
    ema: float | None = option(None, "use the exponential moving average of the weights, such as 0.999", "technique", float, low=0,
                               high=0.999999, above=True, metavar="DECAY")  # fmt: skip
    swa: float | None = option(None, "use the mean of the weights from this share of the epochs on, such as 0.5", "technique", float,
                               low=0, high=0.999, metavar="SHARE")  # fmt: skip
    stochastic_depth: float | None = option(None, "probability that the last layer is left out in training; earlier ones less",
                                            "technique", float, low=0, high=0.99, above=True, metavar="P")  # fmt: skip
    mixup: float | None = option(None, "images: mix pairs, Beta(ALPHA, ALPHA)", "technique", float, low=0, above=True,
                                 metavar="ALPHA")  # fmt: skip
    cutmix: float | None = option(None, "images: paste a piece of another, Beta(ALPHA, ALPHA)", "technique", float, low=0, above=True,
                                  metavar="ALPHA")  # fmt: skip
    augment: bool = option(False, "change the training examples a little, anew each time: words swapped and left out, images "
                           "cropped and mirrored", "technique", bool)  # fmt: skip
    teacher: str | None = option(None, "learn from this model's scores too (distillation); a model or a run of the same task and "
                                 "labels", "technique", metavar="MODEL")  # fmt: skip
    temperature: float = option(2.0, "of distillation: softens the teacher's scores", "technique", float, low=0, above=True)
    distill_weight: float = option(0.5, "of distillation: share of the loss that the teacher has", "technique", float, low=0, high=1,
                                   metavar="SHARE")  # fmt: skip

    out: str | None = option(None, "the run folder, new or empty (default: the next free runs/TASK, …)", "run", metavar="DIR")
    checkpoint_every: int | None = option(None, "write a checkpoint every so many steps, besides each epoch's", "run", int, low=1,
                                          metavar="STEPS")  # fmt: skip
    log: list[str] | None = option(None, "also log to: " + ", ".join(LOGS) + " (csv is always written)", "run", many=True,
                                   choices=LOGS, metavar="NAME,…")  # fmt: skip
    folds: int | None = option(None, "cross-validation: train so many times, each with another part held out; leaves scores, no "
                               "model", "run", int, low=2, metavar="K")  # fmt: skip
    trials: int | None = option(None, "search for good settings with Optuna, so many short runs; then train with the best", "run",
                                int, low=1, metavar="N")  # fmt: skip
    search: str | None = option(None, "YAML file of what to search: a key and its choices or low and high (default: lr, batch_size, "
                                "epochs)", "run", metavar="FILE")  # fmt: skip
    force: bool = option(False, "begin even where the memory will not do", "run", bool)

    # --- from outside --------------------------------------------------------------------------------------------------------

    @classmethod
    def build(cls, given: Mapping[str, Any], flags: Mapping[str, Any] | None = None, source: str = "settings") -> Settings:
        """Settings of a file's keys (`source` names it in errors), with `flags` on top. Raises `SettingsError`."""
        values = {name: check(name, value, source) for name, value in _known(given, source).items()}
        values |= {name: check(name, value) for name, value in _known(flags or {}, "options").items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON and for `build`."""
        return asdict(self)

    def learning_rate(self, parameters: int) -> float:
        """The rate asked for, or the one that suits the method, the task and a model of so many parameters."""
        if self.lr is not None:
            return self.lr
        if self.method in ("lora", "dora") and self.task == "lm":
            return 2e-4
        if self.method in ("full", "frozen", "gradual") and parameters >= LARGE:
            return 2e-5
        return LEARNING_RATES[self.method]


FIELDS: dict[str, Field[Any]] = {item.name: item for item in fields(Settings)}


def flag_of(name: str) -> str:
    """`batch_size` as `--batch-size`."""
    return "--" + name.replace("_", "-")


def nearest(name: str, known: Sequence[str]) -> str:
    """` (did you mean 'lr'?)`, or nothing where no known name is like it."""
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _known(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    values = {}
    for key, value in given.items():
        name = str(key).replace("-", "_")
        if name not in FIELDS:
            raise SettingsError(f"{source}: unknown key {str(key)!r}{nearest(name, list(FIELDS))}")
        values[name] = value
    return values


def check(name: str, value: Any, source: str = "") -> Any:
    """`value` as the field `name` wants it; `SettingsError` naming `source` and the key, what was expected and what came."""
    item, told = FIELDS[name], FIELDS[name].metadata
    where = f"{source}: {name}" if source else name
    if value is None:
        if item.default is None:
            return None
        raise SettingsError(f"{where}: expected {_expected(told)}, got nothing")
    if told["many"]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, (list, tuple)) or not value:
            raise SettingsError(f"{where}: expected a list, got {value!r}")
        return [_one(told, part, where) for part in value]
    return _one(told, value, where)


def _one(told: Mapping[str, Any], value: Any, where: str) -> Any:
    kind = told["kind"]
    wrong = SettingsError(f"{where}: expected {_expected(told)}, got {value!r}")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind is str:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, (int, float)) and told["many"] and not isinstance(value, bool):
            value = str(value)  # labels: 0, 1
        if not isinstance(value, str) or (told["choices"] and value not in told["choices"]):
            close = nearest(value, told["choices"]) if isinstance(value, str) else ""
            raise SettingsError(f"{wrong}{close}")
        return value
    try:
        if isinstance(value, bool) or (kind is int and int(value) != float(value)):
            raise ValueError
        number = kind(value)  # YAML takes 5e-5 for a text
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if not (told["low"] < number if told["above"] else told["low"] <= number) or not number <= told["high"] or number == math.inf:
        raise wrong
    return number


def _expected(told: Mapping[str, Any]) -> str:
    if told["choices"]:
        return f"one of {', '.join(told['choices'])}"
    kind = told["kind"]
    if kind is bool:
        return "true or false"
    if kind is str:
        return "a text"
    limits = []
    if told["low"] > -math.inf:
        limits.append(f"above {told['low']:g}" if told["above"] else f"at least {told['low']:g}")
    if told["high"] < math.inf:
        limits.append(f"at most {told['high']:g}")
    return " ".join(["a whole number" if kind is int else "a number", " and ".join(limits)]).strip()


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys of a YAML file. Raises `SettingsError` naming the file and the line; `ImportError` says what to install."""
    try:
        import yaml
    except ImportError:
        raise ImportError("reading YAML needs PyYAML: pip install 'bpnn[finetune]'") from None
    name = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = yaml.safe_load(file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise SettingsError(f"{name}{line}: no YAML ({getattr(error, 'problem', None) or error})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: expected text in UTF-8") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{name}: expected keys and values, got {type(content).__name__}")
    return content
