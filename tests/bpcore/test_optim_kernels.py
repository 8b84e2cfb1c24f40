"""Optimizer steps on plain arrays against the published formulas, written in NumPy float64."""
import itertools

import numpy as np
import pytest

from bpcore import threads
from bpcore.optim import Step
from bpcore.sweep import clip_coefficient, rescale, total_norm


# --- the formulas: the new p, from p, the gradient and the state s, which they change; t counts from 1 ---

def loss_gradient(p, g, o):
    return (-g if o.get("maximize") else g) + (0 if o.get("decoupled") else o.get("weight_decay", 0)) * p


def sgd(p, g, s, t, lr, momentum=0, dampening=0, nesterov=False, **o):
    d = loss_gradient(p, g, o)
    if momentum:
        s["b"] = d if t == 1 else momentum * s["b"] + (1 - dampening) * d
        d = d + momentum * s["b"] if nesterov else s["b"]
    return p - lr * d


def adagrad(p, g, s, t, lr, lr_decay=0, initial_accumulator_value=0, eps=1e-10, **o):
    d = loss_gradient(p, g, o)
    s["sum"] = s.get("sum", initial_accumulator_value) + d * d
    return p - lr / (1 + (t - 1) * lr_decay) * d / (np.sqrt(s["sum"]) + eps)


def rmsprop(p, g, s, t, lr, alpha=0.99, eps=1e-8, momentum=0, centered=False, **o):
    d = loss_gradient(p, g, o)
    v = s["v"] = alpha * s.get("v", 0) + (1 - alpha) * d * d
    if centered:
        s["m"] = alpha * s.get("m", 0) + (1 - alpha) * d
        v = v - s["m"] ** 2
    r = d / (np.sqrt(v) + eps)
    if momentum:
        r = s["b"] = momentum * s.get("b", 0) + r
    return p - lr * r


def adadelta(p, g, s, t, lr, rho=0.9, eps=1e-6, **o):
    d = loss_gradient(p, g, o)
    s["v"] = rho * s.get("v", 0) + (1 - rho) * d * d
    x = np.sqrt(s.get("u", 0) + eps) / np.sqrt(s["v"] + eps) * d
    s["u"] = rho * s.get("u", 0) + (1 - rho) * x * x
    return p - lr * x


def moments(p, g, s, beta1, beta2, o):
    d = loss_gradient(p, g, o)
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * d
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * d * d
    return d


def decayed(p, lr, o):
    return p * (1 - lr * o["weight_decay"]) if o.get("decoupled") else p


def adam(p, g, s, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False, **o):
    moments(p, g, s, beta1, beta2, o)
    v = s["v"]
    if amsgrad:
        v = s["top"] = np.maximum(s.get("top", 0), v)
    return decayed(p, lr, o) - lr * (s["m"] / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)


def nadam(p, g, s, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, momentum_decay=4e-3, **o):
    d = moments(p, g, s, beta1, beta2, o)
    mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in (t, t + 1))
    s["product"] = s.get("product", 1) * mu
    m = (1 - mu) / (1 - s["product"]) * d + mu_next / (1 - s["product"] * mu_next) * s["m"]
    return decayed(p, lr, o) - lr * m / (np.sqrt(s["v"] / (1 - beta2**t)) + eps)


def radam(p, g, s, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, **o):
    moments(p, g, s, beta1, beta2, o)
    m, limit = s["m"] / (1 - beta1**t), 2 / (1 - beta2) - 1
    rho = limit - 2 * t * beta2**t / (1 - beta2**t)
    if rho > 5:
        r = np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
        m = r * m * np.sqrt(1 - beta2**t) / (np.sqrt(s["v"]) + eps)
    return decayed(p, lr, o) - lr * m


def adamax(p, g, s, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, **o):
    d = loss_gradient(p, g, o)
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * d
    s["u"] = np.maximum(beta2 * s.get("u", 0), np.abs(d) + eps)
    return p - lr / (1 - beta1**t) * s["m"] / s["u"]


FORMULAS = {
    "sgd": sgd, "adagrad": adagrad, "rmsprop": rmsprop, "adadelta": adadelta, "adam": adam, "nadam": nadam, "radam": radam,
    "adamax": adamax,
}


def combinations(**choices):
    return [dict(zip(choices, values)) for values in itertools.product(*choices.values())]


