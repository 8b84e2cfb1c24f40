"""Fixtures shared by the tests of the command."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cli_helpers import QUICK, bpnn, write_data


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with `mnist` in it and a finished run `done`."""
    folder = tmp_path_factory.mktemp("cli")
    write_data(folder / "mnist")
    done = bpnn("train", "digits", "--data", "mnist", "--out", "done", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder
