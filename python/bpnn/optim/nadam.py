"""NAdam."""
from bpnn.optim.optimizer import Optimizer, fractions, not_negative, number, options


class NAdam(Optimizer):
    """Adam with Nesterov momentum.

    At step t, with m and v as in `Adam`, mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2) and P_t the product of mu_1 to
    mu_t::

        p -= lr * ((1 - mu_t) / (1 - P_t) * g + mu_(t+1) / (1 - P_(t+1)) * m) / (sqrt(v / (1 - beta2^t)) + eps)

    State: `step`, `mu_product` (P), `exp_avg` (m), `exp_avg_sq` (v). Dozat, "Incorporating Nesterov Momentum into Adam" (2016).

    Args:
        params: see `Optimizer`.
        lr: learning rate, 0 or more.
        betas: decay rates of the two means, each in [0, 1).
        eps: added to the denominator.
        weight_decay: L2 penalty, or with `decoupled_weight_decay` as in `AdamW`.
        momentum_decay: how fast mu grows.
        maximize: go up the gradient, not down.
        foreach: accepted and without effect: there is one implementation, and it is fused.
        capturable, differentiable: only False.
    """

    def __init__(
        self, params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, momentum_decay=4e-3,
        decoupled_weight_decay=False, *, foreach=None, maximize=False, capturable=False, differentiable=False,
    ):
        lr = number("lr", lr)
        not_negative(lr=lr, epsilon=eps, weight_decay=weight_decay, momentum_decay=momentum_decay)
        super().__init__(
            params,
            options(
                lr=lr, betas=fractions(betas), eps=eps, weight_decay=weight_decay,
                momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay,
                maximize=maximize, foreach=foreach, capturable=capturable, differentiable=differentiable,
            ),
        )

    def _add(self, step, group):
        beta1, beta2 = group["betas"]
        step.nadam(
            group["params"], None, self.state, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], momentum_decay=group["momentum_decay"],
            decoupled=group["decoupled_weight_decay"], maximize=group["maximize"],
        )
