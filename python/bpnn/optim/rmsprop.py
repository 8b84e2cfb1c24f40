"""RMSprop."""
from bpnn.optim.optimizer import Optimizer, not_negative, number, options


class RMSprop(Optimizer):
    """RMSprop: the gradient divided by a running mean of its size.

    For a parameter p with gradient g::

        g += weight_decay * p
        v = alpha * v + (1 - alpha) * g^2
        centered: m = alpha * m + (1 - alpha) * g, and v - m^2 is used below in place of v
        r = g / (sqrt(v) + eps)
        momentum: b = momentum * b + r, and b is used below in place of r
        p -= lr * r

    State: `step`, `square_avg` (v), `grad_avg` (m), `momentum_buffer` (b). Tieleman and Hinton, lecture 6.5 of "Neural Networks
    for Machine Learning" (2012); Graves, "Generating Sequences With Recurrent Neural Networks" (2013) for the centered form.

    Args:
        params: see `Optimizer`.
        lr: learning rate, 0 or more.
        alpha: decay rate of the means.
        eps: added to the denominator.
        weight_decay: L2 penalty.
        momentum: 0 or more; 0 keeps no buffer.
        centered: divide by the standard deviation in place of the root of the mean square.
        maximize: go up the gradient, not down.
        foreach: accepted and without effect: there is one implementation, and it is fused.
        capturable, differentiable: only False.
    """

    def __init__(
        self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, capturable=False,
        foreach=None, maximize=False, differentiable=False,
    ):
        lr = number("lr", lr)
        not_negative(lr=lr, epsilon=eps, momentum=momentum, weight_decay=weight_decay, alpha=alpha)
        super().__init__(
            params,
            options(
                lr=lr, momentum=momentum, alpha=alpha, eps=eps, centered=centered, weight_decay=weight_decay,
                maximize=maximize, foreach=foreach, capturable=capturable, differentiable=differentiable,
            ),
        )

    def _add(self, step, group):
        step.rmsprop(
            group["params"], None, self.state, lr=group["lr"], alpha=group["alpha"], eps=group["eps"],
            weight_decay=group["weight_decay"], momentum=group["momentum"], centered=group["centered"],
            maximize=group["maximize"],
        )
