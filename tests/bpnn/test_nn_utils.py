"""Clipping gradients; parameters as one vector."""
import math

import numpy as np
import pytest

import bpnn
from bpnn.nn import utils

SHAPES = [(4, 3), (5,), (), (0, 2), (70, 80)]


def parameters(dtype=np.float32, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    params = []
    for shape in SHAPES:
        param = bpnn.tensor(np.asarray(rng.standard_normal(shape), dtype), dtype=np.dtype(dtype), requires_grad=True)
        param.grad = bpnn.tensor(np.asarray(scale * rng.standard_normal(shape), dtype), dtype=np.dtype(dtype))
        params.append(param)
    return params


def gradients(params):
    return np.concatenate([param.grad.numpy().ravel() for param in params])


NORMS = [2.0, 1.0, 1.5, 3, math.inf, -math.inf, "inf"]


@pytest.mark.parametrize("norm_type", NORMS)
@pytest.mark.parametrize("max_norm", [0.5, 3, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_grad_norm(norm_type, max_norm, dtype):
    params = parameters(dtype)
    params[1].grad = bpnn.tensor(np.zeros(5), dtype=np.dtype(dtype))
    before = gradients(params).astype(np.float64)
    versions = [param.grad._version for param in params]
    norm = utils.clip_grad_norm_(iter(params), max_norm, norm_type)
    # The smallest |x| is taken over tensors, and one of them has no elements.
    expected = np.linalg.norm(before, float(norm_type))
    assert norm.dtype == dtype and norm.shape == () and norm.item() == pytest.approx(expected, rel=1e-5)
    factor = min(1.0, max_norm / (expected + 1e-6))
    np.testing.assert_allclose(gradients(params), before * factor, rtol=1e-5)
    assert all((param.grad._version > old) == (factor < 1) for param, old in zip(params, versions))


@pytest.mark.rivals
@pytest.mark.parametrize("norm_type", [*NORMS, 0.0, 0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_grad_norm_is_pytorchs(norm_type, dtype):
    torch = pytest.importorskip("torch")
    params = [param for param in parameters(dtype, scale=3.0) if param.numel()]
    theirs = []
    for param in params:
        theirs.append(torch.from_numpy(np.array(param.detach().numpy())).requires_grad_())
        theirs[-1].grad = torch.from_numpy(np.array(param.grad.numpy()))
    ours = utils.clip_grad_norm_(params, 0.1, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.1, norm_type)
    rtol = 2e-5 if dtype == np.float32 else 1e-12
    assert ours.item() == pytest.approx(expected.item(), rel=rtol)
    np.testing.assert_allclose(gradients(params), gradients(theirs), rtol=rtol)


def test_norm_by_parts():
    params = parameters()
    norm = utils.get_total_norm([param.grad for param in params])
    assert norm.item() == pytest.approx(np.linalg.norm(gradients(params).astype(float)), rel=1e-6)
    utils.clip_grads_with_norm_(params, 0.25, norm)
    assert np.linalg.norm(gradients(params)) == pytest.approx(0.25, rel=1e-5)
    assert utils.get_total_norm([]).item() == 0
    assert utils.get_total_norm(params[0].grad, 1).item() == pytest.approx(np.abs(params[0].grad.numpy()).sum(), rel=1e-6)


def test_parameters_without_gradient_and_none_at_all():
    params = parameters()
    for param in params[1:]:
        param.grad = None
    norm = utils.clip_grad_norm_(params, 0.1)
    assert np.linalg.norm(params[0].grad.numpy()) == pytest.approx(0.1, rel=1e-4) and norm.item() > 0.1
    params[0].grad = None
    assert utils.clip_grad_norm_(params, 1.0).item() == 0
    with pytest.warns(UserWarning, match="empty generator"):
        assert utils.clip_grad_norm_((param for param in []), 1.0).item() == 0
    only = parameters()[0]
    assert utils.clip_grad_norm_(only, 1e9).item() == pytest.approx(np.linalg.norm(only.grad.numpy()), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite(bad):
    params = parameters()
    params[0].grad.numpy()[1, 1] = bad
    before = gradients(params)
    with pytest.raises(RuntimeError, match=r"order 2.0 .* non-finite"):
        utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(gradients(params), before)
    assert not math.isfinite(utils.clip_grad_norm_(params, 1.0).item())
    assert np.isnan(gradients(params)).any()


def test_norm_does_not_overflow_in_float32():
    param = bpnn.zeros(10, requires_grad=True)
    param.grad = bpnn.tensor(np.full(10, 1e25, np.float32))
    assert utils.clip_grad_norm_(param, 1.0).item() == pytest.approx(math.sqrt(10) * 1e25, rel=1e-6)
    np.testing.assert_allclose(param.grad.numpy(), 1 / math.sqrt(10), rtol=1e-6)


def test_clip_grad_value():
    params = parameters()
    expected = np.clip(gradients(params), -0.3, 0.3)
    versions = [param.grad._version for param in params]
    utils.clip_grad_value_(iter(params), 0.3)
    np.testing.assert_array_equal(gradients(params), expected)
    assert all(param.grad._version > old for param, old in zip(params, versions))
    utils.clip_grad_value_(params[0], 0.1)
    assert np.abs(params[0].grad.numpy()).max() <= np.float32(0.1)


def test_negative_norm():
    with pytest.raises(ValueError, match="max_norm: expected a number that is not negative, got -1"):
        utils.clip_grad_norm_(parameters(), -1)


def test_parameters_to_vector_and_back():
    params = parameters(np.float64)
    vector = utils.parameters_to_vector(iter(params))
    expected = np.concatenate([param.detach().numpy().ravel() for param in params])
    np.testing.assert_array_equal(vector.detach().numpy(), expected)
    for param in params:
        param.grad = None
    (vector * bpnn.arange(len(expected), dtype=bpnn.float64)).sum().backward()
    np.testing.assert_array_equal(gradients([param for param in params if param.numel()]), np.arange(len(expected)))
    new = bpnn.arange(len(expected), dtype=bpnn.float64)
    utils.vector_to_parameters(new, params)
    assert [param.shape for param in params] == SHAPES and all(param.requires_grad and param.is_leaf for param in params)
    np.testing.assert_array_equal(np.concatenate([param.detach().numpy().ravel() for param in params]), new.numpy())


def test_vector_of_the_wrong_kind():
    params = parameters()
    before = params[0].detach().numpy().copy()
    with pytest.raises(TypeError, match="vec: expected a Tensor, got ndarray"):
        utils.vector_to_parameters(np.zeros(3), params)
    for size in (3, 99_999):
        with pytest.raises(ValueError, match=rf"vec: expected a vector of 5618 elements, got shape \({size},\)"):
            utils.vector_to_parameters(bpnn.zeros(size), params)
    np.testing.assert_array_equal(params[0].detach().numpy(), before)
