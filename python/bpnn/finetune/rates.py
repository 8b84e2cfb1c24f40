"""Learning rates: by layer, and over the steps.

    optimizer = AdamW(layerwise_decay(model, 5e-5, decay=0.9))             # lower layers learn slower
    schedule = get_linear_schedule_with_warmup(optimizer, 100, 1000)
    Trainer(model, optimizer, scheduler=schedule, schedule_every="step")

Every schedule is a factor of each group's own rate, so rates by layer keep their ratios. Names, arguments and numbers of the
`get_…_schedule` functions are those of `transformers`; t counts steps from 0, W is `num_warmup_steps`, T `num_training_steps`.
In the warm-up, t < W, the factor is t / W.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from bpnn import nn
from bpnn.optim import Optimizer
from bpnn.optim.lr_scheduler import LambdaLR

from ._structure import LayerGroup, layer_groups

__all__ = [
    "LayerGroup", "discriminative", "get_constant_schedule", "get_constant_schedule_with_warmup", "get_cosine_schedule_with_warmup",
    "get_cosine_with_hard_restarts_schedule_with_warmup", "get_exponential_schedule_with_warmup", "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup", "get_polynomial_decay_schedule_with_warmup", "get_slanted_triangular_schedule",
    "layer_groups", "layerwise_decay",
]

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d,
         nn.InstanceNorm2d, nn.InstanceNorm3d)


# --- by layer ------------------------------------------------------------------------------------------------------------------


def discriminative(model: nn.Module, lr: float, factor: float = 2.6) -> list[dict[str, Any]]:
    """Parameter groups where each layer learns `factor` times slower than the one above it; the head learns with `lr`.

    lr of the g-th group from the top (the head is 0): `lr / factor^g`. Howard and Ruder 2018. Frozen parameters are left out.
    """
    _positive(lr=lr, factor=factor)
    return [
        {"params": [p for _, p in trained], "lr": lr / factor**depth, "name": name}
        for name, depth, trained in _from_the_top(model)
    ]


def layerwise_decay(model: nn.Module, lr: float, decay: float = 0.95, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    """Parameter groups where the rate falls by `decay` from layer to layer downward; biases and norms have no weight decay.

    lr of the g-th group from the top (the head is 0): `lr decay^g`; Clark et al. 2020 (ELECTRA). decay=1: one rate for all, with
    the usual choice of what is decayed. Frozen parameters are left out.
    """
    _positive(lr=lr, decay=decay)
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay: expected 0 or more, got {weight_decay}")
    plain = _never_decayed(model)
    groups: list[dict[str, Any]] = []
    for name, depth, trained in _from_the_top(model):
        rate = lr * decay**depth
        decayed = [p for _, p in trained if id(p) not in plain]
        rest = [p for _, p in trained if id(p) in plain]
        if decayed:
            groups.append({"params": decayed, "lr": rate, "weight_decay": weight_decay, "name": name})
        if rest:
            groups.append({"params": rest, "lr": rate, "weight_decay": 0.0, "name": f"{name}, biases and norms"})
    return groups


def _from_the_top(model: nn.Module) -> list[tuple[str, int, list[tuple[str, Any]]]]:
    """(name, groups above it, what is trained of it) of each group with something to train, from the bottom up."""
    groups = layer_groups(model)
    found = []
    for i, group in enumerate(groups):
        trained = [(name, parameter) for name, parameter in group.parameters if parameter.requires_grad]
        if trained:
            found.append((group.name, len(groups) - 1 - i, trained))
    if not found:
        raise ValueError(f"model: expected parameters to train, all of {type(model).__name__} are frozen")
    return found


def _never_decayed(model: nn.Module) -> set[int]:
    """Biases, and all that belongs to a norm."""
    found = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if "bias" in name or isinstance(module, NORMS):
                found.add(id(parameter))
    return found


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value}")


# --- over the steps ------------------------------------------------------------------------------------------------------------


def _schedule(optimizer: Optimizer, last_epoch: int, factor: Callable[..., float], warmup: int, **settings: Any) -> LambdaLR:
    """A `LambdaLR` of a warm-up and `factor(t, …)`. A partial has no state: what is saved of the schedule is numbers alone."""
    for name, value in {"num_warmup_steps": warmup, "num_training_steps": settings.get("T", 0)}.items():
        if not value >= 0:
            raise ValueError(f"{name}: expected 0 or more, got {value}")
    return LambdaLR(optimizer, partial(_warmed, factor, warmup, settings), last_epoch)


def _warmed(factor: Callable[..., float], W: int, settings: dict[str, Any], t: int) -> float:
    return t / max(1, W) if t < W else factor(t, W, **settings)


def _done(t: int, W: int, T: int) -> float:
    """The share of the steps behind the warm-up that are done."""
    return (t - W) / max(1, T - W)


def get_constant_schedule(optimizer: Optimizer, last_epoch: int = -1) -> LambdaLR:
    """1 all the time."""
    return _schedule(optimizer, last_epoch, _one, 0)


def get_constant_schedule_with_warmup(optimizer: Optimizer, num_warmup_steps: int, last_epoch: int = -1) -> LambdaLR:
    """1 behind the warm-up."""
    return _schedule(optimizer, last_epoch, _one, num_warmup_steps)


def _one(t: int, W: int) -> float:
    return 1.0


def get_linear_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """(T - t) / (T - W), 0 from T on."""
    return _schedule(optimizer, last_epoch, _linear, num_warmup_steps, T=num_training_steps)


def _linear(t: int, W: int, T: int) -> float:
    return max(0.0, (T - t) / max(1, T - W))


def get_cosine_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5, last_epoch: int = -1
) -> LambdaLR:
    """(1 + cos(2 pi `num_cycles` s)) / 2, s = (t - W) / (T - W): half a wave down to 0 by default."""
    return _schedule(optimizer, last_epoch, _cosine, num_warmup_steps, T=num_training_steps, cycles=num_cycles)


def _cosine(t: int, W: int, T: int, cycles: float) -> float:
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * _done(t, W, T))))


def get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1, last_epoch: int = -1
) -> LambdaLR:
    """(1 + cos(pi (`num_cycles` s mod 1))) / 2, s = (t - W) / (T - W): from 1 down to 0 in each cycle, 0 from T on."""
    return _schedule(optimizer, last_epoch, _restarts, num_warmup_steps, T=num_training_steps, cycles=num_cycles)


def _restarts(t: int, W: int, T: int, cycles: float) -> float:
    s = _done(t, W, T)
    return 0.0 if s >= 1 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * (cycles * s % 1.0))))


def get_polynomial_decay_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, lr_end: float = 1e-7, power: float = 1.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """((1 - s)^power (lr - lr_end) + lr_end) / lr, s = (t - W) / (T - W); lr_end / lr from T on. lr is the optimizer's default.

    Raises `ValueError` unless `lr_end` is below it.
    """
    lr = float(optimizer.defaults["lr"])
    if not lr > lr_end:
        raise ValueError(f"lr_end: expected less than the optimizer's lr, {lr}, got {lr_end}")
    return _schedule(
        optimizer, last_epoch, _polynomial, num_warmup_steps, T=num_training_steps, lr=lr, end=lr_end, power=power,
    )


def _polynomial(t: int, W: int, T: int, lr: float, end: float, power: float) -> float:
    left = 0.0 if t > T else 1 - _done(t, W, T)
    return ((lr - end) * left**power + end) / lr


def get_inverse_sqrt_schedule(
    optimizer: Optimizer, num_warmup_steps: int, timescale: int | None = None, last_epoch: int = -1
) -> LambdaLR:
    """1 / sqrt((t - W + timescale) / timescale); timescale: W by default, 10000 without a warm-up."""
    scale = timescale or num_warmup_steps or 10_000
    return _schedule(optimizer, last_epoch, _inverse_sqrt, num_warmup_steps, scale=scale)


def _inverse_sqrt(t: int, W: int, scale: int) -> float:
    return 1.0 / math.sqrt((t + scale - W) / scale)


def get_exponential_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, ratio: float = 0.01, last_epoch: int = -1
) -> LambdaLR:
    """ratio^s, s = (t - W) / (T - W): the rate falls by the same factor at every step, to `ratio` of its peak at T. bpnn's own."""
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: expected a number in (0, 1], got {ratio}")
    return _schedule(optimizer, last_epoch, _exponential, num_warmup_steps, T=num_training_steps, ratio=ratio)