BOTH = (False, True)
CASES = [
    *(("sgd", o) for o in combinations(
        lr=[0.03], momentum=[0, 0.9], dampening=[0, 0.3], weight_decay=[0, 0.1], nesterov=BOTH, maximize=BOTH
    ) if not o["nesterov"] or (o["momentum"] and not o["dampening"])),
    *(("adagrad", o) for o in combinations(
        lr=[0.1], lr_decay=[0, 0.2], weight_decay=[0, 0.1], initial_accumulator_value=[0, 0.5], eps=[1e-10, 1e-2], maximize=BOTH
    )),
    *(("rmsprop", o) for o in combinations(
        lr=[0.02], alpha=[0.99, 0.8], weight_decay=[0, 0.1], momentum=[0, 0.9], centered=BOTH, maximize=BOTH
    )),
    *(("adadelta", o) for o in combinations(lr=[1.0, 0.3], rho=[0.9, 0.5], weight_decay=[0, 0.1], maximize=BOTH)),
    *(("adam", o) for o in combinations(
        lr=[0.05], beta1=[0.9, 0.0], beta2=[0.999, 0.9], weight_decay=[0, 0.1], decoupled=BOTH, amsgrad=BOTH, maximize=BOTH
    )),
    *(("nadam", o) for o in combinations(
        lr=[0.05], beta1=[0.9, 0.5], weight_decay=[0, 0.1], decoupled=BOTH, momentum_decay=[4e-3, 0.1], maximize=BOTH
    )),
    *(("radam", o) for o in combinations(lr=[0.05], beta2=[0.999, 0.9], weight_decay=[0, 0.1], decoupled=BOTH, maximize=BOTH)),
    *(("adamax", o) for o in combinations(lr=[0.05], beta2=[0.999, 0.9], weight_decay=[0, 0.1], maximize=BOTH)),
]


def start(sizes=((3, 5),), dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(size), dtype) for size in sizes]


def gradient(p, t):
    """Of a quadratic and a sine, another one at each step."""
    return np.asarray(0.7 * p + np.cos(3 * p + t))


def by_formula(name, p, steps, options):
    p, s = np.asarray(p, np.float64).copy(), {}
    for t in range(1, steps + 1):
        p = FORMULAS[name](p, gradient(p, t), s, t, **options)
    return p


def by_step(name, params, steps, options, **run):
    state = {}
    for t in range(1, steps + 1):
        getattr(Step(), name)(params, [gradient(p, t) for p in params], state, **options).run(**run)
    return state


