"""`bpnn.optim.swa_utils` against PyTorch, and against formulas."""
import numpy as np
import pytest
from technique_models import convnet, images, tensors

import bpnn
from bpnn import nn, optim
from bpnn.optim import swa_utils
from bpnn.optim.swa_utils import SWALR, AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn


def drift(model, seed):
    rng = np.random.default_rng(seed)
    with bpnn.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(bpnn.from_numpy(rng.normal(size=tensor.shape).astype(np.float32)))
    return tensors(model)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_the_mean_of_all_models(use_buffers):
    model = convnet()
    averaged = AveragedModel(model, use_buffers=use_buffers)
    seen = []
    for seed in range(4):
        seen.append(drift(model, seed))
        averaged.update_parameters(model)
    found = tensors(averaged.module)
    for name in found:
        buffer = "running" in name or "tracked" in name
        mean = np.mean([one[name] for one in seen], 0)
        np.testing.assert_allclose(found[name], seen[-1][name] if buffer and not use_buffers else mean, rtol=1e-5, atol=1e-6)
    assert int(averaged.n_averaged) == 4
    assert "n_averaged" in averaged.state_dict() and "module.0.weight" in averaged.state_dict()


@pytest.mark.parametrize("given", [{"avg_fn": get_ema_avg_fn(0.8)}, {"multi_avg_fn": get_ema_multi_avg_fn(0.8)}])
def test_the_exponential_average(given):
    model = nn.Linear(3, 2)
    averaged, mean = AveragedModel(model, **given), None
    for seed in range(5):
        now = drift(model, seed)["weight"]
        averaged.update_parameters(model)
        mean = now if mean is None else 0.8 * mean + 0.2 * now
    np.testing.assert_allclose(averaged.module.weight.detach().numpy(), mean, rtol=1e-5)
    x = bpnn.ones(1, 3)
    np.testing.assert_array_equal(averaged(x).detach().numpy(), averaged.module(x).detach().numpy())


def test_statistics_are_means_over_batches():
    model = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Flatten(), nn.Linear(128, 3))
    model.eval()
    data = [images(6, seed) for seed in range(3)]
    for batches in ([bpnn.from_numpy(d["pixel_values"]) for d in data],
                    [(bpnn.from_numpy(d["pixel_values"]), d["labels"]) for d in data]):
        update_bn(batches, model)
        mean = np.mean([d["pixel_values"].mean((0, 2, 3)) for d in data], 0)
        np.testing.assert_allclose(model[0].running_mean.numpy(), mean, atol=1e-6)
        variance = np.mean([d["pixel_values"].var((0, 2, 3), ddof=1) for d in data], 0)
        np.testing.assert_allclose(model[0].running_var.numpy(), variance, rtol=1e-5)
    assert not model.training and model[0].momentum == 0.3
    update_bn([], nn.Linear(2, 2))


def test_errors():
    with pytest.raises(ValueError, match=r"Invalid decay value 2 provided"):
        get_ema_avg_fn(2)
    with pytest.raises(AssertionError, match="Only one of avg_fn and multi_avg_fn"):
        AveragedModel(nn.Linear(1, 1), avg_fn=get_ema_avg_fn(), multi_avg_fn=get_swa_multi_avg_fn())
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    with pytest.raises(ValueError, match="anneal_strategy must be one of 'cos' or 'linear', instead got x"):
        SWALR(optimizer, 0.1, anneal_strategy="x")
    with pytest.raises(ValueError, match="anneal_epochs must be equal or greater than 0, got -1"):
        SWALR(optimizer, 0.1, -1)
    with pytest.raises(ValueError, match="swa_lr must have the same length"):
        SWALR(optimizer, [0.1, 0.2])


def test_a_schedule_goes_on():
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), 0.5)
    whole = SWALR(optimizer, 0.1, 4)
    for _ in range(2):
        optimizer.step()
        whole.step()
    state, rate = whole.state_dict(), optimizer.param_groups[0]["lr"]
    assert all(isinstance(value, (int, float, str, list)) for value in state.values())
    other = optim.SGD(nn.Linear(1, 1).parameters(), 0.5)
    second = SWALR(other, 0.1, 4)
    second.load_state_dict(state)
    other.param_groups[0]["lr"] = rate
    for _ in range(3):
        for schedule in (whole, second):
            schedule.optimizer.step()
            schedule.step()
        assert whole.get_last_lr() == second.get_last_lr()
    assert whole.get_last_lr() == [0.1]


@pytest.mark.rivals
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_rates_are_pytorchs(strategy, steps):
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import SWALR as Theirs

    def rates(module, tensor, before):
        first, second = (tensor(2, requires_grad=True) for _ in range(2))
        optimizer = module.SGD([{"params": [first]}, {"params": [second], "lr": 0.02}], 0.5)
        plain = module.lr_scheduler.ExponentialLR(optimizer, 0.9)
        seen = []
        for schedule, count in ((lambda: plain, before), (lambda: swa(optimizer), 9)):
            one = schedule()
            for _ in range(count):
                seen.append([group["lr"] for group in optimizer.param_groups])
                optimizer.step()
                one.step()
        return seen

    def swa(optimizer):
        kind = SWALR if isinstance(optimizer, optim.SGD) else Theirs
        return kind(optimizer, [0.05, 0.1], anneal_epochs=steps, anneal_strategy=strategy)

    np.testing.assert_allclose(rates(optim, bpnn.zeros, 3), rates(torch.optim, torch.zeros, 3), rtol=1e-12)


@pytest.mark.rivals
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("which", ["mean", "ema", "multi"])
def test_averages_are_pytorchs(use_buffers, which):
    torch = pytest.importorskip("torch")
    import torch.optim.swa_utils as theirs

    def averages(module, copy, layers):
        given = {
            "mean": {}, "ema": {"avg_fn": module.get_ema_avg_fn(0.7)}, "multi": {"multi_avg_fn": module.get_ema_multi_avg_fn(0.7)},
        }
        averaged = module.AveragedModel(layers, use_buffers=use_buffers, **given[which])
        rng = np.random.default_rng(0)
        for i in range(4):
            for tensor in (*layers.parameters(), *layers.buffers()):
                values = rng.normal(size=tuple(tensor.shape)).astype(np.float32)
                copy(tensor, values if tensor.is_floating_point() else np.array(i * 3))
            averaged.update_parameters(layers)
        return {name: np.asarray(value.detach().numpy()) for name, value in averaged.state_dict().items()}

    def into_ours(tensor, values):
        with bpnn.no_grad():
            tensor.copy_(bpnn.from_numpy(values))

    def into_theirs(tensor, values):
        tensor.data.copy_(torch.from_numpy(values))

    ours = averages(swa_utils, into_ours, nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    expected = averages(theirs, into_theirs, torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)))
    assert ours.keys() == expected.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.rivals
def test_statistics_are_pytorchs():
    torch = pytest.importorskip("torch")
    from torch.optim.swa_utils import update_bn as theirs

    model, other = convnet(), torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4))
    other.load_state_dict({name: torch.from_numpy(v) for name, v in tensors(model).items() if name[0] in "01"})
    data = [images(5, seed)["pixel_values"] for seed in range(3)]
    update_bn([bpnn.from_numpy(x) for x in data], model)
    theirs([torch.from_numpy(x) for x in data], other)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_allclose(getattr(model[1], name).numpy(), getattr(other[1], name).numpy(), rtol=1e-5)
