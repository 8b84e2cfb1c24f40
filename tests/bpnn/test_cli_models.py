"""`bpnn train digits` with the convolutional models: augmentation, run folder, resume, evaluate, predict."""
import json
import signal
import subprocess
import sys

import bpnn as b
import numpy as np
import pytest
from bpnn import models, transforms
from bpnn.train import Callback, CheckpointWriter, Trainer
from bpnn.utils.data import DataLoader, TensorDataset
from cli_helpers import bpnn, contents, environment, fails, pictures

LENET = ("--model", "lenet5", "--epochs", "3", "--batch-size", "20", "--threads", "1")


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    done = bpnn("train", "digits", "--data", place / "mnist", "--out", "run", *LENET, "--epochs", "8", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_lenet5(trained):
    folder, out = trained
    assert "model  lenet5, 61,706 parameters, augmented images" in out
    options = json.loads((folder / "run" / "config.json").read_text())["options"]
    assert options["augment"] is True and options["optimizer"] == "adam" and options["layers"] is None
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.9
    weights = models.lenet5(weights=folder / "run" / "model.safetensors")  # the model's own names: of use outside the run
    images = pictures(100, 1)[0].reshape(-1, 1, 28, 28).astype(np.float32) / 255
    hits = weights.eval()(b.from_numpy(images)).argmax(1).numpy() == pictures(100, 1)[1]
    assert hits.mean() == pytest.approx(metrics["test"]["accuracy"])


def test_evaluate_and_predict(trained):
    folder, _ = trained
    before = contents(folder / "run")
    done = bpnn("evaluate", "run", cwd=folder)
    accuracy = json.loads((folder / "run" / "metrics.json").read_text())["test"]["accuracy"]
    assert done.returncode == 0 and f"accuracy  {100 * accuracy:.2f} %" in done.stdout
    np.save(folder / "image.npy", pictures(3, 5)[0][2])
    done = bpnn("predict", "run", "image.npy", cwd=folder)
    assert done.returncode == 0 and done.stdout.startswith("image.npy: 2"), done.stdout
    assert contents(folder / "run") == before


def test_resnet20_and_the_plain_images(place, tmp_path):
    done = bpnn("train", "digits", "--data", place / "mnist", "--out", "run", "--model", "resnet20", "--epochs", "1",
                "--batch-size", "100", "--no-augment", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model  resnet20, 269,434 parameters\n" in done.stdout and "train  nesterov" in done.stdout


def test_augmented_rows(place, tmp_path):
    options = ("--out", "run", "--layers", "8", "--epochs", "1", "--augment")
    done = bpnn("train", "digits", "--data", place / "mnist", *options, cwd=tmp_path)
    assert done.returncode == 0 and "dropout 0.2, 6,370 parameters, augmented images" in done.stdout


def test_what_does_not_go_together(place, tmp_path):
    options = ("train", "digits", "--data", place / "mnist", "--out", "run", "--model", "lenet5")
    fails(bpnn(*options, "--layers", "5", cwd=tmp_path), "--layers: only --model mlp takes it, not lenet5")
    fails(bpnn(*options, "--dropout", "0.1", cwd=tmp_path), "--dropout: only --model mlp takes it, not lenet5")


def test_small_images(tmp_path):
    pytest.importorskip("sklearn")
    home = {"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    done = bpnn("train", "digits", "--out", "run", "--model", "lenet5", cwd=tmp_path, **home)
    fails(done, "--model lenet5: expected images of 28 × 28, got 8 × 8; resnet20 takes any")
    assert not (tmp_path / "run").exists()


# Stopping and going on -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_a_stopped_run_ends_with_the_same_bits(place, tmp_path):
    options = (*LENET, "--batch-size", "4", "--epochs", "4")
    whole = bpnn("train", "digits", "--data", place / "mnist", "--out", "whole", *options, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "bpnn", "train", "digits", "--data", str(place / "mnist"), "--out", "stopped", *options],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped in epoch" in out
    done = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == two


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            trainer.stop("enough", interrupted=True)


class Recording(transforms.Compose):
    """Keeps what it gives, and draws from bpnn's generator in between."""

    def __init__(self, transform, seen, noise):
        super().__init__([transform])
        self.seen, self.noise = seen, noise

    def __call__(self, img):
        result = super().__call__(img)
        self.seen.append(result.numpy())
        b.rand(self.noise)
        return result


def fit(folder, stop_at=None, noise=0):
    """Two epochs of an augmented run, from its last checkpoint where it has one; `noise` draws random numbers beside it."""
    b.manual_seed(0)
    images, labels = pictures(64, 0)
    images = images.reshape(-1, 1, 28, 28).astype(np.float32) / 255
    data = TensorDataset(b.from_numpy(images), b.from_numpy(labels.astype(np.int64)))
    model = models.lenet5()
    augment = transforms.Compose([transforms.RandomAffine(20, (0.1, 0.1), interpolation="bilinear"), transforms.RandomErasing()])
    seen = []
    loader = transforms.TransformedLoader(DataLoader(data, 12, shuffle=True), Recording(augment, seen, noise))
    writer = CheckpointWriter(folder)
    trainer = Trainer(
        model, b.optim.Adam(model.parameters(), 1e-3), b.nn.CrossEntropyLoss(), callbacks=[StopAt(stop_at), writer]
    )
    if writer.latest is not None:
        writer.resume(trainer)
    trainer.fit(loader, None, 2)
    return [p.detach().numpy().copy() for p in model.parameters()], seen


@pytest.mark.parametrize("step", [1, 6, 8, 12])
def test_augmentation_goes_on_where_it_stopped(tmp_path, step):
    whole, images = fit(tmp_path / "whole")
    assert len(images) == 12 and (images[0] != images[6]).any()
    fit(tmp_path / "parts", stop_at=step)
    weights, rest = fit(tmp_path / "parts")
    assert len(rest) == 12 - step
    for one, other in zip(images[step:], rest, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(whole, weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_else_moves_the_augmentation(tmp_path):
    for one, other in zip(fit(tmp_path / "a")[1], fit(tmp_path / "b", noise=7)[1], strict=True):
        np.testing.assert_array_equal(one, other)
