"""Winograd's 3 x 3 convolution: its rounding errors beside those of the plain sum, and where it stays out of sight."""
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpcore import conv, winograd
from bpcore.simd import cpu
from bpcore.threads import set_num_threads

sys.path.insert(0, str(Path(__file__).parent))
from conv_reference import assert_near, conv_reference

RNG = np.random.default_rng(0)
VECTORS = cpu() in ("avx2", "avx512")          # channels in multiples of 16 are multiples of their vectors


@pytest.fixture(autouse=True)
def same_choice():
    before = winograd.use(True)
    yield
    winograd.use(before)


def run(arrays, dy, on, **keywords):
    """y, dx, dw, db with Winograd or without."""
    winograd.use(on)
    tensors = [bpnn.from_numpy(a).requires_grad_() for a in arrays]
    y = conv.conv2d(*tensors, **keywords)
    y.backward(bpnn.from_numpy(dy))
    return y.detach().numpy(), *(t.grad.numpy() for t in tensors)


def draw(images, channels, outputs, height, width, padding):
    """What a layer behind a relu gets: the input, He's weights, a bias, and a gradient."""
    x = np.maximum(RNG.standard_normal((images, channels, height, width)), 0).astype(np.float32)
    w = (RNG.standard_normal((outputs, channels, 3, 3)) * np.sqrt(2 / (9 * channels))).astype(np.float32)
    dy = RNG.standard_normal((images, outputs, height + 2 * padding - 2, width + 2 * padding - 2)).astype(np.float32)
    return (x, w, RNG.standard_normal(outputs).astype(np.float32)), dy


def rms(a):
    return np.sqrt(np.mean(np.square(a)))


# images, channels, outputs, height, width, padding
ROUNDING = [
    (1, 16, 16, 32, 32, 1), (8, 32, 32, 16, 16, 1), (20, 64, 64, 8, 8, 1), (1, 64, 64, 30, 30, 0), (3, 32, 64, 17, 19, 1),
    (2, 64, 32, 21, 13, 2), (1, 128, 48, 14, 14, 1), (5, 16, 32, 9, 33, 0), (4, 48, 80, 11, 10, 2),
]


@pytest.mark.parametrize("case", ROUNDING)
def test_rounding(case):
    """Root mean square errors of at most 3.5 times those of the plain sum."""
    arrays, dy = draw(*case)
    exact = conv_reference(*arrays, dy, padding=case[-1])
    plain, quick = (run(arrays, dy, on, padding=case[-1]) for on in (False, True))
    if VECTORS:
        assert (plain[0] != quick[0]).any(), "it was not used"
    for e, p, q, what in zip(exact, plain, quick, ("y", "dx", "dw", "db"), strict=True):
        if what != "db":
            assert_near(p, e, what)
            assert_near(q, e, what)
        assert rms(q - e) <= 3.5 * rms(p - e) + 1e-7 * rms(e), f"{what}: {rms(q - e) / rms(p - e):.1f} times the plain sum's"


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize("padding", [0, 1, 2, 3, 5])
def test_sizes(height, padding):
    """Sizes that are no multiples of a tile, down to those that no tile fills; padding beyond the kernel."""
    for images, width in ((1, 12), (7, 3), (2, 37), (3, height)):
        if min(height, width) + 2 * padding < 3:
            continue
        arrays, dy = draw(images, 32, 16, height, width, padding)
        exact = conv_reference(*arrays, dy, padding=padding)
        for one, e, what in zip(run(arrays, dy, True, padding=padding)[:3], exact, ("y", "dx", "dw"), strict=False):
            assert_near(one, e, what)


@pytest.mark.parametrize("case", [(1, 16, 16, 64, 64, 1), (20, 64, 64, 8, 8, 1), (33, 32, 48, 15, 14, 1), (2, 256, 256, 28, 28, 1)])
def test_threads(case):
    arrays, dy = draw(*case)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append([one.tobytes() for one in run(arrays, dy, True, padding=1)])
    assert results[0] == results[1] == results[2]


