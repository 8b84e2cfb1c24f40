"""Adam for tables of which a step uses a few rows."""
from bpnn.optim.optimizer import Optimizer, fractions, number


class SparseAdam(Optimizer):
    """Adam that updates the rows of a sparse gradient and nothing else.

    At step t, for the rows of p that the gradient g has::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)

    Other rows, and their means, stay as they are: they do not decay. t counts the steps of the whole table. State: `step`,
    `exp_avg` (m), `exp_avg_sq` (v), of the size of the table. As in PyTorch eps is added before the bias of v is taken out.

    Args:
        params: see `Optimizer`; their gradients must be sparse (`nn.Embedding(..., sparse=True)`).
        lr: learning rate, above 0.
        betas: decay rates of the two means, each in [0, 1).
        eps: added to the denominator, above 0.
        maximize: go up the gradient, not down.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, maximize=False):
        lr = number("lr", lr)
        if not lr > 0:
            raise ValueError(f"Invalid learning rate: {lr}, expected a number above 0")
        if not eps > 0:
            raise ValueError(f"Invalid epsilon value: {eps}, expected a number above 0")
        super().__init__(params, {"lr": lr, "betas": fractions(betas), "eps": eps, "maximize": maximize})

    def _add(self, step, group):
        beta1, beta2 = group["betas"]
        step.sparse_adam(
            group["params"], None, self.state, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            maximize=group["maximize"],
        )
