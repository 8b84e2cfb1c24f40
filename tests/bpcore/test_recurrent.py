"""Recurrent layers against the formulas, step by step in NumPy; gradients by complex steps through them."""
import os
import platform
import signal
import threading
import time

import numpy as np
import pytest

import bpnn
from bpcore import gemm
from bpcore import recurrent as R
from bpcore.threads import set_num_threads

RNG = np.random.default_rng(0)
FUNCTIONS = {"tanh": R.rnn_tanh, "relu": R.rnn_relu, "lstm": R.lstm, "gru": R.gru}
GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}
NAMES = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def step(kind, x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr):
    """The next state of some sequences."""
    zi, zh = x @ w_ih.T + b_ih, h @ w_hh.T + b_hh
    if kind == "tanh":
        return np.tanh(zi + zh), c
    if kind == "relu":
        return np.where((zi + zh).real > 0, zi + zh, 0), c
    if kind == "lstm":
        i, f, g, o = np.split(zi + zh, 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return (h if w_hr is None else h @ w_hr.T), c
    (ri, ui, ni), (rh, uh, nh) = np.split(zi, 3, 1), np.split(zh, 3, 1)
    u, n = sigmoid(ui + uh), np.tanh(ni + sigmoid(ri + rh) * nh)
    return (1 - u) * n + u * h, c


def layer(kind, arrays, lengths):
    """Output, h and c of a layer over a padded batch of sequences, the longest first; zeros behind the end of each."""
    x, h0, c0 = arrays["x"], arrays["h0"].copy(), arrays["c0"].copy()
    out = []
    for direction, (h, c) in enumerate(zip(h0, c0, strict=True)):
        weights = [arrays[name + str(direction)] for name in NAMES[3:]]
        states = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
        for t in range(len(x))[:: -1 if direction else 1]:
            live = lengths > t
            h[live], c[live] = step(kind, x[t, live], h[live], c[live], *weights)
            states[t, live] = h[live]
        out.append(states)
    return np.concatenate(out, 2), h0, c0


def problem(kind, steps, batch, inputs, units, directions=1, projection=0, ragged=False, bias=True, state=True, dtype=np.float64):
    """Random arrays by name, and lengths."""
    gates, width, bound = GATES[kind] * units, projection or units, 1 / np.sqrt(units)

    def draw(*shape):
        return RNG.uniform(-bound, bound, shape).astype(dtype)

    arrays = {"x": RNG.normal(size=(steps, batch, inputs)).astype(dtype),
              "h0": draw(directions, batch, width) * state, "c0": draw(directions, batch, units) * state}
    for d in range(directions):
        arrays |= {f"w_ih{d}": draw(gates, inputs), f"w_hh{d}": draw(gates, width), f"b_ih{d}": draw(gates) * bias,
                   f"b_hh{d}": draw(gates) * bias, f"w_hr{d}": draw(projection, units) if projection else None}
    lengths = np.sort(RNG.integers(1, steps + 1, batch))[::-1] if ragged else np.full(batch, steps)
    if ragged and batch:
        lengths[0] = steps
    return arrays, lengths


def pack(a, lengths):
    """The rows of a padded array that belong to sequences, step by step."""
    return np.concatenate([a[t, :(lengths > t).sum()] for t in range(len(a))])


def run(kind, arrays, lengths, bias=True, state=True, ragged=False, wanted=NAMES):
    """Tensors of the arguments by name, and what the operator returns."""
    tensors = {}
    for name, array in arrays.items():
        given = array is not None and (bias or not name.startswith("b_")) and (state or name not in ("h0", "c0"))
        given = given and (name != "c0" or kind == "lstm")
        if given:
            value = pack(array, lengths) if name == "x" and ragged else array
            tensors[name] = bpnn.tensor(value, requires_grad=name.rstrip("01") in wanted or name in wanted)
    sizes = (lengths[:, None] > np.arange(len(arrays["x"]))).sum(0) if ragged else None
    weights = [tuple(tensors.get(name + str(d)) for name in NAMES[3:]) for d in range(len(arrays["h0"]))]
    first = [tensors.get("h0")] + ([tensors.get("c0")] if kind == "lstm" else [])
    return tensors, FUNCTIONS[kind](tensors["x"], *first, weights, batch_sizes=sizes)


def check(kind, arrays, lengths, directions=3, **options):
    """Outputs, and the gradients along `directions` random directions (None: along each axis) of each argument."""
    tensors, results = run(kind, arrays, lengths, **options)
    expected = layer(kind, arrays, lengths)
    if options.get("ragged"):
        expected = (pack(expected[0], lengths), *expected[1:])
    expected = expected[:len(results)]
    dtype = arrays["x"].dtype
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
    for got, value in zip(results, expected, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got.detach().numpy(), value, **tolerance)
    slopes = [RNG.normal(size=value.shape) for value in expected]
    bpnn.autograd.backward(list(results), [bpnn.tensor(slope.astype(dtype)) for slope in slopes])
    wide = {name: array if array is None else array.astype(np.complex128) for name, array in arrays.items()}
    for name, tensor in tensors.items():
        grad, array = tensor.grad.numpy(), arrays[name]
        for number in range(array.size if directions is None else directions):
            along = np.eye(1, array.size, number).reshape(array.shape) if directions is None else RNG.normal(size=array.shape)
            values = layer(kind, wide | {name: array + 1e-30j * along}, lengths)[:len(expected)]
            if options.get("ragged"):
                values = (pack(values[0], lengths), *values[1:])
                along = pack(along, lengths) if name == "x" else along
            slope = sum((value.imag * weight).sum() for value, weight in zip(values, slopes, strict=True)) / 1e-30
            scale = np.sqrt((grad.astype(np.float64) ** 2).sum() * (along**2).sum())
            assert abs((grad * along).sum() - slope) <= (1e-5 if dtype == np.float32 else 1e-12) * scale + 1e-30, name


OPTIONS = [
    {}, {"bias": False}, {"state": False}, {"ragged": True}, {"ragged": True, "state": False, "bias": False},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("both", [1, 2])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("kind", "projection"), [("tanh", 0), ("relu", 0), ("lstm", 0), ("lstm", 2), ("gru", 0)])
def test_formula_and_every_gradient(kind, projection, options, both, dtype):
    arrays, lengths = problem(kind, 4, 3, 2, 3, both, projection, **options, dtype=dtype)
    check(kind, arrays, lengths, None, **options)


SIZES = [(1, 1, 1, 1), (5, 31, 3, 33), (3, 33, 32, 31), (20, 2, 1, 17), (7, 9, 33, 32)]


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("kind", "projection"), [("tanh", 0), ("lstm", 0), ("lstm", 1), ("gru", 0)])
def test_sizes(kind, projection, sizes, ragged):
    if projection and sizes[3] == 1:
        return
    for dtype in (np.float32, np.float64):
        arrays, lengths = problem(kind, *sizes, 2, projection * 9 % sizes[3], ragged, dtype=dtype)
        check(kind, arrays, lengths, 1, ragged=ragged)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_gradcheck(kind):
    arrays, lengths = problem(kind, 3, 2, 2, 3, 2)
    tensors, _ = run(kind, arrays, lengths)

    def function(*values):
        named = dict(zip(tensors, values, strict=True))
        weights = [tuple(named.get(name + str(d)) for name in NAMES[3:]) for d in range(2)]
        return FUNCTIONS[kind](named["x"], named["h0"], *([named["c0"]] if kind == "lstm" else []), weights)

    assert bpnn.autograd.gradcheck(function, tuple(tensors.values()))


