"""What the command `bpnn` says when something is wrong: one line, and nothing is destroyed."""
import gzip
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cli_helpers import NAMES, QUICK, bpnn, contents, environment, fails, idx


def spoil(folder, name, change):
    path = folder / f"{name}.gz"
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: spoil(folder, NAMES[0], lambda raw: raw[:-20]), "train-images-idx3-ubyte.gz: the gzip data is truncated"),
        (lambda folder: spoil(folder, NAMES[2], lambda raw: b"nonsense"), "t10k-images-idx3-ubyte.gz: not an idx file"),
        (lambda folder: spoil(folder, NAMES[1], lambda raw: gzip.compress(gzip.decompress(raw)[:-7])), "announces (400,)"),
        (lambda folder: spoil(folder, NAMES[1], lambda raw: gzip.compress(idx(np.zeros(30)))), "400 images, but"),
        (lambda folder: spoil(folder, NAMES[0], lambda raw: gzip.compress(idx(np.zeros((400, 784))))), "expected images (N, H, W)"),
        (lambda folder: (folder / f"{NAMES[3]}.gz").unlink(), "t10k-labels-idx1-ubyte missing"),
    ],
)
def test_bad_data(place, tmp_path, change, words):
    shutil.copytree(place / "mnist", tmp_path / "mnist")
    change(tmp_path / "mnist")
    before = contents(tmp_path)
    fails(bpnn("train", "digits", "--data", "mnist", "--out", "run", cwd=tmp_path), words)
    assert contents(tmp_path) == before and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("train", "digits", "--data", "nowhere"), "nowhere: no such folder", 1),
        (("train", "digits", "--data", "."), "holds no MNIST files", 1),
        (("train", "digits", "--optimizer", "magic"), "--optimizer: invalid choice: 'magic'", 2),
        (("train", "digits", "--nonsense"), "--nonsense", 2),
        (("train", "letters"), "invalid choice: 'letters'", 2),
        (("train", "digits", "--layers", "5,x"), "--layers: invalid list of whole numbers above 0 value: '5,x'", 2),
        (("train", "digits", "--layers", "0"), "--layers", 2),
        (("train", "digits", "--lr", "-1"), "--lr: expected above 0", 2),
        (("train", "digits", "--lr", "nan"), "--lr: expected above 0", 2),
        (("train", "digits", "--epochs", "0"), "--epochs: expected at least 1", 2),
        (("train", "digits", "--epochs", "many"), "--epochs: invalid whole number value", 2),
        (("train", "digits", "--dropout", "1"), "--dropout: expected at least 0 and at most 0.99", 2),
        (("train", "digits", "--epochs", "10", "--warmup", "10"), "--warmup: expected fewer than the 10 epochs", 1),
        (("train", "digits", "--validation", "0", "--patience", "2"), "--patience: needs validation images", 1),
        (("train", "digits", "--optimizer", "nesterov", "--momentum", "0"), "--momentum", 1),
        (("train", "--resume", "nowhere"), "nowhere: no such run folder", 1),
        (("evaluate", "."), "not a run folder", 1),
        (("evaluate",), "RUN", 2),
        (("predict", "nowhere", "x.png"), "nowhere: no such run folder", 1),
        ((), "COMMAND", 2),
    ],
)
def test_bad_arguments(tmp_path, arguments, words, code):
    fails(bpnn(*arguments, cwd=tmp_path), words, code)
    assert not list(tmp_path.iterdir())


def test_validation_too_small(place, tmp_path):
    done = bpnn("train", "digits", "--data", place / "mnist", "--validation", "0.0001", cwd=tmp_path)
    fails(done, "leaves one side empty")
    assert not list(tmp_path.iterdir())


def test_a_run_is_never_overwritten(place, tmp_path):
    before = contents(place / "done")
    fails(bpnn("train", "digits", "--data", "mnist", "--out", "done", cwd=place), "done: holds a run already")
    assert contents(place / "done") == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    fails(bpnn("train", "digits", "--data", place / "mnist", "--out", "letters", cwd=tmp_path), "letters: is not empty")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]


def test_places_that_cannot_be_written(place, tmp_path):
    (tmp_path / "file").write_text("")
    fails(bpnn("train", "digits", "--data", place / "mnist", "--out", "file/run", cwd=tmp_path), "file")
    fails(bpnn("train", "digits", "--data", place / "mnist", "--out", "file", cwd=tmp_path), "file: File exists")
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        fails(bpnn("train", "digits", "--data", place / "mnist", "--out", "closed/run", cwd=tmp_path), "Permission denied")


