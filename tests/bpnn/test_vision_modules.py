"""Modules of pooling, folding, upsampling and padding: they pass their arguments on, and print as PyTorch's."""
import numpy as np
import pytest

import bpnn
from bpnn import nn
from bpnn.nn import functional as F

RNG = np.random.default_rng(0)
ROW, PLANE, VOLUME = (2, 4, 12), (2, 4, 12, 10), (2, 4, 8, 6, 10)

# A module, an input's shape, the function it stands for.
MODULES = [
    (nn.MaxPool1d(3, 2, 1), ROW, lambda x: F.max_pool1d(x, 3, 2, 1)),
    (nn.MaxPool2d(2), PLANE, lambda x: F.max_pool2d(x, 2)),
    (nn.MaxPool2d((3, 2), 2, 1, ceil_mode=True), PLANE, lambda x: F.max_pool2d(x, (3, 2), 2, 1, ceil_mode=True)),
    (nn.MaxPool2d(2, 1, 0, 2), PLANE, lambda x: F.max_pool2d(x, 2, 1, 0, 2)),
    (nn.MaxPool3d(2), VOLUME, lambda x: F.max_pool3d(x, 2)),
    (nn.AvgPool1d(3, 2, 1), ROW, lambda x: F.avg_pool1d(x, 3, 2, 1)),
    (nn.AvgPool2d(3, 2, 1, False, False), PLANE, lambda x: F.avg_pool2d(x, 3, 2, 1, False, False)),
    (nn.AvgPool2d(2, divisor_override=3), PLANE, lambda x: F.avg_pool2d(x, 2, divisor_override=3)),
    (nn.AvgPool3d(2), VOLUME, lambda x: F.avg_pool3d(x, 2)),
    (nn.LPPool1d(2, 3), ROW, lambda x: F.lp_pool1d(x, 2, 3)),
    (nn.LPPool2d(2, 3, 2), PLANE, lambda x: F.lp_pool2d(x, 2, 3, 2)),
    (nn.LPPool3d(2, 2), VOLUME, lambda x: F.lp_pool3d(x, 2, 2)),
    (nn.AdaptiveAvgPool1d(5), ROW, lambda x: F.adaptive_avg_pool1d(x, 5)),
    (nn.AdaptiveAvgPool2d((None, 3)), PLANE, lambda x: F.adaptive_avg_pool2d(x, (None, 3))),
    (nn.AdaptiveAvgPool2d(1), PLANE, lambda x: x.mean((2, 3), keepdim=True)),
    (nn.AdaptiveAvgPool3d(3), VOLUME, lambda x: F.adaptive_avg_pool3d(x, 3)),
    (nn.AdaptiveMaxPool1d(5), ROW, lambda x: F.adaptive_max_pool1d(x, 5)),
    (nn.AdaptiveMaxPool2d((5, 3)), PLANE, lambda x: F.adaptive_max_pool2d(x, (5, 3))),
    (nn.AdaptiveMaxPool3d(3), VOLUME, lambda x: F.adaptive_max_pool3d(x, 3)),
    (nn.Unfold(3, 1, 1, 2), PLANE, lambda x: F.unfold(x, 3, 1, 1, 2)),
    (nn.Fold((4, 5), 2), (2, 12, 12), lambda x: F.fold(x, (4, 5), 2)),
    (nn.PixelShuffle(2), PLANE, lambda x: F.pixel_shuffle(x, 2)),
    (nn.PixelUnshuffle(2), PLANE, lambda x: F.pixel_unshuffle(x, 2)),
    (nn.ChannelShuffle(2), PLANE, lambda x: F.channel_shuffle(x, 2)),
    (nn.Upsample(scale_factor=2), PLANE, lambda x: F.interpolate(x, scale_factor=2)),
    (nn.Upsample((5, 7), mode="bicubic"), PLANE, lambda x: F.interpolate(x, (5, 7), mode="bicubic")),
    (nn.Upsample(7, mode="linear", align_corners=True), ROW, lambda x: F.interpolate(x, 7, mode="linear", align_corners=True)),
    (nn.UpsamplingNearest2d(scale_factor=3), PLANE, lambda x: F.interpolate(x, scale_factor=3)),
    (nn.UpsamplingBilinear2d((5, 7)), PLANE, lambda x: F.interpolate(x, (5, 7), mode="bilinear", align_corners=True)),
    (nn.ZeroPad1d(2), ROW, lambda x: F.pad(x, (2, 2))),
    (nn.ZeroPad2d((1, 2, 3, 0)), PLANE, lambda x: F.pad(x, (1, 2, 3, 0))),
    (nn.ZeroPad3d(1), VOLUME, lambda x: F.pad(x, (1,) * 6)),
    (nn.ConstantPad1d((1, 0), 2.5), ROW, lambda x: F.pad(x, (1, 0), value=2.5)),
    (nn.ConstantPad2d(1, 2.5), PLANE, lambda x: F.pad(x, (1,) * 4, value=2.5)),
    (nn.ConstantPad3d(1, 2.5), VOLUME, lambda x: F.pad(x, (1,) * 6, value=2.5)),
    (nn.ReflectionPad1d(2), ROW, lambda x: F.pad(x, (2, 2), "reflect")),
    (nn.ReflectionPad2d((1, 2, 3, 0)), PLANE, lambda x: F.pad(x, (1, 2, 3, 0), "reflect")),
    (nn.ReflectionPad3d(1), VOLUME, lambda x: F.pad(x, (1,) * 6, "reflect")),
    (nn.ReplicationPad1d(2), ROW, lambda x: F.pad(x, (2, 2), "replicate")),
    (nn.ReplicationPad2d((1, 2, 3, 0)), PLANE, lambda x: F.pad(x, (1, 2, 3, 0), "replicate")),
    (nn.ReplicationPad3d(1), VOLUME, lambda x: F.pad(x, (1,) * 6, "replicate")),
    (nn.CircularPad1d(2), ROW, lambda x: F.pad(x, (2, 2), "circular")),
    (nn.CircularPad2d((1, 2, 3, 0)), PLANE, lambda x: F.pad(x, (1, 2, 3, 0), "circular")),
    (nn.CircularPad3d(1), VOLUME, lambda x: F.pad(x, (1,) * 6, "circular")),
]


