"""grad, backward, Function, gradcheck and the modes."""
import threading

import numpy as np
import pytest

import bpnn
from bpnn import autograd


def leaf(*values):
    return bpnn.tensor(list(values), dtype=bpnn.float64, requires_grad=True)


def test_grad_touches_no_attribute():
    x, y = leaf(2.0, 3.0), leaf(4.0, 5.0)
    gx, gy = autograd.grad((x * y).sum(), (x, y))
    assert gx.tolist() == [4.0, 5.0] and gy.tolist() == [2.0, 3.0] and x.grad is None


def test_grad_of_intermediate_and_unused():
    x, z = leaf(2.0), leaf(1.0)
    y = x * 3
    loss = (y * y).sum()
    assert autograd.grad(loss, y, retain_graph=True)[0].tolist() == [12.0]
    with pytest.raises(RuntimeError, match=r"inputs\[0\]"):
        autograd.grad(loss, z, retain_graph=True)
    assert autograd.grad(loss, (z, x), allow_unused=True) [0] is None


def test_backward_to_given_inputs_only():
    x, y = leaf(2.0), leaf(3.0)
    autograd.backward((x * y).sum(), inputs=[x])
    assert x.grad.tolist() == [3.0] and y.grad is None


def test_second_order_is_refused():
    x = leaf(2.0)
    with pytest.raises(RuntimeError, match="create_graph"):
        autograd.grad((x * x).sum(), x, create_graph=True)


class Scale(autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        ctx.save_for_backward(x)
        return x * factor, x + 1

    @staticmethod
    def backward(ctx, d_scaled, d_plus):
        assert ctx.saved_tensors[0].shape == d_scaled.shape
        return d_scaled * ctx.factor + d_plus, None


def test_function_with_two_outputs():
    x = leaf(1.0, 2.0)
    scaled, _ = Scale.apply(x, 3.0)
    assert scaled.grad_fn.name() == "Scale"
    (scaled * scaled).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * 9 * np.array([1.0, 2.0]))
    assert autograd.gradcheck(lambda t: Scale.apply(t, 3.0), x)


def test_function_mistakes_are_named():
    class Short(autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, dy):
            return dy

    class Misshapen(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            return dy.sum()

    with pytest.raises(RuntimeError, match="expected 2 gradients"):
        Short.apply(leaf(1.0), leaf(1.0)).sum().backward()
    with pytest.raises(RuntimeError, match="shape"):
        Misshapen.apply(leaf(1.0, 2.0)).sum().backward()


def test_gradcheck_finds_a_wrong_gradient():
    class Wrong(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * x

        @staticmethod
        def backward(ctx, dy):
            return dy

    with pytest.raises(autograd.GradcheckError, match="analytic 1"):
        autograd.gradcheck(Wrong.apply, leaf(3.0))
    assert not autograd.gradcheck(Wrong.apply, leaf(3.0), raise_exception=False)
    with pytest.raises(ValueError, match="float64"):
        autograd.gradcheck(lambda x: x, bpnn.ones(1, requires_grad=True))


def test_modes_nest_and_decorate():
    x = leaf(1.0)
    with bpnn.no_grad():
        assert not (x * 1).requires_grad
        with bpnn.enable_grad():
            assert (x * 1).requires_grad
        assert not bpnn.is_grad_enabled()
    assert bpnn.is_grad_enabled()

    @bpnn.no_grad()
    def decorated():
        return x * 1

    @bpnn.no_grad
    def bare():
        return x * 1

    @bpnn.no_grad()
    def generator():
        yield bpnn.is_grad_enabled()

    assert not decorated().requires_grad and not bare().requires_grad
    for inside in generator():
        assert not inside and bpnn.is_grad_enabled()
    with bpnn.set_grad_enabled(False):
        assert not bpnn.is_grad_enabled()
    assert bpnn.is_grad_enabled()
    with bpnn.inference_mode():
        assert not (x * 1).requires_grad
    with pytest.raises(ZeroDivisionError), bpnn.no_grad():
        1 / 0
    assert bpnn.is_grad_enabled()


def test_modes_belong_to_a_thread():
    seen = []
    with bpnn.no_grad():
        thread = threading.Thread(target=lambda: seen.append(bpnn.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_hooks_on_tensors():
    x = leaf(1.0, 2.0)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    handle = x.register_hook(lambda g: g * 10)
    y.retain_grad()
    y.sum().backward(retain_graph=True)
    assert seen == [[1.0, 1.0]] and y.grad.tolist() == [1.0, 1.0] and x.grad.tolist() == [20.0, 20.0]
    handle.remove()
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
