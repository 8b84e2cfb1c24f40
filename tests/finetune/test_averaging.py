"""Averages of weights: their formulas, and that they meet evaluation, BestModel, checkpoints and the end of training."""
import numpy as np
import pytest
from technique_models import assert_equal_tensors, bert, convnet, images, make, tensors, texts

import bpnn
from bpnn import nn, optim
from bpnn.finetune.averaging import EMA, SWA
from bpnn.finetune.embedding_attacks import FGM
from bpnn.finetune.freeze import freeze_layers
from bpnn.finetune.rdrop import RDrop
from bpnn.train import BestModel, Callback, CheckpointWriter, Trainer
from bpnn.train.checkpoint import load_checkpoint


class Trace(Callback):
    """The weights as steps leave them, as evaluation sees them, as epochs end; stops or evaluates when told."""

    def __init__(self, stop_at=None, evaluate_at=None, interrupted=True):
        self.steps, self.evaluated, self.ends, self.starts = [], [], [], []
        self.stop_at, self.evaluate_at, self.interrupted = stop_at, evaluate_at, interrupted

    def on_fit_start(self, trainer):
        self.starts.append(tensors(trainer.model))

    def on_step_end(self, trainer):
        self.steps.append(tensors(trainer.model))
        if trainer.state.step == self.evaluate_at:
            trainer.evaluate(texts(8, seed=7))
        if trainer.state.step == self.stop_at:
            trainer.stop("asked", interrupted=self.interrupted)

    def on_evaluate_end(self, trainer):
        self.evaluated.append(tensors(trainer.model))

    def on_epoch_end(self, trainer):
        self.ends.append(tensors(trainer.model))


