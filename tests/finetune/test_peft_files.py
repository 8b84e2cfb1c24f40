"""Adapters' files: the same bytes back, PEFT's both ways with equal outputs and gradients, and everything wrong said at once."""
import importlib.util
import json

import numpy as np
import pytest
from adapter_models import IDS, bert, gpt2, llama, logits, move

import bpnn
from bpnn import finetune, models
from bpnn.finetune import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from bpnn.finetune._targets import file_name
from bpnn.pretrained.safetensors_file import open_safetensors

SEQ = {"task_type": "SEQ_CLS"}
LM = {"task_type": "CAUSAL_LM"}
CASES = {
    "lora": (bert, LoraConfig(r=3, lora_alpha=5, lora_dropout=0.1, bias="lora_only", **SEQ)),
    "all biases": (bert, LoraConfig(bias="all", use_rslora=True, **SEQ)),
    "dora": (gpt2, LoraConfig(use_dora=True, target_modules=["c_attn", "c_proj"], rank_pattern={"c_proj": 2}, **LM)),
    "regular expression": (llama, LoraConfig(target_modules=r".*\.1\..*proj", alpha_pattern={"q_proj": 3.5}, **LM)),
    "layers": (llama, LoraConfig(layers_to_transform=[0], layers_pattern="layers", **LM)),
    "ia3": (bert, IA3Config(**SEQ)),
    "ia3 of gpt2": (gpt2, IA3Config(**LM)),
    "prompt": (bert, PromptTuningConfig(num_virtual_tokens=3, **SEQ)),
    "prefix": (llama, PrefixTuningConfig(num_virtual_tokens=3, **LM)),
    "projected prefix": (gpt2, PrefixTuningConfig(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=5, **LM)),
}


def saved(folder, case="lora"):
    """An adapter's folder, and the model that wrote it."""
    make, config = CASES[case]
    model = move(get_peft_model(make(dtype="float32"), config)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("case", CASES)
def test_back_and_forth(tmp_path, case):
    model = saved(tmp_path / "one", case)
    back = PeftModel.from_pretrained(CASES[case][0](dtype="float32"), tmp_path / "one")
    assert type(back) is type(model) and not back.training
    assert not any(parameter.requires_grad for parameter in back.parameters())
    close = 1e-6 if case == "projected prefix" else 0  # which is read as what it computed
    np.testing.assert_allclose(logits(back), logits(model), rtol=close, atol=close)
    back.save_pretrained(tmp_path / "two")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = PeftModel.from_pretrained(CASES[case][0](dtype="float32"), tmp_path / "one", is_trainable=True)
    assert any(parameter.requires_grad for parameter in again.parameters())


def test_names_and_settings(tmp_path):
    saved(tmp_path)
    names = set(open_safetensors(tmp_path / "adapter_model.safetensors"))
    layers = [f"base_model.model.bert.encoder.layer.{i}.attention.self.{name}" for i in (0, 1) for name in ("query", "value")]
    assert names == {
        *(f"{layer}.{part}" for layer in layers for part in ("lora_A.weight", "lora_B.weight", "base_layer.bias")),
        "base_model.model.classifier.weight", "base_model.model.classifier.bias",
    }
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["inference_mode"] and config["modules_to_save"] == ["classifier", "score"]
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5, ["query", "value"])


def test_others_go_into_folders_of_their_own(tmp_path):
    model = get_peft_model(bert(dtype="float32"), LoraConfig(**SEQ))
    model.add_adapter("french", LoraConfig(r=2, **SEQ))
    model.set_adapter("french")
    move(model).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").is_file() and (tmp_path / "french" / "adapter_model.safetensors").is_file()
    back = PeftModel.from_pretrained(bert(dtype="float32"), tmp_path)
    before = logits(back)
    back.load_adapter(tmp_path / "french", "fr")
    np.testing.assert_array_equal(logits(back), before)
    back.set_adapter("fr", inference_mode=True)
    np.testing.assert_array_equal(logits(back), logits(model))
    assert not any(parameter.requires_grad for parameter in back.parameters())
    with pytest.raises(ValueError, match="selected_adapters: expected of default, fr, got german"):
        back.save_pretrained(tmp_path, ["german"])


