"""Classes by `model_type`: which is chosen, from which sources; the package's names."""
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from architectures import ARCHITECTURES, MODELS, named
from comparing import stored_numbers, write_model
from drawing import weight

import bpnn
from bpnn import models
from bpnn.models import auto

TASK = {"Model": "AutoModel", "LMHeadModel": "AutoModelForCausalLM"}


@named(MODELS)
def test_every_class_is_found(tmp_path, name, head):
    folder = write_model(tmp_path / "model", name, head)
    wanted = getattr(models, ARCHITECTURES[name].prefix + head)
    found = getattr(models, TASK.get(head, "Auto" + "Model" + head))
    model = found.from_pretrained(folder)
    plain = wanted.from_pretrained(folder)
    assert type(model) is wanted and not model.training
    assert all(np.array_equal(value.numpy(), model.state_dict()[key].numpy()) for key, value in plain.state_dict().items())
    config = models.AutoConfig.from_pretrained(folder)
    assert type(config) is wanted.config_class and config == plain.config
    assert models.AutoConfig.from_pretrained(folder / "config.json") == config
    fresh = found.from_config(config)
    assert type(fresh) is wanted and fresh.num_parameters() == model.num_parameters()
    model.save_pretrained(tmp_path / "again")
    assert type(found.from_pretrained(tmp_path / "again")) is wanted


def test_changes(tmp_path):
    folder = write_model(tmp_path / "model", "bert", "Model")
    with pytest.warns(UserWarning, match=r"model\.safetensors: has no classifier\.weight, classifier\.bias"):
        model = models.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5, dtype="float64")
    assert model.classifier.weight.shape == (5, 32) and model.classifier.weight.dtype == bpnn.float64
    config = models.AutoConfig.from_pretrained(folder, num_hidden_layers=1)
    assert config.num_hidden_layers == 1
    small = models.AutoModel.from_config(config, hidden_size=16, num_attention_heads=2)
    assert small.config.hidden_size == 16 and len(small.encoder.layer) == 1
    assert models.AutoConfig.for_model("gpt2", n_layer=2).n_layer == 2
    with pytest.raises(ValueError, match="model_type is 'bloom', of which bpnn has no model; it knows bert"):
        models.AutoConfig.for_model("bloom")
    with pytest.raises(TypeError, match="config: "):
        models.AutoModel.from_pretrained(folder, config=models.AutoConfig.from_pretrained(folder), hidden_size=16)


def test_no_model_for_the_task(tmp_path):
    """The error names the file, the type, what there is for it, and for which types the class is."""
    folder = write_model(tmp_path / "model", "vit", "Model")
    with pytest.raises(ValueError) as caught:
        models.AutoModelForCausalLM.from_pretrained(folder)
    assert str(caught.value) == (
        f"{folder / 'config.json'}: model_type 'vit' has no model for AutoModelForCausalLM; it has AutoModel, "
        "AutoModelForImageClassification; AutoModelForCausalLM knows gpt2, llama, mistral, qwen2")


@pytest.mark.parametrize("kind", ["xlm-roberta", "camembert"])
def test_other_names_of_roberta(tmp_path, kind):
    folder = write_model(tmp_path / "model", "roberta", "ForMaskedLM", {"model_type": kind})
    model = models.AutoModelForMaskedLM.from_pretrained(folder)
    assert type(model) is models.RobertaForMaskedLM
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["model_type"] == kind


def test_llama2c(data_dir):
    path = data_dir / "stories260K" / "stories260K.bin"
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert models.AutoConfig.from_pretrained(path).num_hidden_layers == 5
    model = models.AutoModelForCausalLM.from_pretrained(path)
    assert type(model) is models.LlamaForCausalLM
    ids = [1]
    with bpnn.no_grad():
        for _ in range(12):
            ids.append(int(model(np.array([ids])).logits[0, -1].argmax()))
    pytest.importorskip("tokenizers")
    tokenizer = bpnn.pretrained.AutoTokenizer.from_pretrained(path.parent / "tok512.bin")
    assert tokenizer.decode(ids, skip_special_tokens=True).strip().startswith("Once upon a time, there was a little girl")
    with pytest.raises(ValueError, match=r"stories260K\.bin: model_type 'llama' has no model for AutoModelForMaskedLM"):
        models.AutoModelForMaskedLM.from_pretrained(path)


def test_gguf(tmp_path):
    """A GGUF file says what its model is."""
    gguf = pytest.importorskip("gguf")
    content = stored_numbers("llama")["ForCausalLM"]
    config = content["config"]
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "model.layers.": "blk.",
    }
    tensors = {key: weight(key, shape) for key, shape in content["shapes"].items()}
    for key, value in tensors.items():
        heads = config["num_attention_heads"] if "q_proj" in key else config["num_key_value_heads"] if "k_proj" in key else 0
        if heads:  # halves of a head to neighboring pairs, as llama.cpp stores them
            value = value.reshape(heads, 2, -1, value.shape[-1]).swapaxes(1, 2).reshape(value.shape)
        for old, new in names.items():
            key = key.replace(old, new)
        writer.add_tensor(key, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = models.AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    assert type(model) is models.LlamaForCausalLM
    assert type(models.AutoModel.from_pretrained(tmp_path / "x.gguf")) is models.LlamaModel
    assert all(np.array_equal(model.state_dict()[key].numpy(), value) for key, value in tensors.items())
    folder = write_model(tmp_path / "model", "llama", "ForCausalLM")
    ids = np.array([[1, 5, 9, 33]])
    with bpnn.no_grad():
        assert np.array_equal(
            model(ids).logits.numpy(), models.AutoModelForCausalLM.from_pretrained(folder)(ids).logits.numpy())


# --- names of the package ------------------------------------------------------------------------------------------------------

def test_every_name_of_the_package():
    for name in models.__all__:
        assert getattr(models, name).__name__ == name
        assert name in dir(models)
    with pytest.raises(AttributeError, match="module 'bpnn.models' has no attribute 'Bort'"):
        models.Bort
    declared = (Path(models.__file__).read_text().split("if _TYPE_CHECKING:")[1]).split("\n\n")[0]
    assert all(name in declared for name in models._LATER)


def test_the_tables_name_what_there_is():
    for table in (auto.CONFIGS, *(task.classes for task in auto._TASKS)):
        for kind, (module, name) in table.items():
            found = getattr(importlib.import_module(f"bpnn.models.{module}"), name)
            assert getattr(models, name) is found
            assert getattr(found, "config_class", found).model_type == kind


def test_architectures_are_imported_when_asked_for():
    code = (
        "import sys, bpnn.models as m\n"
        "late = lambda: [n for n in ('bert', 'gpt2', 'auto', 'vit') if 'bpnn.models.' + n in sys.modules]\n"
        "assert not late() and 'bpnn.pretrained' not in sys.modules\n"
        "m.BertConfig\n"
        "assert late() == ['bert'], late()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
