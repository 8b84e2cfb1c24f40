"""Stochastic gradient descent."""
from bpnn.optim.optimizer import Optimizer, not_negative, number, options


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum where asked for.

    For a parameter p with gradient g::

        g += weight_decay * p
        b = momentum * b + (1 - dampening) * g        (b = g at the first step)
        p -= lr * b                                   (nesterov: lr * (g + momentum * b); without momentum: lr * g)

    State: `momentum_buffer` (b). Sutskever et al., "On the importance of initialization and momentum in deep learning" (2013);
    here as in PyTorch the learning rate multiplies the whole step, not only the new gradient.

    Args:
        params: see `Optimizer`.
        lr: learning rate, 0 or more.
        momentum: 0 or more; 0 keeps no state.
        dampening: how much less than the whole gradient enters b.
        weight_decay: L2 penalty.
        nesterov: look ahead; needs momentum and no dampening.
        maximize: go up the gradient, not down.
        foreach, fused: accepted and without effect: there is one implementation, and it is fused.
        differentiable: only False.
    """

    def __init__(
        self, params, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, *, maximize=False, foreach=None,
        differentiable=False, fused=None,
    ):
        lr = number("lr", lr)
        not_negative(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            options(
                lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
                maximize=maximize, foreach=foreach, differentiable=differentiable, fused=fused,
            ),
        )

    def _add(self, step, group):
        step.sgd(
            group["params"], None, self.state, lr=group["lr"], momentum=group["momentum"], dampening=group["dampening"],
            weight_decay=group["weight_decay"], nesterov=group["nesterov"], maximize=group["maximize"],
        )
