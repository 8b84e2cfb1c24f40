"""What a run will need: memory, by formula, and time, from its first steps; and how much memory there is.

    need = estimate_memory(model, tokens=32 * 64, optimizer_states=2)
    print(need)                                    # about 0.8 GiB: weights 87 MiB, gradients 87 MiB, …

Activations of a transformer, float32, of N real tokens in a batch, L layers of H numbers with I between their two wide maps:

    4 N L' (a H + b I) bytes,   a = 6.5, b = 1.2 for encoders;  8.5, 1.2 for decoders;  8.5, 2.2 with a gated wide layer

where L' counts the layers through which gradients flow: those from the lowest trained one on, at least one, as a layer's worth is
needed without gradients too. The factors count what a layer's nodes keep for backward (queries, keys, values, what attention and
both parts put out, the wide layer before its activation) and what backward itself holds; attention keeps nothing that grows with
T². With recomputed layers it is the input of each, and one layer. Of other networks, such as convolutions, each layer's output
counts twice: as it is, and its gradient.
"""
from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import bpnn
from bpcore.stored import StoredMatrix
from bpnn.train import Callback

from ._structure import layers_of

__all__ = ["Memory", "TimeEstimate", "available_memory", "estimate_memory", "resident_memory"]

MIB = 1 << 20
INTERPRETER = 64 * MIB  # Python, NumPy, the core, tokenizers
ENCODER, DECODER, GATED = (6.5, 1.2), (8.5, 1.2), (8.5, 2.2)
FACTORS: dict[str, tuple[float, float]] = {
    "bert": ENCODER, "distilbert": ENCODER, "roberta": ENCODER, "vit": DECODER, "gpt2": DECODER, "llama": GATED, "mistral": GATED,
    "qwen2": GATED,
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Bytes by what needs them."""

    interpreter: int
    data: int
    weights: int
    gradients: int
    optimizer: int
    copies: int  # of trained weights: the best epoch's, averages, a checkpoint being written
    activations: int
    scoring: int = 0  # logits of a language model that is scored

    @property
    def total(self) -> int:
        return sum(getattr(self, item.name) for item in fields(self))

    def __str__(self) -> str:
        parts = [f"{item.name} {size(getattr(self, item.name))}" for item in fields(self) if getattr(self, item.name) >= MIB // 2]
        return f"about {size(self.total)}: {', '.join(parts)}"


def size(count: float) -> str:
    """Bytes for a person: 87 MiB, 1.3 GiB."""
    return f"{count / MIB:.0f} MiB" if count < 1000 * MIB else f"{count / MIB / 1024:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds for a person: 40 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


# --- what is needed --------------------------------------------------------------------------------------------------------


def weight_bytes(model: Any) -> int:
    """Bytes of a model's parameters and buffers, each as it is stored, tied ones once."""
    seen: dict[int, int] = {}
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                seen[id(tensor)] = tensor.numel() * tensor.element_size()
        for value in vars(module).values():
            if isinstance(value, StoredMatrix):  # a frozen weight as bfloat16 or int8
                seen[id(value)] = value.nbytes
    return sum(seen.values())


def layers_with_gradients(model: Any) -> tuple[int, int]:
    """(layers through which gradients flow, all layers) of a transformer."""
    layers = [layer for _, layer in layers_of(model)]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    first = next((i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())), len(layers))
    if any(p.requires_grad and id(p) not in inside and _feeds(name) for name, p in model.named_parameters()):
        first = 0
    return len(layers) - first, len(layers)


def _feeds(name: str) -> bool:
    """Whether a parameter outside the layers comes before them: tables of tokens and positions, virtual tokens."""
    return any(mark in name for mark in ("embed", "wte", "wpe", "prompt", "prefix", "past_key", "cls_token"))


