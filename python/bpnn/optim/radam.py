"""RAdam."""
from bpnn.optim.optimizer import Optimizer, fractions, not_negative, number, options


class RAdam(Optimizer):
    """Adam that waits with adaptive steps until their variance is known.

    At step t, with m and v as in `Adam`, R = 2 / (1 - beta2) - 1 and r = R - 2 t beta2^t / (1 - beta2^t)::

        r > 5: p -= lr * c * (m / (1 - beta1^t)) * sqrt(1 - beta2^t) / (sqrt(v) + eps),
               c = sqrt((r - 4) (r - 2) R / ((R - 4) (R - 2) r))
        else:  p -= lr * m / (1 - beta1^t)

    State: `step`, `exp_avg` (m), `exp_avg_sq` (v). Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (2019).

    Args:
        params: see `Optimizer`.
        lr: learning rate, 0 or more.
        betas: decay rates of the two means, each in [0, 1).
        eps: added to the denominator.
        weight_decay: L2 penalty, or with `decoupled_weight_decay` as in `AdamW`.
        maximize: go up the gradient, not down.
        foreach: accepted and without effect: there is one implementation, and it is fused.
        capturable, differentiable: only False.
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, decoupled_weight_decay=False, *, foreach=None,
        maximize=False, capturable=False, differentiable=False,
    ):
        lr = number("lr", lr)
        not_negative(lr=lr, epsilon=eps, weight_decay=weight_decay)
        super().__init__(
            params,
            options(
                lr=lr, betas=fractions(betas), eps=eps, weight_decay=weight_decay, maximize=maximize,
                decoupled_weight_decay=decoupled_weight_decay, foreach=foreach, capturable=capturable,
                differentiable=differentiable,
            ),
        )

    def _add(self, step, group):
        beta1, beta2 = group["betas"]
        step.radam(
            group["params"], None, self.state, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"], maximize=group["maximize"],
        )
