"""Adadelta."""
from bpnn.optim.optimizer import Optimizer, not_negative, number, options


class Adadelta(Optimizer):
    """Adadelta: steps in the units of the parameter, by running means of squared gradients and of squared steps.

    For a parameter p with gradient g::

        g += weight_decay * p
        v = rho * v + (1 - rho) * g^2
        x = sqrt(u + eps) / sqrt(v + eps) * g
        u = rho * u + (1 - rho) * x^2
        p -= lr * x

    State: `step`, `square_avg` (v), `acc_delta` (u). Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (2012).

    Args:
        params: see `Optimizer`.
        lr: multiplies the step, 0 or more.
        rho: decay rate of the means, in [0, 1].
        eps: keeps the first steps from being zero.
        weight_decay: L2 penalty.
        maximize: go up the gradient, not down.
        foreach: accepted and without effect: there is one implementation, and it is fused.
        capturable, differentiable: only False.
    """

    def __init__(
        self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0, foreach=None, *, capturable=False, maximize=False,
        differentiable=False,
    ):
        lr = number("lr", lr)
        not_negative(lr=lr, epsilon=eps, weight_decay=weight_decay)
        if not 0 <= rho <= 1:
            raise ValueError(f"Invalid rho value: {rho}, expected a number in [0, 1]")
        super().__init__(
            params,
            options(
                lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize, foreach=foreach,
                capturable=capturable, differentiable=differentiable,
            ),
        )

    def _add(self, step, group):
        step.adadelta(
            group["params"], None, self.state, lr=group["lr"], rho=group["rho"], eps=group["eps"],
            weight_decay=group["weight_decay"], maximize=group["maximize"],
        )
