"""Rates by layer and over the steps, against formulas and `transformers`."""
import math

import numpy as np
import pytest
from technique_models import MODELS, bert, convnet, make, seq2seq, text_classifier

import bpnn
from bpnn import nn, optim
from bpnn.finetune import rates
from bpnn.finetune.freeze import freeze_layers, head_only
from bpnn.finetune.rates import discriminative, layer_groups, layerwise_decay
from bpnn.train.checkpoint import load_checkpoint, save_checkpoint

W, T = 5, 23
SCHEDULES = {  # factor at step t >= W
    "get_constant_schedule": ({}, lambda t: 1.0),
    "get_constant_schedule_with_warmup": ({"num_warmup_steps": W}, lambda t: 1.0),
    "get_linear_schedule_with_warmup": (
        {"num_warmup_steps": W, "num_training_steps": T}, lambda t: max(0, (T - t) / (T - W))),
    "get_cosine_schedule_with_warmup": (
        {"num_warmup_steps": W, "num_training_steps": T}, lambda t: (1 + math.cos(math.pi * (t - W) / (T - W))) / 2),
    "get_cosine_with_hard_restarts_schedule_with_warmup": (
        {"num_warmup_steps": W, "num_training_steps": T, "num_cycles": 3},
        lambda t: 0 if t >= T else (1 + math.cos(math.pi * (3 * (t - W) / (T - W) % 1))) / 2),
    "get_polynomial_decay_schedule_with_warmup": (
        {"num_warmup_steps": W, "num_training_steps": T, "lr_end": 0.01, "power": 2.0},
        lambda t: ((0.3 - 0.01) * max(0, 1 - (t - W) / (T - W)) ** 2 + 0.01) / 0.3),
    "get_inverse_sqrt_schedule": ({"num_warmup_steps": W}, lambda t: math.sqrt(W / t)),
}
OWN = {
    "get_exponential_schedule_with_warmup": (
        {"num_warmup_steps": W, "num_training_steps": T, "ratio": 0.05}, lambda t: 0.05 ** min(1, (t - W) / (T - W))),
}


def optimizer(lr=0.3):
    first, second = bpnn.zeros(2, requires_grad=True), bpnn.zeros(2, requires_grad=True)
    return optim.SGD([{"params": [first]}, {"params": [second], "lr": lr / 3}], lr)


def run(schedule, steps=T + 4):
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return np.array(seen)


@pytest.mark.parametrize("name", [*SCHEDULES, *OWN])
def test_schedules_are_their_formulas(name):
    given, factor = {**SCHEDULES, **OWN}[name]
    warmup = given.get("num_warmup_steps", 0)
    expected = [t / warmup if t < warmup else factor(t) for t in range(T + 4)]
    seen = run(getattr(rates, name)(optimizer(), **given))
    if "cosine_schedule" in name:  # beyond the end the wave comes up again, as in transformers
        expected = [t / warmup if t < warmup else max(0, factor(t)) for t in range(T + 4)]
    np.testing.assert_allclose(seen[:, 0], 0.3 * np.array(expected), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(seen[:, 1], 0.1 * np.array(expected), rtol=1e-12, atol=1e-15)


def test_the_slanted_triangle():
    T, share, ratio = 50, 0.1, 32
    cut = math.floor(T * share)
    expected = []
    for t in range(T):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / share - 1))
        expected.append(0.3 * (1 + p * (ratio - 1)) / ratio)
    np.testing.assert_allclose(run(rates.get_slanted_triangular_schedule(optimizer(), T), T)[:, 0], expected, rtol=1e-12)
    assert run(rates.get_slanted_triangular_schedule(optimizer(), T), T + 9)[-1, 0] == pytest.approx(0.3 / 32)


