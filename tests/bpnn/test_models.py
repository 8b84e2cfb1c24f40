"""Vision models: published sizes, starting values, and the logits and gradients of the same network in PyTorch."""
import sys
from pathlib import Path

import bpnn
import numpy as np
import pytest
from bpnn import models, nn
from bpnn.nn.utils import fuse_conv_bn, fuse_conv_bn_eval

# name: (parameters, shape of the input)
SIZES = {
    "lenet5": (61_706, (1, 28, 28)),
    "resnet20": (269_722, (3, 32, 32)),
    "mobilenet_v2": (3_504_872, (3, 64, 64)),
    "resnet18": (11_689_512, (3, 64, 64)),
    "resnet34": (21_797_672, (3, 64, 64)),
    "resnet50": (25_557_032, (3, 64, 64)),
    "alexnet": (61_100_840, (3, 96, 96)),
    "vgg11": (132_863_336, (3, 32, 32)),
    "vgg16": (138_357_544, (3, 32, 32)),
}
LARGE = ("alexnet", "vgg11", "vgg16")
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in SIZES]


def make(name, **options):
    name, _, shortcut = name.partition(" ")
    return getattr(models, name)(**options, **({"shortcut": shortcut} if shortcut else {}))


def pictures(name, count=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *SIZES[name.partition(" ")[0]][1])).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_size_and_start(name):
    bpnn.manual_seed(0)
    model, (count, _) = make(name), SIZES[name]
    assert sum(p.numel() for p in model.parameters()) == count
    out = model.eval()(bpnn.from_numpy(pictures(name)))
    assert out.shape == (3, 10 if name in ("lenet5", "resnet20") else 1000) and np.isfinite(out.detach().numpy()).all()
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name not in ("lenet5", "alexnet"):  # He et al., from the fan out
            deviation = (2 / (module.weight.shape[0] * np.prod(module.weight.shape[2:]))) ** 0.5
            assert module.weight.std().item() == pytest.approx(deviation, rel=0.5 / module.weight.numel() ** 0.25), path
            assert module.bias is None or not module.bias.detach().numpy().any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight.detach().numpy() == 1).all() and not module.bias.detach().numpy().any()


def test_options():
    small = {"num_classes": 7, "in_channels": 2}
    for name in ("lenet5", "resnet20", "resnet18", "mobilenet_v2"):
        x = bpnn.zeros(2, 2, *SIZES[name][1][1:])
        assert make(name, **small)(x).shape == (2, 7)
    assert sum(p.numel() for p in models.resnet20(shortcut="B").parameters()) == 272_474
    half = models.mobilenet_v2(width_mult=0.5)
    assert half.features[18][0].weight.shape == (1280, 160, 1, 1)
    zero = models.resnet50(zero_init_residual=True)
    assert not zero.layer3[1].bn3.weight.detach().numpy().any() and zero.layer3[1].bn2.weight.detach().numpy().all()
    with pytest.raises(ValueError, match="shortcut: expected 'A' or 'B', got 'C'"):
        models.resnet20(shortcut="C")


def test_weights_of_a_file(tmp_path):
    model = models.resnet20(num_classes=4)
    bpnn.save(model.state_dict(), tmp_path / "weights.safetensors")
    again = models.resnet20(num_classes=4, weights=tmp_path / "weights.safetensors")
    for (name, ours), theirs in zip(again.state_dict().items(), model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=name)
    with pytest.raises(RuntimeError, match=r"fc\.weight: expected shape \(10, 64\), got \(4, 64\)"):
        models.resnet20(weights=tmp_path / "weights.safetensors")


def test_shortcut_a():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6))
    t = bpnn.from_numpy(x)
    t.requires_grad = True
    out = models.resnet.Subsample(3, 8, 2)(t)
    expected = np.zeros((2, 8, 3, 3))
    expected[:, 2:5] = x[:, :, ::2, ::2]
    np.testing.assert_array_equal(out.detach().numpy(), expected)
    out.sum().backward()
    mask = np.zeros_like(x)
    mask[:, :, ::2, ::2] = 1
    np.testing.assert_array_equal(t.grad.numpy(), mask)


# Folding -------------------------------------------------------------------------------------------------------------


