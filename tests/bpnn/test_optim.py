"""Optimizers on Tensors: every option reaches the step, groups, state, saving; and PyTorch beside them."""
import warnings
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpcore.optim import Step
from bpnn import optim

# name: (step method, option sets by the constructor's names)
OPTIMIZERS = {
    "SGD": ("sgd", [
        {}, {"lr": 0.1}, {"lr": 0.02, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1, "maximize": True},
        {"momentum": 0.8, "nesterov": True},
    ]),
    "Adagrad": ("adagrad", [
        {}, {"lr": 0.2, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3, "maximize": True},
    ]),
    "RMSprop": ("rmsprop", [
        {}, {"lr": 0.03, "alpha": 0.9, "eps": 1e-5, "weight_decay": 0.1, "momentum": 0.7, "centered": True, "maximize": True},
    ]),
    "Adadelta": ("adadelta", [{}, {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1, "maximize": True}]),
    "Adam": ("adam", [
        {}, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True, "maximize": True},
        {"weight_decay": 0.2, "decoupled_weight_decay": True},
    ]),
    "AdamW": ("adam", [{}, {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.3, "amsgrad": True, "maximize": True}]),
    "NAdam": ("nadam", [
        {}, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "momentum_decay": 0.1, "maximize": True},
        {"weight_decay": 0.2, "decoupled_weight_decay": True},
    ]),
    "RAdam": ("radam", [
        {}, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "maximize": True},
        {"weight_decay": 0.2, "decoupled_weight_decay": True},
    ]),
    "Adamax": ("adamax", [{}, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1, "maximize": True}]),
}
CASES = [(name, options) for name, (_, sets) in OPTIMIZERS.items() for options in sets]
SHAPES = [(4, 3), (5,), ()]


def values(dtype=np.float64, seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def parameters(dtype=np.float64, shapes=SHAPES):
    return [bpnn.tensor(value, dtype=np.dtype(dtype), requires_grad=True) for value in values(dtype, 0, shapes)]


def set_gradients(params, t):
    for param, grad in zip(params, values(params[0].dtype, 100 + t, [param.shape for param in params])):
        param.grad = bpnn.tensor(grad, dtype=grad.dtype)


def arrays(params):
    return [np.array(param.detach().numpy()) for param in params]


def run(optimizer, params, steps, first=1, **keywords):
    for t in range(first, first + steps):
        set_gradients(params, t)
        optimizer.step(**keywords)
    return arrays(params)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_option_reaches_the_step(name, options):
    params = parameters()
    result = run(getattr(optim, name)(params, **options), params, 6)
    keywords = dict(options)
    if "betas" in keywords:
        keywords["beta1"], keywords["beta2"] = keywords.pop("betas")
    if name == "AdamW":
        keywords = {"weight_decay": 0.01, "decoupled": True, **keywords}
    if "decoupled_weight_decay" in keywords:
        keywords["decoupled"] = keywords.pop("decoupled_weight_decay")
    plain, state = values(), {}
    for t in range(1, 7):
        getattr(Step(), OPTIMIZERS[name][0])(plain, values(seed=100 + t), state, **keywords).run()
    for ours, expected in zip(result, plain):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.rivals
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_pytorch(name, options, dtype):
    """The same parameters, and the same state under the same names, after 30 steps; and each loads the other's state."""
    torch = pytest.importorskip("torch")
    params = parameters(dtype)
    theirs = [torch.from_numpy(np.array(value)).requires_grad_() for value in values(dtype)]
    a, b = getattr(optim, name)(params, **options), getattr(torch.optim, name)(theirs, **options)

    def both(a, b, first, steps):
        result = run(a, params, steps, first)
        for t in range(first, first + steps):
            for param, grad in zip(theirs, values(dtype, 100 + t)):
                param.grad = torch.from_numpy(np.array(grad))
            b.step()
        for ours, expected in zip(result, theirs):
            tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-6 if name == "NAdam" else 1e-11}
            np.testing.assert_allclose(ours, expected.detach().numpy(), **tolerance)

    both(a, b, 1, 30)
    saved, expected = a.state_dict(), b.state_dict()
    assert saved["state"].keys() == expected["state"].keys()
    for number, slots in expected["state"].items():
        assert saved["state"][number].keys() == slots.keys()
        for key, value in slots.items():
            ours = saved["state"][number][key]
            assert tuple(ours.shape) == tuple(value.shape)
            np.testing.assert_allclose(ours.numpy(), value.numpy(), rtol=2e-5 if dtype == np.float32 else 1e-6, atol=1e-6)
    for ours, group in zip(saved["param_groups"], expected["param_groups"]):
        assert ours == group
    c = getattr(optim, name)(params)
    c.load_state_dict(expected)
    d = getattr(torch.optim, name)(theirs)
    d.load_state_dict({
        "state": {
            number: {key: torch.from_numpy(np.array(value.numpy())) for key, value in slots.items()}
            for number, slots in saved["state"].items()
        },
        "param_groups": saved["param_groups"],
    })
    both(c, d, 31, 10)


