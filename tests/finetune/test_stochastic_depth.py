"""What is left out: how often, of whom, and that layers without their parts are what their formulas say."""
import numpy as np
import pytest
from technique_models import MODELS, assert_equal_tensors, batch_for, bert, convnet, make, seq2seq, tensors, texts, token_batch

import bpnn
from bpnn import nn, optim
from bpnn.finetune.stochastic_depth import DropPath, StochasticDepth, drop_path, stochastic_depth
from bpnn.nn import functional as F
from bpnn.train import Callback, CheckpointWriter, Trainer


@pytest.mark.parametrize("shape", [(4000,), (4000, 3), (4000, 2, 2, 1)])
def test_rows_are_kept_or_left_out_whole(shape):
    bpnn.manual_seed(1)
    x = bpnn.ones(*shape)
    y = stochastic_depth(x, 0.3, "row").numpy().reshape(4000, -1)
    assert ((y == 0) | np.isclose(y, 1 / 0.7)).all() and (y == y[:, :1]).all()
    assert (y[:, 0] == 0).mean() == pytest.approx(0.3, abs=0.03)
    assert y.mean() == pytest.approx(1, abs=0.05)


def test_a_batch_is_kept_or_left_out_whole():
    bpnn.manual_seed(1)
    module = StochasticDepth(0.4, "batch")
    seen = [module(bpnn.ones(3, 2)).numpy() for _ in range(600)]
    assert all((y == y[0, 0]).all() for y in seen)
    assert np.mean([y[0, 0] == 0 for y in seen]) == pytest.approx(0.4, abs=0.07)
    assert repr(module) == "StochasticDepth(p=0.4, mode=batch)"