FULL_DISK = """
import errno, os, sys
from pathlib import Path
real, left = os.fsync, [{calls}]
def fsync(descriptor):
    left[0] -= 1
    if left[0] < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(descriptor)
os.fsync = fsync
from bpnn.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("calls", [0, 2, 5, 20])
def test_full_disk(place, tmp_path, calls):
    """Every file is brought to the disk by fsync; here the disk is full from some call on."""
    command = [sys.executable, "-c", FULL_DISK.format(calls=calls), "train", "digits", "--data", str(place / "mnist")]
    done = subprocess.run(
        [*command, "--out", "run", *QUICK], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=environment()
    )
    fails(done, "No space left on device")
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix == ".tmp"]
    if calls:
        done = bpnn("train", "--resume", "run", cwd=tmp_path)  # the disk has room again
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run" / "model.safetensors").read_bytes() == (place / "done" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: {**config, "format": 99, "bpnn": "9.9"}, "a run in format 99, written by bpnn 9.9"),
        (lambda config: {**config, "task": "poetry"}, "a run of task 'poetry'"),
        (lambda config: {"hello": 1}, "it names no format"),
        (lambda config: {"format": 1, "task": "digits"}, "it has no 'data'"),
        (lambda config: [1], "it names no format"),
        (None, "config.json: damaged"),
    ],
)
def test_run_folders_of_another_kind(place, tmp_path, change, words):
    shutil.copytree(place / "done", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))) if change else "{ not json")
    before = contents(tmp_path)
    fails(bpnn("train", "--resume", "run", cwd=tmp_path), words)
    if "task" not in words:
        fails(bpnn("evaluate", "run", cwd=tmp_path), words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "other model"])
def test_damaged_models(place, tmp_path, damage):
    shutil.copytree(place / "done", tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        config["options"]["layers"] = [17]
        (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    fails(bpnn("evaluate", "run", cwd=tmp_path), "model.safetensors")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(place, tmp_path):
    shutil.copytree(place / "done", tmp_path / "run")
    for name in ("metrics.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    broken = checkpoints[-1] / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    done = bpnn("train", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 0 and f"going back to {checkpoints[-2].name}" in done.stderr and done.stderr.count("\n") == 1
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (place / "done" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.png", None, "missing.png: no such file"),
        ("text.png", b"this is no image", "text.png: not an image that can be read"),
        ("text.npy", b"this is no array", "text.npy: not a .npy file of numbers"),
        ("empty.png", b"", "empty.png: not an image that can be read"),
        ("empty.npy", b"", "empty.npy: not a .npy file of numbers"),
        ("*.none", None, "*.none: no file matches"),
    ],
)
def test_bad_images(place, tmp_path, name, content, words):
    if name.endswith(".png"):
        pytest.importorskip("PIL")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    fails(bpnn("predict", place / "done", name, cwd=tmp_path), words)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((28, 28)), "no digit to be seen"),
        (np.zeros((2, 2, 2, 2)), "expected gray images (H, W) or (N, H, W), got (2, 2, 2, 2)"),
        (np.full((28, 28), np.nan), "values that are not finite"),
        (np.array(["a"]), "expected gray images"),
        (np.array([{}], dtype=object), "not a .npy file of numbers"),
    ],
)
def test_bad_arrays(place, tmp_path, array, words):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    fails(bpnn("predict", place / "done", "x.npy", cwd=tmp_path), words)


def test_a_folder_without_images(place, tmp_path):
    fails(bpnn("predict", place / "done", tmp_path, cwd=tmp_path), "the folder holds no images")


def test_a_loss_that_is_not_finite(place, tmp_path):
    done = bpnn(
        "train", "digits", "--data", place / "mnist", "--out", "run", *QUICK, "--optimizer", "sgd", "--lr", "1e30",
        "--schedule", "none", cwd=tmp_path,
    )  # fmt: skip
    fails(done, "not finite at")
    assert "learning rate 1e+30" in done.stderr


def test_traceback_where_it_is_asked_for(tmp_path):
    done = bpnn("evaluate", "nowhere", cwd=tmp_path, BPNN_TRACEBACK="1")
    assert done.returncode == 1 and "Traceback" in done.stderr and "nowhere: no such run folder" in done.stderr


def test_download_says_why_it_failed(tmp_path):
    done = bpnn("train", "digits", "--data", tmp_path, "--download", "http://127.0.0.1:1", cwd=tmp_path)
    fails(done, "cannot download train-images-idx3-ubyte: http://127.0.0.1:1/")
