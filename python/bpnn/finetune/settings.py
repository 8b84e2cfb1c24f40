"""What a fine-tuning run may be told: one table, from which the command's options, the keys of a YAML file and the docs are made.

>>> from bpnn.finetune.settings import Settings
>>> settings = Settings.build({"method": "lora", "epochs": 5}, {"epochs": 1})        # a file's keys, flags on top
>>> settings.method, settings.epochs, settings.learning_rate(parameters=22_000_000)
('lora', 1, 0.0005)
"""
# ruff: noqa: RUF009 (option is dataclasses.field)
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from typing import Any

from ._options import SettingsError, check, known, option, read_yaml

__all__ = ["Settings", "SettingsError", "read_yaml"]

TASKS = ("classify", "regress", "tokens", "qa", "embed", "lm", "image")
METHODS = ("full", "head", "frozen", "gradual", "lora", "dora", "ia3", "bitfit", "prompt", "prefix")
ADAPTERS = ("lora", "dora", "ia3", "prompt", "prefix")  # what is saved is an adapter in PEFT's layout, and the base stays as it is
LEARNING_RATES = {
    "full": 5e-5, "frozen": 5e-5, "gradual": 5e-5, "head": 5e-3, "bitfit": 1e-3, "lora": 5e-4, "dora": 5e-4, "ia3": 5e-3,
    "prompt": 1e-2, "prefix": 5e-3,
}  # fmt: skip
LARGE, BILLION = 200_000_000, 1_000_000_000  # parameters from which full fine-tuning, and LoRA, get a lower rate
_RATES = "default by method: " + ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items()) + (
    "; full from 200 million parameters 2e-05; lora and dora of lm 0.002, from a billion 0.0002"
)
LOGS = ("csv", "tensorboard", "wandb", "mlflow", "trackio")


GROUPS = {
    "data": "data", "task": "of single tasks", "model": "model and method", "training": "training",
    "technique": "regularization and other techniques", "run": "run",
}  # fmt: skip