@pytest.mark.parametrize(("name", "options"), CASES)
def test_formula(name, options):
    (p,) = start()
    expected = by_formula(name, p, 60, options)
    by_step(name, [p], 60, options)
    np.testing.assert_allclose(p, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("size", [1, 31, 32, 33, 4095, 4096, 4097, 10_000])
def test_float32(name, size):
    p, *grads = start([size] * 4, np.float32)
    expected, s, state = p.astype(np.float64), {}, {}
    for t, g in enumerate(grads, 1):
        expected = FORMULAS[name](expected, g.astype(np.float64), s, t, lr=0.01)
        getattr(Step(), name)([p], [g], state, lr=0.01).run()
    assert p.dtype == np.float32 and all(value.dtype == np.float32 for value in state.get(0, {}).values() if value.ndim)
    np.testing.assert_allclose(p, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_and_neighbours_change_nothing(name, dtype):
    """The same bits from one thread and two, and from a tensor alone or among others."""
    sizes = [(1,), (300, 401), (0, 4), (33,), (), (4096,), (70_001,), (2, 3, 5)]
    options = {"lr": 0.01, "weight_decay": 0.1}
    results = []
    for count in (1, 2):
        threads.set_num_threads(count)
        params = start(sizes, dtype)
        by_step(name, params, 3, options, max_norm=1.0)
        results.append(params)
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)
    together, alone = start(sizes, dtype), start(sizes, dtype)
    by_step(name, together, 3, options)
    for p, q in zip(alone, together):
        by_step(name, [p], 3, options)
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("name", FORMULAS)
def test_memory_in_any_order(name):
    """Parameters, gradients and states that are transposed, strided or broadcast."""
    options = {"lr": 0.05}
    plain = start([(6, 7), (5, 4), (8,)])
    state, other = {}, {}
    for t in range(1, 4):
        grads = [gradient(plain[0], t), gradient(plain[1], t), np.full(8, 0.3)]
        getattr(Step(), name)(plain, grads, state, **options).run()
    odd = [np.asfortranarray(start([(6, 7)])[0]), None, None]
    whole = np.zeros((10, 4)), np.zeros(16)
    odd[1], odd[2] = whole[0][::2], whole[1][::-2]
    for p, q in zip(odd, start([(6, 7), (5, 4), (8,)])):
        p[...] = q
    for t in range(1, 4):
        grads = [np.asfortranarray(gradient(odd[0], t)), gradient(odd[1], t)[::-1][::-1], np.broadcast_to(0.3, 8)]
        getattr(Step(), name)(odd, grads, other, **options).run()
        for slots in other.values():
            slots.update({key: np.asfortranarray(value) for key, value in slots.items() if value.ndim == 2})
    for p, q in zip(plain, odd):
        np.testing.assert_array_equal(p, q)
    assert not whole[0][1::2].any() and not whole[1][0::2].any()


def test_mixed_dtypes_in_one_step():
    params = [*start([(40,)], np.float32), *start([(50,)], np.float64)]
    expected = [by_formula("adam", p, 4, {"lr": 0.01}) for p in params]
    state = by_step("adam", params, 4, {"lr": 0.01})
    np.testing.assert_allclose(params[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(params[1], expected[1], rtol=1e-12)
    assert [state[i]["exp_avg"].dtype for i in range(2)] == [np.float32, np.float64]


def test_several_groups_in_one_step():
    params = start([(4,), (5,), (6,)])
    expected = [
        by_formula("sgd", params[0], 1, {"lr": 0.1}),
        by_formula("adam", params[1], 1, {"lr": 0.2}),
        by_formula("rmsprop", params[2], 1, {"lr": 0.3}),
    ]
    grads = [gradient(p, 1) for p in params]
    step = Step().sgd(params[:1], grads[:1], {}, lr=0.1).adam(params[1:2], grads[1:2], {}, lr=0.2)
    step.rmsprop(params[2:], grads[2:], {}, lr=0.3).run()
    for p, e in zip(params, expected):
        np.testing.assert_allclose(p, e, rtol=1e-12)


def test_a_parameter_without_gradient_is_left_out_and_does_not_count():
    params = start([(4,), (5,)])
    first = params[0].copy()
    state = {}
    Step().adam(params, [None, gradient(params[1], 1)], state).run()
    np.testing.assert_array_equal(params[0], first)
    assert 0 not in state and state[1]["step"] == 1
    Step().adam(params, [gradient(params[0], 1), None], state).run()
    assert state[0]["step"] == 1 and state[1]["step"] == 1
    np.testing.assert_allclose(params[0], by_formula("adam", first, 1, {"lr": 1e-3}), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
@pytest.mark.parametrize("name", FORMULAS)
def test_clipping_in_the_step_is_clipping_before_it(name, max_norm, dtype):
    sizes = [(30, 20), (7,), (5000,)]
    ours, theirs = start(sizes, dtype), start(sizes, dtype)
    state, other = {}, {}
    for t in range(1, 4):
        grads = [gradient(p, t) for p in ours]
        kept = [g.copy() for g in grads]
        norm = getattr(Step(), name)(ours, grads, state).run(max_norm=max_norm)
        for g, k in zip(grads, kept):
            np.testing.assert_array_equal(g, k)
        grads = [gradient(p, t) for p in theirs]
        expected = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads))
        assert norm == pytest.approx(expected, rel=1e-5 if dtype == np.float32 else 1e-12)
        factor = min(1.0, max_norm / (expected + 1e-6))
        getattr(Step(), name)(theirs, [(g * factor).astype(dtype) for g in grads], other).run()
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p, q, rtol=2e-4 if dtype == np.float32 else 1e-9, atol=1e-5 if dtype == np.float32 else 1e-12)


def test_zeroing_in_the_step():
    params = start([(30, 20), (7,), (9000,), (4, 6)], np.float32)
    grads = [gradient(p, 1) for p in params]
    grads[3] = np.asfortranarray(grads[3])
    expected = [p - 0.1 * g for p, g in zip(params, grads)]
    assert Step().sgd(params, grads, {}, lr=0.1).run(zero_grad=True) is None
    for p, g, e in zip(params, grads, expected):
        np.testing.assert_allclose(p, e, rtol=1e-6, atol=1e-7)
        assert not g.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 31, 33, 4096, 4097, 100_003])
