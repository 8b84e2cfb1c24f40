"""The training loop: what it computes and what it calls."""
import math
import signal

import numpy as np
import pytest
from trainer_helpers import Recorder, Scripted, assert_same, blobs, classifier, weights

import bpnn
from bpnn import nn, optim
from bpnn.optim import lr_scheduler
from bpnn.train import (
    R2,
    Accuracy,
    BestModel,
    Callback,
    CheckpointWriter,
    EarlyStopping,
    HistoryFile,
    MeanAbsoluteError,
    NonFiniteLoss,
    Progress,
    StopOnInterrupt,
    Trainer,
    list_checkpoints,
)
from bpnn.utils.data import DataLoader, TensorDataset


# What it computes ----------------------------------------------------------------------------------------------------


def test_classification_learns_and_keeps_its_history():
    bpnn.manual_seed(0)
    x, y = blobs()
    model = classifier()
    trainer = Trainer(
        model, optim.Adam(model.parameters(), 0.01), nn.CrossEntropyLoss(), metrics=[Accuracy()], train_metrics=[Accuracy()]
    )
    history = trainer.fit(DataLoader(TensorDataset(x, y), 16, shuffle=True), DataLoader(TensorDataset(x, y), 64), epochs=12)
    assert history["epoch"] == list(range(1, 13))
    assert history["val_accuracy"][-1] > 0.93 and history["accuracy"][-1] > 0.9
    assert history["val_loss"][-1] < 0.4 * history["val_loss"][0]
    assert history["step"][-1] == trainer.state.step == 12 * 10
    assert trainer.evaluate(DataLoader(TensorDataset(x, y), 50))["accuracy"] == history["val_accuracy"][-1]


def test_regression_with_any_loss_function():
    bpnn.manual_seed(0)
    x = bpnn.randn(200, 3)
    y = x @ bpnn.tensor([[1.0], [-2.0], [0.5]]) + 0.3
    model = nn.Linear(3, 1)
    trainer = Trainer(
        model, optim.SGD(model.parameters(), 0.1), lambda out, true: ((out - true) ** 2).mean(), metrics=[R2(), MeanAbsoluteError()]
    )
    history = trainer.fit(DataLoader(TensorDataset(x, y), 20), DataLoader(TensorDataset(x, y), 64), epochs=20)
    assert history["val_r2"][-1] > 0.999
    np.testing.assert_allclose(model.weight.detach().numpy(), [[1.0, -2.0, 0.5]], atol=1e-2)


def test_steps_equal_a_loop_by_hand():
    x, y = blobs(50)
    loader = DataLoader(TensorDataset(x, y), 8)
    results = []
    for by_hand in (True, False):
        bpnn.manual_seed(3)
        model = classifier()
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        loss_function = nn.CrossEntropyLoss()
        if by_hand:
            for _ in range(3):
                for inputs, target in loader:
                    optimizer.zero_grad()
                    loss_function(model(inputs), target).backward()
                    optimizer.step()
        else:
            Trainer(model, optimizer, loss_function).fit(loader, epochs=3)
        results.append(weights(model))
    assert_same(*results)


def test_epoch_loss_weights_samples_not_batches():
    bpnn.manual_seed(0)
    x, y = blobs(33)
    model = classifier()
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), nn.CrossEntropyLoss())
    history = trainer.fit(DataLoader(TensorDataset(x, y), 16), epochs=1)  # 16 + 16 + 1
    whole = nn.CrossEntropyLoss()(model(x), y).item()
    assert history["loss"][0] == pytest.approx(whole, rel=1e-5)
    assert trainer.evaluate(DataLoader(TensorDataset(x, y), 16))["loss"] == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("samples", "small", "accumulate"), [(48, 4, 3), (50, 4, 3), (5, 4, 3)])
