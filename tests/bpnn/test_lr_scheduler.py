"""Schedules of the learning rate: formulas, PyTorch's traces, saving and resuming."""
import json
import math
import warnings

import numpy as np
import pytest

import bpnn
from bpnn import optim
from bpnn.optim import lr_scheduler as ours

STEPS = 100


def make(module, tensor, kind="sgd"):
    """An optimizer of two groups, with rates of 0.1 and 0.3."""
    groups = [{"params": [tensor(2, requires_grad=True)]}, {"params": [tensor(2, requires_grad=True)], "lr": 0.3}]
    return module.SGD(groups, lr=0.1, momentum=0.9) if kind == "sgd" else module.Adam(groups, lr=0.1)


def settings(optimizer):
    """All that a schedule may set: rates and momenta."""
    return [
        value for group in optimizer.param_groups
        for value in (group["lr"], group["betas"][0] if "betas" in group else group["momentum"])
    ]


def trace(optimizer, scheduler, steps=STEPS):
    """The settings before each step and after the last, and the rates that the schedule says it set."""
    rows, said = [settings(optimizer)], [list(scheduler.get_last_lr())]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        rows.append(settings(optimizer))
        said.append(list(scheduler.get_last_lr()))
    return np.array(rows), np.array(said)


# name: (schedule, the factor of the initial rate at step t, or None)
CASES = {
    "step": (lambda m, o: m.StepLR(o, 7, 0.5), lambda t: 0.5 ** (t // 7)),
    "multistep": (
        lambda m, o: m.MultiStepLR(o, [30, 10, 10, 77], 0.3), lambda t: 0.3 ** sum(t >= i for i in (10, 10, 30, 77))
    ),
    "exponential": (lambda m, o: m.ExponentialLR(o, 0.97), lambda t: 0.97**t),
    "cosine": (lambda m, o: m.CosineAnnealingLR(o, 23), lambda t: (1 + math.cos(math.pi * t / 23)) / 2),
    "cosine to a floor": (lambda m, o: m.CosineAnnealingLR(o, 50, 1e-3), None),
    "cosine of one step": (lambda m, o: m.CosineAnnealingLR(o, 1, 0.01), None),
    "restarts": (lambda m, o: m.CosineAnnealingWarmRestarts(o, 9), lambda t: (1 + math.cos(math.pi * (t % 9) / 9)) / 2),
    "longer restarts": (lambda m, o: m.CosineAnnealingWarmRestarts(o, 7, 2, 1e-4), None),
    "linear": (lambda m, o: m.LinearLR(o, 0.2, 0.9, 17), lambda t: 0.2 + 0.7 * min(t, 17) / 17),
    "linear by default": (lambda m, o: m.LinearLR(o), lambda t: (1 + 2 * min(t, 5) / 5) / 3),
    "constant": (lambda m, o: m.ConstantLR(o, 0.25, 13), lambda t: 0.25 if t < 13 else 1),
    "polynomial": (lambda m, o: m.PolynomialLR(o, 40, 2.5), lambda t: (1 - min(t, 40) / 40) ** 2.5),
    "lambda": (lambda m, o: m.LambdaLR(o, lambda t: 0.95**t), lambda t: 0.95**t),
    "lambdas": (lambda m, o: m.LambdaLR(o, [lambda t: 0.95**t, lambda t: 1 / (1 + t)]), None),
    "multiplicative": (lambda m, o: m.MultiplicativeLR(o, lambda t: 0.9 + t / 1000), lambda t: np.prod(
        [0.9 + i / 1000 for i in range(1, t + 1)]
    )),
    "sequence": (
        lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, 1, 10), m.CosineAnnealingLR(o, 40), m.ExponentialLR(o, 0.9)], [10, 50]),
        lambda t: 0.1 + 0.09 * t if t < 10 else (1 + math.cos(math.pi * (t - 10) / 40)) / 2 if t < 50 else 0.9 ** (t - 50),
    ),
    "sequence of cycles": (
        lambda m, o: m.SequentialLR(
            o, [m.ConstantLR(o, 0.1, 5), m.CosineAnnealingWarmRestarts(o, 10), m.OneCycleLR(o, [0.2, 0.4], 60)], [5, 45]
        ),
        None,
    ),
    "chain": (
        lambda m, o: m.ChainedScheduler([m.LinearLR(o, 0.1, 1, 10), m.ExponentialLR(o, 0.98), m.StepLR(o, 30)]),
        lambda t: (0.1 + 0.09 * min(t, 10)) * 0.98**t * 0.1 ** (t // 30),
    ),
    "chain in a sequence": (
        lambda m, o: m.SequentialLR(
            o, [m.ChainedScheduler([m.LinearLR(o, 0.1, 1, 10), m.ExponentialLR(o, 0.98)]), m.StepLR(o, 30)], [20]
        ),
        None,
    ),
    "sequence in a sequence": (
        lambda m, o: m.SequentialLR(
            o, [m.SequentialLR(o, [m.LinearLR(o, 0.1, 1, 10), m.ExponentialLR(o, 0.98)], [10]), m.StepLR(o, 30)], [20]
        ),
        None,
    ),
    "one cycle": (lambda m, o: m.OneCycleLR(o, 0.5, STEPS + 1), None),
    "one cycle, linear": (lambda m, o: m.OneCycleLR(o, [0.5, 0.2], STEPS + 1, anneal_strategy="linear", pct_start=0.1), None),
    "one cycle, three phases": (
        lambda m, o: m.OneCycleLR(
            o, [0.5, 0.2], epochs=11, steps_per_epoch=10, three_phase=True, base_momentum=[0.8, 0.7], max_momentum=0.9
        ),
        None,
    ),
    "one cycle, rates alone": (lambda m, o: m.OneCycleLR(o, 0.5, 120, cycle_momentum=False, div_factor=5), None),
}


