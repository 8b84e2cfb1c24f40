"""Modules of convolution: their parameters, what they pass on, how they print."""
import numpy as np
import pytest

import bpnn
from bpnn import nn
from bpnn.nn import functional as F

RNG = np.random.default_rng(0)
ROW, PLANE, VOLUME = (2, 4, 12), (2, 4, 9, 10), (2, 4, 5, 6, 7)

# A module, an input's shape, the function it stands for.
MODULES = [
    (nn.Conv1d(4, 6, 3), ROW, lambda m, x: F.conv1d(x, m.weight, m.bias)),
    (nn.Conv1d(4, 6, 3, 2, 1, 2, 2, False), ROW, lambda m, x: F.conv1d(x, m.weight, None, 2, 1, 2, 2)),
    (nn.Conv2d(4, 6, (3, 2), padding="same"), PLANE, lambda m, x: F.conv2d(x, m.weight, m.bias, padding="same")),
    (nn.Conv2d(4, 8, 3, (1, 2), (0, 1), groups=4), PLANE, lambda m, x: F.conv2d(x, m.weight, m.bias, (1, 2), (0, 1), groups=4)),
    (nn.Conv2d(4, 8, 3, padding="valid", dtype=bpnn.float64), PLANE, lambda m, x: F.conv2d(x, m.weight, m.bias)),
    (nn.Conv3d(4, 6, 3, 2, 1), VOLUME, lambda m, x: F.conv3d(x, m.weight, m.bias, 2, 1)),
    (nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), ROW, lambda m, x: F.conv_transpose1d(x, m.weight, m.bias, 2, 1, 1)),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 2), PLANE,
     lambda m, x: F.conv_transpose2d(x, m.weight, None, 2, 1, 1, 2, 2)),
    (nn.ConvTranspose3d(4, 6, 2, 2), VOLUME, lambda m, x: F.conv_transpose3d(x, m.weight, m.bias, 2)),
]


def draw(shape, dtype=np.float32):
    return bpnn.from_numpy(RNG.standard_normal(shape).astype(dtype))


@pytest.mark.parametrize(("module", "shape", "function"), MODULES, ids=[str(m) for m, *_ in MODULES])
def test_modules(module, shape, function):
    x = draw(shape, module.weight.dtype)
    np.testing.assert_array_equal(module(x).detach().numpy(), function(module, x).detach().numpy())
    np.testing.assert_allclose(module(x[0]).detach().numpy(), module(x).detach().numpy()[0], rtol=1e-5, atol=1e-5)
    module(x).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in module.parameters())


REPR = [
    (nn.Conv1d(4, 6, 3), "Conv1d(4, 6, kernel_size=(3,), stride=(1,))"),
    (nn.Conv2d(4, 6, 3, 2, 1, bias=False), "Conv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)"),
    (nn.Conv2d(4, 8, (1, 5), padding="same", groups=2, padding_mode="circular"),
     "Conv2d(4, 8, kernel_size=(1, 5), stride=(1, 1), padding=same, groups=2, padding_mode=circular)"),
    (nn.Conv3d(4, 6, 3, dilation=(1, 2, 3)), "Conv3d(4, 6, kernel_size=(3, 3, 3), stride=(1, 1, 1), dilation=(1, 2, 3))"),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1),
     "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1))"),
]


@pytest.mark.parametrize(("module", "text"), REPR)
def test_repr(module, text):
    assert repr(module) == text


