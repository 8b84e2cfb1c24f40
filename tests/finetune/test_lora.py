"""LoRA, rsLoRA and DoRA: the formulas in NumPy, what is trained, merging, several adapters, errors."""
import copy
import math

import numpy as np
import pytest
from adapter_models import IDS, LABELS, bert, gpt2, llama, logits, move, trained

import bpnn
from bpnn import models, nn
from bpnn.finetune import LoraConfig, PeftModel, get_peft_model, store_frozen
from bpnn.finetune._targets import LORA_TARGETS
from bpnn.nn.modules.stored import StoredLinear

SEQ = {"task_type": "SEQ_CLS"}


class One(nn.Module):
    """A linear map alone."""

    def __init__(self, kind, inputs=7, outputs=5, bias=True, dtype="float64"):
        super().__init__()
        if kind == "conv1d":
            from bpnn.models.gpt2 import Conv1D

            self.map = Conv1D(outputs, inputs)
            with bpnn.no_grad():
                self.map.weight.normal_()
                self.map.bias.normal_()
        else:
            self.map = nn.Linear(inputs, outputs, bias)
        self.to(dtype)

    def forward(self, x, activation=None):
        return self.map(x, activation=activation)


def adapted(kind="linear", bias=True, dtype="float64", **options):
    """A linear map with an adapter whose numbers are not those of the start; x; W (out, in), b, A, B."""
    bpnn.manual_seed(3)
    model = move(get_peft_model(One(kind, bias=bias, dtype=dtype), LoraConfig(target_modules=["map"], **options)))
    layer = model.get_base_model().map
    weight = layer.weight.detach().numpy()
    x = np.random.default_rng(4).normal(size=(2, 3, 7)).astype(dtype)
    parts = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    return model, x, weight.T if kind == "conv1d" else weight, layer.bias, *(part.detach().numpy() for part in parts)


