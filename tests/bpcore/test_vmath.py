"""The vector maths against a reference of higher precision, over the whole range of floats."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from bpcore import simd, vmath


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# Function, reference, largest error in units in the last place for float32 and float64, whether tiny results become 0.
CASES = {
    "exp": (vmath.exp, np.exp, 1.1, 1.1, False),
    "log": (vmath.log, np.log, 1.1, 1.1, False),
    "log1p": (vmath.log1p, np.log1p, 1.5, 1.5, False),
    "erf": (vmath.erf, special.erf, 1.7, None, False),
    "tanh": (vmath.tanh, np.tanh, 2.6, 2.6, False),
    "sigmoid": (vmath.sigmoid, sigmoid, 2.4, 2.4, True),
    "softplus": (vmath.softplus, softplus, 2.7, 2.7, True),
}


def ulps(got, expected, dtype):
    """The error in units in the last place of `dtype`; infinite where one of the two is not finite and they differ."""
    with np.errstate(all="ignore"):
        rounded = expected.astype(dtype)
        unit = np.spacing(np.abs(rounded)).astype(expected.dtype)
        error = np.abs(got.astype(expected.dtype) - expected) / unit
    finite = np.isfinite(rounded)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(finite, error, np.where(same, 0, np.inf))


def check(name, x, reference_dtype, bound):
    function, reference, *_, flushes = CASES[name]
    with np.errstate(all="ignore"):
        expected = reference(x.astype(reference_dtype))
    got = function(x)
    assert got.dtype == x.dtype and got.shape == x.shape
    error = ulps(got, expected, x.dtype)
    if flushes:
        tiny = np.abs(expected) < np.finfo(x.dtype).smallest_normal
        assert ((got[tiny] == 0) | (error[tiny] <= bound) | np.isnan(expected[tiny])).all()
        error[tiny] = 0
    worst = int(np.argmax(error))
    assert error[worst] <= bound, f"{name}({x[worst]!r}) = {got[worst]!r}, {error[worst]:.2f} ulp from {expected[worst]!r}"


@pytest.mark.parametrize("name", CASES)
def test_float32_over_the_whole_range(name):
    x = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    check(name, x, np.float64, CASES[name][2])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_float32_densely(name):
    for start in range(0, 2**32, 2**28):
        x = np.arange(start, start + 2**28, 61, dtype=np.uint64).astype(np.uint32).view(np.float32)
        check(name, x, np.float64, CASES[name][2])


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="no type of higher precision than float64")
@pytest.mark.parametrize("name", [name for name in CASES if name != "erf"])
def test_float64_over_the_whole_range(name):
    rng = np.random.default_rng(0)
    parts = [
        rng.integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64), rng.normal(size=100_000) * 3,
        rng.uniform(-750, 750, 100_000), rng.uniform(-40, 40, 100_000), rng.uniform(-1, 1, 100_000),
        1 + rng.normal(size=100_000) * 1e-3, rng.normal(size=100_000) * 1e-9,
    ]
    check(name, np.concatenate(parts), np.longdouble, CASES[name][3])


def test_erf_of_float64():
    x = np.concatenate([np.linspace(-7, 7, 10_001), [0.0, 1e-300, 40.0]])
    np.testing.assert_allclose(vmath.erf(x), special.erf(x), rtol=4e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, -2.0, 1e-45, 1e30], dtype)
    with np.errstate(all="ignore"):
        for name, (function, reference, *_) in CASES.items():
            expected = reference(x.astype(np.float64)).astype(dtype)
            got = function(x)
            np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=name)
            if name in ("tanh", "erf"):
                assert np.signbit(got[1]) and not np.signbit(got[0])


def test_subnormal_results_of_exp():
    x = np.linspace(-103.9, -87.4, 1000, dtype=np.float32)
    got = vmath.exp(x)
    assert (got > 0).all()
    assert np.abs(got.astype(np.float64) - np.exp(x.astype(np.float64))).max() <= 1.1 * 2.0**-149


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33])
@pytest.mark.parametrize("name", CASES)
def test_every_element_of_any_layout(name, n):
    function = CASES[name][0]
    x = np.random.default_rng(n).uniform(0.1, 2, (n, 6)).astype(np.float32)
    one_by_one = np.array([function(v.reshape(1))[0] for v in x.ravel()], np.float32).reshape(x.shape)
    np.testing.assert_allclose(function(x), one_by_one, rtol=3e-7)      # vectors may fuse what a single element does not
    np.testing.assert_array_equal(function(np.asfortranarray(x)), function(x))
    np.testing.assert_array_equal(function(x[:, ::2]), function(x[:, ::2].copy()))


@pytest.mark.parametrize("wrong", [np.arange(3), [1.0, 2.0], 1.0, np.ones(2, np.float16)])
def test_other_types_are_refused(wrong):
    with pytest.raises(TypeError, match="x: expected an array of float32 or float64"):
        vmath.exp(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["baseline", "avx2"])
def test_other_instruction_sets(cpu):
    """The tests of everything that stands on these kernels pass with the kernels of other processors."""
    here = Path(__file__).parent
    files = [str(here / f"test_{name}.py") for name in ("vmath", "activation", "softmax", "loss", "cross_entropy", "dropout")]
    if os.environ.get("BPNN_CPU") or simd.cpu() in (cpu, "neon"):
        pytest.skip(f"runs {simd.cpu()} already")
    if cpu == "avx2" and simd.cpu() != "avx512":
        pytest.skip("this processor has no AVX2")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow and not rivals", *files],
        env={**os.environ, "BPNN_CPU": cpu}, capture_output=True, text=True, timeout=900, check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