def sizes_of(model: Any) -> tuple[tuple[float, float], int, int] | None:
    """((a, b), H, I) of a transformer, from its configuration; None for anything else."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind not in FACTORS:
        return None
    width = _first(config, "hidden_size", "n_embd", "dim")
    wide = _first(config, "intermediate_size", "n_inner", "hidden_dim") or 4 * width
    return FACTORS[kind], width, wide


def _first(config: Any, *names: str) -> int:
    return next((int(value) for name in names if (value := getattr(config, name, None)) is not None), 0)


def activation_bytes(model: Any, tokens: int, sample: Any = None, samples: int = 1, to_inputs: bool = False) -> int:
    """Bytes of the activations of a batch of `tokens` real tokens, or `samples` such as `sample` for what is no transformer."""
    sizes = sizes_of(model)
    if sizes is None:
        return 2 * samples * _outputs(model, sample) if sample is not None else 0
    (a, b), width, wide = sizes
    with_gradients, layers = layers_with_gradients(model)
    with_gradients = layers if to_inputs else with_gradients
    one = 4 * tokens * (a * width + b * wide)
    if any(getattr(module, "recompute", False) for module in model.modules()) and with_gradients:
        return int(one + 4 * tokens * width * layers)
    return int(one * max(with_gradients, 1))


@bpnn.no_grad()
def _outputs(model: Any, sample: Any) -> int:
    """Bytes that the modules without children put out for one sample."""
    total = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * output.element_size() if isinstance(output, bpnn.Tensor) else 0

    training = model.training
    handles = [m.register_forward_hook(count) for m in model.modules() if not any(True for _ in m.children())]
    try:
        model.eval()(**sample)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return total


def estimate_memory(
    model: Any, tokens: int, *, copies: int = 2, optimizer_states: int = 2, data: int = 0, passes: float = 1.0, sample: Any = None,
    samples: int = 1, extra: int = 0, to_inputs: bool = False,
    scoring: int = 0,
) -> Memory:
    """The memory that training `model` will need.

    tokens: real tokens of the largest batch (of images: pieces, one more for each image). copies: of the trained weights besides
    themselves. optimizer_states: numbers the optimizer keeps for each trained one, 2 for Adam. data: bytes of the examples.
    passes: batches whose activations are held at once (R-Drop: 2). extra: bytes of other weights, such as a teacher's.
    sample, samples: see `activation_bytes`. to_inputs: gradients flow down to the inputs whatever is trained, as attacks want.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return Memory(
        INTERPRETER, data, weight_bytes(model) + extra, trained, optimizer_states * trained, copies * trained,
        int(passes * activation_bytes(model, tokens, sample, samples, to_inputs)), scoring,
    )


# --- what there is ---------------------------------------------------------------------------------------------------------


def available_memory(root: str = "/") -> int | None:
    """Bytes that this process can still get: the least of what the system has and what its control groups leave; None: unknown.

    root: where `proc` and `sys` are, for tests.
    """
    found = [value for value in (_meminfo(root), *_cgroups(root)) if value is not None]
    if found:
        return max(min(found), 0)
    return _other_system()


def _meminfo(root: str) -> int | None:
    try:
        for line in Path(root, "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroups(root: str) -> list[int | None]:
    """What each control group over this process leaves; pages of files that may be dropped count as free."""
    places: list[tuple[Path, str, str, str]] = []
    try:
        lines = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers == "":
            top, names = Path(root, "sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = Path(root, "sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        places += [(top.joinpath(*parts[:n]), *names) for n in range(len(parts) + 1)]
    return [_left(*place) for place in places]


def _left(folder: Path, limit: str, usage: str, droppable: str) -> int | None:
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
    except (OSError, ValueError):
        return None
    if not most.isdigit() or int(most) >= 1 << 60:  # "max", or version 1's word for it
        return None
    try:
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= int(stat.get(droppable, 0))
    except (OSError, ValueError):
        pass
    return int(most) - used


def _other_system() -> int | None:
    """Windows says what is free; of other systems, half of what is built in."""
    if sys.platform == "win32":
        import ctypes

        class Status(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
                (name, ctypes.c_ulonglong)
                for name in ("total", "free", "pages", "free_pages", "virtual", "free_virtual", "extended")
            ]

        status = Status()
        status.length = ctypes.sizeof(Status)
        return int(status.free) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return None


def resident_memory() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


# --- time ------------------------------------------------------------------------------------------------------------------


class TimeEstimate(Callback):
    """Says after a few steps how long the run will take; the steps are the run's own, so that nothing is done for it.

    print: what says it; None: nobody. The first step, in which buffers are made, is not counted. Evaluations are reckoned as a
    third of a step for each batch.
    """

    def __init__(self, steps: int = 5, print: Any = print) -> None:
        if steps < 2:
            raise ValueError(f"steps: expected at least 2, got {steps}")
        self.steps, self.print = steps, print
        self._begun: float | None = None
        self._first = 0

    def on_fit_start(self, trainer: Any) -> None:
        self._begun = None

    def on_step_end(self, trainer: Any) -> None:
        step = trainer.state.step
        if self._begun is None:
            self._begun, self._first = time.perf_counter(), step
        elif step == self._first + self.steps - 1:
            each = (time.perf_counter() - self._begun) / (self.steps - 1)
            try:
                batches, checked = len(trainer.loader), len(trainer.validation) if trainer.validation is not None else 0
            except TypeError:
                return
            per_epoch = -(-batches // trainer.accumulate)
            left = max(trainer.state.epochs * per_epoch - step, 0)
            evaluations = (trainer.state.epochs - trainer.state.epoch) * checked * each / trainer.accumulate / 3
            if self.print is not None:
                self.print(f"time   about {duration(each * left + evaluations)} left, {1000 * each:.0f} ms a step")
