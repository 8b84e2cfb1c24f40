"""Data, a model and a callback for the tests of the trainer."""
import numpy as np

import bpnn
from bpnn import nn
from bpnn.train import Callback


def blobs(samples=150, classes=3, seed=0):
    """Points around `classes` centers, as tensors (N, 4) and (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    points = rng.normal(size=(samples, 4)).astype(np.float32)
    points[np.arange(samples), labels] += 3
    return bpnn.from_numpy(points), bpnn.from_numpy(labels)


def classifier(dropout=0.0):
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def weights(model):
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def without_times(rows):
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


class Recorder(Callback):
    """Notes every call; stops with `stop_at` steps done."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def on_fit_start(self, trainer):
        self.calls.append("fit_start")

    def on_epoch_start(self, trainer):
        self.calls.append("epoch_start")

    def on_step_end(self, trainer):
        self.calls.append("step_end")
        if trainer.state.step == self.stop_at:
            trainer.stop("asked", interrupted=True)

    def on_evaluate_end(self, trainer):
        self.calls.append("evaluate_end")

    def on_epoch_end(self, trainer):
        self.calls.append("epoch_end")

    def on_fit_end(self, trainer):
        self.calls.append("fit_end")

    def on_fit_exit(self, trainer):
        self.calls.append("fit_exit")


class Scripted(Callback):
    """Replaces the validation loss by given values."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, trainer):
        trainer.history.rows[-1]["val_loss"] = self.values[trainer.state.epoch - 1]