@pytest.mark.rivals
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, W])
def test_schedules_are_those_of_transformers(name, warmup):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    given = SCHEDULES[name][0]
    given = {**given, "num_warmup_steps": warmup} if "num_warmup_steps" in given else given
    theirs = torch.optim.SGD([torch.zeros(2, requires_grad=True)], 0.3)
    schedule = getattr(transformers, name)(theirs, **given)
    seen = []
    for _ in range(T + 4):
        seen.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    np.testing.assert_allclose(run(getattr(rates, name)(optimizer(), **given))[:, 0], seen, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", [*SCHEDULES, *OWN])
def test_a_schedule_goes_on_from_a_checkpoint(name, tmp_path):
    given = {**SCHEDULES, **OWN}[name][0]
    whole = run(getattr(rates, name)(optimizer(), **given))
    first = getattr(rates, name)(optimizer(), **given)
    run(first, 7)
    save_checkpoint(tmp_path, 7, {"scheduler": first.state_dict(), "optimizer": first.optimizer.state_dict()})
    second = getattr(rates, name)(optimizer(), **given)
    saved = load_checkpoint(tmp_path)
    second.optimizer.load_state_dict(saved["optimizer"])
    second.load_state_dict(saved["scheduler"])
    np.testing.assert_array_equal(run(second, T - 3), whole[7:])


def test_wrong_numbers_are_named():
    for name, given, words in [
        ("get_linear_schedule_with_warmup", (-1, 5), "num_warmup_steps: expected 0 or more, got -1"),
        ("get_linear_schedule_with_warmup", (1, -5), "num_training_steps: expected 0 or more, got -5"),
        ("get_polynomial_decay_schedule_with_warmup", (1, 5, 0.5), "lr_end: expected less than the optimizer's lr, 0.3, got 0.5"),
        ("get_exponential_schedule_with_warmup", (1, 5, 0), "ratio: expected a number in"),
        ("get_slanted_triangular_schedule", (5, 1.0), "cut_frac: expected a number between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=words):
            getattr(rates, name)(optimizer(), *given)
    with pytest.raises(ValueError, match="decay: expected a number above 0, got 0"):
        layerwise_decay(bert(), 1e-3, 0)
    with pytest.raises(ValueError, match="all of BertForSequenceClassification are frozen"):
        discriminative(bert().requires_grad_(False), 1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_each_parameter_is_in_one_group(name):
    model = make(name)
    groups = layer_groups(model)
    assert [group.name for group in groups] == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    ids = [id(p) for group in groups for _, p in group.parameters]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in model.parameters()}
    _, layers, count, embedding = MODELS[name]
    assert embedding in dict(groups[0].parameters)
    for i in range(count):
        mine = [n for n, _ in groups[i + 1].parameters]
        own = [n for n, _ in model.named_parameters() if n.startswith(f"{layers}.{i}.")]
        assert [n for n in mine if n.startswith(layers)] == own
        assert i == count - 1 or all(n.startswith(layers) for n in mine)
    assert sum(group.numel() for group in groups) == sum(p.numel() for p in model.parameters())


def test_groups_of_other_models():
    assert [g.name for g in layer_groups(text_classifier())] == ["embedding", "rnn", "linear"]
    assert [g.name for g in layer_groups(convnet())] == ["0", "1", "4"]
    assert [g.name for g in layer_groups(nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))))] == ["0.0", "0.1"]
    assert [g.name for g in layer_groups(seq2seq())] == ["embeddings", *(f"layer.{i}" for i in range(4)), "head"]
    assert [g.name for g in layer_groups(nn.Linear(2, 2))] == ["own"]


def test_discriminative_rates():
    groups = discriminative(bert(), 0.1)
    assert [g["name"] for g in groups] == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    np.testing.assert_allclose([g["lr"] for g in groups], [0.1 / 2.6**4, 0.1 / 2.6**3, 0.1 / 2.6**2, 0.1 / 2.6, 0.1])
    optimizer = optim.AdamW(groups, 1.0)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}


def test_layerwise_decay_spares_biases_and_norms():
    model = bert()
    groups = layerwise_decay(model, 0.1, 0.9, 0.02)
    by_id = {id(p): group for group in groups for p in group["params"]}
    assert len(by_id) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = by_id[id(parameter)]
        spared = name.endswith("bias") or "LayerNorm" in name
        assert group["weight_decay"] == (0.0 if spared else 0.02), name
        depth = 4 if "embeddings" in name else 3 - int(name.split("layer.")[1][0]) if "layer." in name else 0
        assert group["lr"] == pytest.approx(0.1 * 0.9**depth), name
    optim.AdamW(groups).step()


def test_frozen_parameters_are_in_no_group():
    model = bert()
    freeze_layers(model, 2)
    groups = layerwise_decay(model, 1.0, 0.5)
    assert sorted({g["lr"] for g in groups}) == [0.5, 1.0]
    head_only(model)
    assert [g["name"] for g in discriminative(model, 1.0)] == ["head"]
    assert all(p.requires_grad for g in layerwise_decay(model, 1.0) for p in g["params"])
