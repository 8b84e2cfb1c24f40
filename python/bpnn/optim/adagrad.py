"""Adagrad."""
import numpy as np

from bpcore.tensor import from_array
from bpnn.optim.optimizer import Optimizer, not_negative, number, options


class Adagrad(Optimizer):
    """Adagrad: every element's rate falls with the sum of its squared gradients.

    At step t, for a parameter p with gradient g::

        g += weight_decay * p
        s += g^2
        p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    State: `step`, `sum` (s, from `initial_accumulator_value`). Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online
    Learning and Stochastic Optimization" (2011).

    Args:
        params: see `Optimizer`.
        lr: learning rate, 0 or more.
        lr_decay: how fast the rate falls with the number of steps.
        weight_decay: L2 penalty.
        initial_accumulator_value: what s starts from.
        eps: added to the denominator.
        maximize: go up the gradient, not down.
        foreach, fused: accepted and without effect: there is one implementation, and it is fused.
        differentiable: only False.
    """

    def __init__(
        self, params, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10, foreach=None, *,
        maximize=False, differentiable=False, fused=None,
    ):
        lr = number("lr", lr)
        not_negative(
            lr=lr, lr_decay=lr_decay, weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value, epsilon=eps,
        )
        super().__init__(
            params,
            options(
                lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value, maximize=maximize, foreach=foreach,
                differentiable=differentiable, fused=fused,
            ),
        )
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param] = {
                    "step": from_array(np.zeros((), np.float32)),
                    "sum": from_array(np.full(param.shape, group["initial_accumulator_value"], param.dtype)),
                }

    def _add(self, step, group):
        step.adagrad(
            group["params"], None, self.state, lr=group["lr"], lr_decay=group["lr_decay"],
            weight_decay=group["weight_decay"], initial_accumulator_value=group["initial_accumulator_value"],
            eps=group["eps"], maximize=group["maximize"],
        )
