"""The thread team: its size, forks, and calls from several Python threads."""
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from bpcore.gemm import matmul
from bpcore.threads import get_num_threads, has_openmp, set_num_threads

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((300, 200)), RNG.standard_normal((200, 250))


def run(program, **environment):
    """The output of a Python program in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_set_and_get():
    set_num_threads(3)
    assert get_num_threads() == (3 if has_openmp() else 1)
    for bad in (0, -1):
        with pytest.raises(ValueError, match="num_threads"):
            set_num_threads(bad)


def test_the_environment_decides():
    program = "from bpcore.threads import get_num_threads; print(get_num_threads())"
    expected = "3" if has_openmp() else "1"
    assert run(program, BPNN_NUM_THREADS="3") == expected
    assert run(program, OMP_NUM_THREADS="3", BPNN_NUM_THREADS="") == expected
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"BPNN_NUM_THREADS": "many"}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode != 0 and "BPNN_NUM_THREADS='many'" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes():
    """The parent's team does not exist in the child; a product there must end all the same."""
    program = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from bpcore.gemm import matmul
from bpcore.threads import get_num_threads, set_num_threads
set_num_threads(2)
a = np.random.default_rng(0).standard_normal((400, 400))
here = matmul(a, a)
child = os.fork()
if child == 0:
    same = np.allclose(matmul(a, a), here) and get_num_threads() == 1
    os._exit(0 if same else 7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not np.array_equal(matmul(a, a), here))
"""
    run(program)


def test_several_python_threads_at_once():
    set_num_threads(2)
    expected = A @ B
    wrong = []

    def work():
        for _ in range(30):
            if not np.allclose(matmul(A, B), expected):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert not wrong
