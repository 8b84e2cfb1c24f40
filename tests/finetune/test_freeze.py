"""Which parameters are frozen, that a step leaves them alone, and the order of thawing."""
import numpy as np
import pytest
from technique_models import MODELS, assert_equal_tensors, batch_for, bert, make, seq2seq, tensors, text_classifier, texts

import bpnn
from bpnn import nn, optim
from bpnn.finetune.freeze import GradualUnfreezing, freeze, freeze_layers, head_only, trainable_parameters, unfreeze
from bpnn.finetune.rates import layer_groups
from bpnn.train import Callback, CheckpointWriter, Trainer


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names(model):
    return {name for name, _ in model.named_parameters()}


def test_patterns_freeze_and_unfreeze():
    model = bert()
    frozen = freeze(model, ["*embeddings*", "bert.encoder.layer.0.*"])
    assert set(frozen) == {n for n in names(model) if "embeddings" in n or ".layer.0." in n}
    assert trained(model) == names(model) - set(frozen)
    unfreeze(model, "*.LayerNorm.*")
    assert "bert.embeddings.LayerNorm.weight" in trained(model)
    assert freeze(model) and not trained(model)
    with pytest.raises(ValueError, match=r"patterns: 'encoder\*' matches none"):
        freeze(model, ["classifier.*", "encoder*"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_first_layers(name, k):
    model = make(name)
    _, layers, count, embedding = MODELS[name]
    freeze_layers(model, k)
    left = trained(model)
    for parameter in names(model):
        below = any(parameter.startswith(f"{layers}.{i}.") for i in range(k))
        if parameter.startswith(layers):
            assert (parameter in left) != below, parameter
    assert embedding not in left
    last = {"gpt2": "transformer.ln_f.weight", "llama": "model.norm.weight", "vit": "vit.layernorm.weight"}
    after = last.get(name.partition("-")[0])
    assert after is None or after in left
    with pytest.raises(ValueError, match=f"k: expected a number of layers from 0 to {count}, got 4"):
        freeze_layers(model, 4)


def test_the_first_layers_of_other_models():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    freeze_layers(model, 2)
    assert trained(model) == {"4.weight", "4.bias"}
    translator = seq2seq()
    freeze_layers(translator, 3)  # of both stacks, the encoder's first
    assert not any(".encoder.layers." in n or ".decoder.layers.0." in n for n in trained(translator))
    assert any(".decoder.layers.1." in n for n in trained(translator))


@pytest.mark.parametrize(("name", "heads"), [
    ("bert", ("classifier", "bert.pooler")), ("roberta", ("classifier",)), ("distilbert", ("pre_classifier", "classifier")),
    ("gpt2", ("score",)), ("llama", ("score",)), ("llama-lm", ("lm_head",)), ("vit", ("classifier",)),
])
def test_the_head_alone(name, heads):
    model = make(name)
    head_only(model)
    assert trained(model) == {n for n in names(model) if n.startswith(heads)}
    model(**batch_for(name)).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trained(model)


def test_the_head_of_other_models_and_none():
    model = text_classifier()
    head_only(model)
    assert trained(model) == {"linear.weight", "linear.bias"}
    with pytest.raises(ValueError, match="expected one with a head of its own, got GPT2LMHeadModel"):
        head_only(make("gpt2-lm"))


def test_trained_of_total_counts_tied_ones_once():
    model = make("gpt2-lm")
    total = sum(t.numel() for t in {id(t): t for t in model.state_dict(keep_vars=True).values()}.values())
    assert trainable_parameters(model) == (total, total)
    freeze_layers(model, 3)
    assert trainable_parameters(model) == (32, total)  # ln_f
    linear = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    freeze(linear, "0.*")
    assert trainable_parameters(linear) == (10, 26)


def test_stored_weights_count_as_what_they_stand_for():
    stored = pytest.importorskip("bpnn.finetune.stored")
    for name in ("llama-lm", "gpt2-lm", "bert"):  # the second with one table for both ends
        model = make(name)
        before = trainable_parameters(model)
        assert trainable_parameters(stored.store_frozen(model, "int8"))[1] == before[1]


def test_adamw_neither_moves_nor_decays_what_is_frozen():
    model = bert(0.0)
    freeze_layers(model, 2)
    before = tensors(model)
    optimizer = optim.AdamW(model.parameters(), 0.1, weight_decay=0.5)
    Trainer(model, optimizer).fit(texts(), epochs=1)
    after, left = tensors(model), trained(model)
    for name in before:
        assert np.array_equal(before[name], after[name]) == (name not in left), name


class Watch(Callback):
    """Notes what is trained, stops when told."""

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_step_end(self, trainer):
        self.seen.append(frozenset(trained(trainer.model)))
        if trainer.state.step == self.stop_at:
            trainer.stop("asked", interrupted=True)


def gradual(folder=None, stop_at=None, **given):
    bpnn.manual_seed(3)
    model = bert(0.2)
    watch = Watch(stop_at)
    optimizer = optim.AdamW(model.parameters(), 1e-2)
    callbacks = [GradualUnfreezing(**given), watch] + ([CheckpointWriter(folder)] if folder else [])
    return Trainer(model, optimizer, callbacks=callbacks), watch


def test_gradual_unfreezing_goes_from_the_top_down():
    trainer, watch = gradual()
    trainer.fit(texts(), epochs=6)
    by_epoch = watch.seen[::6]
    groups = layer_groups(trainer.model)
    assert [group.name for group in groups] == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    for epoch in range(6):
        expected = {name for group in groups[max(0, 4 - epoch) :] for name, _ in group.parameters}
        assert by_epoch[epoch] == expected, epoch
    assert trained(trainer.model) == names(trainer.model)


@pytest.mark.parametrize(("pace", "counts"), [(2, [1, 3, 5, 5]), (0.5, [1, 1, 2, 2]), (1 / 3, [1, 1, 1, 2])])
def test_the_pace_of_thawing(pace, counts):
    callback, model = GradualUnfreezing(pace), bert()
    assert [len(callback.trained_groups(model, epoch)) for epoch in range(4)] == counts
    with pytest.raises(ValueError, match="layers_per_epoch: expected a number above 0, got 0"):
        GradualUnfreezing(0)


@pytest.mark.parametrize("owned", [False, True])
def test_what_is_frozen_before_stays_frozen(owned):
    model = bert()
    freeze(model, "*.layer.2.*")
    trainer = Trainer(
        model, optim.SGD([p for p in model.parameters() if owned or p.requires_grad], 0.1), callbacks=[GradualUnfreezing(9)])
    trainer.fit(texts(), epochs=2)
    assert trained(model) == {n for n in names(model) if ".layer.2." not in n}


@pytest.mark.parametrize("stop_at", [3, 6, 10])
def test_a_resumed_gradual_run_has_the_same_bits(tmp_path, stop_at):
    whole, _ = gradual(tmp_path / "whole")
    whole.fit(texts(), epochs=3)
    first, _ = gradual(tmp_path / "cut", stop_at)
    first.fit(texts(), epochs=3)
    second, _ = gradual(tmp_path / "cut")
    second.callbacks[-1].resume(second)
    second.fit(texts(), epochs=3)
    assert_equal_tensors(tensors(whole.model), tensors(second.model))


def test_the_function_goes_before_the_file_of_its_name():
    import bpnn.finetune
    import bpnn.finetune.freeze as imported

    assert bpnn.finetune.freeze is freeze and imported is freeze
    assert bpnn.finetune.layer_groups is layer_groups
