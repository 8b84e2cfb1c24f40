"""BatchNorm, InstanceNorm, GroupNorm, LayerNorm, RMSNorm, LocalResponseNorm: what the modules add to the functions."""
import warnings

import bpnn
import numpy as np
import pytest
from bpnn import nn
from bpnn.nn import functional as F

RNG = np.random.default_rng(0)
BATCH = [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm1d, (6, 3, 5)), (nn.BatchNorm2d, (4, 3, 5, 6)), (nn.BatchNorm3d, (3, 3, 2, 5, 4))]
INSTANCE = [(nn.InstanceNorm1d, (4, 3, 5)), (nn.InstanceNorm2d, (4, 3, 5, 6)), (nn.InstanceNorm3d, (3, 3, 2, 5, 4))]


def batches(shape, n=3):
    return [bpnn.tensor(RNG.normal(size=shape).astype(np.float32) + 1) for _ in range(n)]


def moments(batch):
    """Mean and variance with divisor M - 1 of each channel."""
    axes = (0, *range(2, batch.ndim))
    return batch.numpy().mean(axes), batch.numpy().var(axes, ddof=1)


@pytest.mark.parametrize(("kind", "shape"), BATCH)
@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_running_statistics(kind, shape, momentum):
    layer = kind(3, momentum=momentum)
    mean, var, seen = np.zeros(3), np.ones(3), batches(shape)
    for i, batch in enumerate(seen):
        layer(batch)
        share = 1 / (i + 1) if momentum is None else momentum
        mean, var = ((1 - share) * old + share * new for old, new in zip((mean, var), moments(batch), strict=True))
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 3 and layer.num_batches_tracked.dtype == np.int64
    layer.eval()
    form = (1, 3) + (1,) * (len(shape) - 2)
    expected = (seen[0].numpy() - mean.reshape(form)) / np.sqrt(var.reshape(form) + 1e-5)
    np.testing.assert_allclose(layer(seen[0]).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    assert layer.num_batches_tracked.item() == 3
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0] * 3 and layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize(("kind", "shape"), BATCH)
def test_without_running_statistics(kind, shape):
    layer, (batch,) = kind(3, track_running_stats=False), batches(shape, 1)
    assert list(layer.state_dict()) == ["weight", "bias"]
    trained = layer(batch).detach().numpy()
    np.testing.assert_array_equal(layer.eval()(batch).detach().numpy(), trained)


def test_fixed_statistics_while_training():
    """track_running_stats switched off later, as in PyTorch: batch statistics, and the buffers stay as they are."""
    layer, (batch,) = nn.BatchNorm2d(3), batches((4, 3, 5, 6), 1)
    layer.track_running_stats = False
    layer(batch)
    assert layer.running_mean.tolist() == [0] * 3


def test_parameters_and_state():
    layer = nn.BatchNorm2d(3)
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert layer.weight.tolist() == [1] * 3 and layer.bias.tolist() == [0] * 3
    assert [name for name, _ in nn.BatchNorm2d(3, bias=False).named_parameters()] == ["weight"]
    assert not list(nn.BatchNorm2d(3, affine=False).parameters())
    assert not list(nn.InstanceNorm2d(3).parameters()) and not nn.InstanceNorm2d(3).state_dict()
    assert nn.BatchNorm2d(3, dtype=bpnn.float64).running_var.dtype == np.float64
    trained = nn.BatchNorm2d(3)
    trained(batches((4, 3, 5, 6), 1)[0])
    layer.load_state_dict(trained.state_dict())
    np.testing.assert_array_equal(layer.running_var.numpy(), trained.running_var.numpy())
    assert layer.num_batches_tracked.item() == 1
    double = trained.double()
    assert double.running_mean.dtype == np.float64 and double.num_batches_tracked.dtype == np.int64


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "shape"), BATCH)
def test_fused_equals_composed(kind, shape, training):
    x, identity = batches(shape, 2)
    for activation, after in ((None, lambda y: y), ("relu", F.relu), ("relu6", F.relu6)):
        for residual in (None, identity):
            fused, composed = kind(3).train(training), kind(3).train(training)
            y = fused(x, residual=residual, activation=activation)
            z = composed(x)
            z = after(z if residual is None else z + residual)
            np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(fused.running_var.numpy(), composed.running_var.numpy())


@pytest.mark.parametrize(("kind", "shape"), BATCH + INSTANCE)
def test_wrong_number_of_axes(kind, shape):
    with pytest.raises(ValueError, match=r"input: expected .* axes, got shape \(2, 3, 1, 1, 1, 1\)"):
        kind(3)(bpnn.zeros(2, 3, 1, 1, 1, 1))


