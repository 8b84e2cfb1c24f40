"""Checkpoints: whole or not there, checked when read, enough to go on with the same bits."""
import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import pytest

import bpnn
from bpnn.train.checkpoint import (
    CheckpointError,
    best_checkpoint,
    get_rng_states,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    read_manifest,
    save_checkpoint,
    set_rng_states,
    verify_checkpoint,
)

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
posix = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")


def parts(step):
    return {"model": {"weight": bpnn.from_numpy(np.full(1000, step)), "bias": bpnn.from_numpy(np.full(3, step))},
            "loader": {"seed": step, "epoch": 0, "position": None}}


def step_of(checkpoint):
    """The step that every part of a checkpoint agrees on."""
    steps = {checkpoint.step, checkpoint.info["step"], checkpoint["loader"]["seed"],
             *checkpoint["model"]["weight"].tolist(), *checkpoint["model"]["bias"].tolist()}
    assert len(steps) == 1
    return steps.pop()


def write(folder, step, **keywords):
    return save_checkpoint(folder, step, parts(step), {"step": step}, **keywords)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- what is written ------------------------------------------------------------------------------------------------------

def test_round_trip(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    components = {
        "model": {"w": bpnn.from_numpy(np.arange(6.0).reshape(2, 3).T)},
        "optimizer": {"state": {0: {"step": 3, "exp_avg": bpnn.from_numpy(np.ones(2))}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "rng": get_rng_states(),
    }
    path = save_checkpoint(folder, 12, components, {"loss": 0.1, "note": "ü", "list": [1, None]})
    assert path == folder / "step-000000012" == latest_checkpoint(folder)
    for source in (folder, path):
        checkpoint = load_checkpoint(source)
        assert checkpoint.path == path and checkpoint.step == 12
        assert checkpoint.info == {"loss": 0.1, "note": "ü", "list": [1, None]}
        assert list(checkpoint) == ["model", "optimizer", "rng"] and len(checkpoint) == 3
        assert checkpoint["model"]["w"].tolist() == [[0, 3], [1, 4], [2, 5]]
        assert checkpoint["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
        assert checkpoint["optimizer"]["state"][0]["step"] == 3
    with pytest.raises(KeyError, match="no component 'x'; it has model, optimizer, rng"):
        checkpoint["x"]


def test_the_manifest_tells_sizes_and_sums(tmp_path):
    path = write(tmp_path, 5)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == "bpnn checkpoint" and manifest["version"] == 1 and manifest["step"] == 5
    assert names(path) == ["loader.safetensors", "manifest.json", "model.safetensors"]
    for name in ("loader.safetensors", "model.safetensors"):
        raw = (path / name).read_bytes()
        assert manifest["files"][name] == {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    assert read_manifest(path) == manifest
    assert names(tmp_path) == ["step-000000005"]


def test_a_step_written_again(tmp_path):
    for value in (1, 2, 3):
        save_checkpoint(tmp_path, 7, {"a": {"value": value}})
    save_checkpoint(tmp_path, 8, {"a": {"value": 9}})
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step-000000007", "step-000000007-1", "step-000000007-2", "step-000000008"]
    shutil.rmtree(tmp_path / "step-000000008")
    assert load_checkpoint(tmp_path)["a"]["value"] == 3


def test_steps_sort_by_number(tmp_path):
    for step in (2, 10, 999_999_999, 1_000_000_000, 0):
        save_checkpoint(tmp_path, step, {})
    assert [load_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [0, 2, 10, 999_999_999, 1_000_000_000]


@pytest.mark.parametrize(("arguments", "kind", "words"), [
    ((-1, {}), ValueError, "step"), ((1.5, {}), ValueError, "step"), ((1, {"a/b": {}}), ValueError, "components: .*'a/b'"),
    ((1, {"..": {}}), ValueError, "components"), ((1, {"": {}}), ValueError, "components"),
    ((1, {"a": {"x": object()}}), TypeError, "key 'x': .*object"), ((1, {}, {"x": object()}), TypeError, "info"),
])
def test_wrong_arguments_leave_nothing(tmp_path, arguments, kind, words):
    write(tmp_path, 0)
    with pytest.raises(kind, match=words):
        save_checkpoint(tmp_path, *arguments)
    for keywords in ({"keep": 0}, {"keep": 1, "mode": "best"}):
        with pytest.raises(ValueError, match=r"keep|mode"):
            write(tmp_path, 1, **keywords)
    assert names(tmp_path) == ["step-000000000"]


# --- pruning --------------------------------------------------------------------------------------------------------------

def test_the_last_and_the_best_are_kept(tmp_path):
    losses = [5.0, 1.0, 3.0, math.nan, 1.0, 2.0, None]
    for step, loss in enumerate(losses):
        save_checkpoint(tmp_path, step, {}, {"loss": loss} if loss is not None else {}, keep=2, best="loss")
    assert names(tmp_path) == ["step-000000001", "step-000000005", "step-000000006"]
    assert best_checkpoint(tmp_path, "loss").name == "step-000000001"
    assert best_checkpoint(tmp_path, "loss", "max").name == "step-000000005"
    assert best_checkpoint(tmp_path, "accuracy") is None
    assert [path.name for path in prune_checkpoints(tmp_path, 1)] == ["step-000000006"]
    assert names(tmp_path) == ["step-000000006"]
    save_checkpoint(tmp_path, 7, {}, keep=5)
    assert len(list_checkpoints(tmp_path)) == 2


# --- damage ---------------------------------------------------------------------------------------------------------------

def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "bit": (lambda p: flip(p / "model.safetensors"), r"model\.safetensors: is damaged \(its SHA-256"),
    "cut": (lambda p: os.truncate(p / "model.safetensors", 100), r"model\.safetensors: has 100 bytes instead of"),
    "missing": (lambda p: (p / "loader.safetensors").unlink(), r"loader\.safetensors: is missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), r"manifest\.json: is missing"),
    "cut manifest": (lambda p: os.truncate(p / "manifest.json", 40), r"manifest\.json: is damaged"),
    "binary manifest": (lambda p: (p / "manifest.json").write_bytes(b"\xff\xfe\x00"), r"manifest\.json: is damaged"),
    "list manifest": (lambda p: (p / "manifest.json").write_text("[]"), r"manifest\.json: is no manifest"),
    "other manifest": (lambda p: (p / "manifest.json").write_text('{"format": "x"}'), r"manifest\.json: is no manifest"),
    "poor manifest": (lambda p: (p / "manifest.json").write_text('{"format": "bpnn checkpoint", "version": 1}'), "is damaged"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_read(tmp_path, case):
    damage, words = DAMAGE[case]
    for step in (1, 2, 3):
        write(tmp_path, step)
    newest = latest_checkpoint(tmp_path)
    damage(newest)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(newest)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=words):
        verify_checkpoint(newest)
    with pytest.warns(RuntimeWarning, match=words + r".*going back to step-000000002"):
        assert step_of(load_checkpoint(tmp_path)) == 2
    for path in list_checkpoints(tmp_path)[:2]:
        damage(path)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(tmp_path)


def test_a_manifest_does_not_reach_elsewhere(tmp_path):
    path = write(tmp_path / "run", 1)
    secret = tmp_path / "secret.safetensors"
    bpnn.save({"a": 1}, secret)
    manifest = json.loads((path / "manifest.json").read_text())
    raw = secret.read_bytes()
    manifest["files"]["../../secret.safetensors"] = {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)


def test_another_version_is_refused_in_one_line(tmp_path):
    write(tmp_path, 1)
    path = write(tmp_path, 2)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
    for source in (path, tmp_path):
        with pytest.raises(CheckpointError, match="version 2 of bpnn's checkpoints; this bpnn reads version 1") as caught:
            load_checkpoint(source)
        assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        load_checkpoint(tmp_path)
    assert latest_checkpoint(tmp_path) is None and list_checkpoints(tmp_path / "none") == []


# --- kills ----------------------------------------------------------------------------------------------------------------

# Each child is killed at one more call into the system, before it or after it, until one comes through.
EVERY_STEP = """
import os, shutil, signal, sys, warnings
import test_checkpoint as t
from pathlib import Path

base, work = Path(sys.argv[1]), Path(sys.argv[2])
CALLS = ("mkdir", "open", "close", "fsync", "chmod", "replace", "rename", "unlink", "rmdir")

def deadly(name, state):
    real = getattr(os, name)
    def call(*args, **keywords):
        for after in (False, True):
            if after:
                result = real(*args, **keywords)
            state["left"] -= 1
            if not state["left"]:
                os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(os, name, call)

for step in (1, 2, 3):
    t.write(base, step)
when, seen = 0, []
while True:
    when += 1
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work)
    pid = os.fork()
    if not pid:
        for name in CALLS:
            deadly(name, state := {"left": when}) if name == CALLS[0] else deadly(name, state)
        t.write(work, 4, keep=2)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in t.list_checkpoints(work):
            assert t.step_of(t.load_checkpoint(path)) == t.load_checkpoint(path).step
        step = t.step_of(t.load_checkpoint(work))
        assert step in (3, 4) and (not seen or step >= seen[-1]), (when, seen, step)
        assert len(t.list_checkpoints(work)) >= 2
        seen.append(step)
        t.write(work, 5, keep=2)
    assert t.names(work)[-1] == "step-000000005" and not any(name.startswith(".") for name in t.names(work)), t.names(work)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(when, seen.count(3), seen.count(4))
"""


@posix
def test_killed_at_every_step_of_a_write(tmp_path):
    path = os.pathsep.join([os.path.dirname(__file__), ENVIRONMENT["PYTHONPATH"]])
    result = subprocess.run([sys.executable, "-c", EVERY_STEP, tmp_path / "base", tmp_path / "work"], capture_output=True,
                            text=True, timeout=300, env=ENVIRONMENT | {"PYTHONPATH": path})
    assert result.returncode == 0, result.stderr
    steps, before, after = map(int, result.stdout.split())
    assert steps > 50 and before > 20 and after > 20


@posix
def test_killed_at_any_time(tmp_path):
    code = textwrap.dedent("""
        import sys, test_checkpoint as t
        for step in range(int(sys.argv[2]), 10**9):
            t.write(sys.argv[1], step, keep=2)
            print(step, flush=True)
    """)
    path = os.pathsep.join([os.path.dirname(__file__), ENVIRONMENT["PYTHONPATH"]])
    step, chance = 0, random.Random(0)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code, tmp_path / "run", str(step + 1)], stdout=subprocess.PIPE, text=True,
                              env=ENVIRONMENT | {"PYTHONPATH": path}) as process:
            told = int(process.stdout.readline())
            time.sleep(chance.random() * 0.1)
            process.kill()
            told = max([told, *map(int, process.stdout.read().split())])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            step = step_of(load_checkpoint(tmp_path / "run"))
        assert step in (told, told + 1)


@posix
def test_a_full_disk_leaves_what_was_there(tmp_path):
    write(tmp_path, 1)
    code = textwrap.dedent("""
        import resource, signal, sys
        import numpy as np, bpnn
        from bpnn.train.checkpoint import save_checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as if the disk were full after that
        try:
            save_checkpoint(sys.argv[1], 2, {"model": {"w": bpnn.from_numpy(np.zeros(1_000_000))}}, keep=1)
        except OSError as error:
            print(error)
    """)
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env=ENVIRONMENT)
    assert "model.safetensors" in result.stdout and "File too large" in result.stdout, result
    assert names(tmp_path) == ["step-000000001"] and step_of(load_checkpoint(tmp_path)) == 1


# --- going on -------------------------------------------------------------------------------------------------------------

def test_random_numbers_go_on(tmp_path):
    def draw():
        return [bpnn.rand(3).tolist(), random.random(), np.random.random(), random.gauss(0, 1), np.random.normal()]

    bpnn.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    draw()
    save_checkpoint(tmp_path, 0, {"rng": get_rng_states()})
    expected = [draw(), draw()]
    draw()
    set_rng_states(load_checkpoint(tmp_path)["rng"])
    assert [draw(), draw()] == expected


class Run:
    """A network with dropout, its optimizer, schedule and shuffled data: everything that a run is."""

    def __init__(self, optimizer):
        from bpnn import nn, optim
        from bpnn.utils.data import DataLoader, TensorDataset

        rng = np.random.default_rng(0)
        x = rng.normal(size=(50, 6)).astype(np.float32)
        y = rng.integers(0, 3, 50)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        self.optimizer = getattr(optim, optimizer)(self.model.parameters(), lr=0.05)
        self.scheduler = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=7)
        data = TensorDataset(bpnn.from_numpy(x), bpnn.from_numpy(y))
        self.loader = DataLoader(data, batch_size=8, shuffle=True)
        self.loss = nn.CrossEntropyLoss()
        self.losses = []

    def train(self, epochs, stop_after=None, folder=None):
        for _ in range(epochs):
            for x, y in self.loader:
                self.optimizer.zero_grad()
                loss = self.loss(self.model(x), y)
                loss.backward()
                self.optimizer.step()
                self.losses.append(loss.item())
                if len(self.losses) == stop_after:
                    save_checkpoint(folder, stop_after, {
                        "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                        "scheduler": self.scheduler.state_dict(), "loader": self.loader.state_dict(), "rng": get_rng_states(),
                    })
                    return
            self.scheduler.step()

    def resume(self, folder):
        checkpoint = load_checkpoint(folder)
        for name in ("model", "optimizer", "scheduler", "loader"):
            getattr(self, name).load_state_dict(checkpoint[name])
        set_rng_states(checkpoint["rng"])

    def weights(self):
        return {name: value.detach().numpy().tobytes() for name, value in self.model.state_dict().items()}


@pytest.mark.filterwarnings("ignore:Detected call of")  # resumed after the last batch of the first epoch, it steps first
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("stop_after", [1, 7, 10, 14])
def test_a_resumed_run_has_the_same_bits(tmp_path, optimizer, stop_after):
    bpnn.manual_seed(42)
    whole = Run(optimizer)
    whole.train(4)
    bpnn.manual_seed(42)
    stopped = Run(optimizer)
    stopped.train(4, stop_after, tmp_path)
    bpnn.manual_seed(7)  # the resumed process starts from elsewhere
    resumed = Run(optimizer)
    resumed.resume(tmp_path)
    resumed.train(4 - (stop_after - 1) // 7)
    assert stopped.losses + resumed.losses == whole.losses
    assert resumed.weights() == whole.weights()
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]