def test_out_of_training_and_at_the_ends():
    x = bpnn.ones(3, 2, requires_grad=True)
    assert stochastic_depth(x, 0.5, "row", training=False) is x and StochasticDepth(0.5, "row").eval()(x) is x
    assert stochastic_depth(x, 0.0, "row") is x
    assert not stochastic_depth(x, 1.0, "row").detach().numpy().any()
    bpnn.manual_seed(0)
    y = stochastic_depth(x, 0.5, "row")
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    for call, words in [
        (lambda: stochastic_depth(x, 1.5, "row"), "p: expected a probability between 0 and 1, got 1.5"),
        (lambda: StochasticDepth(0.5, "column"), "mode: expected 'row' or 'batch', got 'column'"),
        (lambda: drop_path(bert(), 1), "rate: expected a probability below 1, got 1"),
        (lambda: drop_path(convnet(), 0.1), "model: expected a pretrained model with layers, got Sequential"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


ALL = [*MODELS, "seq2seq"]


def model_and_batch(name):
    if name != "seq2seq":
        return make(name), batch_for(name)
    batch = token_batch()
    return seq2seq(), {**batch, "labels": np.array([[4, 5, 2, -100], [6, 2, -100, -100], [7, 8, 9, 2]])}


@pytest.mark.parametrize("name", ALL)
def test_nothing_changes_out_of_training_and_after_removal(name):
    model, batch = model_and_batch(name)
    model.eval()
    before = model(**batch).loss.item()
    handles = drop_path(model, 0.9)
    assert model(**batch).loss.item() == before
    model.train()
    bpnn.manual_seed(0)
    assert len({model(**batch).loss.item() for _ in range(8)}) > 1
    handles.remove()
    assert model(**batch).loss.item() == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_without_all_parts_only_the_stream_is_left(name, monkeypatch):
    """The same as a model whose maps to the stream are zero."""
    model, batch = model_and_batch(name)
    reference, _ = model_and_batch(name)
    last = ("output.dense", "attention.out_lin", "ffn.lin2", "c_proj", "o_proj", "down_proj", "out_proj", "fc2")
    with bpnn.no_grad():
        for path, module in reference.named_modules():
            if path.endswith(last) and not path.startswith("classifier"):
                module.weight.zero_()
                if getattr(module, "bias", None) is not None:
                    module.bias.zero_()
    monkeypatch.setattr("bpnn.finetune.stochastic_depth._drawn", lambda count, p, dtype: np.zeros(count, dtype))
    drop_path(model, 0.5)
    model.train()
    reference.train()
    assert model(**batch).loss.item() == pytest.approx(reference(**batch).loss.item(), rel=1e-5)


def test_the_probability_grows_with_the_layer(monkeypatch):
    seen = []

    def drawn(count, p, dtype):
        seen.append(p)
        return np.ones(count, dtype)

    monkeypatch.setattr("bpnn.finetune.stochastic_depth._drawn", drawn)
    for name, parts, layers in [("bert", 2, 3), ("gpt2-lm", 2, 3), ("vit", 2, 3), ("seq2seq", None, 2)]:
        model, batch = model_and_batch(name)
        drop_path(model, 0.6)
        model(**batch)
        expected = np.repeat(0.6 * np.arange(1, layers + 1) / layers, parts or 2).tolist()
        if name == "seq2seq":
            expected += np.repeat([0.3, 0.6], 3).tolist()  # of the decoder, which also attends to the source
        np.testing.assert_allclose(seen, expected)
        seen.clear()


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("packed", [True, False])
def test_packed_rows_of_a_text_stay_together(name, packed, monkeypatch):
    """A text whose parts are left out gives what it gives alone; the others what they give without drop_path."""
    model, batch = make(name), token_batch()
    model.packed = packed
    model.eval()
    whole = model(**batch).logits.detach().numpy()
    monkeypatch.setattr("bpnn.finetune.stochastic_depth._drawn", lambda count, p, dtype: np.zeros(count, dtype))
    drop_path(model, 0.5)
    model.train()
    without = model(**batch).logits.detach().numpy()
    monkeypatch.setattr(
        "bpnn.finetune.stochastic_depth._drawn", lambda count, p, dtype: np.array([1, 0, 1], dtype) if count == 3 else 1 / 0)
    mixed = model(**batch).logits.detach().numpy()
    np.testing.assert_allclose(mixed, np.stack([whole[0], without[1], whole[2]]), rtol=1e-4, atol=1e-6)


def test_packed_texts_of_a_decoder(monkeypatch):
    model = make("llama-lm")
    tokens = np.arange(3, 12)[None]
    batch = {"input_ids": tokens, "labels": tokens, "cu_seqlens": np.array([0, 4, 9])}
    counts = []

    def drawn(count, p, dtype):
        counts.append(count)
        return np.ones(count, dtype)

    monkeypatch.setattr("bpnn.finetune.stochastic_depth._drawn", drawn)
    before = model(**batch).loss.item()
    drop_path(model, 0.5)
    assert model(**batch).loss.item() == before and set(counts) == {2}
    batch.pop("cu_seqlens")
    model(**batch)
    assert counts[-1] == 1


def test_recomputed_layers_leave_out_the_same():
    losses, found = [], []
    for again in (False, True):
        model, batch = make("bert"), token_batch()
        model.gradient_checkpointing_enable(again)
        drop_path(model, 0.5)
        model.train()
        bpnn.manual_seed(2)
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        found.append(model.get_parameter("bert.encoder.layer.0.output.dense.weight").grad.numpy().copy())
    assert losses[0] == losses[1]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_in_a_network_of_ones_own():
    model = nn.Sequential(nn.Linear(3, 3), StochasticDepth(0.5, "row"))
    x = bpnn.ones(50, 3)
    bpnn.manual_seed(0)
    y = model(x).detach().numpy()
    plain = F.linear(x, model[0].weight, model[0].bias).detach().numpy()
    assert all(not row.any() or np.allclose(row, 2 * other) for row, other in zip(y, plain, strict=True))


def test_a_resumed_run_has_the_same_bits(tmp_path):
    class Stop(Callback):
        def __init__(self, at):
            self.at = at

        def on_step_end(self, trainer):
            if trainer.state.step == self.at:
                trainer.stop("asked", interrupted=True)

    def build(folder, at=None):
        bpnn.manual_seed(3)
        model = bert(0.1)
        callbacks = [DropPath(0.5), Stop(at), CheckpointWriter(tmp_path / folder)]
        return Trainer(model, optim.AdamW(model.parameters(), 1e-2), callbacks=callbacks)

    whole = build("whole")
    whole.fit(texts(), epochs=2)
    assert not whole.model.bert.encoder.layer[0]._forward_pre_hooks
    build("cut", 4).fit(texts(), epochs=2)
    second = build("cut")
    second.callbacks[-1].resume(second)
    second.fit(texts(), epochs=2)
    assert_equal_tensors(tensors(whole.model), tensors(second.model))
