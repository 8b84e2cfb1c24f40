"""From settings and data to a trainer that is ready to go: the same steps in a first run and in a resumed one."""
from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.data import DataError
from bpnn.optim import AdamW
from bpnn.train import Callback, CheckpointWriter, EarlyStopping, HistoryFile, Progress, StopOnInterrupt, Trainer

from .best_score import BestScore
from .estimate import Memory, TimeEstimate, available_memory, duration, estimate_memory, resident_memory, size
from .freeze import trainable_parameters
from .methods import prepare_model
from .reading import describe_data
from .run_folder import RunFolder, checksum_of_weights
from .settings import Settings, SettingsError
from .tasks import TASKS
from .techniques import check_loggers, loggers, technique_callbacks

__all__ = ["Prepared", "prepare"]

Say = Callable[[str], Any]


@dataclass
class Prepared:
    """Everything of a run before its first step."""

    settings: Settings
    task: Any
    examples: dict[str, list[Any]]
    data: dict[str, Any]  # what the config remembers of it
    base: dict[str, Any]
    model: Any
    datasets: dict[str, Any]
    loader: Any
    validation: Any
    lr: float
    steps: int
    memory: Memory
    techniques: list[Any] = dataclasses.field(default_factory=list)

    @property
    def eval_batch(self) -> int:
        return 2 * self.settings.batch_size


def prepare(settings: Settings, parts: Any) -> Prepared:
    """Examples checked, model loaded, method applied, batches made, memory estimated; nothing is written.

    Raises `DataError`, `SettingsError`; `ValueError`, `RuntimeError` of a model that cannot be read.
    """
    if settings.model is None:
        raise SettingsError("model: expected a model folder, a name of the hub or a .gguf file, got none")
    if settings.threads is not None:
        bpnn.set_num_threads(settings.threads)
    bpnn.manual_seed(settings.seed)
    check_loggers(settings)
    task = TASKS[settings.task](settings)
    examples = task.read(parts)
    data = describe_data(settings, examples)
    refuse_large_base(settings)
    model = task.load_model(settings.model)
    where = os.path.abspath(settings.model) if os.path.exists(settings.model) else settings.model
    base: dict[str, Any] = {"path": where, "kind": type(model).__name__, "parameters": trainable_parameters(model)[1],
            "crc32": checksum_of_weights(model)}  # fmt: skip
    model = prepare_model(model, settings)
    datasets = {part: task.dataset(some, train=part == "train") for part, some in examples.items()}
    loader = task.loader(datasets["train"], settings.batch_size, shuffle=True)
    validation = task.loader(datasets["validation"], 2 * settings.batch_size) if examples.get("validation") else None
    if settings.patience is not None and validation is None:
        raise DataError(f"{data['source']}: no validation part for patience; give validation or validation_share")
    steps = math.ceil(len(loader) / settings.accumulate) * settings.epochs
    lr = settings.learning_rate(base["parameters"])
    memory = memory_of(settings, model, task, datasets, loader)
    warmup_steps(settings, steps)
    bpnn.empty_cache()  # what reading and tokenizing took
    ready = Prepared(settings, task, examples, data, base, model, datasets, loader, validation, lr, steps, memory)
    ready.techniques = technique_callbacks(ready)
    return ready


def numbers_in(path: str) -> int:
    """How many numbers the weights of a model's files have, without reading them."""
    from bpnn.pretrained import open_pretrained

    return sum(math.prod(entry.shape) for entry in open_pretrained(path).weights.entries.values())


def refuse_large_base(settings: Settings) -> None:
    """`SettingsError` where the weights alone will not fit, before they are read."""
    from .tasks._convolutional import is_convolutional

    have = available_memory()
    if settings.force or have is None or (settings.task == "image" and is_convolutional(str(settings.model))):
        return
    numbers = numbers_in(str(settings.model))
    # Language models are read into few bits at once, others as float32 first.
    need = numbers * {"float32": 4.0, "bfloat16": 2.0, "int8": 1.125}[settings.base if settings.task == "lm" else "float32"]
    if need > have:
        raise SettingsError(
            f"{settings.model}: its {numbers:,} weights need {size(need)}, {size(have)} are free; "
            "choose a smaller model, for lm a base of int8, or --force"
        )


def memory_of(settings: Settings, model: Any, task: Any, datasets: Mapping[str, Any], loader: Any) -> Memory:
    """The estimate for the largest batch of training or validation."""
    size_of = settings.batch_size
    tokens = _largest(datasets["train"].lengths, size_of)
    examples = sum(int(np.sum(dataset.lengths)) for dataset in datasets.values())
    sample = None
    if task.name == "image" and len(datasets["train"]):
        sample = task.collate([datasets["train"][0]])
    extra = 0
    if settings.teacher is not None:
        extra = 4 * numbers_in(_weights_of(settings.teacher))
    scored = scoring_bytes(len(task.tokenizer), examples) if settings.task == "lm" and not getattr(task, "masked", False) else 0
    copies = 1 + bool(len(datasets.get("validation", ()))) + (settings.ema is not None) + (settings.swa is not None)
    return estimate_memory(
        model, tokens, copies=copies, data=48 * examples, passes=2.0 if settings.r_drop else 1.0, sample=sample, samples=size_of,
        extra=extra, to_inputs=settings.adversarial is not None, scoring=scored,
    )


def scoring_bytes(vocabulary: int, tokens: int) -> int:
    """Bytes that scoring a language model takes: logits of several texts and their logarithms, see `ModelLanguage`."""
    from .tasks.lm import LOGITS

    return 2 * 4 * min(LOGITS, tokens * vocabulary)


