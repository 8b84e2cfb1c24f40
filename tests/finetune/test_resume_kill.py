"""A fine-tuning run killed with SIGKILL, at any moment, and resumed, ends with the bits of one that was never stopped."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_models

import bpnn
from bpnn.finetune import SettingsError, resume

SCRIPT = Path(__file__).with_name("killed_run.py")
TRICKS = {"adversarial": "fgm", "ema": 0.9}
RUNS = {
    "full": {"method": "full", **TRICKS},
    "lora": {"method": "lora", "lora_dropout": 0.1, "augment": True, **TRICKS},
    "gradual": {"method": "gradual", "layers_per_epoch": 2, "r_drop": 1.0, "stochastic_depth": 0.2, **TRICKS},
}
COMMON = {"epochs": 2, "batch_size": 20, "lr": 0.01, "threads": 1, "checkpoint_every": 2, "accumulate": 2, "dropout": 0.2,
          "text": "text", "label": "label"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    tiny_models.tiny_bert(folder / "base")
    tiny_models.table(folder / "data.csv")
    return folder


def run(place, options):
    """The exit code of a run that ends itself at `place`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BPNN")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, str(SCRIPT), place, json.dumps(options)], capture_output=True, text=True, timeout=200,
                          env=environment)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def options(home, name, out):
    return {"model": str(home / "base"), "data": str(home / "data.csv"), "out": str(out), **COMMON, **RUNS[name]}


def result(folder):
    """The bytes of the final weights, and the scores without times."""
    files = sorted((folder / "model").rglob("*.safetensors"))
    assert files
    metrics = json.loads((folder / "metrics.json").read_text())
    return {file.name: file.read_bytes() for file in files}, {key: metrics[key] for key in ("test", "validation", "steps")}


@pytest.fixture(scope="module")
def whole(home):
    """Results of runs that nobody stopped."""
    found = {}

    def of(name):
        if name not in found:
            assert run("never", options(home, name, home / name)) == 0
            found[name] = result(home / name)
        return found[name]

    return of


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("full", ["step:1", "step:2", "step:2"]),  # before any checkpoint, behind one, and again
        ("full", ["file:5", "folder:4", "prune:1"]),  # in the middle of writing one, of removing one
        ("lora", ["step:3", "file:2"]),
        ("gradual", ["step:3", "step:1"]),
        ("lora", ["model:1"]),  # trained, the folder half written
        pytest.param("full", ["card:1"], marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed(home, whole, tmp_path, name, places):
    out = tmp_path / "run"
    first, *others = places
    assert run(first, options(home, name, out)) == -signal.SIGKILL
    for place in others:
        assert run(place, {"resume": str(out)}) == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    assert run("never", {"resume": str(out)}) == 0
    weights, scores = result(out)
    expected, expected_scores = whole(name)
    assert weights.keys() == expected.keys() and all(weights[key] == expected[key] for key in expected)
    assert scores == expected_scores
    assert not list(out.glob(".*")) and len(list((out / "checkpoints").glob("step-*"))) == 2


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_at_any_time(home, whole, tmp_path):
    """Killed from outside, again and again, after times drawn by chance, until it gets through."""
    rng = np.random.default_rng()
    told, out = options(home, "full", tmp_path / "run"), tmp_path / "run"
    for _ in range(12):
        resumed = (out / "config.json").exists()
        arguments = {"resume": str(out)} if resumed else told
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "never", json.dumps(arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        time.sleep(rng.uniform(0.3, 3))
        process.kill()
        process.wait()
        if not (out / "config.json").exists():
            shutil.rmtree(out, ignore_errors=True)
        if (out / "metrics.json").exists():
            break
    assert run("never", {"resume": str(out)} if (out / "config.json").exists() else told) == 0
    assert result(out) == whole("full")


def test_dropout_and_tricks_change_the_result(home, whole, tmp_path):
    """What the test above compares depends on what it is about: without FGM or EMA other weights come out."""
    for trick in TRICKS:
        told = options(home, "full", tmp_path / trick)
        told.pop(trick)
        assert run("never", told) == 0
        assert result(tmp_path / trick)[0] != whole("full")[0]


def test_other_base_or_data(home, tmp_path):
    """A base model or data that changed since is refused."""
    base, data = tiny_models.tiny_bert(tmp_path / "base"), tiny_models.table(tmp_path / "data.csv")
    told = options(home, "lora", tmp_path / "run") | {"model": str(base), "data": str(data)}
    if run("step:3", told) != -signal.SIGKILL:
        pytest.fail("the run was to be killed")
    tiny_models.tiny_bert(base, seed=1)
    with pytest.raises(SettingsError, match="was trained on another base model than .*base is now"):
        resume(tmp_path / "run", verbose=False)
    tiny_models.tiny_bert(base)
    data.write_text(data.read_text() + "a dull film,no\n")
    with pytest.raises(bpnn.data.DataError, match=r"was trained on other data \(96 \+ 12 \+ 12 examples from .*data.csv\)"):
        resume(tmp_path / "run", verbose=False)
    tiny_models.table(data)
    tuned = resume(tmp_path / "run", verbose=False)
    assert np.isfinite(tuned.metrics["test"]["loss"])