@dataclass(kw_only=True)
class Settings:
    """All options of `bpnn finetune`, with their defaults; None: chosen by what the others say."""

    task: str = option("classify", "what the model learns to do", "data", choices=TASKS)
    data: str | None = option(
        None, "a table (.csv, .tsv, .jsonl, .parquet …), a folder of such parts or of images, an fsspec URL",
        "data", metavar="FILE|FOLDER",
    )
    train: str | None = option(None, "the training part, where the parts are separate files", "data", metavar="FILE")
    validation: str | None = option(None, "the validation part: chooses the best epoch", "data", metavar="FILE")
    test: str | None = option(None, "the test part: looked at once, at the end", "data", metavar="FILE")
    validation_share: float = option(
        0.1, "held out of the training part where there is no validation part", "data", float, low=0, high=0.9, metavar="SHARE",
    )
    test_share: float = option(0.1, "likewise for a test part", "data", float, low=0, high=0.9, metavar="SHARE")
    text: str | None = option(None, "column of the text (default: found by its name)", "data", metavar="COLUMN")
    text_pair: str | None = option(None, "column of a second text", "data", metavar="COLUMN")
    label: str | None = option(None, "column of the label", "data", metavar="COLUMN")
    labels: list[str] | None = option(
        None, "the labels there are; another one in the data is an error (default: those of the training part)",
        "data", many=True, metavar="A,B,…",
    )
    max_length: int | None = option(
        None, "tokens of a text that are read (default: what model and data ask for)", "data", int, low=2, metavar="TOKENS",
    )
    stride: int | None = option(
        None, "of qa: tokens that two windows of a long text share (default 128)", "task", int, low=0, metavar="TOKENS",
    )
    max_answer_length: int | None = option(
        None, "of qa: tokens of the longest answer (default 30, or as in the training part)", "task", int, low=1, metavar="TOKENS",
    )
    no_answer_threshold: float | None = option(
        None, "of qa: how much more probable an answer must be than none (default 0)", "task", float, metavar="SCORE",
    )
    standardize: bool | None = option(
        None, "of regress: learn labels as deviations from their mean (default: where they are far from 0 … 1)", "task", bool,
    )
    loss: str | None = option(
        None, "of embed (default: cosine for pairs with scores, else multiple_negatives)",
        "task", choices=("cosine", "multiple_negatives", "triplet"),
    )
    completion_only: bool | None = option(
        None, "of lm: learn completions and what the assistant says, not the prompts (default: yes)", "task", bool,
    )
    mask_probability: float | None = option(
        None, "of lm with an encoder such as BERT: share of the tokens that are hidden (default 0.15)",
        "task", float, low=0, high=0.9, above=True, metavar="P",
    )
    max_new_tokens: int | None = option(
        None, "of lm: tokens that a prediction has at most (default 64)", "task", int, low=1, metavar="N",
    )

    model: str | None = option(None, "a model folder, a name of the hub, or a .gguf file", "model", metavar="MODEL")
    method: str = option("full", "what is trained", "model", choices=METHODS)
    base: str = option("float32", "how frozen weights are stored", "model", choices=("float32", "bfloat16", "int8"))
    pooling: str | None = option(
        None, "how tokens become one vector, of tasks that need one (default: as the model says)",
        "model", choices=("cls", "mean", "max"),
    )
    rank: int = option(8, "of lora and dora", "model", int, low=1, metavar="R")
    alpha: float = option(16.0, "of lora and dora: the adapters count alpha / rank", "model", float, low=0, above=True)
    lora_dropout: float = option(
        0.0, "of lora and dora: dropout before the adapters", "model", float, low=0, high=0.99, metavar="P",
    )
    rslora: bool = option(False, "of lora and dora: count alpha / √rank instead", "model", bool)
    targets: list[str] | None = option(
        None, "of lora, dora and ia3: names of the linear maps that get one; all-linear: every one (default: by architecture)",
        "model", many=True, metavar="NAME,…",
    )
    virtual_tokens: int = option(20, "of prompt and prefix: how many", "model", int, low=1, metavar="N")
    merge: bool = option(
        False, "of lora, dora and ia3: leave a whole model, adapters merged in, instead of adapter files", "model", bool,
    )
    freeze: list[str] | None = option(
        None, "of frozen: names of parameters that are not trained, with * and ?", "model", many=True, metavar="PATTERN,…",
    )
    freeze_layers: int | None = option(
        None, "of frozen: so many layers from the input are not trained, nor the embeddings", "model", int, low=0, metavar="K",
    )
    layers_per_epoch: float = option(
        1.0, "of gradual: layers that are trained besides after each epoch", "model", float, low=0, above=True, metavar="LAYERS",
    )

    epochs: int = option(3, "passes over the training part", "training", int, low=1)
    batch_size: int = option(32, "examples a batch", "training", int, low=1, metavar="N")
    accumulate: int = option(1, "batches a step of the optimizer", "training", int, low=1, metavar="N")
    lr: float | None = option(None, f"learning rate, the peak of the schedule ({_RATES})", "training", float, low=0, above=True)
    layer_decay: float | None = option(
        None, "each layer learns so much slower than the one above it, such as 0.9; 1/2.6 is ULMFiT's",
        "training", float, low=0, high=1, above=True, metavar="FACTOR",
    )
    schedule: str = option(
        "linear", "how the learning rate falls after the warm-up",
        "training", choices=("linear", "cosine", "exponential", "constant"),
    )
    warmup: float = option(
        0.1, "steps over which the rate rises first; below 1: a share of all", "training", float, low=0, metavar="STEPS",
    )
    weight_decay: float = option(0.01, "of AdamW, for matrices", "training", float, low=0)
    clip_norm: float = option(1.0, "largest norm of the gradient; 0: any", "training", float, low=0)
    patience: int | None = option(
        None, "stop after so many epochs without a better validation score", "training", int, low=1, metavar="EPOCHS",
    )
    gradient_checkpointing: bool = option(
        False, "compute activations twice instead of storing them: less memory, a third more time", "training", bool,
    )
    seed: int = option(
        0, "of the split, the head, the order and dropout: the same seed, the same bits", "training", int, low=0, high=2**63 - 1,
    )
    threads: int | None = option(None, "default: all processors", "training", int, low=1, high=1024)

    dropout: float | None = option(
        None, "of hidden states and attention (default: the model's own)", "technique", float, low=0, high=0.99, metavar="P",
    )
    label_smoothing: float = option(
        0.0, "share of each label's probability given to all others", "technique", float, low=0, high=0.99, metavar="SHARE",
    )
    adversarial: str | None = option(
        None, "also train on inputs moved so that the loss grows", "technique", choices=("fgm", "pgd", "freelb"),
    )
    adversarial_epsilon: float | None = option(
        None, "how far they are moved (default: the technique's)", "technique", float, low=0, above=True, metavar="E",
    )
    r_drop: float | None = option(
        None, "two passes with different dropout must agree; how much that counts, such as 1",
        "technique", float, low=0, above=True, metavar="ALPHA",
    )
    ema: float | None = option(
        None, "use the exponential moving average of the weights, such as 0.999",
        "technique", float, low=0, high=0.999999, above=True, metavar="DECAY",
    )
    swa: float | None = option(
        None, "use the mean of the weights from this share of the epochs on, such as 0.5",
        "technique", float, low=0, high=0.999, metavar="SHARE",
    )
    stochastic_depth: float | None = option(
        None, "probability that the last layer is left out in training; earlier ones less",
        "technique", float, low=0, high=0.99, above=True, metavar="P",
    )
    mixup: float | None = option(
        None, "images: mix pairs, Beta(ALPHA, ALPHA)", "technique", float, low=0, above=True, metavar="ALPHA",
    )
    cutmix: float | None = option(
        None, "images: paste a piece of another, Beta(ALPHA, ALPHA)", "technique", float, low=0, above=True, metavar="ALPHA",
    )
    augment: bool = option(
        False, "change the training examples a little, anew each time: words swapped and left out, images cropped and mirrored",
        "technique", bool,
    )
    teacher: str | None = option(
        None, "learn from this model's scores too (distillation); a model or a run of the same task and labels",
        "technique", metavar="MODEL",
    )
    temperature: float = option(2.0, "of distillation: softens the teacher's scores", "technique", float, low=0, above=True)
    distill_weight: float = option(
        0.5, "of distillation: share of the loss that the teacher has", "technique", float, low=0, high=1, metavar="SHARE",
    )

    out: str | None = option(None, "the run folder, new or empty (default: the next free runs/TASK, …)", "run", metavar="DIR")
    checkpoint_every: int | None = option(
        None, "write a checkpoint every so many steps, besides each epoch's", "run", int, low=1, metavar="STEPS",
    )
    log: list[str] | None = option(
        None, "also log to: " + ", ".join(LOGS) + " (csv is always written)", "run", many=True, choices=LOGS, metavar="NAME,…",
    )
    folds: int | None = option(
        None, "cross-validation: train so many times, each with another part held out; leaves scores, no model",
        "run", int, low=2, metavar="K",
    )
    trials: int | None = option(
        None, "search for good settings with Optuna, so many short runs; then train with the best", "run", int, low=1, metavar="N",
    )
    search: str | None = option(
        None, "YAML file of what to search: a key and its choices or low and high (default: lr, batch_size, weight_decay)",
        "run", metavar="FILE",
    )
    force: bool = option(False, "begin even where the memory will not do", "run", bool)

    # --- from outside --------------------------------------------------------------------------------------------------------

    @classmethod
    def build(cls, given: Mapping[str, Any], flags: Mapping[str, Any] | None = None, source: str = "settings") -> Settings:
        """Settings of a file's keys (`source` names it in errors), with `flags` on top. Raises `SettingsError`."""
        values = {name: check(FIELDS[name], value, source) for name, value in known(FIELDS, given, source).items()}
        values |= {name: check(FIELDS[name], value) for name, value in known(FIELDS, flags or {}, "options").items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON and for `build`."""
        return asdict(self)

    def learning_rate(self, parameters: int) -> float:
        """The rate asked for, or the one that suits the method, the task and a model of so many parameters."""
        if self.lr is not None:
            return self.lr
        if self.method in ("lora", "dora") and parameters >= BILLION:
            return 2e-4
        if self.method in ("lora", "dora") and self.task == "lm":
            return 2e-3
        if self.method in ("full", "frozen", "gradual") and parameters >= LARGE:
            return 2e-5
        return LEARNING_RATES[self.method]


FIELDS: dict[str, Field[Any]] = {item.name: item for item in fields(Settings)}
