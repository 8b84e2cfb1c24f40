from collections.abc import Iterable
from typing import Any

import numpy as np

from bpcore.sweep import Sweep
from bpcore.tensor import Tensor

Params = list[Any]
Grads = list[Tensor | np.ndarray | None] | None
State = dict[Any, Any]

def zero_grad(params: Iterable[Tensor], set_to_none: bool = True) -> None: ...

class Step(Sweep):
    def sgd(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False, maximize: bool = False,
    ) -> Step: ...
    def adagrad(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0, initial_accumulator_value: float = 0,
        eps: float = 1e-10, maximize: bool = False,
    ) -> Step: ...
    def rmsprop(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0, momentum: float = 0,
        centered: bool = False, maximize: bool = False,
    ) -> Step: ...
    def adadelta(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 1, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0, maximize: bool = False,
    ) -> Step: ...
    def adam(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0,
        decoupled: bool = False, amsgrad: bool = False, maximize: bool = False,
    ) -> Step: ...
    def sparse_adam(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, maximize: bool = False,
    ) -> Step: ...
    def nadam(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 2e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0,
        momentum_decay: float = 4e-3, decoupled: bool = False, maximize: bool = False,
    ) -> Step: ...
    def radam(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0,
        decoupled: bool = False, maximize: bool = False,
    ) -> Step: ...
    def adamax(
        self, params: Params, grads: Grads, state: State, *,
        lr: float = 2e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0,
        maximize: bool = False,
    ) -> Step: ...
