"""The command `bpnn`: what a run leaves, how it goes on, what is made of it."""
import csv
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_helpers import QUICK, bpnn, contents, environment, fails, pictures, write_data


# A run ---------------------------------------------------------------------------------------------------------------


def test_run_folder(place):
    run = place / "done"
    config = json.loads((run / "config.json").read_text())
    assert config["format"] == 1 and config["task"] == "digits" and config["options"]["layers"] == [16]
    assert config["data"]["train"] == 400 and config["data"]["size"] == [28, 28]
    with open(run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"} <= rows[0].keys()
    metrics = json.loads((run / "metrics.json").read_text())
    matrix = np.array(metrics["test"]["confusion_matrix"])
    assert matrix.sum() == 100 and metrics["test"]["accuracy"] == np.trace(matrix) / 100
    assert metrics["test"]["accuracy"] > 0.9
    best = min(range(3), key=lambda i: float(rows[i]["val_loss"]))
    assert metrics["best_epoch"] == best + 1 and metrics["validation"]["accuracy"] == float(rows[best]["val_accuracy"])
    assert (run / "model.safetensors").is_file() and any((run / "checkpoints").iterdir())


def test_curves(place):
    pytest.importorskip("matplotlib")
    picture = (place / "done" / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_without_matplotlib(place, tmp_path):
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = bpnn("train", "digits", "--data", place / "mnist", "--out", "run", *QUICK, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0 and done.stderr == ""
    assert "no curves.png: matplotlib is not installed" in done.stdout
    assert (tmp_path / "run" / "metrics.json").is_file() and not (tmp_path / "run" / "curves.png").exists()


def test_output_is_lines_where_there_is_no_terminal(place, tmp_path):
    done = bpnn("train", "digits", *QUICK, "--epochs", "2", cwd=tmp_path, BPNN_DATA=str(place))
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any("360 training, 40 validation, 100 test images of 28 × 28" in line for line in lines)
    assert any(line.startswith("model  784-16-10 relu") and "12,730 parameters" in line for line in lines)
    assert any(line.startswith("test accuracy ") for line in lines)
    assert "model.safetensors" in lines[-1] and lines[-1].startswith("wrote runs")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_on_a_terminal(place, tmp_path):
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    done = subprocess.Popen(
        [sys.executable, "-m", "bpnn", "train", "digits", "--data", str(place / "mnist"), *QUICK],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env=environment(),
    )  # fmt: skip
    out, _ = done.communicate(timeout=120)
    seen = os.read(ours, 1 << 16).decode()
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert "samples/s" in seen and "loss" in seen and "%" in seen
    assert out.decode().count("\nepoch ") == 3


def test_runs_never_share_a_folder(place, tmp_path):
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    for name in ("digits-2", "digits-3"):
        done = bpnn("train", "digits", "--data", place / "mnist", *QUICK, "--epochs", "1", cwd=tmp_path)
        assert done.returncode == 0 and (tmp_path / "runs" / name / "metrics.json").is_file()


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--schedule", "cosine", "--warmup", "0.5", "--momentum", "0.8"),
        ("--optimizer", "nesterov", "--schedule", "step", "--gamma", "0.5", "--step-size", "1"),
        ("--optimizer", "adamw", "--schedule", "linear", "--weight-decay", "0.01", "--activation", "gelu"),
        ("--optimizer", "rmsprop", "--schedule", "exponential", "--activation", "tanh", "--dropout", "0"),
        ("--optimizer", "adagrad", "--schedule", "plateau", "--layers", "20,10", "--activation", "leaky_relu"),
        ("--optimizer", "adadelta", "--schedule", "none", "--layers", "none", "--validation", "0"),
        ("--schedule", "onecycle", "--warmup", "1", "--patience", "2", "--activation", "sigmoid"),
        ("--schedule", "none", "--warmup", "1", "--activation", "silu"),
        ("--activation", "softplus", "--batch-size", "1000", "--seed", "7", "--lr", "0.001"),
    ],
)
def test_options(place, tmp_path, options):
    done = bpnn("train", "digits", "--data", place / "mnist", *QUICK, *options, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["images"] == 100


def test_uci_digits_where_there_is_no_mnist(tmp_path):
    pytest.importorskip("sklearn")
    done = bpnn("train", "digits", *QUICK, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path), LOCALAPPDATA=str(tmp_path))
    assert done.returncode == 0 and "uci from scikit-learn" in done.stdout
    assert json.loads((tmp_path / "runs" / "digits" / "metrics.json").read_text())["test"]["accuracy"] > 0.5


@pytest.mark.slow
def test_mnist_reaches_98_percent(mnist_dir, tmp_path):
    done = bpnn("train", "digits", "--data", mnist_dir, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] >= 0.98


# Evaluate and predict ------------------------------------------------------------------------------------------------


def test_evaluate(place):
    before = contents(place / "done")
    done = bpnn("evaluate", "done", cwd=place)
    accuracy = json.loads((place / "done" / "metrics.json").read_text())["test"]["accuracy"]
    assert done.returncode == 0 and f"accuracy  {100 * accuracy:.2f} % on 100 test images" in done.stdout
    assert "confusion" in done.stdout
    assert contents(place / "done") == before


def test_evaluate_with_data_that_moved(place, tmp_path):
    shutil.copytree(place / "done", tmp_path / "run")
    shutil.copytree(place / "mnist", tmp_path / "data" / "mnist")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["source"] = "gone"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    cache = {"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    assert bpnn("evaluate", "run", "--data", "data", cwd=tmp_path, **cache).returncode == 0
    assert bpnn("evaluate", "run", cwd=tmp_path, BPNN_DATA="data", **cache).returncode == 0
    fails(bpnn("evaluate", "run", cwd=tmp_path, **cache), "its data is no longer in gone")
    shutil.rmtree(tmp_path / "data")
    write_data(tmp_path / "data" / "mnist", train=390)
    fails(bpnn("evaluate", "run", "--data", "data", cwd=tmp_path), "was trained on other data")


def test_predict(place, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    images, labels = pictures(10, 5)
    for image, label in zip(images, labels, strict=True):
        Image.fromarray(image).save(tmp_path / f"{label}.png")
    Image.fromarray(255 - images[3]).save(tmp_path / "light.png")
    Image.fromarray(np.kron(images[6], np.ones((4, 4), np.uint8))).convert("RGB").save(tmp_path / "large.jpg")
    np.save(tmp_path / "all.npy", images)
    np.save(tmp_path / "one.npy", images[2] / 255)

    def digits(*names):
        done = bpnn("predict", place / "done", *names, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        heads = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
        return [line.split(": ")[1].split()[0] for line in heads], done.stdout

    found, text = digits("3.png", "8.png")
    assert found == ["3", "8"] and "inverted" not in text and text.count(" 9: ") == 2
    assert digits("[0-9].png")[0] == [str(digit) for digit in range(10)]
    assert digits("all.npy")[0] == [str(digit) for digit in range(10)] and "all.npy[9]: 9" in digits("all.npy")[1]
    assert digits("one.npy")[0] == ["2"]
    found, text = digits("light.png")
    assert found == ["3"] and "light ground, inverted" in text
    assert "112 × 112, fitted to 28 × 28" in digits("large.jpg")[1]
    assert len(digits(tmp_path)[0]) == 10 + 2 + 10 + 1


def test_prepared_images_look_like_mnist():
    from bpnn.cli.images import prepare

    page = np.ones((300, 200), np.float32)
    page[50:170, 120:140] = 0.1  # a dark stroke, off center, on a light page
    digit, note = prepare(page, (28, 28), 20 / 28, "page")
    rows, columns = np.nonzero(digit.max(1) > 0.2)[0], np.nonzero(digit.max(0) > 0.2)[0]
    assert digit.shape == (28, 28) and digit.min() == 0 and digit.max() == 1 and "inverted" in note
    assert 19 <= rows[-1] - rows[0] + 1 <= 21 and 3 <= columns[-1] - columns[0] + 1 <= 4
    assert abs((digit.sum(1) @ np.arange(28)) / digit.sum() - 13.5) <= 0.75
    assert abs((digit.sum(0) @ np.arange(28)) / digit.sum() - 13.5) <= 0.75


def test_transparent_and_deep_images(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    from bpnn.cli.images import read

    ink = np.zeros((10, 10, 4), np.uint8)
    ink[3:6, 3:6, 3] = 255  # black ink on nothing
    Image.fromarray(ink).save(tmp_path / "black.png")
    ink[..., :3] = 255  # white ink on nothing
    Image.fromarray(ink).save(tmp_path / "white.png")
    Image.fromarray((np.arange(100).reshape(10, 10) * 600).astype(np.uint16)).save(tmp_path / "deep.png")
    assert [read(tmp_path / f"{name}.png")[0][0, 0] for name in ("black", "white")] == [1.0, 0.0]
    assert read(tmp_path / "black.png")[0][4, 4] == 0.0 and read(tmp_path / "white.png")[0][4, 4] == 1.0
    np.testing.assert_allclose(read(tmp_path / "deep.png")[0].max(), 99 * 600 / 65535, rtol=1e-6)


# Stopping and going on -----------------------------------------------------------------------------------------------

LONG = ("--layers", "64", "--epochs", "8", "--batch-size", "4", "--threads", "1")


def interrupt(place, cwd, presses=1):
    """Starts a run, presses Ctrl-C in its third epoch and returns what came of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bpnn", "train", "digits", "--data", str(place / "mnist"), "--out", "stopped", *LONG],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("epoch 2/"):
            break
    for _ in range(presses):
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, "".join(seen) + out, err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_a_stopped_run_ends_with_the_same_bits(place, tmp_path):
    whole = bpnn("train", "digits", "--data", place / "mnist", "--out", "whole", *LONG, cwd=tmp_path)
    assert whole.returncode == 0
    code, out, err = interrupt(place, tmp_path)
    assert code == 130 and "go on with: bpnn train --resume stopped" in out and "Ctrl-C again stops at once" in err
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    fails(bpnn("evaluate", "stopped", cwd=tmp_path), "has no model.safetensors; finish the run: bpnn train --resume stopped")
    done = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 2/8" not in done.stdout and "epoch 8/8" in done.stdout
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == two
    scores = [json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("whole", "stopped")]
    assert scores[0] == scores[1]
    rows = []
    for name in ("whole", "stopped"):
        with open(tmp_path / name / "history.csv", newline="") as file:
            rows.append([{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    again = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert again.returncode == 0 and "is finished; nothing to resume" in again.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no exit by signal")
def test_ctrl_c_twice_loses_no_checkpoint(place, tmp_path):
    code, _, _ = interrupt(place, tmp_path, presses=2)
    assert code in (-signal.SIGINT, 130)
    done = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_a_killed_run_goes_on(place, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "bpnn", "train", "digits", "--data", str(place / "mnist"), "--out", "killed", *LONG],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            break
    process.kill()
    process.communicate(timeout=60)
    done = bpnn("train", "--resume", "killed", cwd=tmp_path)
    assert done.returncode == 0 and "epoch 2/8" not in done.stdout


def test_resume_takes_no_other_options(place, tmp_path):
    fails(bpnn("train", "--resume", place / "done", "digits", cwd=tmp_path), "leave 'digits' out")
    fails(bpnn("train", cwd=tmp_path), "nothing to train")

# The rest ------------------------------------------------------------------------------------------------------------


def test_version_and_help(tmp_path):
    import bpnn as package

    assert bpnn("--version", cwd=tmp_path).stdout == f"bpnn {package.__version__}\n"
    assert "numpy" in bpnn("versions", cwd=tmp_path).stdout
    done = bpnn("train", "digits", "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: bpnn train digits") and "--schedule" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("train",), ("evaluate",), ("predict",)])
def test_help(arguments, capsys):
    from bpnn.cli import main

    with pytest.raises(SystemExit) as leave:
        main([*arguments, "--help"])
    assert leave.value.code == 0 and capsys.readouterr().out.startswith("usage: bpnn")


def test_heavy_packages_are_imported_late(tmp_path):
    code = "import sys, bpnn, bpnn.cli, bpnn.train; print({'matplotlib', 'sklearn', 'PIL', 'tqdm', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout == "set()\n", done.stderr