def build(*callbacks, dropout=0.2, frozen=False, **given):
    bpnn.manual_seed(3)
    model = bert(dropout)
    if frozen:
        freeze_layers(model, 1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return Trainer(model, optim.AdamW(parameters, 1e-2), callbacks=callbacks, **given)


def ema(steps, start, decay, warmup=True, every=1):
    mean = {name: value.astype(np.float64) for name, value in start.items()}
    for t, weights in enumerate(steps[every - 1 :: every]):
        d = min(decay, (1 + t) / (10 + t)) if warmup else decay
        mean = {name: d * mean[name] + (1 - d) * weights[name] for name in mean}
    return mean


def close(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("given", [{}, {"warmup": False}, {"every": 4}])
def test_the_exponential_average_is_evaluated_and_remains(given):
    trace = Trace()
    trainer = build(EMA(0.6, **given), trace)
    trainer.fit(texts(), texts(8, seed=9), epochs=3)
    for epoch in range(3):
        expected = ema(trace.steps[: 6 * (epoch + 1)], trace.starts[0], 0.6, **given)
        close(trace.evaluated[epoch], expected)
        assert_equal_tensors(trace.evaluated[epoch], trace.ends[epoch])
    assert_equal_tensors(tensors(trainer.model), trace.ends[-1])


def test_training_goes_on_as_if_nothing_was_averaged():
    plain, averaged = Trace(), Trace(evaluate_at=8)
    build(plain).fit(texts(), epochs=3)
    build(EMA(0.5), averaged).fit(texts(), epochs=3)
    for first, second in zip(plain.steps, averaged.steps, strict=True):
        assert_equal_tensors(first, second)
    assert len(averaged.evaluated) == 1
    close(averaged.evaluated[0], ema(averaged.steps[:8], averaged.starts[0], 0.5))


def test_fitting_again_goes_on_from_the_weights_that_were_set_aside():
    plain, twice = Trace(), Trace()
    build(plain).fit(texts(), epochs=4)
    trainer = build(EMA(0.5), twice)
    trainer.fit(texts(), epochs=2)
    after = tensors(trainer.model)
    trainer.evaluate(texts(8))
    assert_equal_tensors(tensors(trainer.model), after)
    trainer.fit(texts(), epochs=4)
    assert_equal_tensors(plain.steps[-1], twice.steps[-1])


def test_only_what_is_trained_is_averaged_and_kept():
    callback = EMA()
    trainer = build(callback, frozen=True, save_frozen=False)
    trainer.fit(texts(), epochs=1)
    assert callback.average.keys() == {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    tied, model = EMA(), make("gpt2-lm")
    batch = {"input_ids": np.array([[3, 4, 5]]), "labels": np.array([[3, 4, 5]])}
    Trainer(model, optim.SGD(model.parameters(), 0.1), callbacks=[tied]).fit([batch], epochs=1)
    assert len(tied.average) == len(list(model.parameters()))


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_best_model_is_an_average(kind):
    trace = Trace()
    trainer = build(EMA(0.8) if kind == "ema" else SWA(0), trace, BestModel("val_loss"))
    trainer.fit(texts(), texts(8, seed=9), epochs=4)
    best = trainer.callbacks[-1].best_epoch
    assert_equal_tensors(tensors(trainer.model), trace.ends[best - 1])
    losses = [row["val_loss"] for row in trainer.history.rows]
    assert best == int(np.argmin(losses)) + 1
    assert trainer.evaluate(texts(8, seed=9))["loss"] == pytest.approx(losses[best - 1], rel=1e-6)


@pytest.mark.parametrize(("start", "left_out"), [(0, 0), (2, 2), (0.5, 2), (0.7, 2), (3, 3)])
def test_the_mean_over_epochs(start, left_out):
    trace = Trace()
    trainer = build(SWA(start), trace)
    trainer.fit(texts(), texts(8, seed=9), epochs=4)
    ends = trace.steps[5::6]
    for epoch in range(4):
        counted = ends[left_out : epoch + 1] or [ends[epoch]]
        expected = {name: np.mean([weights[name].astype(np.float64) for weights in counted], 0) for name in ends[0]}
        close(trace.evaluated[epoch], expected)
        assert_equal_tensors(trace.evaluated[epoch], trace.ends[epoch])
    assert_equal_tensors(tensors(trainer.model), trace.ends[-1])
    assert trainer.callbacks[0].count == 4 - left_out


def test_an_evaluation_within_an_epoch_does_not_count():
    plain, looked = Trace(), Trace(evaluate_at=9)
    build(SWA(0), plain).fit(texts(), epochs=2)
    build(SWA(0), looked).fit(texts(), epochs=2)
    assert_equal_tensors(plain.ends[-1], looked.ends[-1])
    expected = {name: (looked.steps[5][name] + looked.steps[8][name]) / 2 for name in looked.steps[0]}
    close(looked.evaluated[0], expected)


@pytest.mark.parametrize(("callback", "at"), [(EMA, 9), (SWA, 9)])
def test_stopped_within_an_epoch_the_average_remains(callback, at):
    trace = Trace(stop_at=at, interrupted=False)
    trainer = build(callback(0.5 if callback is EMA else 0), trace)
    trainer.fit(texts(), epochs=3)
    expected = ema(trace.steps, trace.starts[0], 0.5) if callback is EMA else trace.steps[5]
    close(tensors(trainer.model), expected)


def test_statistics_of_batch_normalization():
    data = [tuple(map(bpnn.from_numpy, images(6, seed).values())) for seed in range(3)]
    for bn_data in (None, data):
        model = convnet()
        trace, callback = Trace(), SWA(0, bn_data)
        trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[callback, trace])
        trainer.fit(data, epochs=2)
        ends = trace.steps[2::3]
        mean = {name: np.mean([one[name] for one in ends], 0) for name in ends[0]}
        if bn_data is not None:
            convolution = nn.Conv2d(2, 4, 3)
            convolution.load_state_dict({n: bpnn.from_numpy(mean[f"0.{n}"].astype(np.float32)) for n in ("weight", "bias")})
            seen = [convolution(x).detach().numpy() for x, _ in data]
            mean["1.running_mean"] = np.mean([x.mean((0, 2, 3)) for x in seen], 0)
            mean["1.running_var"] = np.mean([x.var((0, 2, 3), ddof=1) for x in seen], 0)
        final = tensors(model)
        for name in mean:
            if "tracked" not in name:
                np.testing.assert_allclose(final[name], mean[name], rtol=1e-4, atol=1e-6, err_msg=name)
        trainer.fit(data, epochs=3)
        assert trace.steps[-1]["1.num_batches_tracked"] == 9


class Everything:
    """FGM, R-Drop and EMA at once, over a scheduled run with dropout, checkpoints every few steps."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name, average, stop_at=None):
        trainer = build(
            RDrop(0.5), FGM(0.5), average(), BestModel(), Trace(stop_at), CheckpointWriter(self.folder / name, 4, keep=99),
            accumulate=2, clip_norm=1.0)
        trainer.scheduler = optim.lr_scheduler.LinearLR(trainer.optimizer, 0.5, 1.0, 5)
        trainer.schedule_every = "step"
        return trainer


@pytest.mark.parametrize("average", [EMA, lambda: SWA(1), lambda: EMA(0.9, every=2)])
@pytest.mark.parametrize("stop_at", [2, 3, 6, 7])
def test_a_resumed_run_has_the_same_bits(average, stop_at, tmp_path):
    make_run, validation = Everything(tmp_path), texts(8, seed=9)
    whole = make_run("whole", average)
    whole.fit(texts(), validation, epochs=4)
    first = make_run("cut", average, stop_at)
    first.fit(texts(), validation, epochs=4)
    assert first.state.interrupted
    second = make_run("cut", average)
    second.callbacks[-1].resume(second)
    second.fit(texts(), validation, epochs=4)
    assert_equal_tensors(tensors(whole.model), tensors(second.model))
    assert whole.history.rows[-1]["val_loss"] == second.history.rows[-1]["val_loss"]


def test_any_checkpoint_of_a_run_can_be_resumed(tmp_path):
    """As after a kill: every checkpoint there is, those at the end of an epoch with averaged weights in the model too."""
    make_run, validation = Everything(tmp_path), texts(8, seed=9)
    whole = make_run("whole", EMA)
    whole.fit(texts(), validation, epochs=4)
    paths = sorted((tmp_path / "whole").glob("step-*"))
    assert len(paths) == 7  # after steps 3, 4, 6, 8, 9, 12, and 12 again with the epoch ended
    for path in paths:
        second = make_run(f"after-{path.name}", EMA)
        checkpoint = load_checkpoint(path)
        second.load_state_dict({name: checkpoint[name] for name in ("model", "optimizer")} | checkpoint["run"])
        second.fit(texts(), validation, epochs=4)
        assert_equal_tensors(tensors(whole.model), tensors(second.model))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: EMA(1.0), r"decay: expected a number in \[0, 1\), got 1.0"),
    (lambda: EMA(every=0), "every: expected at least 1, got 0"),
    (lambda: SWA(-1), "start: expected a share below 1 or a whole number of epochs, got -1"),
    (lambda: SWA(2.5), "start: expected a share below 1 or a whole number of epochs, got 2.5"),
])
def test_wrong_numbers_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_two_averages_are_refused():
    with pytest.raises(ValueError, match="callbacks: expected one average of the weights, got EMA, SWA"):
        build(EMA(), SWA()).fit(texts(), epochs=1)


def test_an_average_of_another_model_is_refused():
    first = EMA()
    build(first).fit(texts(), epochs=1)
    second = EMA()
    second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="the saved average has .* which this optimizer does not own"):
        build(second, frozen=True).fit(texts(), epochs=1)