@pytest.mark.rivals
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_signature_is_pytorchs(name):
    torch = pytest.importorskip("torch")
    import inspect

    def signature(cls):
        given = inspect.signature(cls).parameters.values()
        return [(p.name, p.kind, p.default) for p in given if p.default is not inspect.Parameter.empty]

    assert signature(getattr(optim, name)) == signature(getattr(torch.optim, name))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resume_is_exact(name):
    params = parameters(np.float32)
    expected = run(getattr(optim, name)(params, lr=0.02), params, 10)
    params = parameters(np.float32)
    first = getattr(optim, name)(params, lr=0.02)
    run(first, params, 4)
    second = getattr(optim, name)(params)
    second.load_state_dict(first.state_dict())
    for slots in first.state.values():      # what is loaded is a copy
        for value in slots.values():
            value.numpy().fill(7)
    for ours, other in zip(run(second, params, 6, 5), expected):
        np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clipping_and_zeroing_in_the_step(name):
    from bpnn.nn.utils import clip_grad_norm_

    one, two = parameters(), parameters()
    a, b = getattr(optim, name)(one, lr=0.1), getattr(optim, name)(two, lr=0.1)
    for t in range(1, 6):
        set_gradients(one, t)
        set_gradients(two, t)
        a.step(max_norm=0.7, zero_grad=True)
        norm = clip_grad_norm_(two, 0.7)
        b.step()
        assert a.grad_norm == pytest.approx(norm.item(), rel=1e-12) and a.grad_norm > 0.7
        assert not any(param.grad.numpy().any() for param in one)
    for ours, expected in zip(arrays(one), arrays(two)):
        np.testing.assert_allclose(ours, expected, rtol=1e-9)
    run(a, one, 1)
    assert a.grad_norm is None


def test_a_parameter_without_gradient_is_left_alone():
    params = parameters()
    optimizer = optim.Adam(params)
    before = arrays(params)
    params[1].grad = bpnn.tensor(np.ones(5), dtype=np.dtype("float64"))
    optimizer.step()
    optimizer.step()
    after = arrays(params)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).all() and list(optimizer.state) == [params[1]]
    assert optimizer.state[params[1]]["step"].item() == 2
    optim.SGD([bpnn.zeros(3, requires_grad=True)]).step()


def test_versions_tell_that_parameters_changed():
    params = parameters()
    optimizer = optim.SGD(params[:2], lr=0.1)
    set_gradients(params, 1)
    before = [param._version for param in params], [param.grad._version for param in params]
    optimizer.step()
    assert [param._version - old for param, old in zip(params, before[0])] == [1, 1, 0]
    assert [param.grad._version - old for param, old in zip(params, before[1])] == [0, 0, 0]
    optimizer.step(zero_grad=True)
    assert [param.grad._version - old for param, old in zip(params, before[1])] == [1, 1, 0]


