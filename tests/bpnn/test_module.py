"""Module, containers, hooks, state_dict."""
import copy
from collections import OrderedDict

import numpy as np
import pytest

import bpnn
from bpnn import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.register_buffer("scale", bpnn.full((1,), 2.0))
        self.register_buffer("scratch", bpnn.zeros(1), persistent=False)

    def forward(self, x):
        return self.body(self.fc1(x)) * self.scale


def test_names_in_order_of_assignment():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["fc1.weight", "fc1.bias", "body.0.weight", "body.0.bias"]
    assert list(net.state_dict()) == ["scale", "fc1.weight", "fc1.bias", "body.0.weight", "body.0.bias"]
    assert [n for n, _ in net.named_modules()] == ["", "fc1", "body", "body.0", "body.1"]
    assert [n for n, _ in net.named_buffers()] == ["scale", "scratch"]
    assert net.get_parameter("body.0.bias") is net.body[0].bias
    assert net.get_submodule("body.1") is net.body[1]


def test_shared_parameter_comes_once_but_is_saved_under_both_names():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert set(net.state_dict()) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_load_names_every_problem_at_once_and_changes_nothing():
    net = Net()
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    state = net.state_dict()
    del state["fc1.bias"], state["scale"]
    state["surplus"] = bpnn.zeros(1)
    state["body.0.weight"] = bpnn.zeros(5, 4)
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(state)
    for word in ("fc1.bias", "scale", "surplus", "body.0.weight", "(4, 4)", "(5, 4)"):
        assert word in str(error.value)
    for name, value in net.state_dict().items():
        assert np.array_equal(value.numpy(), before[name])


def test_load_not_strict_returns_the_names():
    net = Net()
    state = net.state_dict()
    del state["fc1.bias"]
    state["surplus"] = bpnn.zeros(1)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert missing == ["fc1.bias"] and unexpected == ["surplus"]


def test_load_copies_values():
    a, b = Net(), Net()
    b.load_state_dict(a.state_dict())
    x = bpnn.randn(5, 3)
    assert np.array_equal(a(x).detach().numpy(), b(x).detach().numpy())
    a.fc1.weight.data.zero_()
    assert not np.array_equal(a.fc1.weight.detach().numpy(), b.fc1.weight.detach().numpy())


def test_sequential_fuses_and_agrees_with_the_parts():
    for activation in (nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.GELU("tanh"), nn.SiLU()):
        linear = nn.Linear(7, 5).double()
        x = bpnn.randn(9, 7, dtype=bpnn.float64, requires_grad=True)
        seed = bpnn.randn(9, 5, dtype=bpnn.float64)
        results = []
        for net in (nn.Sequential(linear, activation), lambda x, a=activation, f=linear: a(f(x))):
            linear.zero_grad()
            x.grad = None
            y = net(x)
            y.backward(seed)
            results.append([y.detach().numpy(), x.grad.numpy(), linear.weight.grad.numpy(), linear.bias.grad.numpy()])
        for fused, parts in zip(*results, strict=True):
            np.testing.assert_allclose(fused, parts, rtol=1e-12, atol=1e-14)


def test_sequential_does_not_fuse_past_hooks():
    seen = []
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    net[0].register_forward_hook(lambda module, args, y: seen.append(y.detach().numpy().copy()))
    net[1].register_forward_hook(lambda module, args, y: seen.append(y.detach().numpy().copy()))
    net(bpnn.randn(3, 2))
    assert len(seen) == 2 and np.array_equal(np.maximum(seen[0], 0), seen[1])


def test_hooks_replace_and_are_removed():
    net = nn.Linear(2, 2)
    x = bpnn.ones(1, 2)
    plain = net(x).detach().numpy()
    doubled = net.register_forward_hook(lambda module, args, y: y * 2)
    np.testing.assert_allclose(net(x).detach().numpy(), plain * 2)
    doubled.remove()
    zeroed = net.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    np.testing.assert_array_equal(net(x).detach().numpy(), net.bias.detach().numpy()[None])
    zeroed.remove()
    np.testing.assert_array_equal(net(x).detach().numpy(), plain)


def test_backward_hook_sees_and_replaces_gradients():
    net = nn.Linear(2, 3)
    seen = []

    def hook(module, grad_input, grad_output):
        seen.append((grad_input[0].numpy().copy(), grad_output[0].numpy().copy()))
        return (grad_input[0] * 10,)

    net.register_full_backward_hook(hook)
    x = bpnn.ones(1, 2, requires_grad=True)
    net(x).sum().backward()
    grad_input, grad_output = seen[0]
    np.testing.assert_allclose(grad_output, np.ones((1, 3)))
    np.testing.assert_allclose(grad_input, net.weight.detach().numpy().sum(0)[None], rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), grad_input * 10, rtol=1e-6)


def test_modes_types_and_apply():
    net = Net()
    assert net.training and not net.eval().body.training and net.train().body.training
    net.double()
    assert {p.dtype for p in net.parameters()} == {bpnn.float64} and net.scale.dtype == bpnn.float64
    assert net.float().fc1.weight.dtype == bpnn.float32
    names = []
    net.apply(lambda m: names.append(type(m).__name__))
    assert names == ["Linear", "Linear", "Tanh", "Sequential", "Net"]
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_attributes():
    net = Net()
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        net.missing
    with pytest.raises(TypeError, match="fc1"):
        net.fc1 = 3
    net.fc1 = None
    assert "fc1.weight" not in net.state_dict()

    class Late(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="super"):
        Late()


def test_containers():
    modules = nn.ModuleList([nn.Linear(1, 2), nn.Linear(2, 3)])
    modules.append(nn.Linear(3, 4))
    modules.insert(0, nn.Identity())
    assert len(modules) == 4 and [n for n, _ in modules.named_children()] == ["0", "1", "2", "3"]
    assert len(list(modules[1:].parameters())) == 6
    table = nn.ModuleDict({"a": nn.Linear(1, 1)})
    table["b"] = nn.ReLU()
    assert "b" in table and list(table) == ["a", "b"]
    named = nn.Sequential(OrderedDict(first=nn.Linear(1, 2), act=nn.ReLU()))
    assert named.first is named[0] and isinstance(named[-1], nn.ReLU)
    del named[0]
    assert len(named) == 1


def test_deepcopy_is_independent():
    net = Net()
    twin = copy.deepcopy(net)
    net.fc1.weight.data.zero_()
    assert twin.fc1.weight.detach().numpy().any()
    assert isinstance(twin.fc1.weight, nn.Parameter) and twin.fc1.weight.requires_grad


def test_repr():
    text = repr(Net())
    assert text.splitlines()[1] == "  (fc1): Linear(in_features=3, out_features=4, bias=True)"
    assert "    (1): Tanh()" in text


def test_zero_grad():
    net = Net()
    net(bpnn.ones(1, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert not any(p.grad.numpy().any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_other_devices_are_refused():
    for thing in (Net(), bpnn.ones(1)):
        assert thing.to("cpu") is thing
        with pytest.raises(ValueError, match="expected 'cpu', got 'cuda:0'"):
            thing.to("cuda:0")
