"""Adamax."""
from bpnn.optim.optimizer import Optimizer, fractions, not_negative, number, options


class Adamax(Optimizer):
    """Adam by the largest gradient in place of the mean square.

    At step t, for a parameter p with gradient g::

        g += weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        u = max(beta2 * u, |g| + eps)
        p -= lr / (1 - beta1^t) * m / u

    State: `step`, `exp_avg` (m), `exp_inf` (u). Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2014), section 7.1.

    Args:
        params: see `Optimizer`.
        lr: learning rate, 0 or more.
        betas: decay rates of m and u, each in [0, 1).
        eps: added to the size of the gradient.
        weight_decay: L2 penalty.
        maximize: go up the gradient, not down.
        foreach: accepted and without effect: there is one implementation, and it is fused.
        capturable, differentiable: only False.
    """

    def __init__(
        self, params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, foreach=None, *, maximize=False,
        differentiable=False, capturable=False,
    ):
        lr = number("lr", lr)
        not_negative(lr=lr, epsilon=eps, weight_decay=weight_decay)
        super().__init__(
            params,
            options(
                lr=lr, betas=fractions(betas), eps=eps, weight_decay=weight_decay, maximize=maximize,
                foreach=foreach, capturable=capturable, differentiable=differentiable,
            ),
        )

    def _add(self, step, group):
        beta1, beta2 = group["betas"]
        step.adamax(
            group["params"], None, self.state, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], maximize=group["maximize"],
        )
