"""Pooled result buffers: alignment, reuse, the cap, and sizes that do not fit."""
import gc
import os
import subprocess
import sys

import pytest

import bpnn
from bpcore.memory import empty_cache, memory_stats, reset_peak, set_pool_cap


@pytest.fixture
def pool():
    gc.collect()
    empty_cache()
    cap = memory_stats()["cap"]
    yield
    set_pool_cap(cap)


def result(*shape):
    """A fresh result of an operator."""
    return bpnn.relu(bpnn.ones(*shape)).numpy()


@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000, 4097, 2_000_000])
def test_results_are_aligned(n):
    assert result(n).ctypes.data % 64 == 0


def test_a_freed_buffer_serves_the_next_of_its_size(pool):
    a = result(1000)
    address = a.ctypes.data
    del a
    before = memory_stats()
    a = result(1000)
    after = memory_stats()
    assert a.ctypes.data == address
    assert after["hits"] == before["hits"] + 1 and after["misses"] == before["misses"]


def test_an_array_in_use_is_never_handed_out(pool):
    held = [result(257) for _ in range(50)]
    assert len({a.ctypes.data for a in held}) == 50
    view = held[3][10:20]
    address = held[3].ctypes.data
    held.clear()
    others = [result(257) for _ in range(60)]
    assert address not in {a.ctypes.data for a in others}
    assert (view == 1).all()


def test_counts_and_cap(pool):
    stats = memory_stats()
    a = result(1 << 20)
    assert memory_stats()["in_use"] - stats["in_use"] >= 4 << 20
    del a
    assert memory_stats()["in_use"] == stats["in_use"]
    assert memory_stats()["pooled"] >= 4 << 20
    empty_cache()
    assert memory_stats()["pooled"] == 0
    set_pool_cap(1 << 20)
    result(1 << 20)
    assert memory_stats()["pooled"] <= 1 << 20


def test_peak(pool):
    reset_peak()
    base = memory_stats()["in_use"]
    a = result(1 << 20)
    del a
    assert memory_stats()["peak"] - base >= 4 << 20
    reset_peak()
    assert memory_stats()["peak"] == memory_stats()["in_use"]


def test_waste_is_bounded(pool):
    for n in (65, 129, 1000, 1025, 33_333, 1_048_577):
        before = memory_stats()["in_use"]
        a = bpnn.relu(bpnn.ones(n)).numpy()
        used = memory_stats()["in_use"] - before
        assert a.nbytes <= used <= max(a.nbytes * 9 / 8 + 8, 64)
        del a


def test_the_environment_sets_the_cap():
    program = "from bpcore.memory import memory_stats; print(memory_stats()['cap'])"
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"BPNN_POOL_MB": "7"}, capture_output=True,
                          text=True, timeout=60)
    assert done.stdout.strip() == str(7 << 20)
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"BPNN_POOL_MB": "x"}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode != 0 and "BPNN_POOL_MB='x'" in done.stderr


def test_too_large_is_an_error():
    with pytest.raises(MemoryError):
        bpnn.ones(1).expand(1 << 20, 1 << 20, 1 << 8).clone()