@pytest.mark.parametrize(("module", "shape"), [
    (nn.Conv1d(6, 9, 5, groups=3), (9, 2, 5)), (nn.Conv2d(6, 9, (2, 5)), (9, 6, 2, 5)), (nn.Conv3d(4, 2, 3), (2, 4, 3, 3, 3)),
    (nn.ConvTranspose1d(6, 9, 5, groups=3), (6, 3, 5)), (nn.ConvTranspose2d(6, 9, (2, 5)), (6, 9, 2, 5)),
    (nn.ConvTranspose3d(4, 2, 3), (4, 2, 3, 3, 3)),
])
def test_parameters(module, shape):
    assert {name: p.shape for name, p in module.named_parameters()} == {"weight": shape, "bias": (module.out_channels,)}
    other = type(module)(module.in_channels, module.out_channels, module.kernel_size, groups=module.groups)
    other.load_state_dict(module.state_dict())
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), two.detach().numpy())


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_starting_values(kind):
    """Uniform in ±1/sqrt(fan_in), where fan_in is what PyTorch calls so: axis 1 of the weight times the kernel."""
    bpnn.manual_seed(0)
    module = kind(64, 64, (3, 5), groups=2)
    bound = 1 / np.sqrt(32 * 15)
    for p in module.parameters():
        values = p.detach().numpy()
        assert np.abs(values).max() <= bound
        assert abs(values.mean()) < bound / 4
    assert np.abs(module.weight.detach().numpy()).max() > 0.99 * bound
    np.testing.assert_allclose(module.weight.detach().numpy().std(), bound / np.sqrt(3), rtol=0.02)
    bpnn.manual_seed(0)
    np.testing.assert_array_equal(kind(64, 64, (3, 5), groups=2).weight.detach().numpy(), module.weight.detach().numpy())


NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("padding", [2, (1, 2), "same", "valid"])
def test_padding_mode(mode, padding):
    module = nn.Conv2d(4, 6, (4, 3), padding=padding, dilation=(1, 2), padding_mode=mode, dtype=bpnn.float64)
    x = draw(PLANE, np.float64).requires_grad_()
    border = {2: [(2, 2), (2, 2)], (1, 2): [(1, 1), (2, 2)], "same": [(1, 2), (2, 2)], "valid": [(0, 0), (0, 0)]}[padding]
    padded = np.pad(x.detach().numpy(), [(0, 0), (0, 0), *border], mode=NUMPY_MODES[mode])
    expected = F.conv2d(bpnn.from_numpy(padded), module.weight, module.bias, dilation=(1, 2))
    y = module(x)
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    (y * y).sum().backward()
    assert x.grad.shape == x.shape


def test_padding_mode_of_other_axes():
    for module, shape in ((nn.Conv1d(4, 3, 3, padding=1, padding_mode="reflect"), ROW),
                          (nn.Conv3d(4, 3, 3, padding=(1, 2, 3), padding_mode="replicate"), VOLUME)):
        x, edges = draw(shape), (1, 1) if len(shape) == 3 else (3, 3, 2, 2, 1, 1)
        f = F.conv1d if len(shape) == 3 else F.conv3d
        expected = f(F.pad(x, edges, module.padding_mode), module.weight, module.bias)
        np.testing.assert_array_equal(module(x).detach().numpy(), expected.detach().numpy())


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"])
def test_activation(activation):
    module, x = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), draw(PLANE)
    f = (lambda t: F.gelu(t, approximate="tanh")) if activation == "gelu_tanh" else getattr(F, activation)
    y = module(x, activation=activation).detach().numpy()
    np.testing.assert_allclose(y, f(module(x)).detach().numpy(), rtol=1e-6, atol=1e-6)