def test_norm(size, dtype):
    x = start([size], dtype, seed=size)[0]
    exact = np.sqrt((x.astype(np.longdouble) ** 2).sum())
    assert total_norm([x]) == pytest.approx(float(exact), rel=1e-14)
    assert total_norm([x[::-1], x[:0], x[:1]]) == pytest.approx(float(np.hypot(exact, x[0] if size else 0)), rel=1e-14)


def test_norm_does_not_overflow_and_keeps_nan():
    assert total_norm([np.full(10, 1e30, np.float32)]) == pytest.approx(np.sqrt(10) * 1e30, rel=1e-6)
    assert np.isnan(total_norm([np.array([1.0, np.nan])])) and np.isinf(total_norm([np.array([1.0, np.inf])]))
    assert total_norm([]) == 0 and clip_coefficient(2.0, 1.0) == 1 / (2 + 1e-6) and clip_coefficient(0.5, 1.0) == 1
    assert np.isnan(clip_coefficient(np.nan, 1.0)) and clip_coefficient(np.inf, 1.0) == 0


def test_rescale():
    arrays = [*start([(300, 41), (3,)], np.float32), start([(9, 8)])[0].T]
    expected = [a * a.dtype.type(0.25) for a in arrays]
    rescale(arrays, 0.25)
    for a, e in zip(arrays, expected):
        np.testing.assert_array_equal(a, e)


def test_nan_gets_through():
    for name in FORMULAS:
        (p,) = start([(40,)])
        g = gradient(p, 1)
        g[[3, 39]] = np.nan
        getattr(Step(), name)([p], [g], {}, **({"amsgrad": True} if name == "adam" else {})).run()
        np.testing.assert_array_equal(np.isnan(p), np.isin(np.arange(40), [3, 39]))


def test_errors_name_what_is_wrong_and_change_nothing():
    p, g = start([(4,)])[0], np.ones(4)
    read_only = p.copy()
    read_only.flags.writeable = False
    state = {0: {"exp_avg": np.zeros(3), "exp_avg_sq": np.zeros(4), "step": np.zeros((), np.float32)}}
    kept = p.copy()
    for error, match, params, grads, slots in [
        (TypeError, r"params\[1\]: expected float32 or float64, got int64", [p, np.arange(4)], [g, np.arange(4)], {}),
        (ValueError, r"grads\[1\]: expected float64 of shape \(4,\).*float64 of shape \(3,\)", [p, p], [g, g[:3]], {}),
        (ValueError, r"grads\[0\]: expected float64.*float32", [p], [g.astype(np.float32)], {}),
        (ValueError, "grads: expected one for each of 2 params, got 1", [p, p], [g], {}),
        (ValueError, r"params\[0\].*read-only", [read_only], [g], {}),
        (TypeError, r"params\[0\]: expected a Tensor where no grads are given", [p], None, {}),
        (TypeError, r"params\[1\]: expected a Tensor or an array, got list", [p, [1.0]], [g, g], {}),
        (ValueError, r"state 'exp_avg' of params\[0\].*shape \(4,\).*shape \(3,\)", [p], [g], state),
        (TypeError, r"state of params\[0\]: expected a dict, got list", [p], [g], {0: []}),
        (TypeError, "state: expected a dict, got list", [p], [g], []),
    ]:
        before = {key: dict(value) for key, value in slots.items() if isinstance(value, dict)} if slots else {}
        with pytest.raises(error, match=match):
            Step().adam(params, grads, slots).run()
        np.testing.assert_array_equal(p, kept)
        assert not slots or isinstance(slots, list) or slots.keys() == (before.keys() or slots.keys())
    assert state[0]["step"] == 0
    with pytest.raises(ValueError, match="max_norm: expected a number that is not negative, got -1"):
        Step().sgd([p], [g], {}).run(max_norm=-1)
    with pytest.raises(ValueError, match=r"tensors\[0\].*read-only"):
        rescale([read_only], 2.0)
    with pytest.raises(TypeError, match=r"tensors\[1\]: expected float32 or float64, got int64"):
        total_norm([p, np.arange(3)])


def test_steps_that_are_saved_as_numbers():
    (p,) = start([(4,)])
    state = {0: {"step": 5}}
    expected = adam(p, gradient(p, 1), {}, 6, lr=1e-3)
    Step().adam([p], [gradient(p, 1)], state).run()
    np.testing.assert_allclose(p, expected, rtol=1e-12)
    assert state[0]["step"].dtype == np.float32 and state[0]["step"] == 6
