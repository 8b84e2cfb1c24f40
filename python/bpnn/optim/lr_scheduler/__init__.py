"""Schedules of the learning rate: what `group["lr"]` is after each `scheduler.step()`, in PyTorch's terms.

base.py: what all share · factors.py: the rate as a function of the step · cycles.py: warm restarts, one cycle ·
combined.py: schedules in a row or together · plateau.py: by a measured value
"""
from bpnn.optim.lr_scheduler.base import LRScheduler
from bpnn.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from bpnn.optim.lr_scheduler.cycles import CosineAnnealingWarmRestarts, OneCycleLR
from bpnn.optim.lr_scheduler.factors import (
    ConstantLR, CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR, MultiplicativeLR, MultiStepLR, PolynomialLR, StepLR,
)
from bpnn.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler",
    "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau",
    "SequentialLR", "StepLR",
]
