"""IA3: the formulas in NumPy, which vectors there are, merging, errors."""
import copy

import numpy as np
import pytest
from adapter_models import bert, gpt2, llama, logits, move, trained
from test_lora import One, run

import bpnn
from bpnn.finetune import IA3Config, LoraConfig, get_peft_model, store_frozen


def scaled(kind, inputs, bias=True):
    """A linear map whose outputs or inputs are scaled; W (out, in), b, l."""
    bpnn.manual_seed(3)
    config = IA3Config(target_modules=["map"], feedforward_modules=["map"] if inputs else [])
    model = move(get_peft_model(One(kind, bias=bias), config))
    layer = model.get_base_model().map
    weight = layer.weight.detach().numpy()
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return model, weight.T if kind == "conv1d" else weight, bias, layer.vector("default").detach().numpy()


@pytest.mark.parametrize(("kind", "bias"), [("linear", True), ("linear", False), ("conv1d", True)])
@pytest.mark.parametrize("inputs", [False, True])
def test_formula(kind, bias, inputs):
    model, w, b, scale = scaled(kind, inputs, bias)
    rng = np.random.default_rng(5)
    x, dy = rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 3, 5))
    y, dx, found = run(model, x, dy)
    assert scale.shape == ((1, 7) if inputs else (5, 1)) and set(found) == {"ia3_l.default"}
    flat = scale.reshape(-1)
    if inputs:
        want, want_dx, want_dl = (x * flat) @ w.T + b, (dy @ w) * flat, ((dy @ w) * x).sum((0, 1))
    else:
        plain = x @ w.T + b
        want, want_dx, want_dl = plain * flat, (dy * flat) @ w, (dy * plain).sum((0, 1))
    np.testing.assert_allclose(y, want, rtol=1e-11)
    np.testing.assert_allclose(dx, want_dx, rtol=1e-11)
    np.testing.assert_allclose(found["ia3_l.default"].reshape(-1), want_dl, rtol=1e-10)


@pytest.mark.parametrize(("make", "outputs", "inputs"), [
    (bert, {"key", "value"}, {"dense"}), (gpt2, {"c_attn"}, {"c_proj"}), (llama, {"k_proj", "v_proj"}, {"down_proj"}),
])
def test_default_targets(make, outputs, inputs):
    model = make()
    before = logits(model)
    tuned = get_peft_model(model, IA3Config(task_type="SEQ_CLS" if make is bert else "CAUSAL_LM")).eval()
    np.testing.assert_array_equal(logits(tuned), before)  # scales are 1
    for layer in tuned.adapter_layers:
        assert layer.path.rpartition(".")[2] in (inputs if layer.is_feedforward else outputs)
    assert all(".ia3_l." in name or ".modules_to_save." in name for name in trained(tuned))


@pytest.mark.parametrize("make", [bert, gpt2, llama])
def test_merge(make):
    tuned = move(get_peft_model(make(), IA3Config(task_type="CAUSAL_LM" if make is not bert else "SEQ_CLS"))).eval()
    want = logits(tuned)
    weights = {name: p.detach().numpy().copy() for name, p in tuned.named_parameters()}
    tuned.merge_adapter()
    np.testing.assert_allclose(logits(tuned), want, rtol=1e-10, atol=1e-12)
    tuned.unmerge_adapter()
    for name, parameter in tuned.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-14)
    np.testing.assert_allclose(logits(copy.deepcopy(tuned).merge_and_unload()), want, rtol=1e-10, atol=1e-12)


def test_stored_base():
    tuned = move(get_peft_model(store_frozen(gpt2(dtype="float32"), "int8"), IA3Config(task_type="CAUSAL_LM"))).eval()
    want = logits(tuned)
    tuned.merge_adapter()
    np.testing.assert_allclose(logits(tuned), want, rtol=1e-3, atol=1e-3)
    tuned.unmerge_adapter()
    np.testing.assert_allclose(logits(tuned), want, rtol=1e-4, atol=1e-5)


def test_several():
    tuned = get_peft_model(One("linear"), IA3Config(target_modules=["map"]), "one")
    tuned.add_adapter("two", IA3Config(target_modules=["map"]))
    tuned.set_adapter(["one", "two"])
    move(tuned)
    layer = tuned.get_base_model().map
    x = bpnn.randn(3, 7, dtype="float64")
    scale = (layer.vector("one") * layer.vector("two")).detach().numpy().reshape(-1)
    np.testing.assert_allclose(tuned(x).detach().numpy(), layer.base_layer(x).detach().numpy() * scale, rtol=1e-12)
    tuned.delete_adapter("two")
    assert tuned.active_adapters == ["one"] and layer.names() == ["one"]


def test_errors():
    with pytest.raises(ValueError, match="feedforward_modules: expected some of target_modules, got wide too"):
        IA3Config(target_modules=["map"], feedforward_modules=["wide"])
    with pytest.raises(ValueError, match="target_modules: expected names"):
        get_peft_model(One("linear"), IA3Config())
    tuned = get_peft_model(One("linear"), IA3Config(target_modules=["map"]))
    with pytest.raises(ValueError, match="feedforward_modules: in another adapter map scales its outputs"):
        tuned.add_adapter("two", IA3Config(target_modules=["map"], feedforward_modules=["map"]))
    with pytest.raises(ValueError, match="peft_config: expected IA3, which the model has, got LORA"):
        tuned.add_adapter("two", LoraConfig(target_modules=["map"]))
    with bpnn.no_grad():
        tuned.get_base_model().map.vector("default")[0] = 0
    with pytest.raises(ZeroDivisionError, match="default scales features of map by 0"):
        tuned.merge_adapter()
