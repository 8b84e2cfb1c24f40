"""Runs that are stopped and go on: the same bits as if they had not been."""
import signal
import subprocess
import sys

import pytest
from trainer_helpers import Recorder, Scripted, assert_same, blobs, classifier, weights, without_times

import bpnn
from bpnn import nn, optim
from bpnn.optim import lr_scheduler
from bpnn.train import Accuracy, BestModel, Callback, CheckpointWriter, EarlyStopping, StopOnInterrupt, Trainer
from bpnn.utils.data import DataLoader, TensorDataset


def build(folder, accumulate=1, stop_at=None, shuffle=True, every_steps=None):
    """A trainer with everything that must be resumed: dropout, momentum, a schedule a step, best weights, early stopping."""
    bpnn.manual_seed(5)
    model = classifier(dropout=0.3)
    optimizer = optim.Adam(model.parameters(), 0.02)
    x, y = blobs(70)
    loader = DataLoader(TensorDataset(x, y), 8, shuffle=shuffle)  # 8 full batches and one of 6
    steps = -(-len(loader) // accumulate)
    trainer = Trainer(
        model,
        optimizer,
        nn.CrossEntropyLoss(),
        metrics=[Accuracy()],
        train_metrics=[Accuracy()],
        scheduler=lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps * 5),
        schedule_every="step",
        callbacks=[
            CheckpointWriter(folder, every_steps),
            BestModel(),
            EarlyStopping(patience=4),
            Recorder(stop_at),
        ],
        accumulate=accumulate,
        clip_norm=1.0,
        log_every=2,
    )
    return trainer, loader, DataLoader(TensorDataset(x[:30], y[:30]), 16, shuffle=shuffle)


@pytest.mark.parametrize(("accumulate", "stops"), [(1, (1, 5, 9, 10, 20, 45)), (2, (1, 4, 5, 6, 25)), (9, (1, 2))])
def test_a_resumed_run_has_the_same_bits(tmp_path, accumulate, stops):
    trainer, loader, validation = build(tmp_path / "whole", accumulate)
    trainer.fit(loader, validation, epochs=5)
    expected, rows, log = weights(trainer.model), without_times(trainer.history.rows), trainer.history.steps
    for stop_at in stops:
        folder = tmp_path / f"stopped-{stop_at}"
        first, loader, validation = build(folder, accumulate, stop_at)
        first.fit(loader, validation, epochs=5)
        assert first.state.step == stop_at and first.state.interrupted
        bpnn.manual_seed(99)
        second, loader, validation = build(folder, accumulate)
        bpnn.manual_seed(98)
        second.callbacks[-1].resume(second)
        bpnn.randn(7)  # whatever happens between loading and fitting does not count
        second.fit(loader, validation, epochs=5)
        assert not second.state.interrupted
        assert_same(expected, weights(second.model))
        assert without_times(second.history.rows) == rows
        assert second.history.steps == log


def test_resumed_twice_and_from_checkpoints_within_epochs(tmp_path):
    trainer, loader, validation = build(tmp_path / "whole")
    trainer.fit(loader, validation, epochs=5)
    for stop_at in (4, 13):
        again, loader, validation = build(tmp_path / "parts", stop_at=stop_at, every_steps=3)
        if stop_at > 4:
            again.callbacks[-1].resume(again)
        again.fit(loader, validation, epochs=5)
    last, loader, validation = build(tmp_path / "parts")
    last.callbacks[-1].resume(last)
    last.fit(loader, validation, epochs=5)
    assert_same(weights(trainer.model), weights(last.model))
    assert without_times(last.history.rows) == without_times(trainer.history.rows)


def test_fit_again_after_an_interruption_in_one_process(tmp_path):
    trainer, loader, validation = build(tmp_path / "whole")
    trainer.fit(loader, validation, epochs=5)
    again, loader, validation = build(tmp_path / "parts", stop_at=13)
    again.fit(loader, validation, epochs=5)
    assert again.state.step == 13
    again.fit(loader, validation, epochs=5)
    assert_same(weights(trainer.model), weights(again.model))


def test_resume_with_a_plain_list_of_batches(tmp_path):
    x, y = blobs(60)
    batches = [(x[i : i + 10], y[i : i + 10]) for i in range(0, 60, 10)]
    trainer, _, _ = build(tmp_path / "whole")
    trainer.fit(batches, batches[:2], epochs=3)
    first, _, _ = build(tmp_path / "parts", stop_at=8)
    first.fit(batches, batches[:2], epochs=3)
    second, _, _ = build(tmp_path / "parts")
    second.callbacks[-1].resume(second)
    second.fit(batches, batches[:2], epochs=3)
    assert_same(weights(trainer.model), weights(second.model))


def test_early_stopping_is_remembered(tmp_path):
    x, y = blobs(20)

    def make():
        bpnn.manual_seed(0)
        model = classifier()
        values = [1.0, 2.0, 2.0, 2.0, 2.0, 0.0]
        callbacks = [Scripted(values), EarlyStopping(patience=3), CheckpointWriter(tmp_path / "c")]
        return Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=callbacks)

    trainer = make()
    trainer.fit([(x, y)], [(x, y)], epochs=6)
    again = make()
    again.callbacks[-1].resume(again)
    again.fit([(x, y)], [(x, y)], epochs=6)
    assert again.state.epoch == trainer.state.epoch == 4


def test_a_folder_of_another_run_is_not_mixed_in(tmp_path):
    first, loader, _ = build(tmp_path / "c")
    first.fit(loader, loader, epochs=1)
    second, loader, _ = build(tmp_path / "c")
    with pytest.raises(ValueError, match="holds checkpoints of a run already"):
        second.fit(loader, loader, epochs=1)


def test_state_of_another_trainer_is_refused(tmp_path):
    first, loader, _ = build(tmp_path / "c")
    first.fit(loader, loader, epochs=1)
    model = classifier()
    plain = Trainer(model, optim.Adam(model.parameters()), nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="callbacks: the saved run has 4, this trainer 0"):
        plain.load_state_dict(first.state_dict())


# Ctrl-C --------------------------------------------------------------------------------------------------------------


def test_ctrl_c_once_stops_in_good_order(tmp_path, capfd):
    class Press(Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 3:
                signal.raise_signal(signal.SIGINT)

    x, y = blobs(60)
    model = classifier()
    before = signal.getsignal(signal.SIGINT)
    writer = CheckpointWriter(tmp_path / "c")
    trainer = Trainer(
        model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[Press(), StopOnInterrupt(), writer]
    )
    trainer.fit(DataLoader(TensorDataset(x, y), 10), epochs=9)
    assert trainer.state.interrupted and trainer.state.step == 3
    assert writer.latest.name == "step-000000003"
    assert signal.getsignal(signal.SIGINT) is before
    assert "again stops at once" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no exit by signal")
def test_ctrl_c_twice_stops_at_once():
    code = """
import signal, bpnn
from bpnn import nn, optim
from bpnn.train import *
class Press(Callback):
    def on_step_end(self, trainer):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        print("still here")
model = nn.Linear(1, 1)
trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), lambda out: out.sum(), callbacks=[StopOnInterrupt(), Press()])
trainer.fit([bpnn.ones(1, 1)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT
    assert "still here" not in done.stdout
