"""The same initial weights and batches give PyTorch's loss trace over 100 steps: LeNet-5 and ResNet-20, within 1e-3 relative."""
import sys
from pathlib import Path

import bpnn
import numpy as np
import pytest
from bpnn import models
from bpnn.data import load_mnist

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from model_references import LeNet5, ResNet20  # noqa: E402

pytestmark = pytest.mark.rivals
STEPS = 100


def trace(lib, model, optimizer, x, y, size):
    """The losses of 100 steps, written once for both libraries."""
    x, y = lib.from_numpy(x), lib.from_numpy(y)
    losses = []
    for step in range(STEPS):
        rows = slice(step * size % len(y), step * size % len(y) + size)
        optimizer.zero_grad()
        loss = lib.nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def same_weights(theirs, ours):
    ours.load_state_dict({name: bpnn.from_numpy(tensor.numpy().copy()) for name, tensor in theirs.state_dict().items()})
    return theirs, ours


def patterns(count, shape, seed=0):
    """Ten noisy prototypes, learnable but not at once."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    return (rng.random((10, *shape))[labels] + rng.standard_normal((count, *shape))).astype(np.float32), labels


@pytest.mark.parametrize("data", ["mnist", "patterns"])
def test_lenet5(data, request):
    if data == "mnist":
        digits = load_mnist(request.getfixturevalue("mnist_dir"))
        x, y = digits.pixels("train")[: STEPS * 64].reshape(-1, 1, 28, 28), digits.train_labels[: STEPS * 64]
    else:
        x, y = patterns(STEPS * 64, (1, 28, 28))
    torch.manual_seed(0)
    theirs, ours = same_weights(LeNet5(), models.lenet5())
    expected = trace(torch, theirs, torch.optim.Adam(theirs.parameters(), 1e-3), x, y, 64)
    got = trace(bpnn, ours, bpnn.optim.Adam(ours.parameters(), 1e-3), x, y, 64)
    assert expected[-1] < 0.5 * expected[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3)


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet20(shortcut):
    """Batch-norm included: loss trace and, at the end, the running statistics."""
    x, y = patterns(320, (3, 32, 32))
    torch.manual_seed(0)
    theirs, ours = same_weights(ResNet20(shortcut), models.resnet20(shortcut=shortcut))
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}
    expected = trace(torch, theirs, torch.optim.SGD(theirs.parameters(), **options), x, y, 32)
    got = trace(bpnn, ours, bpnn.optim.SGD(ours.parameters(), **options), x, y, 32)
    assert expected[-1] < 0.5 * expected[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    for (name, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(buffer.numpy(), other.numpy(), rtol=1e-2, atol=1e-3, err_msg=name)