def test_accumulated_batches_equal_large_ones(samples, small, accumulate):
    x, y = blobs(samples)
    results = []
    for size, count in ((small, accumulate), (small * accumulate, 1)):
        bpnn.manual_seed(1)
        model = classifier()
        trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), accumulate=count)
        trainer.fit(DataLoader(TensorDataset(x, y), size), epochs=2)
        results.append((weights(model), trainer.state.step, trainer.history["loss"]))
    assert results[0][1] == results[1][1]
    np.testing.assert_allclose(results[0][2], results[1][2], rtol=1e-5)
    for name in results[0][0]:
        np.testing.assert_allclose(results[0][0][name], results[1][0][name], rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped():
    x, y = blobs(20)
    for options, largest in (({"clip_norm": 1e-3}, 1e-3), ({"clip_value": 1e-4}, 1e-4)):
        bpnn.manual_seed(0)
        model = classifier()
        before = weights(model)
        Trainer(model, optim.SGD(model.parameters(), 1.0), nn.CrossEntropyLoss(), **options).fit([(x, y)], epochs=1)
        moved = np.concatenate([(weights(model)[name] - before[name]).ravel() for name in before])
        size = np.linalg.norm(moved) if "clip_norm" in options else np.abs(moved).max()
        assert 0 < size <= largest * 1.01


def test_only_what_is_updated_is_clipped():
    x, y = blobs(20)
    results = []
    for frozen in (True, False):
        bpnn.manual_seed(0)
        model = classifier()
        model[0].requires_grad_(not frozen)  # its gradient adds up from step to step where nobody sets it to zero
        trainer = Trainer(model, optim.SGD(model[3].parameters(), 0.5), nn.CrossEntropyLoss(), clip_norm=0.01)
        trainer.fit([(x, y)], epochs=4)
        results.append(weights(model))
    assert_same(*results)


# What a batch may be -------------------------------------------------------------------------------------------------


class Named(nn.Module):
    def __init__(self, own_loss=False):
        super().__init__()
        self.linear, self.own_loss = nn.Linear(4, 3), own_loss

    def forward(self, points, scale=None, labels=None):
        logits = self.linear(points if scale is None else points * scale)
        if not self.own_loss:
            return logits
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("kind", ["dictionary", "own loss", "two inputs", "other key"])
def test_batches_of_many_kinds(kind):
    bpnn.manual_seed(0)
    x, y = blobs(40)
    scale = bpnn.ones(40, 1)
    batch = {
        "dictionary": {"points": x, "labels": y},
        "own loss": {"points": x, "labels": y, "scale": scale},
        "two inputs": (x, scale, y),
        "other key": {"points": x, "true": y},
    }[kind]
    model = Named(kind == "own loss")
    trainer = Trainer(
        model,
        optim.Adam(model.parameters(), 0.1),
        None if kind == "own loss" else nn.CrossEntropyLoss(),
        metrics=[Accuracy()],
        target_key="true" if kind == "other key" else "labels",
    )
    history = trainer.fit([batch], [batch], epochs=30)
    assert history["val_accuracy"][-1] > 0.9
    if kind != "own loss":
        assert trainer.predict([batch]).shape == (40, 3)


def test_inputs_without_target():
    bpnn.manual_seed(0)
    x = bpnn.randn(30, 4)
    model = nn.Linear(4, 4)
    trainer = Trainer(model, optim.Adam(model.parameters(), 0.01), lambda out: (out**2).mean())
    assert trainer.fit(DataLoader(TensorDataset(x), 10), epochs=5)["loss"][-1] < trainer.history["loss"][0]
    assert trainer.fit([x], epochs=6)["epoch"][-1] == 6


def test_no_loss_to_be_found():
    model = nn.Linear(4, 4)
    with pytest.raises(TypeError, match="the trainer has no loss"):
        Trainer(model, optim.SGD(model.parameters(), 0.1)).fit([(bpnn.ones(2, 4),)])


def test_predict():
    x, y = blobs(50)
    model = classifier(dropout=0.5)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss())
    model.eval()
    expected = model(x).detach().numpy()
    model.train()
    for inputs in (x, x.numpy(), DataLoader(TensorDataset(x, y), 16), DataLoader(TensorDataset(x), 16)):
        output = trainer.predict(inputs, batch_size=7)
        np.testing.assert_allclose(output.numpy(), expected, rtol=1e-5, atol=1e-6)
        assert not output.requires_grad
    assert model.training
    with pytest.raises(ValueError, match="at least one sample"):
        trainer.predict([])