def test_groups():
    params = parameters()
    optimizer = optim.SGD([{"params": params[0]}, {"params": params[1:2], "lr": 0.5, "momentum": 0.9}], lr=0.1)
    optimizer.add_param_group({"params": params[2], "weight_decay": 0.1})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5, 0.1]
    assert [group["momentum"] for group in optimizer.param_groups] == [0, 0.9, 0]
    before = arrays(params)
    set_gradients(params, 1)
    grads = [param.grad.numpy() for param in params]
    optimizer.step()
    expected = [before[0] - 0.1 * grads[0], before[1] - 0.5 * grads[1], before[2] - 0.1 * (grads[2] + 0.1 * before[2])]
    for ours, other in zip(arrays(params), expected):
        np.testing.assert_allclose(ours, other, rtol=1e-12)
    assert list(optimizer.state_dict()["state"]) == [1]
    assert [group["params"] for group in optimizer.state_dict()["param_groups"]] == [[0], [1], [2]]
    optimizer.param_groups[0]["lr"] = 0.0
    before = arrays(params)
    optimizer.step()
    np.testing.assert_array_equal(arrays(params)[0], before[0])


def test_what_params_may_be():
    params = parameters()
    for given in (params, iter(params), tuple(params), [{"params": iter(params)}]):
        assert optim.SGD(given).param_groups[0]["params"] == params
    assert optim.SGD(params[0]).param_groups[0]["params"] == params[:1]
    named = optim.SGD([("w", params[0]), ("b", params[1])])
    assert named.param_groups[0]["param_names"] == ["w", "b"] and named.param_groups[0]["params"] == params[:2]
    assert named.state_dict()["param_groups"][0]["param_names"] == ["w", "b"]
    with pytest.warns(UserWarning, match="duplicate parameters"):
        doubled = optim.SGD([params[0], params[1], params[0]], lr=0.1)
    assert doubled.param_groups[0]["params"] == params[:2]
    lr = bpnn.tensor([0.25])
    assert optim.SGD(params, lr=lr).param_groups[0]["lr"] == 0.25


def test_bad_params():
    params = parameters()
    inner = bpnn.tensor([1.0], requires_grad=True)
    for error, match, given in [
        (ValueError, "empty parameter list", []),
        (TypeError, r"params\[1\]: optimizer can only optimize Tensors, but got ndarray", [params[0], np.ones(3)]),
        (TypeError, "ordered collection", [{"params": set(params)}]),
        (KeyError, "expected the key 'params'", [{"lr": 0.1}]),
        (ValueError, "more than one parameter group", [{"params": params[0]}, {"params": params}]),
        (ValueError, "with/without names. Some param names are missing", [("w", params[0]), params[1]]),
        (ValueError, "cannot add param group without names", [{"params": [("w", params[0])]}, {"params": params[1]}]),
        (ValueError, r"params\[0\]: can't optimize a non-leaf Tensor", [inner * 2]),
    ]:
        with pytest.raises(error, match=match):
            optim.SGD(given)
    with pytest.raises(TypeError, match="param_group must be a dict"):
        optim.SGD(params[:1]).add_param_group(params[1:])


