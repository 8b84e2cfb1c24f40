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
    for bad in (0, -1, 1025):
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
@pytest.mark.parametrize("forks", [1, 20])
def test_a_forked_child_computes(forks):
    """The parent's team does not exist in the child; a product there must end all the same, and so must the parent's next."""
    program = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from bpcore.gemm import matmul
from bpcore.threads import set_num_threads
set_num_threads(2)
a = np.random.default_rng(0).standard_normal((400, 400))
here = matmul(a, a)
for _ in range({forks}):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(matmul(a, a), here) else 7)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or not np.array_equal(matmul(a, a), here):
        sys.exit(status or 8)
"""
    run(program)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_another_thread_computes():
    program = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
import numpy as np
from bpcore.gemm import matmul
from bpcore.threads import set_num_threads
set_num_threads(2)
a = np.random.default_rng(0).standard_normal((300, 300))
here = matmul(a, a)
over = False
def work():
    while not over:
        matmul(a, a)
thread = threading.Thread(target=work)
thread.start()
bad = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.allclose(matmul(a, a), here) else 7)
    bad |= os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
over = True
thread.join()
sys.exit(bad)
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