def test_evaluate_changes_nothing():
    x, y = blobs(50)
    model = classifier(dropout=0.5)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), metrics=[Accuracy()])
    before, rng = weights(model), bpnn.get_rng_state().numpy().copy()
    model.train()
    first = trainer.evaluate([(x, y)])
    assert first == trainer.evaluate([(x, y)])
    assert model.training and all(p.grad is None for p in model.parameters())
    assert_same(before, weights(model))
    np.testing.assert_array_equal(rng, bpnn.get_rng_state().numpy())
    assert math.isnan(trainer.evaluate([])["loss"])


# Schedules -----------------------------------------------------------------------------------------------------------


def rates(scheduler, every, epochs=4, **options):
    x, y = blobs(40)
    bpnn.manual_seed(0)
    model = classifier()
    optimizer = optim.SGD(model.parameters(), 1.0)
    trainer = Trainer(
        model, optimizer, nn.CrossEntropyLoss(), scheduler=scheduler(optimizer), schedule_every=every, log_every=1, **options
    )
    trainer.fit(DataLoader(TensorDataset(x, y), 20), [(x, y)], epochs=epochs)
    return trainer


def test_scheduler_each_epoch():
    trainer = rates(lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5), "epoch")
    assert trainer.history["lr"] == [1.0, 0.5, 0.25, 0.125]


def test_scheduler_each_step():
    trainer = rates(lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.5), "step")
    assert [rate for _, _, rate in trainer.history.steps] == [0.5**i for i in range(8)]
    assert trainer.history["lr"] == [0.5, 0.125, 0.5**5, 0.5**7]


def test_plateau_follows_a_column():
    def scheduler(optimizer):
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=10.0, threshold_mode="abs")

    assert rates(scheduler, "epoch").history["lr"] == pytest.approx([1.0, 1.0, 0.1, 0.01])
    with pytest.raises(KeyError, match="no column 'val_f1'"):
        rates(scheduler, "epoch", monitor="val_f1")


# Callbacks -----------------------------------------------------------------------------------------------------------


def test_callbacks_are_called_in_order():
    x, y = blobs(20)
    model = classifier()
    recorder = Recorder()
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[recorder])
    trainer.fit([(x, y), (x, y)], [(x, y)], epochs=2)
    epoch = ["epoch_start", "step_end", "step_end", "evaluate_end", "epoch_end"]
    assert recorder.calls == ["fit_start", *epoch, *epoch, "fit_end", "fit_exit"]


def test_fit_exit_comes_after_an_error_too():
    recorder = Recorder()
    model = classifier()
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[recorder])
    with pytest.raises(ValueError, match="at least one batch"):
        trainer.fit([])
    assert recorder.calls == ["fit_start", "epoch_start", "fit_exit"]


def test_fit_exit_comes_after_an_error_at_the_start():
    class Refusing(Callback):
        def on_fit_start(self, trainer):
            raise ValueError("not here")

    before = signal.getsignal(signal.SIGINT)
    model = classifier()
    trainer = Trainer(
        model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[StopOnInterrupt(), Refusing()]
    )
    with pytest.raises(ValueError, match="not here"):
        trainer.fit([blobs(20)])
    assert signal.getsignal(signal.SIGINT) is before


def scripted(values, *callbacks):
    x, y = blobs(20)
    bpnn.manual_seed(0)
    model = classifier()
    trainer = Trainer(
        model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[Scripted(values), *callbacks]
    )
    trainer.fit([(x, y)], [(x, y)], epochs=len(values))
    return trainer


def test_early_stopping():
    trainer = scripted([3.0, 2.0, 2.5, math.nan, 1.0, 1.0, 1.0], EarlyStopping(patience=2))
    assert trainer.state.epoch == 4
    assert "val_loss has not improved for 2 epochs" in trainer.state.stopped
    assert scripted([3.0, 2.9, 2.8], EarlyStopping(patience=1, min_delta=0.5)).state.epoch == 2
    assert scripted([1.0, 2.0, 3.0], EarlyStopping(patience=1, mode="max")).state.epoch == 3


def test_best_model_is_put_back():
    best = BestModel()
    trainer = scripted([3.0, 1.0, 2.0, math.nan], best)
    assert (best.best_epoch, best.best) == (2, 1.0)
    assert_same(best.weights, weights(trainer.model))
    kept = BestModel(restore=False)
    trainer = scripted([3.0, 1.0, 2.0], kept)
    assert any((kept.weights[name] != value).any() for name, value in weights(trainer.model).items())


