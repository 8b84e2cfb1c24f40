"""Adam and AdamW."""
from bpnn.optim.optimizer import Optimizer, fractions, not_negative, number, options


class Adam(Optimizer):
    """Adam: steps of the size of the learning rate, by running means of the gradient and of its square.

    At step t, for a parameter p with gradient g::

        g += weight_decay * p                         (decoupled: p *= 1 - lr * weight_decay instead)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2             (amsgrad: its largest value so far is used below)
        p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    State: `step`, `exp_avg` (m), `exp_avg_sq` (v), `max_exp_avg_sq`. Kingma and Ba, "Adam: A Method for Stochastic
    Optimization" (2014); Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond" (2018) for amsgrad.

    Args:
        params: see `Optimizer`.
        lr: learning rate, 0 or more.
        betas: decay rates of the two means, each in [0, 1).
        eps: added to the denominator.
        weight_decay: L2 penalty.
        amsgrad: never let a step grow because v shrank.
        maximize: go up the gradient, not down.
        decoupled_weight_decay: shrink the parameter itself, as AdamW does.
        foreach, fused: accepted and without effect: there is one implementation, and it is fused.
        capturable, differentiable: only False.
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, *, foreach=None, maximize=False,
        capturable=False, differentiable=False, fused=None, decoupled_weight_decay=False,
    ):
        lr = number("lr", lr)
        not_negative(lr=lr, epsilon=eps, weight_decay=weight_decay)
        super().__init__(
            params,
            options(
                lr=lr, betas=fractions(betas), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                maximize=maximize, foreach=foreach, capturable=capturable, differentiable=differentiable,
                fused=fused, decoupled_weight_decay=decoupled_weight_decay,
            ),
        )

    def _add(self, step, group):
        beta1, beta2 = group["betas"]
        step.adam(
            group["params"], None, self.state, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"], amsgrad=group["amsgrad"],
            maximize=group["maximize"],
        )


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters and does not enter the means: `p *= 1 - lr * weight_decay` first.

    State and arguments as in `Adam`, but `weight_decay` is 0.01 where not given. Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization" (2017).
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, maximize=False, foreach=None,
        capturable=False, differentiable=False, fused=None,
    ):
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )

    def load_state_dict(self, state_dict):
        """As for every optimizer; the decay stays decoupled where the state of an `Adam` is loaded."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
