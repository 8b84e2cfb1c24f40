"""The acceptance programs, unchanged, each in a process and a folder of its own."""
import os
import subprocess
import sys

import pytest

PROGRAMS = ["line_by_hand.py", "worked_example.py", "optimizers_by_formula.py", "mnist_mlp.py", "lenet5.py"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_exits_with_zero(name, data_dir, tmp_path):
    program = data_dir.parent / "acceptance" / name
    if not program.exists():
        pytest.skip(f"no acceptance programs: {program} is not there")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}  # they import their neighbors
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing is written beside them
    run = subprocess.run([sys.executable, program], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