@pytest.fixture
def own_products():
    """Not the BLAS, whose sums depend on how a product is shared out."""
    before = gemm.get_engine()
    gemm.set_engine("own")
    yield
    gemm.set_engine(before)


@pytest.mark.usefixtures("own_products")
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_one_thread_and_two_give_the_same_bits(kind, ragged):
    arrays, lengths = problem(kind, 30, 37, 40, 50, 2, 7 if kind == "lstm" else 0, ragged, dtype=np.float32)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        tensors, out = run(kind, arrays, lengths, ragged=ragged)
        sum((one * one).sum() for one in out).backward()
        results.append([one.detach().numpy() for one in out] + [t.grad.numpy() for t in tensors.values() if t.grad is not None])
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("kind", "projection"), [("tanh", 0), ("lstm", 0), ("lstm", 5), ("gru", 0)])
def test_without_the_tape(kind, projection, ragged):
    arrays, lengths = problem(kind, 300, 9, 20, 64, 2, projection, ragged, dtype=np.float32)   # more than one part
    _, taped = run(kind, arrays, lengths, ragged=ragged)
    with bpnn.no_grad():
        _, plain = run(kind, arrays, lengths, ragged=ragged)
    for one, other in zip(taped, plain, strict=True):
        assert one.requires_grad and not other.requires_grad
        np.testing.assert_array_equal(one.detach().numpy(), other.numpy())


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_long_sequences_in_parts(kind):
    arrays, lengths = problem(kind, 700, 5, 3, 4, 2, ragged=True)          # backward takes more than one part
    check(kind, arrays, lengths, 1, ragged=True)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_empty_batch(kind):
    arrays, lengths = problem(kind, 3, 0, 2, 4, 2)
    tensors, results = run(kind, arrays, lengths)
    assert [one.shape for one in results] == [(3, 0, 8), (2, 0, 4), (2, 0, 4)][:len(results)]
    sum(one.sum() for one in results).backward()
    for name, tensor in tensors.items():
        if name != "c0" or kind == "lstm":
            assert tensor.grad.shape == tensor.shape and not tensor.grad.numpy().any()


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_layouts(kind):
    arrays, lengths = problem(kind, 4, 3, 5, 6)
    _, straight = run(kind, arrays, lengths)
    for name in ("x", "h0", "w_ih0", "w_hh0"):
        turned = dict(arrays)
        turned[name] = np.asfortranarray(arrays[name])
        wide = dict(arrays)
        wide[name] = np.repeat(arrays[name], 2, -1)[..., ::2]
        for strided in (turned, wide):
            tensors = {key: value if value is None else bpnn.from_numpy(value) for key, value in strided.items()}
            weights = [tuple(tensors[n + "0"] for n in NAMES[3:])]
            first = [tensors["h0"]] + ([tensors["c0"]] if kind == "lstm" else [])
            for one, other in zip(FUNCTIONS[kind](tensors["x"], *first, weights), straight, strict=True):
                np.testing.assert_array_equal(one.numpy(), other.detach().numpy())


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("wanted", [("x",), ("h0",), ("w_ih",), ("w_hh",), ("b_ih",), ("b_hh",), ("w_ih", "b_hh"), ("w_hh0",)])
def test_only_what_is_wanted(kind, wanted):
    arrays, lengths = problem(kind, 4, 3, 5, 6, 2)
    tensors, results = run(kind, arrays, lengths)
    some, others = run(kind, arrays, lengths, wanted=wanted)
    (results[0] ** 2).sum().backward()
    (others[0] ** 2).sum().backward()
    for name, tensor in some.items():
        if tensor.requires_grad:
            np.testing.assert_allclose(tensor.grad.numpy(), tensors[name].grad.numpy(), rtol=1e-13)
        else:
            assert tensor.grad is None


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_backward_twice(kind):
    arrays, lengths = problem(kind, 4, 3, 5, 6)
    tensors, results = run(kind, arrays, lengths)
    results[1].sum().backward(retain_graph=True)                # the output itself got no gradient
    first = {name: t.grad.numpy().copy() for name, t in tensors.items() if t.grad is not None}
    results[1].sum().backward()
    for name, grad in first.items():
        np.testing.assert_array_equal(tensors[name].grad.numpy(), 2 * grad)
    with pytest.raises(RuntimeError, match="a second time"):
        results[0].sum().backward()


def test_saved_values_are_guarded():
    for name in ("x", "h0", "w_ih0", "w_hh0"):
        arrays, lengths = problem("gru", 2, 2, 2, 2)
        tensors, (out, _) = run("gru", arrays, lengths)
        with bpnn.no_grad():
            tensors[name].mul_(2)
        with pytest.raises(RuntimeError, match="GruBackward: .* modified by an in-place operation"):
            out.sum().backward()


def fastest(work, times=7):
    """Seconds of this thread."""
    def once():
        start = time.thread_time()
        work()
        return time.thread_time() - start

    return min(once() for _ in range(times))


@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru"])
def test_subnormal_states_are_not_slow(kind):
    def work(scale):
        """Forward and backward of a layer that keeps its state, and the gradient of it, at this size."""
        arrays, lengths = problem(kind, 200, 8, 4, 64, bias=False, dtype=np.float32)
        arrays["x"] *= 0
        if kind == "tanh":
            arrays["w_hh0"] = np.eye(64, dtype=np.float32)
        else:
            arrays["b_ih0"][64:128] = 30                              # the gate f, or z
        arrays["h0"], arrays["c0"] = np.full_like(arrays["h0"], scale), np.full_like(arrays["c0"], scale)

        def once():
            _, results = run(kind, arrays, lengths)
            (results[1] * np.float32(scale)).sum().backward()
            return results[0].detach().numpy()

        return once

    set_num_threads(1)
    if kind != "lstm" and platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64"):
        assert (work(1e-37)() > 0).all() and not work(1e-40)().any()    # flushed
    assert fastest(work(1e-40)) < 2 * fastest(work(1e-3)) + 1e-3
    tiny = np.full(300_000, 1e-40, np.float32)
    assert (np.multiply(tiny[:9], np.float32(1)) > 0).all()          # the caller's mode is what it was
    set_num_threads(2)
    work(1e-40)()
    assert (bpnn.tensor(tiny).relu().numpy() > 0).all() and (bpnn.tensor(tiny) + bpnn.tensor(tiny) > 0).all()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupt():
    x = bpnn.tensor(np.zeros((50_000, 1, 4), np.float32))             # some seconds
    weights = [tuple(bpnn.tensor(np.zeros((2048, n), np.float32)) for n in (4, 512)) + (None,) * 3]
    start = time.perf_counter()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with bpnn.no_grad(), pytest.raises(KeyboardInterrupt):
        R.lstm(x, None, None, weights)
    assert time.perf_counter() - start < 5


