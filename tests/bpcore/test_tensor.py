"""Tensor: memory, NumPy, Python's protocols, types, printing."""
import copy
import pickle

import numpy as np
import pytest

import bpnn
from bpcore.tensor import Tensor as Core


def test_memory_is_shared_with_numpy():
    array = np.ones((2, 3), np.float32)
    x = bpnn.from_numpy(array)
    assert x.numpy() is array and np.asarray(x) is array and isinstance(x, bpnn.Tensor) and isinstance(x, Core)
    x[0, 0] = 5
    assert array[0, 0] == 5 and np.shares_memory(np.from_dlpack(x), array)
    y = bpnn.from_dlpack(array)
    assert np.shares_memory(y.numpy(), array)      # NumPy 2.0 makes what it imports read-only: no writing here
    assert bpnn.tensor(array).numpy() is not array
    assert np.array(x, dtype=np.float64).dtype == np.float64
    assert isinstance(np.sin(x), bpnn.Tensor) and np.allclose(np.sin(x).numpy(), np.sin(array))


def test_a_tensor_on_the_tape_is_not_given_away():
    x = bpnn.ones(2, requires_grad=True)
    for give, error in [(x.numpy, RuntimeError), (lambda: np.asarray(x), RuntimeError), (x.__dlpack__, BufferError)]:
        with pytest.raises(error, match="detach"):
            give()
    assert x.numpy(force=True).sum() == 2 and x.detach().numpy().sum() == 2


def test_sizes_and_places():
    x = bpnn.ones(2, 3, dtype=bpnn.float64)
    assert x.shape == (2, 3) and x.size() == (2, 3) and x.size(1) == 3 and x.size(-1) == 3
    assert x.dim() == x.ndim == x.ndimension() == 2
    assert x.numel() == x.nelement() == 6 and x.element_size() == x.itemsize == 8 and x.nbytes == 48
    assert x.device == "cpu" and x.cpu() is x and not x.is_cuda and x.data_ptr() == x.numpy().ctypes.data
    assert x.is_floating_point() and not x.long().is_floating_point() and not x.is_complex()


def test_python_numbers():
    assert bpnn.tensor(2.5).item() == 2.5 and float(bpnn.tensor([2.5])) == 2.5 and int(bpnn.tensor(2.9)) == 2
    assert [10, 20, 30][bpnn.tensor(1)] == 20 and complex(bpnn.tensor(1.0)) == 1 and bool(bpnn.tensor([[1]]))
    assert not bpnn.tensor(0.0)
    assert f"{bpnn.tensor(2.0):.3f}" == "2.000" and list(range(3))[bpnn.tensor(1):] == [1, 2]
    assert bpnn.tensor([[1, 2]]).tolist() == [[1, 2]]
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(bpnn.ones(2))
    with pytest.raises(RuntimeError, match="one element"):
        bpnn.ones(2).item()
    with pytest.raises(TypeError):
        [1, 2][bpnn.tensor(1.0)]


def test_containers():
    x = bpnn.tensor([[1, 2], [3, 4]])
    assert len(x) == 2 and [row.tolist() for row in x] == [[1, 2], [3, 4]] and 3 in x and 5 not in x and bpnn.tensor(4) in x
    a, b = x
    assert b.tolist() == [3, 4]
    assert len({x, x, a}) == 2 and {x: 1}[x] == 1
    for wrong in (lambda: len(bpnn.tensor(1)), lambda: list(bpnn.tensor(1))):
        with pytest.raises(TypeError, match="0-dim"):
            wrong()


