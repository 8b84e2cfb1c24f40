"""The techniques on models whose base is frozen and has adapters in it."""
from itertools import pairwise

import numpy as np
import pytest
from technique_models import SEQUENCE, assert_equal_tensors, gradients, make, tensors, texts, token_batch

import bpnn
from bpnn import optim
from bpnn.finetune import (
    EMA, FGM, SWA, DropPath, EmbeddingPGD, FreeLB, GradualUnfreezing, LabelSmoothing, LoraConfig, PromptTuningConfig, RDrop, freeze,
    freeze_layers, get_peft_model, head_only, layer_groups, layerwise_decay, store_frozen, trainable_parameters,
)
from bpnn.train import BestModel, CheckpointWriter, Trainer


def adapted(name="bert", config=None, seed=1):
    model = make(name, seed)
    bpnn.manual_seed(seed + 100)
    tuned = get_peft_model(model, config or LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, init_lora_weights=False))
    return tuned.train()


def owned(model):
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", SEQUENCE)
def test_groups_and_freezing_see_through_the_wrapper(name):
    model = adapted(name)
    trained, total = trainable_parameters(model)
    assert trained == sum(p.numel() for p in owned(model)) and total == sum(p.numel() for p in model.parameters())
    groups = layer_groups(model)
    assert [g.name for g in groups] == ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    for group in groups[1:4]:
        assert any("lora_A" in name for name, _ in group.parameters)
    rates = {id(p): g["lr"] for g in layerwise_decay(model, 1.0, 0.5) for p in g["params"]}
    assert rates.keys() == {id(p) for p in owned(model)}
    for depth, group in enumerate(reversed(groups)):
        assert {rates[id(p)] for _, p in group.parameters if p.requires_grad} <= {0.5**depth}
    freeze_layers(model, 2)
    left = {n for n, p in model.named_parameters() if p.requires_grad}
    assert left and all("lora_" not in n or ".2." in n for n in left)
    freeze(model, "*lora_*")
    assert not any("lora_" in n for n, p in model.named_parameters() if p.requires_grad)


def test_patterns_match_names_inside_the_wrapper():
    model = adapted()
    assert all("layer.1." in name for name in freeze(model, "bert.encoder.layer.1.*"))


@pytest.mark.parametrize("name", SEQUENCE)
def test_fgm_reaches_a_frozen_table(name):
    batch, eps = token_batch((5, 3)), 0.5
    model, reference = adapted(name), adapted(name)
    Trainer(model, optim.SGD(owned(model), 0.0), callbacks=[FGM(eps)]).fit([batch], epochs=1)
    table = reference.get_base_model().get_input_embeddings()
    mask, captured = batch["attention_mask"].astype(bool), []

    def keep(module, args, output):
        captured.append(output.detach().requires_grad_())
        return captured[-1]

    handle = table.register_forward_hook(keep)
    reference(**batch).loss.backward()
    handle.remove()
    g = captured[0].grad.numpy()
    flat = g if g.ndim == 2 else g[mask]
    bounds = np.cumsum([0, 5, 3])
    r = np.concatenate([eps * flat[a:b] / np.linalg.norm(flat[a:b]) for a, b in pairwise(bounds)])
    if g.ndim == 3:
        r, rows = np.zeros_like(g), r
        r[mask] = rows
    handle = table.register_forward_hook(lambda module, args, output: output + bpnn.from_numpy(r.astype(np.float32)))
    reference(**batch).loss.backward()
    handle.remove()
    found, expected = gradients(model), gradients(reference)
    for key in found:
        assert (found[key] is None) == (expected[key] is None), key
        if found[key] is not None:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-3, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("attack", [EmbeddingPGD, FreeLB])
def test_other_attacks_train_adapters(attack):
    for config in (None, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)):
        model = adapted(config=config)
        before = tensors(model)
        Trainer(model, optim.SGD(owned(model), 0.1), callbacks=[attack()]).fit([token_batch()], epochs=1)
        changed = {name for name, value in tensors(model).items() if not np.array_equal(value, before[name])}
        trained = {n for n, p in model.state_dict(keep_vars=True).items() if p.requires_grad and p.grad is not None}
        assert changed and changed == trained


@pytest.mark.parametrize("attack", [FGM, FreeLB])
def test_attacks_on_a_table_of_int8(attack):
    model = store_frozen(make("llama"), "int8")
    tuned = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2)).train()
    optimizer = optim.SGD(owned(tuned), 0.0)
    Trainer(tuned, optimizer, callbacks=[RDrop(), attack()]).fit([token_batch()], epochs=1)
    assert all(p.grad is not None for n, p in tuned.named_parameters() if "lora_B" in n)


def test_the_head_alone_of_an_adapted_model():
    model = adapted()
    head_only(model)
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names and all("classifier" in n or "pooler" in n for n in names)
    assert not any("original_module" in n for n in names)


@pytest.mark.parametrize("average", [EMA, lambda: SWA(1)])
@pytest.mark.parametrize("stop_at", [6, 8])
def test_everything_at_once_resumes_with_the_same_bits(average, stop_at, tmp_path):
    class Stop(BestModel):
        """Keeps the best, and stops."""

        def __init__(self, at):
            super().__init__()
            self.at = at

        def on_step_end(self, trainer):
            if trainer.state.step == self.at:
                trainer.stop("asked", interrupted=True)

    def build(folder, at=None):
        model = adapted(seed=2)
        callbacks = [GradualUnfreezing(2), DropPath(0.2), LabelSmoothing(0.1), RDrop(), FGM(), average(), Stop(at),
                     CheckpointWriter(tmp_path / folder)]
        optimizer = optim.AdamW(layerwise_decay(model, 1e-2, 0.8))
        return Trainer(model, optimizer, callbacks=callbacks, save_frozen=False)

    validation = texts(8, seed=9)
    whole = build("whole")
    whole.fit(texts(), validation, epochs=3)
    build("cut", stop_at).fit(texts(), validation, epochs=3)
    second = build("cut")
    second.callbacks[-1].resume(second)
    second.fit(texts(), validation, epochs=3)
    assert_equal_tensors(tensors(whole.model), tensors(second.model))