def test_monitor_names_what_there_is():
    with pytest.raises(KeyError, match="no column 'val_f1'; it has epoch, step, loss"):
        scripted([1.0], BestModel("val_f1"))


def test_history_file_and_lines(tmp_path, capsys):
    scripted([3.0, 1.5], HistoryFile(tmp_path / "history.csv"), Progress(bar=False))
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,step,loss,val_loss,lr") and len(lines) == 3
    assert lines[2].split(",")[3] == "1.5"
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and out[1].startswith("epoch 2/2  loss ") and "val_loss 1.5000" in out[1] and "samples/s" in out[1]


def test_progress_bar(capsys):
    scripted([3.0, 1.5], Progress(bar=True))
    captured = capsys.readouterr()
    assert "samples/s" in captured.err and "loss" in captured.err
    assert captured.out.count("epoch") == 2


# A loss that is not finite -------------------------------------------------------------------------------------------


def test_a_nan_loss_stops_with_the_facts(tmp_path):
    x, y = blobs(40)
    bad = bpnn.from_numpy(np.full((20, 4), np.nan, np.float32))
    model = classifier()
    writer = CheckpointWriter(tmp_path / "checkpoints", every_steps=1)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.25), nn.CrossEntropyLoss(), callbacks=[writer])
    batches = [(x[:20], y[:20]), (x[20:], y[20:]), (bad, y[:20])]
    with pytest.raises(NonFiniteLoss, match=r"not finite at step 3 \(epoch 1, batch 3, loss nan, learning rate 0.25\)") as caught:
        trainer.fit(batches, epochs=2)
    assert str(writer.latest) in str(caught.value) and writer.latest.name == "step-000000002"
    assert all(np.isfinite(value).all() for value in weights(model).values())


def test_a_nan_loss_of_a_second_pass_stops_before_the_update():
    class Twice(Callback):
        def on_backward_end(self, trainer, batch, weight):
            (trainer.training_loss((batch[0] * math.nan, batch[1]))[0] * weight).backward()

    model = classifier()
    before = weights(model)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[Twice()])
    with pytest.raises(NonFiniteLoss, match="not finite at step 1"):
        trainer.fit([blobs(20)])
    assert_same(before, weights(model))


def test_an_infinite_gradient_stops_before_the_update():
    model = nn.Linear(1, 1)
    before = weights(model)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), lambda out: (out * 0).sum().sqrt() + 1, clip_norm=1.0)
    with pytest.raises(NonFiniteLoss, match="norm of the gradient is nan at step 1"):
        trainer.fit([bpnn.ones(1, 1)])
    assert_same(before, weights(model))


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    x, y = blobs(20)
    model = classifier()
    writer = CheckpointWriter(tmp_path / "c")

    class Spoil(Callback):
        def on_epoch_end(self, trainer):
            if trainer.state.epoch == 2:
                with bpnn.no_grad():
                    next(model.parameters()).mul_(math.inf)

    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[writer, Spoil()])
    with pytest.raises(NonFiniteLoss, match=r"0\.weight has values that are not finite"):
        trainer.fit([(x, y)], epochs=3)
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["step-000000001"]


# Wrong arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate": 0}, "accumulate: expected at least 1, got 0"),
        ({"log_every": 0}, "log_every"),
        ({"clip_norm": 0.0}, "clip_norm: expected a positive number, got 0.0"),
        ({"clip_value": -1.0}, "clip_value"),
        ({"schedule_every": "batch"}, "schedule_every: expected 'epoch' or 'step', got 'batch'"),
    ],
)
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        Trainer(nn.Linear(1, 1), None, **options)


def test_wrong_arguments_of_callbacks():
    with pytest.raises(ValueError, match="mode"):
        BestModel(mode="best")
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match="every_steps"):
        CheckpointWriter("x", every_steps=0)
    with pytest.raises(ValueError, match="epochs"):
        Trainer(nn.Linear(1, 1), None).fit([], epochs=-1)
    with pytest.raises(KeyError, match="no column 'f1'"):
        Trainer(nn.Linear(1, 1), None).history["f1"]
