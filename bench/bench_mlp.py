"""Training steps of small classifiers: forward, cross entropy, backward, optimizer."""
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from harness import THREADS, Absent, Job

RATE = {"adam": 1e-3, "sgd": 0.05}
MNIST = (784, 500, 10)
IRIS = (4, 16, 3)


def problem(sizes, batch, batches=8, seed=0):
    """Initial weights of a perceptron, uniform within ±1/√fan_in, and batches of random inputs and labels."""
    rng = np.random.default_rng(seed)
    arrays = {
        "x": rng.random((batches, batch, sizes[0]), np.float32),
        "y": rng.integers(0, sizes[-1], (batches, batch)),
    }
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        bound = fan_in**-0.5
        arrays[f"w{layer}"] = rng.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32)
        arrays[f"b{layer}"] = rng.uniform(-bound, bound, fan_out).astype(np.float32)
    return arrays


def cycle(x, y):
    """A function that returns the batches in turn, without end."""
    state = {"next": 0}

    def batch():
        index = state["next"]
        state["next"] = (index + 1) % len(x)
        return x[index], y[index]

    return batch


def load(linears, inputs, from_numpy):
    """Copies the initial weights into the layers; the caller is in no_grad."""
    for layer, linear in enumerate(linears):
        linear.weight.copy_(from_numpy(inputs[f"w{layer}"]))
        linear.bias.copy_(from_numpy(inputs[f"b{layer}"]))


def bpnn_job(inputs, optimizer):
    import bpnn
    from bpnn import nn, optim
    from bpnn.nn import functional as F

    (hidden, width), (classes, _) = inputs["w0"].shape, inputs["w1"].shape
    model = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))
    with bpnn.no_grad():
        load((model[0], model[2]), inputs, bpnn.from_numpy)
    if optimizer == "adam":
        update = optim.Adam(model.parameters(), lr=RATE["adam"])
    else:
        update = optim.SGD(model.parameters(), lr=RATE["sgd"], momentum=0.9)
    batch = cycle(*([bpnn.from_numpy(one) for one in inputs[key]] for key in ("x", "y")))

    def step():
        x, y = batch()
        update.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        update.step()
        return loss

    return Job(step, result=lambda loss: {"loss": loss.item()})


def torch_job(inputs, optimizer, compiled=False):
    import torch
    from torch import nn, optim
    from torch.nn import functional as F

    torch.set_num_threads(THREADS)
    (hidden, width), (classes, _) = inputs["w0"].shape, inputs["w1"].shape
    model = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))
    with torch.no_grad():
        load((model[0], model[2]), inputs, torch.from_numpy)
    if optimizer == "adam":
        update = optim.Adam(model.parameters(), lr=RATE["adam"], fused=True)
    else:
        update = optim.SGD(model.parameters(), lr=RATE["sgd"], momentum=0.9, fused=True)
    batch = cycle(*([torch.from_numpy(one) for one in inputs[key]] for key in ("x", "y")))

    def compute_loss(x, y):
        return F.cross_entropy(model(x), y)

    if compiled:
        compute_loss = torch.compile(compute_loss)
        try:
            compute_loss(*batch()).backward()
        except Exception as error:
            raise Absent(f"torch.compile does not work here: {error}") from error
        batch = cycle(*([torch.from_numpy(one) for one in inputs[key]] for key in ("x", "y")))

    def step():
        x, y = batch()
        update.zero_grad(set_to_none=True)
        loss = compute_loss(x, y)
        loss.backward()
        update.step()
        return loss

    return Job(step, result=lambda loss: {"loss": loss.item()})


def jax_job(inputs, optimizer):
    import jax
    from jax import numpy as jnp

    if optimizer != "adam":
        raise Absent("JAX is raced with Adam only")

    def compute_loss(weights, x, y):
        hidden = jax.nn.relu(x @ weights["w0"].T + weights["b0"])
        scores = jax.nn.log_softmax(hidden @ weights["w1"].T + weights["b1"])
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def advance(weights, first, second, t, x, y):
        loss, grads = jax.value_and_grad(compute_loss)(weights, x, y)
        t = t + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
        rate = RATE["adam"] / (1 - 0.9**t)
        correction = jnp.sqrt(1 - 0.999**t)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) / correction + 1e-8), weights, first, second
        )
        return (weights, first, second, t), loss

    advance = jax.jit(advance, donate_argnums=(0, 1, 2, 3))
    weights = {key: jnp.asarray(inputs[key]) for key in ("w0", "b0", "w1", "b1")}
    zeros = lambda: jax.tree.map(jnp.zeros_like, weights)  # noqa: E731
    state = [weights, zeros(), zeros(), jnp.zeros(())]
    batch = cycle(list(jnp.asarray(inputs["x"])), list(jnp.asarray(inputs["y"].astype(np.int32))))

    def step():
        x, y = batch()
        state[:], loss = advance(*state, x, y)
        return loss

    return Job(step, result=lambda loss: {"loss": float(loss)}, wait=lambda loss: jax.block_until_ready(state))


def contenders(optimizer):
    jobs = {
        "bpnn": partial(bpnn_job, optimizer=optimizer),
        "PyTorch eager": partial(torch_job, optimizer=optimizer),
        "PyTorch compiled": partial(torch_job, optimizer=optimizer, compiled=True),
    }
    return jobs | ({"JAX": partial(jax_job, optimizer=optimizer)} if optimizer == "adam" else {})


@pytest.mark.parametrize(("optimizer", "title"), [("adam", "Adam"), ("sgd", "SGD with momentum")])
def test_mnist_mlp_step(race, optimizer, title):
    race(
        f"MLP 784-500-10, batch 64, {title}", contenders(optimizer), inputs=problem(MNIST, 64), bars={"PyTorch": 1.5}
    )


def test_iris_mlp_step(race):
    race(
        "MLP 4-16-3, batch 32, Adam",
        contenders("adam"),
        inputs=problem(IRIS, 32),
        bars={"PyTorch": 10},
        limit=50e-6,
    )