def test_output_size():
    """All sizes that one pass of the convolution would take to the same output, and no other."""
    module, x = nn.ConvTranspose2d(4, 6, 3, stride=(3, 2), padding=1), draw(PLANE)
    smallest = module(x).shape
    assert smallest == (2, 6, 25, 19)
    for height in (25, 26, 27):
        for width in (19, 20):
            for size in ([height, width], (2, 6, height, width)):
                y = module(x, output_size=size)
                assert y.shape == (2, 6, height, width)
                np.testing.assert_allclose(y.detach().numpy()[:, :, :25, :19], module(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    for wrong in ([24, 19], [28, 19], [25, 21]):
        with pytest.raises(ValueError, match="^output_size: expected .* got"):
            module(x, output_size=wrong)
    with pytest.raises(ValueError, match="^output_size: expected .* got"):
        module(x, output_size=[25])


@pytest.mark.parametrize(("arguments", "keywords", "name"), [
    ((4, 6, 3), {"groups": 0}, "groups"), ((4, 6, 3), {"groups": 3}, "in_channels"), ((6, 4, 3), {"groups": 3}, "out_channels"),
    ((4, 6, 3), {"padding_mode": "mirror"}, "padding_mode"), ((4, 6, (3, 3, 3)), {}, "kernel_size"),
    ((4, 6, 3), {"stride": (1, 2, 3)}, "stride"), ((4, 6, 3), {"dilation": (1,)}, "dilation"),
    ((4, 6, 3), {"padding": "full"}, "padding"), ((4, 6, 3), {"padding": "same", "stride": 2}, "padding"),
    ((4, 6, 3), {"padding": (1, 2, 3)}, "padding"),
])
def test_errors(arguments, keywords, name):
    with pytest.raises(ValueError, match=f"^{name}: .*(expected|needs).* got"):
        nn.Conv2d(*arguments, **keywords)


def test_errors_of_transposed():
    with pytest.raises(ValueError, match="^padding_mode: expected 'zeros'"):
        nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect")
    with pytest.raises(ValueError, match="^output_padding: expected"):
        nn.ConvTranspose2d(4, 6, 3, output_padding=(1, 1, 1))


@pytest.mark.rivals
@pytest.mark.parametrize(("name", "arguments", "keywords", "shape"), [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, ROW),
    ("Conv2d", (4, 6, (4, 3)), {"padding": "same", "padding_mode": "reflect"}, PLANE),
    ("Conv2d", (4, 6, 3), {"padding": 2, "padding_mode": "circular", "dilation": 2}, PLANE),
    ("Conv2d", (4, 6, (4, 2)), {"padding": "same", "padding_mode": "replicate", "groups": 2, "bias": False}, PLANE),
    ("Conv3d", (4, 6, 3), {"padding": 1, "stride": (1, 2, 1)}, VOLUME),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2}, ROW),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, PLANE),
    ("ConvTranspose3d", (4, 6, 2), {"stride": 2, "groups": 2}, VOLUME),
])
def test_against_torch(name, arguments, keywords, shape):
    """The same names, shapes, text and results; either takes the other's state."""
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, name)(*arguments, **keywords), getattr(torch.nn, name)(*arguments, **keywords)
    assert repr(ours) == repr(theirs)
    assert [(n, tuple(p.shape)) for n, p in ours.named_parameters()] == [(n, tuple(p.shape)) for n, p in theirs.named_parameters()]
    ours.load_state_dict({n: bpnn.from_numpy(p.detach().numpy().copy()) for n, p in theirs.named_parameters()})
    x = RNG.standard_normal(shape).astype(np.float32)
    y = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(ours(bpnn.from_numpy(x)).detach().numpy(), y, rtol=1e-4, atol=1e-5)
    theirs.load_state_dict({n: torch.from_numpy(p.numpy().copy()) for n, p in ours.state_dict().items()})
    np.testing.assert_array_equal(theirs(torch.from_numpy(x)).detach().numpy(), y)


@pytest.mark.rivals
def test_output_size_against_torch():
    torch = pytest.importorskip("torch")
    arguments = (4, 6, (3, 2)), {"stride": (3, 2), "padding": 1, "dilation": (1, 2)}
    ours, theirs = nn.ConvTranspose2d(*arguments[0], **arguments[1]), torch.nn.ConvTranspose2d(*arguments[0], **arguments[1])
    x = draw(PLANE)
    for height in range(22, 31):
        for width in range(16, 23):
            try:
                expected = tuple(theirs(torch.from_numpy(x.numpy()), output_size=[height, width]).shape)
            except ValueError:
                expected = None
            try:
                got = ours(x, output_size=[height, width]).shape
            except ValueError:
                got = None
            assert got == expected, (height, width)
