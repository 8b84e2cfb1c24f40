"""The table of a model."""
import pytest

import bpnn
from bpnn import nn
from bpnn.train import summary


def mlp():
    return nn.Sequential(nn.Linear(784, 500), nn.ReLU(), nn.Dropout(0.2), nn.Linear(500, 10))


def test_mlp():
    table = summary(mlp(), bpnn.zeros(1, 784))
    assert table.parameters == table.trainable == 397_510
    assert table.multiply_adds == 784 * 500 + 500 * 10
    assert table.parameter_bytes == 4 * 397_510
    assert [layer.kind for layer in table.layers] == ["Sequential", "Linear", "ReLU", "Dropout", "Linear"]
    assert [layer.output for layer in table.layers] == [(1, 10), (1, 500), (1, 500), (1, 500), (1, 10)]
    assert [layer.parameters for layer in table.layers] == [0, 392_500, 0, 0, 5_010]


def test_work_grows_with_the_batch_but_parameters_do_not():
    one, many = summary(mlp(), (1, 784)), summary(mlp(), (64, 784))
    assert many.multiply_adds == 64 * one.multiply_adds and many.parameters == one.parameters


def test_as_text():
    text = str(summary(mlp(), (32, 784)))
    assert "32 × 500" in text and "397,510 (1.5 MiB)" in text and "12,704,000" in text
    assert text == repr(summary(mlp(), (32, 784)))
    lines = text.splitlines()
    assert len({len(line) for line in lines if set(line) == {"─"}}) == 1
    assert any(line.startswith("  0 (Linear)") for line in lines)


class Shared(nn.Module):
    """One layer called twice, one never, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.same = self.layer
        self.unused = nn.Linear(8, 2)
        self.scale = nn.Parameter(bpnn.ones(8))

    def forward(self, x, twice=True):
        x = self.layer(x)
        return (self.layer(x) if twice else x) * self.scale, {"x": x}


def test_shared_and_unused_layers():
    table = summary(Shared(), bpnn.zeros(3, 8))
    assert table.parameters == 72 + 18 + 8
    by_name = {layer.name: layer for layer in table.layers}
    assert by_name["layer"].multiply_adds == 2 * 3 * 64
    assert by_name["unused"].output is None and by_name["unused"].parameters == 18
    assert by_name[""].parameters == 8
    assert "not called" in str(table) and "3 × 8, x 3 × 8" in str(table)


def test_arguments_in_a_dictionary():
    table = summary(Shared(), {"x": bpnn.zeros(3, 8), "twice": False})
    assert {layer.name: layer for layer in table.layers}["layer"].multiply_adds == 3 * 64


def test_frozen_parameters():
    model = mlp()
    model[0].requires_grad_(False)
    table = summary(model, (1, 784))
    assert table.trainable == 5_010 and "392,500 frozen" in str(table)


def test_bilinear():
    table = summary(nn.Bilinear(3, 4, 5), (bpnn.zeros(2, 3), bpnn.zeros(2, 4)))
    assert table.multiply_adds == 2 * 5 * 3 * 5


def test_nothing_is_left_behind():
    model = mlp()
    model[2].eval()
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    summary(model, (4, 784))
    assert model.training and model[0].training and not model[2].training
    assert all((weights[name] == value.numpy()).all() for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(Exception, match=r".+"):
        summary(model, (4, 3))
    assert model.training and not any(module._forward_hooks for module in model.modules())
