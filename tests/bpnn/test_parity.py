"""The same initial weights and batches give PyTorch's loss trace: 784-500-10 over 200 steps, within 1e-4 relative."""
import bpnn
import numpy as np
import pytest
from bpnn.data import load_mnist

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = pytest.mark.rivals

STEPS, BATCH = 200, 64
OPTIMIZERS = {
    "sgd": lambda lib, parameters: lib.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda lib, parameters: lib.optim.Adam(parameters, lr=1e-3),
}


@pytest.fixture
def mnist(mnist_dir):
    digits, rows = load_mnist(mnist_dir), STEPS * BATCH
    return digits.pixels("train")[:rows], digits.train_labels[:rows]


@pytest.fixture
def synthetic():
    """Ten noisy prototypes, learnable but not at once."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, STEPS * BATCH)
    prototypes = rng.random((10, 784))
    return np.float32(prototypes[labels] + 1.5 * rng.standard_normal((len(labels), 784))), labels


def initial_weights():
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (500, 784), "0.bias": (500,), "2.weight": (10, 500), "2.bias": (10,)}
    bounds = {"0": 784**-0.5, "2": 500**-0.5}
    return {name: rng.uniform(-bounds[name[0]], bounds[name[0]], shape) for name, shape in shapes.items()}


def trace(lib, dtype, optimizer, x, y):
    """The losses of 200 steps, written once for both libraries."""
    model = lib.nn.Sequential(lib.nn.Linear(784, 500), lib.nn.ReLU(), lib.nn.Linear(500, 10))
    weights = {name: lib.from_numpy(array.astype(dtype)) for name, array in initial_weights().items()}
    model = model.double() if dtype == "float64" else model
    model.load_state_dict(weights)
    update = OPTIMIZERS[optimizer](lib, model.parameters())
    x, y = lib.from_numpy(x.astype(dtype)), lib.from_numpy(y)
    losses = []
    for first in range(0, STEPS * BATCH, BATCH):
        update.zero_grad()
        loss = lib.nn.functional.cross_entropy(model(x[first : first + BATCH]), y[first : first + BATCH])
        loss.backward()
        update.step()
        losses.append(loss.item())
    return np.array(losses)


@pytest.mark.parametrize("data", ["mnist", "synthetic"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-4), ("float64", 1e-10)])
def test_loss_trace(dtype, rtol, optimizer, data, request):
    x, y = request.getfixturevalue(data)
    ours, theirs = trace(bpnn, dtype, optimizer, x, y), trace(torch, dtype, optimizer, x, y)
    assert theirs[-1] < 0.8 * theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=rtol)