def test_other_shapes_keep_the_plain_sum():
    """Channels beside a vector's multiples, strides, dilation, groups, other kernels, float64."""
    for dtype, shape, kernel, keywords in [
        (np.float32, (2, 17, 16, 16), (16, 17, 3, 3), {}), (np.float32, (2, 32, 16, 16), (32, 32, 3, 3), {"stride": 2}),
        (np.float32, (2, 32, 16, 16), (32, 32, 3, 3), {"dilation": 2}),
        (np.float32, (2, 32, 16, 16), (32, 16, 3, 3), {"groups": 2}),
        (np.float32, (2, 32, 16, 16), (32, 32, 3, 2), {}), (np.float64, (2, 32, 16, 16), (32, 32, 3, 3), {}),
    ]:
        x, w = RNG.standard_normal(shape).astype(dtype), RNG.standard_normal(kernel).astype(dtype)
        one = conv.conv2d(bpnn.from_numpy(x), bpnn.from_numpy(w), **keywords).numpy()
        winograd.use(False)
        np.testing.assert_array_equal(one, conv.conv2d(bpnn.from_numpy(x), bpnn.from_numpy(w), **keywords).numpy())
        winograd.use(True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    """What is not a number reaches the tiles whose 6 x 6 elements hold it, in its image alone."""
    (x, w, b), _ = draw(3, 32, 32, 17, 18, 1)
    finite = conv.conv2d(bpnn.from_numpy(x), bpnn.from_numpy(w), bpnn.from_numpy(b), padding=1).numpy()
    x[1, 5, 8, 9] = value                                     # the tile of places 8 … 11 sees elements 7 … 12
    got = conv.conv2d(bpnn.from_numpy(x), bpnn.from_numpy(w), bpnn.from_numpy(b), padding=1).numpy()
    assert not np.isfinite(got[1, :, 7:10, 8:11]).any()
    may = np.zeros(got.shape, bool)
    may[1, :, 4:12, 8:12] = True
    np.testing.assert_array_equal(got[~may], finite[~may])


SCRIPT = """
import hashlib, numpy as np, bpnn
from bpcore import conv
rng = np.random.default_rng(0)
x, w = (bpnn.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in ((2, 32, 16, 16), (32, 32, 3, 3)))
print(hashlib.sha256(conv.conv2d(x, w).numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("setting", ["0", "1", None])
def test_environment(setting):
    """`BPNN_WINOGRAD=0` does without it."""
    environment = {name: value for name, value in os.environ.items() if name != "BPNN_WINOGRAD"}
    if setting is not None:
        environment["BPNN_WINOGRAD"] = setting
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    rng = np.random.default_rng(0)
    x, w = (bpnn.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in ((2, 32, 16, 16), (32, 32, 3, 3)))
    winograd.use(setting != "0")
    assert done.stdout.strip() == hashlib.sha256(conv.conv2d(x, w).numpy().tobytes()).hexdigest()


MEMORY = """
import resource, sys, numpy as np, bpnn
from bpcore import conv, winograd
from bpcore.memory import memory_stats, reset_peak
winograd.use(sys.argv[1] == "1")
x, w = (bpnn.zeros(*shape, requires_grad=True) for shape in ((128, 16, 32, 32), (16, 16, 3, 3)))
dy = bpnn.ones(128, 16, 32, 32)
conv.conv2d(x[:2], w, padding=1).backward(dy[:2])
x.grad = w.grad = None
before, resident = memory_stats()["in_use"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reset_peak()
y = conv.conv2d(x, w, padding=1)
print((memory_stats()["peak"] - before) / x.nbytes)
y.backward(dy)
print((memory_stats()["peak"] - before) / x.nbytes)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) * 1024 / x.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss counts kilobytes on Linux")
@pytest.mark.parametrize("on", ["0", "1"])
def test_memory(on):
    """Forward takes the output and little more, backward the gradients: no matrix of 9 times the input."""
    done = subprocess.run([sys.executable, "-c", MEMORY, on], capture_output=True, text=True, check=True)
    forward, both, resident = map(float, done.stdout.split())
    assert forward < 1.2
    assert both < 2.5
    assert resident < 3, "with what is not counted"