def _exponential(t: int, W: int, T: int, ratio: float) -> float:
    return float(ratio ** min(1.0, _done(t, W, T)))


def get_slanted_triangular_schedule(
    optimizer: Optimizer, num_training_steps: int, cut_frac: float = 0.1, ratio: float = 32.0, last_epoch: int = -1
) -> LambdaLR:
    """(1 + p (ratio - 1)) / ratio: up on a line over the first `cut_frac` of the steps, then down to 1 / ratio.

    cut = floor(T cut_frac); p = t / cut before it, then 1 - (t - cut) / (cut (1 / cut_frac - 1)).
    Howard and Ruder 2018, equation 3. Raises `ValueError` where `cut_frac` is not in (0, 1).
    """
    if not 0 < cut_frac < 1:
        raise ValueError(f"cut_frac: expected a number between 0 and 1, got {cut_frac}")
    _positive(ratio=ratio)
    return _schedule(optimizer, last_epoch, _slanted, 0, T=num_training_steps, share=cut_frac, ratio=ratio)


def _slanted(t: int, W: int, T: int, share: float, ratio: float) -> float:
    cut = max(1, int(T * share))
    p = t / cut if t < cut else max(0.0, 1 - (t - cut) / (cut * (1 / share - 1)))
    return (1 + p * (ratio - 1)) / ratio