@pytest.mark.parametrize(("module", "shape", "function"), MODULES, ids=lambda one: type(one).__name__)
def test_module_is_its_function(module, shape, function):
    x = bpnn.tensor(np.abs(RNG.normal(size=shape)) + 0.1)
    np.testing.assert_allclose(module(x).numpy(), function(x).numpy(), rtol=1e-12)
    assert not list(module.parameters()) and not module.state_dict()


def test_indices():
    x = bpnn.tensor(RNG.normal(size=PLANE))
    for module in (nn.MaxPool2d(2, return_indices=True), nn.AdaptiveMaxPool2d(3, return_indices=True)):
        values, indices = module(x)
        flat = x.numpy().reshape(2, 4, -1)
        found = np.take_along_axis(flat, indices.numpy().reshape(2, 4, -1), 2)
        np.testing.assert_array_equal(found.reshape(values.shape), values.numpy())


def test_unpool():
    for axes, shape in enumerate((ROW, PLANE, VOLUME), 1):
        pool, back = getattr(nn, f"MaxPool{axes}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{axes}d")(2)
        values, indices = pool(bpnn.tensor(np.abs(RNG.normal(size=shape))))
        y = back(values, indices)
        assert y.shape == shape
        np.testing.assert_array_equal(pool(y)[0].numpy(), values.numpy())


def test_padding_of_other_axes():
    with pytest.raises(ValueError, match="padding: expected one number or 4, got"):
        nn.ZeroPad2d((1, 2))


def test_a_network_of_them_trains():
    bpnn.manual_seed(0)
    model = nn.Sequential(nn.ReflectionPad2d(1), nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1), nn.Flatten(), nn.Linear(4 * 9, 2))
    x, y = bpnn.randn(32, 4, 8, 8), bpnn.tensor(RNG.integers(0, 2, 32))
    update = bpnn.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        update.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        update.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.rivals
@pytest.mark.parametrize(("module", "shape", "function"), MODULES, ids=lambda one: type(one).__name__)
def test_torch_prints_the_same(module, shape, function):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, type(module).__name__)
    names = [name for name in theirs.__init__.__code__.co_varnames[1:theirs.__init__.__code__.co_argcount] if hasattr(module, name)]
    again = theirs(**{name: getattr(module, name) for name in names})
    assert repr(module) == repr(again)
    x = (np.abs(RNG.normal(size=shape)) + 0.1).astype(np.float32)
    np.testing.assert_allclose(module(bpnn.tensor(x)).numpy(), again(torch.tensor(x)).numpy(), rtol=1e-5, atol=1e-5)