def test_printing():
    assert repr(bpnn.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(bpnn.tensor([1.0, 2.5], requires_grad=True)) == "tensor([1.0000, 2.5000], requires_grad=True)"
    assert repr(bpnn.tensor([[1, 2], [3, 4]])) == "tensor([[1, 2],\n        [3, 4]])"
    assert repr(bpnn.tensor([1.0], requires_grad=True) + 1) == "tensor([2.], grad_fn=<AddBackward>)"
    assert repr(bpnn.tensor(3.0, dtype=bpnn.float64)) == "tensor(3., dtype=bpnn.float64)"
    assert repr(bpnn.tensor([True])) == "tensor([True])" and repr(bpnn.tensor([])) == "tensor([])"
    assert repr(bpnn.empty(0, 3)) == "tensor([], size=(0, 3))"
    assert repr(bpnn.tensor([1], dtype=bpnn.int32)) == "tensor([1], dtype=bpnn.int32)"
    assert repr(bpnn.tensor([1e-8, 1.0])) == "tensor([1.0000e-08, 1.0000e+00])"
    assert repr(bpnn.tensor([np.nan, np.inf])) == "tensor([nan, inf])"
    assert "..." in repr(bpnn.zeros(10000)) and len(repr(bpnn.randn(1000, 1000))) < 2000


def test_types():
    x = bpnn.tensor([1.5, 0.0])
    for result, dtype in [
        (x.double(), "float64"), (x.half(), "float16"), (x.int(), "int32"), (x.long(), "int64"), (x.bool(), "bool"),
        (x.byte(), "uint8"), (x.short(), "int16"), (x.char(), "int8"), (x.to(bpnn.float64), "float64"),
        (x.to("cpu", bpnn.int64), "int64"), (x.to(bpnn.ones(1, dtype=bpnn.int8)), "int8"), (x.type(bpnn.float64), "float64"),
        (x.type_as(bpnn.ones(1).double()), "float64"),
    ]:
        assert result.dtype == dtype and result.tolist()[1] == 0
    assert x.float() is x and x.to(bpnn.float32) is x and x.to("cpu") is x and x.to(bpnn.float32, copy=True) is not x
    assert x.type() == "bpnn.FloatTensor"
    with pytest.raises(ValueError, match="cuda"):
        x.to(device="cuda")
    with pytest.raises(TypeError, match="dtype"):
        x.to("nonsense")
    leaf = bpnn.ones(2, requires_grad=True)
    (leaf.double() * 3).sum().backward()
    assert leaf.grad.dtype == bpnn.float32 and leaf.grad.tolist() == [3, 3]
    assert not leaf.long().requires_grad
    with pytest.raises(RuntimeError, match="floating-point"):
        bpnn.ones(2, dtype=bpnn.int64).requires_grad_()


def test_bfloat16():
    pytest.importorskip("ml_dtypes")
    x = bpnn.tensor([1.0, 2.5], requires_grad=True)
    y = x.bfloat16()
    assert y.dtype.name == "bfloat16" and y.is_floating_point() and (y * 2).dtype.name == "bfloat16"
    assert (y + x).dtype == bpnn.float32
    (y * y).float().sum().backward()
    assert x.grad.tolist() == [2, 5] and y.tolist() == [1, 2.5]


def test_relatives():
    x = bpnn.ones(2, dtype=bpnn.float64)
    for result in (
        x.new_zeros(2, 3), x.new_ones((2, 3)), x.new_full((2, 3), 7), x.new_empty(2, 3), x.new_tensor(np.zeros((2, 3), np.float32)),
    ):
        assert result.shape == (2, 3) and result.dtype == bpnn.float64
    assert x.new_zeros(2, dtype=bpnn.int64).dtype == bpnn.int64 and x.new_ones(1, requires_grad=True).requires_grad


def test_copies():
    x = bpnn.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    y = copy.deepcopy({"a": x, "b": x})
    assert y["a"] is y["b"] and y["a"] is not x and y["a"].requires_grad and y["a"].grad.tolist() == [2, 2]
    assert y["a"].grad is not x.grad
    z = copy.copy(x)
    assert z is not x and z.requires_grad and z._array is x._array
    with pytest.raises(RuntimeError, match="leaves"):
        copy.deepcopy(x * 2)
    with pytest.raises(TypeError, match="bpnn.save"):
        pickle.dumps(x)


def test_what_a_tensor_can_hold():
    for wrong in (np.array(["a"]), np.array([None]), np.array(["2020"], "M8[Y]")):
        with pytest.raises(TypeError, match="dtype|numbers"):
            bpnn.from_numpy(wrong)
    swapped = np.array([1.0, 2.0], ">f4")
    assert bpnn.from_numpy(swapped).tolist() == [1, 2] and bpnn.from_numpy(swapped).dtype.isnative
    with pytest.raises(TypeError, match="input: expected a Tensor"):
        bpnn.sin("a")


def test_grad_is_checked():
    x = bpnn.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="shape"):
        x.grad = bpnn.ones(3)
    with pytest.raises(TypeError, match="Tensor"):
        x.grad = np.ones(2)
    x.grad = bpnn.ones(2)
    x.grad = None


def test_complex_values_compute():
    x = bpnn.tensor(np.array([1 + 2j, 3 - 1j]))
    assert (x * x).tolist() == [(1 + 2j) ** 2, (3 - 1j) ** 2] and x.abs().dtype == bpnn.float64 and (x + 1).dtype == "complex128"
    assert (bpnn.ones(1) + 1j).dtype == "complex64" and x.sum().item() == 4 + 1j
    with pytest.raises(RuntimeError, match="floating-point"):
        x.requires_grad_()
    with pytest.raises(RuntimeError, match="complex"):
        bpnn.ones(1, requires_grad=True) * 1j