@pytest.mark.parametrize(("name", "options", "error", "match"), [
    ("SGD", {"lr": -0.1}, ValueError, "Invalid learning rate: -0.1"),
    ("SGD", {"lr": float("nan")}, ValueError, "Invalid learning rate: nan"),
    ("SGD", {"momentum": -0.5}, ValueError, "Invalid momentum value: -0.5"),
    ("SGD", {"weight_decay": -1}, ValueError, "Invalid weight_decay value: -1"),
    ("SGD", {"nesterov": True}, ValueError, "Nesterov momentum requires a momentum and zero dampening"),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "Nesterov momentum requires"),
    ("SGD", {"differentiable": True}, ValueError, "differentiable=True"),
    ("SGD", {"fused": True, "foreach": True}, RuntimeError, "cannot be `True` together"),
    ("Adagrad", {"lr_decay": -0.5}, ValueError, "Invalid lr_decay value: -0.5"),
    ("Adagrad", {"initial_accumulator_value": -1}, ValueError, "Invalid initial_accumulator_value value: -1"),
    ("RMSprop", {"alpha": -1}, ValueError, "Invalid alpha value: -1"),
    ("RMSprop", {"eps": -1}, ValueError, "Invalid epsilon value: -1"),
    ("Adadelta", {"rho": 1.1}, ValueError, "Invalid rho value: 1.1"),
    ("Adam", {"betas": (1.0, 0.9)}, ValueError, "Invalid beta parameter at index 0: 1.0"),
    ("AdamW", {"betas": (0.9, -1)}, ValueError, "Invalid beta parameter at index 1: -1"),
    ("Adam", {"betas": (0.9,)}, ValueError, "betas: expected two numbers, got 1"),
    ("Adam", {"capturable": True}, ValueError, "capturable=True"),
    ("NAdam", {"momentum_decay": -0.2}, ValueError, "Invalid momentum_decay value: -0.2"),
])
def test_bad_options(name, options, error, match):
    with pytest.raises(error, match=match):
        getattr(optim, name)(parameters(), **options)


def test_choices_without_effect_are_kept():
    optimizer = optim.AdamW(parameters(), foreach=False, fused=True)
    assert optimizer.param_groups[0]["fused"] is True and optimizer.param_groups[0]["foreach"] is False


def test_bad_states():
    params = parameters()
    optimizer = optim.Adam(params)
    run(optimizer, params, 1)
    good = optimizer.state_dict()
    small = optim.Adam(params[:1])
    for match, target, state in [
        ("expected the keys 'state' and 'param_groups', got \\['state'\\]", optimizer, {"state": {}}),
        ("different number of parameter groups: expected 1, got 2", optimizer, {**good, "param_groups": good["param_groups"] * 2}),
        ("group 0: expected 1 parameters, got 3", small, good),
        ("state of parameter 7, which no group has", optimizer, {**good, "state": {7: {}}}),
        (
            r"'exp_avg' of parameter 0: expected shape \(4, 3\), got \(5,\)", optimizer,
            {**good, "state": {0: {"exp_avg": good["state"][1]["exp_avg"]}}},
        ),
    ]:
        with pytest.raises(ValueError, match=match):
            target.load_state_dict(state)
    assert optimizer.state_dict()["state"].keys() == {0, 1, 2}


def test_adam_state_in_adamw_stays_decoupled():
    params = parameters()
    adam, adamw = optim.Adam(params), optim.AdamW(params)
    adamw.load_state_dict(adam.state_dict())
    assert adamw.param_groups[0]["decoupled_weight_decay"] is True and adamw.param_groups[0]["weight_decay"] == 0


def test_adagrad_has_its_state_from_the_start():
    params = parameters()
    optimizer = optim.Adagrad(params, initial_accumulator_value=0.5)
    for param in params:
        assert (optimizer.state[param]["sum"].numpy() == 0.5).all() and optimizer.state[param]["step"].item() == 0


def test_zero_grad():
    params = parameters()
    optimizer = optim.SGD(params)
    set_gradients(params, 1)
    held = params[0].grad
    optimizer.zero_grad(set_to_none=False)
    assert params[0].grad is held and not held.numpy().any()
    params[1].grad = None
    optimizer.zero_grad()
    assert all(param.grad is None for param in params)