def unsettled(model, seed=0):
    """Running statistics and affine weights away from their starting values."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                                      (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0)):  # fmt: skip
                tensor.data.copy_(bpnn.from_numpy(rng.uniform(low, high, tensor.shape)))
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "mobilenet_v2"])
def test_folding_a_model(name):
    bpnn.manual_seed(0)
    model, x = unsettled(make(name)), bpnn.from_numpy(pictures(name))
    fused = fuse_conv_bn(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) > 10
    with bpnn.no_grad():
        before, after = model(x).numpy(), fused(x).numpy()
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    named = {key for key, _ in fused.named_parameters()}
    assert {key for key, _ in model.named_parameters() if "conv" in key and key.endswith("conv1.weight")} <= named


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["conv", "transposed"])
def test_folding_is_the_pair(kind, affine, bias):
    rng = np.random.default_rng(0)
    make_conv = nn.Conv2d if kind == "conv" else nn.ConvTranspose2d
    conv, norm = make_conv(3, 5, 3, bias=bias).double().eval(), nn.BatchNorm2d(5, affine=affine).double().eval()
    norm.running_mean.copy_(bpnn.from_numpy(rng.normal(0, 1, 5)))
    norm.running_var.copy_(bpnn.from_numpy(rng.uniform(0.5, 2, 5)))
    x = bpnn.from_numpy(rng.standard_normal((2, 3, 7, 6)))
    with bpnn.no_grad():
        fused = fuse_conv_bn_eval(conv, norm, kind != "conv")
        np.testing.assert_allclose(fused(x).numpy(), norm(conv(x)).numpy(), rtol=1e-12, atol=1e-12)
        whole = fuse_conv_bn(nn.Sequential(conv, norm, nn.ReLU()).eval())
        np.testing.assert_allclose(whole(x).numpy(), norm(conv(x)).relu().numpy(), rtol=1e-12, atol=1e-12)


def test_folding_leaves_alone_what_is_no_pair():
    shared = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), shared, nn.BatchNorm2d(4), shared,
        nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False),
    ).eval()  # fmt: skip
    fused = fuse_conv_bn(model)
    assert [type(module).__name__ for module in fused] == [type(module).__name__ for module in model]
    with pytest.raises(ValueError, match=r"model: expected a model in evaluation mode; call eval\(\) first"):
        fuse_conv_bn(nn.Sequential(nn.Conv2d(4, 4, 1)))
    with pytest.raises(ValueError, match="bn: expected running statistics"):
        fuse_conv_bn_eval(shared.eval(), nn.BatchNorm2d(4, track_running_stats=False).eval())


# The same in PyTorch -------------------------------------------------------------------------------------------------

SAME = [*SIZES, "resnet20 B"]


@pytest.fixture
def references():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    sys.path.insert(0, str(Path(__file__).parent))
    from model_references import REFERENCES

    return REFERENCES


def both(name, references, tmp_path, **options):
    """(PyTorch's network, ours with its weights through a file)."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = references[name]()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    save_file(theirs.state_dict(), str(tmp_path / "weights.safetensors"))
    return theirs, make(name, weights=tmp_path / "weights.safetensors", **options)


@pytest.mark.rivals
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in SAME])
def test_logits_are_pytorchs(name, references, tmp_path):
    import torch

    theirs, ours = both(name, references, tmp_path)
    x = pictures(name)
    with torch.no_grad(), bpnn.no_grad():
        expected, got = theirs.eval()(torch.from_numpy(x)).numpy(), ours.eval()(bpnn.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()))


@pytest.mark.rivals
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "alexnet" else n for n in SAME if "vgg" not in n])
def test_loss_and_gradients_are_pytorchs(name, references, tmp_path):
    """In training mode and float64: the loss, every gradient, and the running statistics afterwards."""
    import torch

    options = {"dropout": 0.0} if name in ("alexnet", "mobilenet_v2") else {}
    theirs, ours = both(name, references, tmp_path, **options)
    theirs, ours = theirs.double().train(), ours.double().train()
    x, y = pictures(name, 4).astype(np.float64), np.arange(4)
    expected = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
    expected.backward()
    loss = nn.functional.cross_entropy(ours(bpnn.from_numpy(x)), bpnn.from_numpy(y))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for (key, ours_p), (their_key, their_p) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert key == their_key
        scale = their_p.grad.abs().max().item()
        np.testing.assert_allclose(ours_p.grad.numpy(), their_p.grad.numpy(), rtol=1e-6, atol=1e-7 * max(scale, 1e-3), err_msg=key)
    for (key, buffer), their_buffer in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        np.testing.assert_allclose(buffer.numpy(), their_buffer.numpy(), rtol=1e-8, atol=1e-10, err_msg=key)