@pytest.mark.parametrize(("kind", "shape"), INSTANCE)
def test_instance_norm(kind, shape):
    batch, = batches(shape, 1)
    layer = kind(3, affine=True)
    y = layer(batch).detach().numpy()
    axes = tuple(range(2, len(shape)))
    x = batch.numpy()
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(batch[0]).detach().numpy(), y[0], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="input: expected 3 channels"):
        layer(bpnn.zeros(2, 4, *shape[2:]))
    with pytest.warns(UserWarning, match="num_features is 5"):
        kind(5)(batch)
    tracking = kind(3, track_running_stats=True, momentum=1.0)
    tracking(batch)
    np.testing.assert_allclose(tracking.running_mean.numpy(), x.mean(axes).mean(0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(tracking.eval()(batch).numpy(), y)


def test_layer_and_rms_norm():
    x = RNG.normal(size=(4, 3, 5)).astype(np.float32)
    layer, rms = nn.LayerNorm((3, 5)), nn.RMSNorm(5)
    assert layer.weight.shape == layer.bias.shape == (3, 5) and rms.weight.shape == (5,) and rms.eps is None
    expected = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(layer(bpnn.tensor(x)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 2.0**-23)
    np.testing.assert_allclose(rms(bpnn.tensor(x)).detach().numpy(), expected, rtol=1e-5)
    assert [name for name, _ in nn.LayerNorm(5, bias=False).named_parameters()] == ["weight"]
    assert not list(nn.LayerNorm(5, elementwise_affine=False).parameters())
    assert not list(nn.RMSNorm(5, elementwise_affine=False).parameters())


def test_group_and_local_response_norm():
    x = bpnn.tensor(RNG.normal(size=(4, 6, 5)).astype(np.float32))
    np.testing.assert_array_equal(nn.GroupNorm(3, 6)(x).detach().numpy(), F.group_norm(x, 3, bpnn.ones(6), bpnn.zeros(6)).numpy())
    np.testing.assert_array_equal(nn.LocalResponseNorm(3, 0.1)(x).numpy(), F.local_response_norm(x, 3, 0.1).numpy())
    with pytest.raises(ValueError, match="num_channels: expected a multiple of num_groups=4, got 6"):
        nn.GroupNorm(4, 6)
    assert [name for name, _ in nn.GroupNorm(3, 6, bias=False).named_parameters()] == ["weight"]


LAYERS = [
    ("BatchNorm1d", (7,), {}, (5, 7)), ("BatchNorm2d", (7,), {"momentum": None}, (5, 7, 4, 4)),
    ("BatchNorm3d", (7,), {"affine": False, "eps": 1e-3}, (5, 7, 2, 3, 4)), ("BatchNorm2d", (7,), {"bias": False}, (5, 7, 4, 4)),
    ("BatchNorm2d", (7,), {"track_running_stats": False}, (5, 7, 4, 4)), ("InstanceNorm1d", (7,), {}, (5, 7, 4)),
    ("InstanceNorm2d", (7,), {"affine": True, "track_running_stats": True}, (5, 7, 4, 4)), ("LayerNorm", ((4, 4),), {}, (5, 4, 4)),
    ("LayerNorm", (4,), {"bias": False}, (5, 4)), ("RMSNorm", (4,), {}, (5, 4)), ("GroupNorm", (2, 6), {}, (5, 6, 3)),
    ("LocalResponseNorm", (3,), {"k": 2.0}, (5, 6, 3)),
]


@pytest.mark.rivals
@pytest.mark.parametrize(("name", "arguments", "keywords", "shape"), LAYERS)
def test_torch_agrees(name, arguments, keywords, shape):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = (getattr(library, name)(*arguments, **keywords) for library in (nn, torch.nn))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    data = RNG.normal(size=(4, *shape)).astype(np.float32) * 2 + 1
    for step, x in enumerate(data):
        if step == 3:
            ours.eval()
            theirs.eval()
        one, two = bpnn.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(one), theirs(two)
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-4, atol=1e-4)
        (y * y * y).sum().backward()
        (z * z * z).sum().backward()
        np.testing.assert_allclose(one.grad.numpy(), two.grad.numpy(), rtol=1e-3, atol=1e-3)
    for key, value in ours.state_dict().items():
        np.testing.assert_allclose(value.numpy(), theirs.state_dict()[key].numpy(), rtol=1e-5, atol=1e-6)
