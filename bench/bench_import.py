"""Importing the package in a fresh interpreter."""
import subprocess
import sys
from importlib.util import find_spec

from harness import Outcome, alternate

TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def import_seconds(module):
    output = subprocess.run([sys.executable, "-c", TIMED.format(module)], capture_output=True, text=True, check=True)
    return float(output.stdout)


def test_import(judge, request):
    modules = {"bpnn": "bpnn", "NumPy": "numpy", "PyTorch": "torch", "JAX": "jax"}
    modules["scikit-learn"] = "sklearn.neural_network"
    outcome = Outcome("import", bars={"PyTorch": 10})
    for name, module in list(modules.items()):
        if find_spec(module.split(".")[0]) is None:
            outcome.absent[name] = f"no module {module}"
            del modules[name]
        else:
            import_seconds(module)  # from disk into memory
    runs = {name: lambda module=module: import_seconds(module) for name, module in modules.items()}
    outcome.seconds = alternate(runs, request.config.getoption("--rounds"))
    judge(outcome)