def _weights_of(folder: str) -> str:
    """The folder of the weights, of a model or of a run; of a run that left an adapter, of its base."""
    if Path(folder, "model", "config.json").is_file():
        return str(Path(folder, "model"))
    if Path(folder, "model").is_dir() and Path(folder, "config.json").is_file():
        return str(RunFolder.open(folder).config["base"]["path"])
    return folder


def _largest(lengths: Any, batch: int) -> int:
    """The tokens of the batch of the longest examples."""
    return int(np.sort(np.asarray(lengths))[-batch:].sum()) if len(lengths) else 0


def make_trainer(ready: Prepared, folder: RunFolder | None, say: Say | None, more: Sequence[Any] = ()) -> Trainer:
    """The trainer of a prepared run; what it writes goes to `folder`, what it says to `say` (None: nothing)."""
    s = ready.settings
    column, mode = ready.task.monitor
    callbacks: list[Any] = [StopOnInterrupt()]
    optimizer = make_optimizer(ready)
    callbacks += ready.techniques
    if folder is not None:
        callbacks += [HistoryFile(folder.path / "history.csv"), *loggers(s, folder.path, folder.config["options"])]
    if ready.validation is not None:
        callbacks.append(BestScore(column, mode))
        if s.patience:
            callbacks.append(EarlyStopping(column, s.patience, mode))
    callbacks += more
    # As many callbacks whether they speak or not: a run may be resumed by somebody who wants to hear nothing.
    callbacks += [Callback() if say is None else Progress(), TimeEstimate(print=say)]
    if folder is not None:
        callbacks.append(CheckpointWriter(folder.checkpoints, s.checkpoint_every))
    return Trainer(
        ready.model, optimizer, None, metrics=ready.task.metrics(), scheduler=make_schedule(s, optimizer, ready.steps),
        schedule_every="step", callbacks=callbacks, accumulate=s.accumulate, clip_norm=s.clip_norm or None,
        log_every=max(1, ready.steps // s.epochs // 20), save_frozen=False,
    )


def make_optimizer(ready: Prepared) -> AdamW:
    """AdamW over what is trained: biases and norms without decay, lower layers slower where `layer_decay` says so."""
    from .rates import layerwise_decay

    s = ready.settings
    return AdamW(layerwise_decay(ready.model, ready.lr, s.layer_decay or 1.0, s.weight_decay), ready.lr)


def make_schedule(settings: Settings, optimizer: Any, steps: int) -> Any:
    """The schedule by name."""
    from . import rates

    warmup = warmup_steps(settings, steps)
    if settings.schedule == "constant":
        return rates.get_constant_schedule_with_warmup(optimizer, warmup)
    if settings.schedule == "cosine":
        return rates.get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    if settings.schedule == "exponential":
        return rates.get_exponential_schedule_with_warmup(optimizer, warmup, steps)
    return rates.get_linear_schedule_with_warmup(optimizer, warmup, steps)


def warmup_steps(settings: Settings, steps: int) -> int:
    """Steps of the warm-up, below 1 a share of all `steps`. Raises `SettingsError` where they are all."""
    warmup = round(settings.warmup * steps) if settings.warmup < 1 else int(settings.warmup)
    if warmup and warmup >= steps:
        raise SettingsError(f"warmup: expected fewer than the {steps} steps of the run, got {warmup}")
    return warmup


# --- what is said before the first step ------------------------------------------------------------------------------------


def tell(ready: Prepared, say: Say) -> None:
    """Data, model, what is trained, threads and memory, a line each."""
    s, data = ready.settings, ready.data
    trained, total = trainable_parameters(ready.model)
    cut = sum(getattr(dataset, "cut", 0) for dataset in ready.datasets.values())
    parts = ", ".join(f"{data[part]:,} {part}" for part in ("train", "validation", "test") if data[part])
    labels = getattr(ready.task, "labels", None)
    say(f"data   {data['name']}: {parts} {ready.task.samples}" + (f"; labels {_short(labels)}" if labels else ""))
    if cut:
        how = "read in windows" if s.task == "qa" else "cut"
        say(f"       {cut:,} of them are longer than {ready.task.max_length} tokens and {how} (max_length)")
    say(f"model  {ready.base['kind']} from {ready.base['path']}")
    extra = f", base as {s.base}" if s.base != "float32" else ""
    say(f"train  {s.method}{extra}: {trained:,} of {total:,} parameters ({100 * trained / max(total, 1):.3g} %), "
        f"learning rate {ready.lr:g} ({s.schedule}), {s.epochs} epochs of {math.ceil(ready.steps / s.epochs)} steps, "
        f"batches of {s.batch_size}{f' × {s.accumulate}' if s.accumulate > 1 else ''}, seed {s.seed}, "
        f"threads {bpnn.get_num_threads()}")
    have = available_memory()
    say(f"memory {ready.memory}" + ("" if have is None else f"; {size(have + resident_memory())} available"))


def refuse_too_much(ready: Prepared) -> None:
    """`SettingsError` where the run will not fit into the memory that there is."""
    have = available_memory()
    if have is None or ready.settings.force:
        return
    have += resident_memory()  # what the estimate counts and this process holds already
    if ready.memory.total > have:
        raise SettingsError(
            f"this run needs {ready.memory}; {size(have)} are available: choose a smaller batch_size or max_length, "
            "gradient_checkpointing, lora with a base of int8, or --force"
        )


def _short(labels: Sequence[Any]) -> str:
    names = [str(label) for label in labels[:8]]
    return ", ".join(names) + (f", … ({len(labels)} in all)" if len(labels) > 8 else "")


__all__ += ["duration", "make_trainer", "refuse_too_much", "tell"]
