"""Shared fixtures. The marks `rivals` and `slow` are declared in pyproject.toml."""
import os
import signal
from pathlib import Path

import pytest

from bpcore import threads

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: tests of Ctrl-C would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)

BESIDE = Path(__file__).parents[2] / "shared" / "data"  # ../shared/data beside the checkout


@pytest.fixture(autouse=True)
def same_threads():
    """The number of threads is what it was, whatever a test sets it to."""
    before = threads.get_num_threads()
    yield
    if threads.get_num_threads() != before:
        threads.set_num_threads(before)


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real data sets (mnist, sst2 …): `BPNN_DATA`, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("BPNN_DATA") or BESIDE)
    if not folder.is_dir():
        pytest.skip(f"no data sets: {folder} is not a folder (set BPNN_DATA)")
    return folder


@pytest.fixture(scope="session")
def mnist_dir(data_dir):
    """The folder of MNIST's four idx files."""
    if not (data_dir / "mnist").is_dir():
        pytest.skip(f"no MNIST in {data_dir}")
    return data_dir / "mnist"