@pytest.mark.parametrize("name", [name for name, (_, factor) in CASES.items() if factor])
def test_formula(name):
    schedule, factor = CASES[name]
    optimizer = make(optim, bpnn.zeros)
    rows, said = trace(optimizer, schedule(ours, optimizer))
    expected = np.array([[0.1 * factor(t), 0.3 * factor(t)] for t in range(STEPS + 1)])
    np.testing.assert_allclose(rows[:, ::2], expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(said, expected, rtol=1e-9, atol=1e-15)
    assert (rows[:, 1::2] == 0.9).all()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_one_cycle_formula(kind):
    optimizer = make(optim, bpnn.zeros, kind)
    rows, _ = trace(optimizer, ours.OneCycleLR(optimizer, [0.5, 0.2], 101))

    def between(start, end, share):
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    top = 0.3 * 101 - 1
    for t, row in enumerate(rows):
        for high, rate, momentum in zip((0.5, 0.2), row[::2], row[1::2]):
            if t <= top:
                expected = between(high / 25, high, t / top), between(0.95, 0.85, t / top)
            else:
                share = (t - top) / (100 - top)
                expected = between(high, high / 25 / 1e4, share), between(0.85, 0.95, share)
            assert (rate, momentum) == pytest.approx(expected, rel=1e-12)


@pytest.mark.rivals
@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("name", CASES)
def test_pytorch_trace(name, kind):
    torch = pytest.importorskip("torch")
    schedule, _ = CASES[name]
    a, b = make(optim, bpnn.zeros, kind), make(torch.optim, torch.zeros, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows, said = trace(a, schedule(ours, a))
        expected, theirs = trace(b, schedule(torch.optim.lr_scheduler, b))
    np.testing.assert_allclose(rows, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(said, theirs, rtol=1e-12, atol=1e-15)


def test_sequence_within_a_sequence_starts_again_at_its_milestone():
    optimizer = make(optim, bpnn.zeros)
    inner = ours.SequentialLR(optimizer, [ours.LinearLR(optimizer, 0.1, 1, 10), ours.ExponentialLR(optimizer, 0.9)], [10])
    chain = ours.ChainedScheduler([ours.ExponentialLR(optimizer, 0.8), ours.LinearLR(optimizer, 0.5, 1, 4)])
    outer = ours.SequentialLR(optimizer, [ours.ConstantLR(optimizer, 0.5, 5), inner, chain], [5, 30])
    rows, _ = trace(optimizer, outer, 40)
    factors = [
        *[0.5] * 5, *[0.1 + 0.09 * t for t in range(10)], *[0.9**t for t in range(15)],
        *[0.8**t * (0.5 + 0.125 * min(t, 4)) for t in range(11)],
    ]
    np.testing.assert_allclose(rows[:, 0], 0.1 * np.array(factors), rtol=1e-9)


PLATEAUS = {
    "min": ({}, np.concatenate([np.linspace(3, 1, 20), np.ones(80)])),
    "max": ({"mode": "max", "patience": 3, "factor": 0.5}, np.sin(np.arange(100) / 5)),
    "abs": ({"threshold_mode": "abs", "threshold": 0.05, "patience": 2, "cooldown": 4}, 1 / (1 + np.arange(100))),
    "max abs": ({"mode": "max", "threshold_mode": "abs", "threshold": 0.1, "patience": 0}, np.cos(np.arange(100) / 9)),
    "floors": ({"patience": 1, "min_lr": [0.01, 0.2]}, np.ones(100)),
    "nan": ({"patience": 4}, np.full(100, np.nan)),
}


@pytest.mark.rivals
@pytest.mark.parametrize("name", PLATEAUS)
def test_plateau_trace(name):
    torch = pytest.importorskip("torch")
    options, values = PLATEAUS[name]
    a, b = make(optim, bpnn.zeros), make(torch.optim, torch.zeros)
    mine, theirs = ours.ReduceLROnPlateau(a, **options), torch.optim.lr_scheduler.ReduceLROnPlateau(b, **options)
    for value in values:
        mine.step(bpnn.tensor(value, dtype=bpnn.float64))
        theirs.step(value)
        assert settings(a) == pytest.approx(settings(b), rel=1e-12)
        assert mine.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-12)


def test_plateau():
    optimizer = make(optim, bpnn.zeros)
    scheduler = ours.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, cooldown=1, min_lr=0.04)
    rates = []
    for value in [1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5]:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    # Three bad epochs lower it; then one is not counted, and the floor holds.
    assert rates == [0.1] * 4 + [0.05] * 4 + [0.04] * 5
    optimizer.add_param_group({"params": [bpnn.zeros(1, requires_grad=True)], "lr": 1.0})
    for _ in range(8):
        scheduler.step(9.0)
    assert optimizer.param_groups[2]["lr"] < 1


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("at", [1, 12, 37])
def test_resume_from_a_saved_state(name, kind, at):
    """A state that went through JSON continues the run exactly."""
    schedule, _ = CASES[name]
    whole = make(optim, bpnn.zeros, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, _ = trace(whole, schedule(ours, whole))
        first = make(optim, bpnn.zeros, kind)
        scheduler = schedule(ours, first)
        trace(first, scheduler, at)
        saved, options = json.loads(json.dumps(scheduler.state_dict())), first.state_dict()
        second = make(optim, bpnn.zeros, kind)
        resumed = schedule(ours, second)
    second.load_state_dict(options)
    resumed.load_state_dict(saved)
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    rows, _ = trace(second, resumed, STEPS - at)
    np.testing.assert_array_equal(rows, expected[at:])


def test_plateau_resumes():
    _, values = PLATEAUS["max"]
    first, second = make(optim, bpnn.zeros), make(optim, bpnn.zeros)
    a, b = (ours.ReduceLROnPlateau(o, "max", patience=3) for o in (first, second))
    for value in values[:50]:
        a.step(value)
    b.load_state_dict(json.loads(json.dumps(a.state_dict())))
    second.load_state_dict(first.state_dict())
    for value in values[50:]:
        a.step(value)
        b.step(value)
        assert settings(first) == settings(second)


@pytest.mark.parametrize("name", ["step", "multistep", "exponential", "cosine", "restarts", "linear", "polynomial", "lambda"])
def test_resume_by_last_epoch(name):
    """A schedule made with `last_epoch` on an optimizer whose state is loaded goes on from there."""
    makers = {
        "step": lambda o, n: ours.StepLR(o, 7, 0.5, n), "multistep": lambda o, n: ours.MultiStepLR(o, [30, 10], 0.3, n),
        "exponential": lambda o, n: ours.ExponentialLR(o, 0.97, n), "cosine": lambda o, n: ours.CosineAnnealingLR(o, 23, 0, n),
        "restarts": lambda o, n: ours.CosineAnnealingWarmRestarts(o, 90, 1, 0.0, n),
        "linear": lambda o, n: ours.LinearLR(o, 0.2, 0.9, 40, n), "polynomial": lambda o, n: ours.PolynomialLR(o, 40, 2.5, n),
        "lambda": lambda o, n: ours.LambdaLR(o, lambda t: 0.95**t, n),
    }
    first = make(optim, bpnn.zeros)
    scheduler = makers[name](first, -1)
    trace(first, scheduler, 11)
    second = make(optim, bpnn.zeros)
    second.load_state_dict(first.state_dict())
    resumed = makers[name](second, 10)
    assert resumed.last_epoch == scheduler.last_epoch == 11
    np.testing.assert_allclose(trace(second, resumed, 60)[0], trace(first, scheduler, 60)[0], rtol=1e-12)
    with pytest.raises(KeyError, match=r"initial_lr.*param_groups\[0\]"):
        makers[name](make(optim, bpnn.zeros), 10)


@pytest.mark.rivals
@pytest.mark.parametrize(
    "name", ["step", "exponential", "cosine to a floor", "linear", "polynomial", "constant", "chain", "lambda"]
)
def test_a_rate_changed_by_hand_is_taken_along_as_in_pytorch(name):
    torch = pytest.importorskip("torch")
    schedule, _ = CASES[name]
    a, b = make(optim, bpnn.zeros), make(torch.optim, torch.zeros)
    mine, theirs = schedule(ours, a), schedule(torch.optim.lr_scheduler, b)
    trace(a, mine, 8), trace(b, theirs, 8)
    for optimizer in (a, b):
        optimizer.param_groups[1]["lr"] *= 3
    np.testing.assert_allclose(trace(a, mine, 40)[0], trace(b, theirs, 40)[0], rtol=1e-12)


@pytest.mark.parametrize("name", ["step", "multistep", "exponential", "cosine", "linear", "constant", "polynomial", "restarts"])
def test_jump_to_a_step(name):
    schedule, factor = CASES[name]
    optimizer = make(optim, bpnn.zeros)
    scheduler = schedule(ours, optimizer)
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in (31, 4, 18):
            scheduler.step(t)
            np.testing.assert_allclose(scheduler.get_last_lr(), [0.1 * factor(t), 0.3 * factor(t)], rtol=1e-9)


def test_fractions_of_a_restart():
    optimizer = make(optim, bpnn.zeros)
    scheduler = ours.CosineAnnealingWarmRestarts(optimizer, 4, 2)
    for epoch, share, length in [(1.5, 1.5, 4), (4.25, 0.25, 8), (11.75, 7.75, 8), (12.5, 0.5, 16), (0.5, 0.5, 4)]:
        scheduler.step(epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * (1 + math.cos(math.pi * share / length)) / 2)
    with pytest.raises(ValueError, match="non-negative epoch, but got -1"):
        scheduler.step(-1)


def test_warns_where_the_scheduler_steps_first():
    optimizer = make(optim, bpnn.zeros)
    scheduler = ours.StepLR(optimizer, 3)
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step\(\)"):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()
        second = make(optim, bpnn.zeros)
        scheduler = ours.StepLR(second, 3)
        second.step()
        scheduler.step()

        class Own(optim.Optimizer):
            """An optimizer with a step of its own is not suspected."""

            def step(self, closure=None):
                return None

        ours.StepLR(Own([bpnn.zeros(2, requires_grad=True)], {"lr": 0.1}), 3).step()
    with pytest.warns(UserWarning, match="deprecated"):
        scheduler.step(5)


def test_a_schedule_of_ones_own():
    class Halves(ours.LRScheduler):
        def get_lr(self):
            return [base / 2**self.last_epoch for base in self.base_lrs]

    optimizer = make(optim, bpnn.zeros)
    rows, _ = trace(optimizer, Halves(optimizer), 5)
    np.testing.assert_allclose(rows[:, 2], 0.3 / 2.0 ** np.arange(6))
    with pytest.raises(TypeError, match="LRScheduler: expected a method get_lr"):
        ours.LRScheduler(optimizer)


def test_lambda_objects_are_saved():
    class Decay:
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, t):
            return self.rate**t

    optimizer = make(optim, bpnn.zeros)
    state = ours.LambdaLR(optimizer, [Decay(0.5), lambda t: 1.0]).state_dict()
    assert state["lr_lambdas"] == [{"rate": 0.5}, None]
    loaded = ours.LambdaLR(optimizer, [Decay(0.1), lambda t: 1.0])
    loaded.load_state_dict(state)
    assert loaded.lr_lambdas[0].rate == 0.5


def test_errors():
    optimizer, other = make(optim, bpnn.zeros), make(optim, bpnn.zeros)
    adagrad = optim.Adagrad([bpnn.zeros(2, requires_grad=True)])
    step = ours.StepLR(optimizer, 3)
    for error, match, call in [
        (TypeError, "list is not an Optimizer", lambda: ours.StepLR([], 3)),
        (ValueError, "between 0 and 1, got 1.5", lambda: ours.ConstantLR(optimizer, 1.5)),
        (ValueError, "greater than 0 and less or equal to 1, got 0", lambda: ours.LinearLR(optimizer, 0)),
        (ValueError, "between 0 and 1, got -1", lambda: ours.LinearLR(optimizer, 0.5, -1)),
        (ValueError, "lr_lambda must have the same length.*expected 2, got 1", lambda: ours.LambdaLR(optimizer, [abs])),
        (TypeError, "lr_lambda should be a function, but got int", lambda: ours.LambdaLR(optimizer, 3)),
        (ValueError, "positive integer T_0, but got 0", lambda: ours.CosineAnnealingWarmRestarts(optimizer, 0)),
        (ValueError, "T_mult >= 1, but got 1.5", lambda: ours.CosineAnnealingWarmRestarts(optimizer, 3, 1.5)),
        (ValueError, "eta_min, but got x", lambda: ours.CosineAnnealingWarmRestarts(optimizer, 3, eta_min="x")),
        (ValueError, "either total_steps OR", lambda: ours.OneCycleLR(optimizer, 0.1)),
        (ValueError, "positive integer total_steps, but got 0", lambda: ours.OneCycleLR(optimizer, 0.1, 0)),
        (ValueError, "positive integer epochs", lambda: ours.OneCycleLR(optimizer, 0.1, epochs=-1, steps_per_epoch=3)),
        (ValueError, "pct_start, but got 2", lambda: ours.OneCycleLR(optimizer, 0.1, 10, pct_start=2)),
        (ValueError, "'cos' or 'linear', instead got up", lambda: ours.OneCycleLR(optimizer, 0.1, 10, anneal_strategy="up")),
        (ValueError, "max_lr must have the same length", lambda: ours.OneCycleLR(optimizer, [0.1], 10)),
        (ValueError, "momentum or beta1", lambda: ours.OneCycleLR(adagrad, 0.1, 10)),
        (ValueError, "at least one scheduler", lambda: ours.SequentialLR(optimizer, [], [])),
        (ValueError, "one more than the number of milestone", lambda: ours.SequentialLR(optimizer, [step], [3])),
        (ValueError, "same optimizer", lambda: ours.ChainedScheduler([step, ours.StepLR(other, 3)])),
        (ValueError, "ReduceLROnPlateau", lambda: ours.ChainedScheduler([ours.ReduceLROnPlateau(optimizer)])),
        (TypeError, "at index 0 should have `optimizer`", lambda: ours.SequentialLR(optimizer, [3], [])),
        (ValueError, "Factor should be < 1.0, got 1", lambda: ours.ReduceLROnPlateau(optimizer, factor=1)),
        (ValueError, "mode up is unknown", lambda: ours.ReduceLROnPlateau(optimizer, "up")),
        (ValueError, "threshold mode x is unknown", lambda: ours.ReduceLROnPlateau(optimizer, threshold_mode="x")),
        (ValueError, "min_lr must have the same length", lambda: ours.ReduceLROnPlateau(optimizer, min_lr=[0])),
        (ValueError, "expected the state of a scheduler", lambda: step.load_state_dict({"state": {}})),
    ]:
        with pytest.raises(error, match=match):
            call()
    short = ours.OneCycleLR(optimizer, 0.1, 3)
    optimizer.step()
    for _ in range(3):
        short.step()
    with pytest.raises(ValueError, match=r"Tried to step 4 times. The specified number of total steps is 3"):
        short.step()