def test_a_loaded_adapter_has_no_dropout(tmp_path):
    for name, options in {"one": {"target_modules": ["query"]}, "two": {"target_modules": ["key"], "lora_dropout": 0.5}}.items():
        move(get_peft_model(bert(), LoraConfig(**options))).save_pretrained(tmp_path / name)
    tuned = PeftModel.from_pretrained(bert(), tmp_path / "one")
    tuned.load_adapter(tmp_path / "two", "two")
    tuned.set_adapter("two")
    np.testing.assert_array_equal(logits(tuned), logits(tuned))


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "drop"}))


@pytest.mark.parametrize(("changes", "told"), [
    ({"use_qalora": True}, "use_qalora: expected nothing, for LORA has no such setting here, got True"),
    ({"layer_replication": [[0, 1]]}, r"layer_replication.*got \[\[0, 1\]\]"),
    ({"megatron_core": "other"}, "megatron_core.*got 'other'"),
    ({"qalora_group_size": 8}, "qalora_group_size.*got 8"),
    ({"something_new": 0.5}, "something_new.*got 0.5"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights.*'pissa'"),
    ({"peft_type": "LOHA"}, "peft_type: expected LORA, IA3, PROMPT_TUNING, PREFIX_TUNING, got 'LOHA'"),
    ({"peft_type": "drop"}, "peft_type: expected .* got None"),
    ({"r": 0}, "r: expected a whole number above 0, got 0"),
])
def test_settings_that_there_are_not(tmp_path, changes, told):
    saved(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"adapter_config\.json.*" + told):
        PeftModel.from_pretrained(bert(dtype="float32"), tmp_path)


def test_types_of_settings(tmp_path):
    saved(tmp_path)
    edit(tmp_path, lora_alpha="16")
    with pytest.raises(TypeError, match=r"adapter_config\.json: lora_alpha: expected int or float, got '16'"):
        PeftModel.from_pretrained(bert(dtype="float32"), tmp_path)


def test_settings_that_change_nothing(tmp_path):
    model = saved(tmp_path)
    edit(tmp_path, use_qalora=False, loftq_config={}, layer_replication=None, megatron_core="megatron.core", qalora_group_size=16,
         peft_version="9.9", auto_mapping={"parent_library": "x"}, eva_config=None, trainable_token_indices=[], alora="")
    np.testing.assert_array_equal(logits(PeftModel.from_pretrained(bert(dtype="float32"), tmp_path)), logits(model))


def test_every_wrong_tensor_is_named_and_nothing_is_changed(tmp_path):
    saved(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = {name: bpnn.from_numpy(array.copy()) for name, array in open_safetensors(path).items()}
    layer = "base_model.model.bert.encoder.layer.0.attention.self"
    del tensors[f"{layer}.query.lora_A.weight"], tensors["base_model.model.classifier.bias"]
    tensors[f"{layer}.value.lora_B.weight"] = bpnn.zeros(16, 4)
    tensors[f"{layer}.key.lora_B.weight"] = bpnn.zeros(2, 2)
    tensors[f"{layer}.value.lora_A.weight"] = bpnn.zeros(3, 16, dtype="int64")
    bpnn.save(tensors, path)
    model = bert(dtype="float32")
    before = logits(model)
    with pytest.raises(RuntimeError) as caught:
        PeftModel.from_pretrained(model, tmp_path)
    for told in (
        "adapter_model.safetensors does not fit BertForSequenceClassification", "missing: ", f"{layer}.query.lora_A.weight",
        "base_model.model.classifier.bias", f"unexpected: {layer}.key.lora_B.weight",
        f"{layer}.value.lora_B.weight: expected shape (16, 3), got (16, 4)",
        f"{layer}.value.lora_A.weight: expected float32, got I64",
    ):
        assert told in str(caught.value)
    np.testing.assert_array_equal(logits(model), before)  # the model is the plain one again
    assert isinstance(model.classifier, bpnn.nn.Linear)
    edit(tmp_path, bias="none")
    tuned = get_peft_model(model, LoraConfig(**SEQ))
    with pytest.raises(RuntimeError, match="missing"):
        tuned.load_adapter(tmp_path, "two")
    assert list(tuned.peft_config) == ["default"] and not any(".two." in name for name in tuned.state_dict())


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder|no such folder|neither a folder"):
        PeftModel.from_pretrained(bert(), tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json: there is no such file"):
        PeftModel.from_pretrained(bert(), tmp_path)
    saved(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match=r"adapter_model\.safetensors: there is no such file.*not in a pickle"):
        PeftModel.from_pretrained(bert(dtype="float32"), tmp_path)


def test_both_names_of_vit(tmp_path):
    """ViT's modules have other names in files of transformers 5; adapters are read under both and written under those."""
    def make():
        bpnn.manual_seed(3)
        return models.ViTForImageClassification(models.ViTConfig(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, image_size=8, patch_size=4)).eval()

    options = {"modules_to_save": ["classifier"], "target_modules": ["query", "output.dense"], "rank_pattern": {"query": 2}}
    pixels = np.random.default_rng(2).normal(size=(2, 3, 8, 8)).astype(np.float32)
    model = move(get_peft_model(make(), LoraConfig(**options))).eval()
    model.save_pretrained(tmp_path)
    names = [f"vit.layers.{i}.{part}" for i in (0, 1) for part in ("attention.q_proj", "attention.o_proj", "mlp.fc2")]
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == sorted(names)
    assert config["rank_pattern"] == {name: 2 for name in names if "q_proj" in name}
    np.testing.assert_array_equal(logits(PeftModel.from_pretrained(make(), tmp_path), pixels), logits(model, pixels))
    edit(tmp_path, target_modules=["query", "output.dense"], rank_pattern={"query": 2})  # as written with transformers 4
    tensors = {}
    for name, array in open_safetensors(tmp_path / "adapter_model.safetensors").items():
        for new, old in (("layers.", "encoder.layer."), ("attention.q_proj", "attention.attention.query"),
                         ("attention.o_proj", "attention.output.dense"), ("mlp.fc2", "output.dense")):
            name = name.replace(new, old)
        tensors[name] = bpnn.from_numpy(array.copy())
    bpnn.save(tensors, tmp_path / "adapter_model.safetensors")
    np.testing.assert_array_equal(logits(PeftModel.from_pretrained(make(), tmp_path), pixels), logits(model, pixels))


# --- PEFT ----------------------------------------------------------------------------------------------------------------------

LORA, IA3 = "LoraConfig", "IA3Config"
VIT = {"modules_to_save": ["classifier"]}
RIVALS = [
    ("bert", "ForSequenceClassification", LORA, {"lora_alpha": 16, **SEQ}),
    ("bert", "ForSequenceClassification", LORA, {"use_dora": True, "bias": "all", **SEQ}),
    ("bert", "ForTokenClassification", LORA, {"use_rslora": True, "bias": "lora_only", "task_type": "TOKEN_CLS"}),
    ("bert", "ForQuestionAnswering", LORA, {"task_type": "QUESTION_ANS"}),
    ("roberta", "ForSequenceClassification", LORA, {"target_modules": "all-linear", **SEQ}),
    ("distilbert", "ForSequenceClassification", LORA, {"target_modules": ["q_lin", "v_lin"], **SEQ}),
    ("gpt2", "LMHeadModel", LORA, LM),
    ("gpt2", "LMHeadModel", LORA, {"use_dora": True, "target_modules": ["c_attn", "c_proj"], "rank_pattern": {"c_proj": 3}, **LM}),
    ("gpt2", "ForSequenceClassification", LORA, SEQ),
    ("llama", "ForCausalLM", LORA, {"target_modules": "all-linear", **LM}),
    ("llama", "ForCausalLM", LORA, {"layers_to_transform": [1], "layers_pattern": "layers", "alpha_pattern": {"v_proj": 3}, **LM}),
    ("llama", "ForCausalLM", LORA, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"], **LM}),
    ("mistral", "ForSequenceClassification", LORA, {"use_dora": True, "use_rslora": True, **SEQ}),
    ("qwen2", "ForCausalLM", LORA, {"target_modules": r".*\.1\..*(q|v)_proj", **LM}),
    ("vit", "ForImageClassification", LORA, {"target_modules": ["q_proj", "fc2"], **VIT}),
    ("vit", "ForImageClassification", LORA, {"target_modules": "all-linear", "use_dora": True, "rank_pattern": {"fc1": 3}}),
    ("bert", "ForSequenceClassification", IA3, SEQ),
    ("gpt2", "LMHeadModel", IA3, LM),
    ("llama", "ForCausalLM", IA3, LM),
    ("qwen2", "ForCausalLM", IA3, LM),
    ("vit", "ForImageClassification", IA3, {"target_modules": ["v_proj", "fc2"], "feedforward_modules": ["fc2"], **VIT}),
]
PROJECTION = {"prefix_projection": True, "encoder_hidden_size": 5}
VIRTUAL = [("PromptTuningConfig", {}), ("PrefixTuningConfig", {}), ("PrefixTuningConfig", PROJECTION)]
READERS = [
    ("bert", "ForSequenceClassification", SEQ), ("bert", "ForTokenClassification", {"task_type": "TOKEN_CLS"}),
    ("roberta", "ForSequenceClassification", SEQ), ("gpt2", "LMHeadModel", LM), ("llama", "ForCausalLM", LM),
    ("llama", "ForSequenceClassification", SEQ),
]
RIVALS += [
    (name, head, kind, {"num_virtual_tokens": 3, **more, **task}) for kind, more in VIRTUAL for name, head, task in READERS
]
IDENTITIES = [f"{name}-{kind[:6]}-{'-'.join(map(str, options))}" for name, _, kind, options in RIVALS]


@pytest.mark.rivals
@pytest.mark.parametrize(("name", "head", "kind", "options"), RIVALS, ids=IDENTITIES)
def test_as_peft(tmp_path, name, head, kind, options):
    if importlib.util.find_spec("peft") is None:
        pytest.skip("needs peft")
    from peft_rival import Pair, differ

    side = None if name == "vit" else "right"
    pair = Pair(str(tmp_path), name, head, kind, side, **options)
    want = pair.values(pair.theirs)
    np.testing.assert_allclose(pair.values(pair.own), want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(pair.values(pair.written()), want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    new = get_peft_model(pair.reference.own(dtype="float64"), pair.own_config)
    trained = {file_name(path, name): tuple(p.shape) for path, p in new.named_parameters() if p.requires_grad}
    assert trained == {path: tuple(p.shape) for path, p in pair.theirs.named_parameters() if p.requires_grad}
    assert new.get_nb_trainable_parameters() == pair.theirs.get_nb_trainable_parameters()
    if "prefix_projection" in options or (kind == "PromptTuningConfig" and options["task_type"] == "TOKEN_CLS"):
        return  # the file has what the projection gives; PEFT has no loss there
    lines = differ(*reversed(pair.gradients()))
    assert not lines, lines
    merged = pair.own.eval()
    if kind in (LORA, IA3):
        plain = merged.merge_and_unload()
        np.testing.assert_allclose(pair.values(plain), want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.rivals
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
@pytest.mark.parametrize(("name", "head"), [("gpt2", "LMHeadModel"), ("llama", "ForCausalLM")])
def test_generate_as_peft(tmp_path, name, head, kind):
    if importlib.util.find_spec("peft") is None:
        pytest.skip("needs peft")
    import torch
    from peft_rival import Pair

    pair = Pair(str(tmp_path), name, head, kind, num_virtual_tokens=3, **LM)
    mask = np.ones((1, 7), np.int64)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    pair.theirs.eval()
    want = pair.theirs.generate(input_ids=torch.from_numpy(IDS[:1]), attention_mask=torch.from_numpy(mask), **settings)
    np.testing.assert_array_equal(pair.own.eval().generate(IDS[:1], mask, **settings), want.numpy())


def test_public_names():
    for name in ("LoraConfig", "IA3Config", "PromptTuningConfig", "PrefixTuningConfig", "get_peft_model", "PeftModel", "bitfit"):
        assert getattr(finetune, name) and name in finetune.__all__