def test_closure_and_hooks():
    params = parameters()
    optimizer = optim.SGD(params, lr=0.1)
    calls = []

    def closure():
        calls.append(("closure", bpnn.is_grad_enabled()))
        set_gradients(params, 1)
        return 3.5

    first = optimizer.register_step_pre_hook(lambda *args: calls.append("before"))
    optimizer.register_step_post_hook(lambda *args: calls.append("after"))
    with bpnn.no_grad():
        assert optimizer.step(closure) == 3.5
    first.remove()
    assert optimizer.step() is None
    assert calls == ["before", ("closure", True), "after", "after"]


def test_state_that_is_replaced_between_steps():
    """The step reads `state` anew every time."""
    params = parameters()
    optimizer = optim.Adam(params, lr=0.1)
    run(optimizer, params, 3)
    start = arrays(params)
    optimizer.state.clear()
    result = run(optimizer, params, 1, 9)
    fresh = parameters()
    for param, value in zip(fresh, start):
        param.data = bpnn.tensor(value, dtype=value.dtype)
    for ours, expected in zip(result, run(optim.Adam(fresh, lr=0.1), fresh, 1, 9)):
        np.testing.assert_array_equal(ours, expected)
    params[0].data = bpnn.tensor(np.zeros((4, 3)), dtype=np.dtype("float64"))
    assert (run(optimizer, params, 1)[0] != 0).all()


def test_parameters_that_are_views_of_one_buffer():
    """Nobody may assume that a parameter owns its memory."""
    flat = np.concatenate([value.ravel() for value in values(shapes=[(4, 3), (5,)])])
    views = [bpnn.from_numpy(flat[:12].reshape(4, 3)), bpnn.from_numpy(flat[12:])]
    for view in views:
        view.requires_grad = True
    own = parameters(shapes=[(4, 3), (5,)])
    expected = run(optim.AdamW(own, lr=0.1), own, 4)
    run(optim.AdamW(views, lr=0.1), views, 4)
    np.testing.assert_array_equal(flat, np.concatenate([value.ravel() for value in expected]))


def test_an_optimizer_of_ones_own():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            for group in self.param_groups:
                for param in group["params"]:
                    param.data = bpnn.from_numpy(
                        np.asarray(param.detach().numpy() - group["lr"] * np.sign(param.grad.numpy()))
                    )

    params = parameters()
    before = arrays(params)
    sign = Sign(params, 0.5)
    run(sign, params, 1)
    sign.state[params[1]] = {"history": bpnn.zeros(7, 2), "count": 3, "best": None}
    other = Sign(params, 0.1)
    other.load_state_dict(sign.state_dict())
    assert other.state[params[1]]["history"].shape == (7, 2) and other.state[params[1]]["count"] == 3
    assert other.param_groups[0]["lr"] == 0.5
    assert all((abs(new - old) == 0.5).all() for new, old in zip(arrays(params), before))
    with pytest.raises(TypeError, match="Optimizer: expected a method _add"):
        optim.Optimizer(params, {}).step()


def test_repr():
    text = repr(optim.SGD(parameters(), lr=0.25))
    assert text.startswith("SGD (\nParameter Group 0\n") and "    lr: 0.25\n" in text and text.endswith("\n)")


def test_trains():
    """Straight to the minimum of a quadratic, through the tape."""
    for name, (_, _) in OPTIMIZERS.items():
        w = bpnn.tensor([3.0, -2.0], requires_grad=True)
        optimizer = getattr(optim, name)([w], lr=1.0 if name == "Adadelta" else 0.3 if name == "Adagrad" else 0.05)
        for _ in range(3000 if name == "Adadelta" else 400):
            optimizer.zero_grad()
            ((w - 1) ** 2).sum().backward()
            optimizer.step()
        np.testing.assert_allclose(w.detach().numpy(), [1, 1], atol=0.05, err_msg=name)


@pytest.mark.rivals
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_duplicate_free_warnings(name):
    """Building and stepping warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = parameters()
        run(getattr(optim, name)(params), params, 2)


def test_one_file_for_each_family():
    assert {path.stem for path in Path(optim.__file__).parent.glob("*.py")} >= {"sgd", "adam", "optimizer"}