def run(model, x, dy):
    """y, and the gradients of sum(y dy) by the last part of the names."""
    x = bpnn.tensor(x, requires_grad=True)
    y = model(x)
    (y * bpnn.from_numpy(dy)).sum().backward()
    found = {name.split("map.")[1]: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return y.detach().numpy(), x.grad.numpy(), found


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize(("rslora", "scale"), [(False, 6 / 3), (True, 6 / math.sqrt(3))])
def test_formula(kind, rslora, scale):
    model, x, w, b, a, low = adapted(kind, r=3, lora_alpha=6, use_rslora=rslora)
    dy = np.random.default_rng(5).normal(size=(2, 3, 5))
    y, dx, found = run(model, x, dy)
    total = w + scale * low @ a
    np.testing.assert_allclose(y, x @ total.T + b.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(dx, dy @ total, rtol=1e-12)
    rows, drows = x.reshape(-1, 7), dy.reshape(-1, 5)
    assert set(found) == {"lora_A.default.weight", "lora_B.default.weight"}
    np.testing.assert_allclose(found["lora_A.default.weight"], scale * (drows @ low).T @ rows, rtol=1e-12)
    np.testing.assert_allclose(found["lora_B.default.weight"], scale * drows.T @ (rows @ a.T), rtol=1e-12)


@pytest.mark.parametrize(("kind", "bias"), [("linear", True), ("linear", False), ("conv1d", True)])
def test_dora_formula(kind, bias):
    model, x, w, b, a, low = adapted(kind, bias, r=2, lora_alpha=3, use_dora=True)
    m = model.get_base_model().map.lora_magnitude_vector["default"].weight.detach().numpy()
    dy = np.random.default_rng(5).normal(size=(2, 3, 5))
    y, dx, found = run(model, x, dy)
    total = w + 1.5 * low @ a
    c = m / np.linalg.norm(total, axis=1)  # a constant in backward
    plain = x @ total.T
    np.testing.assert_allclose(y, c * plain + (0 if b is None else b.detach().numpy()), rtol=1e-11)
    np.testing.assert_allclose(dx, (dy * c) @ total, rtol=1e-11)
    rows, drows = x.reshape(-1, 7), (dy * c).reshape(-1, 5)
    np.testing.assert_allclose(found["lora_A.default.weight"], 1.5 * (drows @ low).T @ rows, rtol=1e-11)
    np.testing.assert_allclose(found["lora_B.default.weight"], 1.5 * drows.T @ (rows @ a.T), rtol=1e-11)
    want = (dy * plain).sum((0, 1)) / np.linalg.norm(total, axis=1)
    np.testing.assert_allclose(found["lora_magnitude_vector.default.weight"], want, rtol=1e-11)


def test_dora_begins_as_the_model_was():
    model = bert()
    before = logits(model)
    tuned = get_peft_model(model, LoraConfig(use_dora=True, **SEQ)).eval()
    np.testing.assert_allclose(logits(tuned), before, rtol=1e-12)


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_is_of_what_the_change_sees(dora):
    model, x, w, b, a, low = adapted(r=3, lora_alpha=6, lora_dropout=0.5, use_dora=dora)
    model.train()
    bpnn.manual_seed(11)
    y = model(bpnn.from_numpy(x)).detach().numpy()
    bpnn.manual_seed(11)
    u = nn.functional.dropout(bpnn.from_numpy(x), 0.5).numpy()
    assert (u == 0).any() and not (u == 0).all()
    c = 1.0
    if dora:
        c = model.get_base_model().map.lora_magnitude_vector["default"].weight.detach().numpy()
        c = c / np.linalg.norm(w + 2 * low @ a, axis=1)
    want = x @ w.T + b.detach().numpy() + (c - 1) * (u @ w.T) + 2 * c * (u @ a.T @ low.T)
    np.testing.assert_allclose(y, want, rtol=1e-11)
    model.eval()
    still = c * (x @ (w + 2 * low @ a).T) + b.detach().numpy()
    np.testing.assert_allclose(model(bpnn.from_numpy(x)).detach().numpy(), still, rtol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"])
def test_activation_comes_behind_the_change(activation):
    model, x, w, b, a, low = adapted(r=2, lora_alpha=2)
    merged = nn.Linear(7, 5, dtype="float64")
    with bpnn.no_grad():
        merged.weight.copy_(bpnn.from_numpy(w + low @ a))
        merged.bias.copy_(b)
    x = bpnn.from_numpy(x)
    want = merged(x, activation=activation).detach().numpy()
    np.testing.assert_allclose(model(x, activation=activation).detach().numpy(), want, rtol=1e-9, atol=1e-12)


def test_start():
    bpnn.manual_seed(1)
    layer = get_peft_model(One("linear", 400, 3), LoraConfig(target_modules=["map"], r=64)).get_base_model().map
    a = layer.lora_A["default"].weight.detach().numpy()
    assert not layer.lora_B["default"].weight.detach().numpy().any()
    assert np.abs(a).max() <= 1 / 20 and abs(a.std() - 1 / 20 / math.sqrt(3)) < 1e-3
    config = LoraConfig(target_modules=["map"], r=64, init_lora_weights="gaussian")
    layer = get_peft_model(One("linear", 400, 3), config).get_base_model().map
    assert abs(layer.lora_A["default"].weight.detach().numpy().std() * 64 - 1) < 0.02
    config = LoraConfig(target_modules=["map"], init_lora_weights=False)
    assert get_peft_model(One("linear"), config).get_base_model().map.lora_B["default"].weight.detach().numpy().all()


# --- which modules -------------------------------------------------------------------------------------------------------------


def ends(model):
    """The ends of the names of modules with adapters."""
    return sorted({name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if ".lora_A" in name})


CONFIGS = {
    "bert": models.BertConfig, "roberta": models.RobertaConfig, "distilbert": models.DistilBertConfig, "gpt2": models.GPT2Config,
    "llama": models.LlamaConfig, "mistral": models.MistralConfig, "qwen2": models.Qwen2Config, "vit": models.ViTConfig,
}
CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral",
           "qwen2": "Qwen2", "vit": "ViT"}


@pytest.mark.parametrize("kind", CONFIGS)
def test_default_targets(kind):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    more = {"image_size": 8, "patch_size": 4} if kind == "vit" else {"vocab_size": 31}
    more |= {"num_key_value_heads": 1} if "Llama" in CONFIGS[kind].__mro__[1].__name__ else {}
    config = CONFIGS[kind](**sizes, **more)
    model = getattr(models, CLASSES[kind] + ("ForImageClassification" if kind == "vit" else "ForSequenceClassification"))(config)
    head = {"modules_to_save": ["classifier"]} if kind == "vit" else SEQ
    tuned = get_peft_model(model, LoraConfig(**head))
    assert ends(tuned) == sorted(LORA_TARGETS[kind])
    whole = {name.split(".modules_to_save")[0].rpartition(".")[2] for name in trained(tuned) if "modules_to_save" in name}
    assert whole <= {"classifier", "score", "pre_classifier"} and whole & {"classifier", "score"}
    assert all(".lora_" in name or ".modules_to_save." in name for name in trained(tuned))
    count, everything = tuned.get_nb_trainable_parameters()
    assert 0 < count < everything == sum(p.numel() for p in tuned.parameters())


def test_all_linear_leaves_the_output_out():
    names = get_peft_model(llama(), LoraConfig(target_modules="all-linear"))
    assert ends(names) == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert ends(get_peft_model(bert("ForTokenClassification"), LoraConfig(target_modules="all-linear", task_type="TOKEN_CLS"))) == [
        "dense", "key", "query", "value"]


def test_patterns():
    config = LoraConfig(
        target_modules=["q_proj", "o_proj"], layers_to_transform=[1], layers_pattern="layers", rank_pattern={"o_proj": 2},
        alpha_pattern={r"layers\.1\.self_attn\.q_proj": 40}, r=4, lora_alpha=8,
    )
    layers = get_peft_model(llama(), config).adapter_layers
    assert [(layer.path, layer.lora_A["default"].weight.shape[0], layer.scaling["default"]) for layer in layers] == [
        ("model.layers.1.self_attn.q_proj", 4, 10), ("model.layers.1.self_attn.o_proj", 2, 4)]
    config = LoraConfig(target_modules=r".*\.0\..*(k|v)_proj", exclude_modules=["v_proj"])
    assert [layer.path for layer in get_peft_model(llama(), config).adapter_layers] == ["model.layers.0.self_attn.k_proj"]


@pytest.mark.parametrize(("options", "error", "told"), [
    ({"target_modules": ["nothing"]}, ValueError, "target_modules.*BertForSequenceClassification.*query, key, value"),
    ({"target_modules": ["word_embeddings"]}, ValueError, "target_modules.*word_embeddings is a Embedding"),
    ({"r": 0}, ValueError, "r: expected a whole number above 0, got 0"),
    ({"rank_pattern": {"query": -1}}, ValueError, "rank_pattern: query"),
    ({"lora_dropout": 1.0}, ValueError, "lora_dropout.*1.0"),
    ({"bias": "some"}, ValueError, "bias: expected 'none', 'all' or 'lora_only'"),
    ({"init_lora_weights": "pissa"}, ValueError, "init_lora_weights.*pissa"),
    ({"task_type": "SEQ_2_SEQ_LM"}, ValueError, "task_type.*SEQ_2_SEQ_LM"),
    ({"layers_to_transform": 1, "target_modules": ".*query"}, ValueError, "layers_to_transform"),
    ({"layers_pattern": "layer"}, ValueError, "layers_pattern"),
    ({"use_qalora": True}, TypeError, "use_qalora"),
    ({"modules_to_save": ["clasifier"]}, ValueError, "modules_to_save: no module of Bert.* ends with 'clasifier'"),
])
def test_errors(options, error, told):
    model = bert()
    with pytest.raises(error, match=told):
        get_peft_model(model, LoraConfig(**options))
    assert all(parameter.requires_grad for parameter in model.parameters())  # it is what it was
    assert isinstance(model.classifier, nn.Linear)


def test_unknown_architecture_and_wrong_arguments():
    with pytest.raises(ValueError, match=r"target_modules: expected names of linear maps, or 'all-linear'.*defaults for bert"):
        get_peft_model(One("linear"), LoraConfig())
    with pytest.raises(TypeError, match="peft_config: expected LoraConfig"):
        get_peft_model(bert(), {"r": 8})
    with pytest.raises(ValueError, match="model: expected a model without adapters"):
        get_peft_model(get_peft_model(bert(), LoraConfig()), LoraConfig())


# --- training ------------------------------------------------------------------------------------------------------------------


def test_frozen_weights_cost_nothing():
    model = get_peft_model(llama(), LoraConfig(target_modules=["q_proj"], layers_to_transform=[1]))
    first = model.get_base_model().model.layers[0]
    seen = []
    handle = first.register_forward_hook(lambda module, args, output: seen.extend(output))
    model.train()
    model(IDS, labels=IDS).loss.backward()
    handle.remove()
    assert seen and not any(tensor.requires_grad for tensor in seen)  # nothing is recorded below the first adapter
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".lora_" in name), name


@pytest.mark.parametrize("make", [bert, gpt2, llama])
def test_recomputed_activations_give_the_same_gradients(make):
    model = make()
    given = {"labels": LABELS} if make is bert else {"labels": IDS}
    tuned = move(get_peft_model(model, LoraConfig(task_type="SEQ_CLS" if make is bert else "CAUSAL_LM", lora_dropout=0.3)))
    found = []
    for again in (False, True):
        tuned.gradient_checkpointing_enable(again)
        tuned.train()
        tuned.zero_grad()
        bpnn.manual_seed(2)
        tuned(IDS, **given).loss.backward()
        found.append({name: p.grad.numpy().copy() for name, p in tuned.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == trained(tuned)
    for name, gradient in found[0].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=1e-10, atol=1e-14)


def test_a_base_that_is_trained_too():
    model, x, *_ = adapted(r=2, lora_alpha=2, lora_dropout=0.5)
    model.requires_grad_(True).train()
    dy = np.random.default_rng(5).normal(size=(2, 3, 5))
    *_, found = run(model, x, dy)
    np.testing.assert_allclose(found["base_layer.weight"], np.einsum("abo,abi->oi", dy, x), rtol=1e-12)


def test_dora_sees_that_its_weight_changed():
    model, x, _, b, a, low = adapted(r=2, lora_alpha=2, use_dora=True)
    model(bpnn.from_numpy(x))
    layer = model.get_base_model().map
    with bpnn.no_grad():
        layer.base_layer.weight.mul_(-3)
    m = layer.lora_magnitude_vector["default"].weight.detach().numpy()
    total = layer.weight.detach().numpy() + low @ a
    want = m / np.linalg.norm(total, axis=1) * (x @ total.T) + b.detach().numpy()
    np.testing.assert_allclose(model(bpnn.from_numpy(x)).detach().numpy(), want, rtol=1e-11)


def test_biases():
    everything = trained(get_peft_model(bert(), LoraConfig(bias="all", **SEQ)))
    assert "base_model.model.bert.embeddings.LayerNorm.bias" in everything
    assert "base_model.model.bert.encoder.layer.0.attention.self.key.bias" in everything
    some = {name for name in trained(get_peft_model(bert(), LoraConfig(bias="lora_only", **SEQ))) if name.endswith("bias")}
    layers = "base_model.model.bert.encoder.layer"
    assert some == {
        *(f"{layers}.{i}.attention.self.{name}.base_layer.bias" for i in (0, 1) for name in ("query", "value")),
        "base_model.model.classifier.modules_to_save.default.bias",
    }


def test_an_adapted_output_is_in_the_loss():
    model = move(get_peft_model(llama(), LoraConfig(target_modules=["lm_head"])))
    output = model(IDS, labels=IDS)
    scores = output.logits.detach().numpy()[:, :-1]
    scores = scores - scores.max(-1, keepdims=True)
    chance = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    want = -np.take_along_axis(chance, IDS[:, 1:, None], -1).mean()
    assert abs(output.loss.item() - want) < 1e-12
    output.loss.backward()
    assert set(trained(model)) == {n for n, p in model.named_parameters() if p.grad is not None}
    # the same as with the change in the weight
    model.merge_adapter()
    np.testing.assert_allclose(model(IDS, labels=IDS).loss.item(), want, rtol=1e-12)


def test_it_is_trained_like_the_model(tmp_path):
    from bpnn.train import Trainer

    def start():
        bpnn.manual_seed(9)
        model = get_peft_model(bert(dtype="float32"), LoraConfig(lora_dropout=0.1, **SEQ))
        optimizer = bpnn.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.05)
        return Trainer(model, optimizer, None, save_frozen=False)

    batches = [{"input_ids": IDS, "labels": LABELS}, {"input_ids": IDS + 20, "labels": 1 - LABELS}]
    one = start()
    before = {name: p.detach().numpy().copy() for name, p in one.model.named_parameters()}
    history = one.fit(batches, epochs=6)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    for name, parameter in one.model.named_parameters():
        assert np.array_equal(before[name], parameter.detach().numpy()) != parameter.requires_grad, name
    two = start()
    two.fit(batches, epochs=3)
    saved = two.state_dict()
    assert set(saved["model"]) == trained(two.model)  # what is frozen is not saved
    three = start()
    bpnn.manual_seed(0)
    three.load_state_dict(saved)
    three.fit(batches, epochs=6)
    for (name, parameter), other in zip(one.model.named_parameters(), three.model.parameters()):
        np.testing.assert_array_equal(parameter.detach().numpy(), other.detach().numpy(), err_msg=name)
    assert not one.model.eval().base_model.training
    copied = copy.deepcopy(one.model)
    np.testing.assert_array_equal(logits(copied), logits(one.model))


# --- merging and several -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("make", [bert, gpt2, llama])
def test_merge(make, dora):
    model = make()
    before, weights = logits(model), {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    tuned = move(get_peft_model(model, LoraConfig(target_modules="all-linear", use_dora=dora, r=3))).eval()
    want = logits(tuned)
    assert np.abs(want - before).max() > 1e-3
    tuned.merge_adapter()
    tuned.merge_adapter()  # once is enough
    np.testing.assert_allclose(logits(tuned), want, rtol=1e-9, atol=1e-11)
    with tuned.disable_adapter():
        np.testing.assert_allclose(logits(tuned), before, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(logits(tuned), want, rtol=1e-9, atol=1e-11)
    tuned.unmerge_adapter()
    np.testing.assert_allclose(logits(tuned), want, rtol=1e-9, atol=1e-11)
    merged = copy.deepcopy(tuned).merge_and_unload()
    assert type(merged) is type(model)
    assert {name for name, _ in merged.named_parameters()} == set(weights)
    np.testing.assert_allclose(logits(merged), want, rtol=1e-9, atol=1e-11)
    plain = tuned.unload()
    assert plain is model and {name for name, _ in plain.named_parameters()} == set(weights)
    for name, parameter in plain.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=0, atol=1e-14)


def test_images_whose_projections_are_computed_at_once():
    bpnn.manual_seed(1)
    model = models.ViTForImageClassification(models.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, image_size=8, patch_size=2)).eval()
    pixels = np.random.default_rng(1).normal(size=(32, 3, 8, 8)).astype(np.float32)  # 544 tokens
    tuned = move(get_peft_model(model, LoraConfig(modules_to_save=["classifier"]))).eval()
    want = logits(tuned, pixels)
    one = np.concatenate([logits(tuned, pixels[i : i + 1]) for i in range(len(pixels))])
    np.testing.assert_allclose(want, one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits(tuned.merge_and_unload(), pixels), want, rtol=1e-4, atol=1e-5)


def test_merged_head_stays():
    tuned = move(get_peft_model(bert(), LoraConfig(**SEQ))).eval()
    want, before = logits(tuned), tuned.classifier.original_module.weight.detach().numpy().copy()
    merged = copy.deepcopy(tuned).merge_and_unload()
    assert isinstance(merged.classifier, nn.Linear)
    np.testing.assert_allclose(logits(merged), want, rtol=1e-10)
    np.testing.assert_array_equal(tuned.unload().classifier.weight.detach().numpy(), before)


def test_a_weight_that_is_used_twice_is_not_merged():
    tuned = move(get_peft_model(gpt2(), LoraConfig(r=2, target_modules=["lm_head", "c_attn"])))
    want = logits(tuned)
    with pytest.raises(ValueError, match="lm_head shares its weight with another module"):
        tuned.merge_adapter()
    np.testing.assert_array_equal(logits(tuned), want)


def test_a_head_that_is_no_longer_the_table_of_tokens_is_saved(tmp_path):
    tuned = move(get_peft_model(gpt2(), LoraConfig(r=2, modules_to_save=["lm_head"])))
    want = logits(tuned)
    plain = tuned.merge_and_unload()
    assert plain.config.tie_word_embeddings is False
    plain.save_pretrained(tmp_path)
    np.testing.assert_allclose(logits(models.GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float64")), want, atol=1e-12)
    assert get_peft_model(gpt2(), LoraConfig(r=2)).merge_and_unload().config.tie_word_embeddings


def test_disabled_within_disabled():
    tuned = move(get_peft_model(bert(), LoraConfig(r=2, **SEQ)))
    with tuned.disable_adapter():
        want = logits(tuned)
        with tuned.disable_adapter():
            pass
        np.testing.assert_array_equal(logits(tuned), want)
    assert np.abs(logits(tuned) - want).max() > 1e-6


def test_an_adapter_may_be_called_like_a_tensor():
    tuned = get_peft_model(bert(), LoraConfig(r=2), "weight")
    assert {name.split(".")[-2] for name in tuned.file_tensors("weight")} == {"lora_A", "lora_B"}


def test_several_adapters():
    model = bert()
    before = logits(model)
    tuned = move(get_peft_model(model, LoraConfig(r=2, **SEQ), "one")).eval()
    first = logits(tuned)
    tuned.add_adapter("two", LoraConfig(r=3, target_modules=["key"], task_type="SEQ_CLS"))
    np.testing.assert_array_equal(logits(tuned), first)  # a new one does not compute yet
    assert all(".one." in name for name in trained(tuned))
    tuned.set_adapter("two")
    assert all(".two." in name for name in trained(tuned)) and tuned.active_adapter == "two"
    np.testing.assert_allclose(logits(tuned), before, rtol=1e-12)
    move(tuned)
    second = logits(tuned)
    assert np.abs(second - first).max() > 1e-3
    with tuned.disable_adapter():
        np.testing.assert_allclose(logits(tuned), before, rtol=1e-12)
    np.testing.assert_array_equal(logits(tuned), second)
    tuned.set_adapter("one")
    np.testing.assert_array_equal(logits(tuned), first)
    with pytest.raises(ValueError, match="adapter_name: expected of one, two, got three"):
        tuned.set_adapter("three")
    for name in ("two", "a.b", "", "train"):
        with pytest.raises(ValueError, match=f"adapter_name: expected a new name without dots, got '{name}'"):
            tuned.add_adapter(name, LoraConfig())
    with pytest.raises(ValueError, match="bias: expected 'none' with several adapters"):
        tuned.add_adapter("three", LoraConfig(bias="all"))
    tuned.delete_adapter("one")
    assert tuned.active_adapter == "two" and not any(".one." in name for name in tuned.state_dict())
    np.testing.assert_array_equal(logits(tuned), second)
    with pytest.raises(ValueError, match="adapter_name: expected one of several, got 'two'"):
        tuned.delete_adapter("two")


def test_changes_of_active_adapters_add_up():
    tuned = get_peft_model(One("linear"), LoraConfig(target_modules=["map"], r=2, lora_alpha=4), "one")
    tuned.add_adapter("two", LoraConfig(target_modules=["map"], r=3, lora_alpha=3))
    tuned.set_adapter(["one", "two"])
    move(tuned)
    layer = tuned.get_base_model().map
    parts = {name: [part[name].weight.detach().numpy() for part in (layer.lora_A, layer.lora_B)] for name in ("one", "two")}
    total = layer.weight.detach().numpy() + 2 * parts["one"][1] @ parts["one"][0] + parts["two"][1] @ parts["two"][0]
    x = np.random.default_rng(1).normal(size=(4, 7))
    want = x @ total.T + layer.bias.detach().numpy()
    np.testing.assert_allclose(tuned(bpnn.from_numpy(x)).detach().numpy(), want, rtol=1e-12)
    tuned.merge_adapter()
    np.testing.assert_allclose(tuned(bpnn.from_numpy(x)).detach().numpy(), want, rtol=1e-12)
    tuned.unmerge_adapter()
    tuned.merge_adapter(["two"])
    one = layer.weight.detach().numpy().copy()
    tuned.unmerge_adapter()
    np.testing.assert_allclose(one - layer.weight.detach().numpy(), parts["two"][1] @ parts["two"][0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_stored_base(make, kind, dora):
    from bpnn.finetune import make_dense

    config = LoraConfig(target_modules="all-linear", use_dora=dora, task_type="CAUSAL_LM")
    tuned = move(get_peft_model(store_frozen(make(dtype="float32"), kind), config), 0.05).eval()
    dense = make_dense(copy.deepcopy(tuned))
    want = logits(dense)
    np.testing.assert_allclose(logits(tuned), want, rtol=2e-4, atol=2e-4)
    assert tuned.get_nb_trainable_parameters() == dense.get_nb_trainable_parameters()
    tuned.train()(IDS, labels=IDS).loss.backward()
    dense.train()(IDS, labels=IDS).loss.backward()
    gradients = {name: p.grad.numpy() for name, p in dense.named_parameters() if p.grad is not None}
    assert set(gradients) == trained(tuned)
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad:
            np.testing.assert_allclose(parameter.grad.numpy(), gradients[name], rtol=5e-3, atol=5e-4, err_msg=name)
    tuned.eval().merge_adapter()
    np.testing.assert_allclose(logits(tuned), want, rtol=1e-3, atol=1e-3)
    tuned.unmerge_adapter()
    np.testing.assert_allclose(logits(tuned), want, rtol=2e-4, atol=2e-4)
    merged = tuned.merge_and_unload()
    assert {name for name, part in merged.named_modules() if isinstance(part, StoredLinear)} <= {"lm_head"}  # which had none
    np.testing.assert_allclose(logits(merged), want, rtol=1e-3, atol=1e-3)


def test_generate_and_attributes():
    model = llama()
    tuned = move(get_peft_model(model, LoraConfig(task_type="CAUSAL_LM")))
    merged = copy.deepcopy(tuned).merge_and_unload()
    written = tuned.eval().generate(IDS, max_new_tokens=5)
    np.testing.assert_array_equal(written, merged.generate(IDS, max_new_tokens=5))
    assert tuned.config is model.config and isinstance(tuned, PeftModel)
    with pytest.raises(AttributeError, match="nothing_like_this"):
        tuned.nothing_like_this


def test_print(capsys):
    get_peft_model(One("linear", 10, 10), LoraConfig(target_modules=["map"], r=5)).print_trainable_parameters()
    assert capsys.readouterr().out == "trainable params: 100 || all params: 210 || trainable%: 47.6190\n"