def test_errors():
    w = [bpnn.tensor(np.zeros(shape)) for shape in ((8, 3), (8, 2), (8,), (8,))]
    x = bpnn.tensor(np.zeros((4, 5, 3)))

    def lstm(x=x, h0=None, c0=None, w=w, sizes=None, directions=1, w_hr=None):
        return R.lstm(x, h0, c0, [(*w, w_hr)] * directions, None if sizes is None else np.array(sizes))

    state = bpnn.tensor(np.zeros((1, 4, 2)))
    row = bpnn.tensor(np.zeros((6, 3)))
    for error, match, arguments in [
        (RuntimeError, r"input: expected shape \(T, B, K\), got \(6, 3\)", {"x": row}),
        (RuntimeError, r"input: expected shape \(N, K\) with batch_sizes", {"sizes": [1]}),
        (RuntimeError, "input: expected at least one time step", {"x": bpnn.tensor(np.zeros((0, 5, 3)))}),
        (TypeError, "input: expected float32 or float64, got int64", {"x": bpnn.tensor(np.zeros((1, 1, 3), np.int64))}),
        (RuntimeError, r"w_ih: expected the dtype of input, float32", {"x": bpnn.tensor(np.zeros((1, 1, 3), np.float32))}),
        (RuntimeError, r"w_ih: expected shape \(8, 2\), got \(8, 3\)", {"x": bpnn.tensor(np.zeros((1, 1, 2)))}),
        (RuntimeError, r"w_ih, w_hh: expected shapes \(4 H, K\)", {"w": [w[2], *w[1:]]}),
        (RuntimeError, r"w_hh: expected shape \(8, 2\), got \(8, 3\)", {"w": [w[0], w[0], *w[2:]]}),
        (RuntimeError, r"b_ih: expected shape \(8,\), got \(8, 2\)", {"w": [w[0], w[1], w[1], w[3]]}),
        (RuntimeError, r"w_hr: expected shape \(2, 2\), got \(8, 2\)", {"w_hr": w[1]}),
        (RuntimeError, r"h0: expected shape \(1, 5, 2\), got \(1, 4, 2\)", {"h0": state}),
        (RuntimeError, r"c0: expected shape \(2, 5, 2\), got \(1, 4, 2\)", {"c0": state, "directions": 2}),
        (ValueError, "weights: expected those of one or two directions, got 3", {"directions": 3}),
        (RuntimeError, "batch_sizes: expected positive numbers that do not grow, got 3 after 2 at step 1",
         {"x": row, "sizes": [2, 3, 1]}),
        (RuntimeError, "batch_sizes: expected positive numbers that do not grow, got 0", {"x": row, "sizes": [0]}),
        (RuntimeError, "batch_sizes: expected a sum of 6, the rows of input, got 5", {"x": row, "sizes": [3, 2]}),
    ]:
        with pytest.raises(error, match=match):
            lstm(**arguments)
