"""Configurations as people write them, options of `from_pretrained`, tables of tokens that grow."""
import json
import warnings

import numpy as np
import pytest

import bpnn
from bpnn import models

SMALL = {
    "Bert": {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12,
             "max_position_embeddings": 9},
    "DistilBert": {"vocab_size": 11, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 9},
    "GPT2": {"vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 9},
    "Llama": {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12,
              "max_position_embeddings": 9},
}
SMALL["Roberta"] = SMALL["Bert"]


def build(kind, head, **changes):
    return getattr(models, kind + head)(getattr(models, kind + "Config")(**{**SMALL[kind], **changes})).eval()


# --- keys -----------------------------------------------------------------------------------------------------------------

def test_constructors_take_what_files_have():
    config = models.BertConfig(num_labels=3, use_cache=True)
    assert config.num_labels == 3 and config.use_cache is True and config.extra == {"use_cache": True}
    config.num_labels = 4
    config.output_attentions = True
    assert config.label_name(3) == config.id2label[3] == "LABEL_3" and config.to_dict()["output_attentions"] is True
    config = models.GPT2Config(hidden_size=32)
    assert config.n_embd == config.hidden_size == 32
    config.hidden_size = 99
    assert config.n_embd == 99 and config.to_dict()["n_embd"] == 99 and "hidden_size" not in config.to_dict()
    assert models.LlamaConfig(num_labels=0).num_labels == 0
    with pytest.raises(ValueError, match="hidden_size is 3, but n_embd"):
        models.GPT2Config(n_embd=4, hidden_size=3)
    for wrong in ({"hidden_size": "8"}, {"num_labels": "3"}, {"num_labels": True}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            models.BertConfig(**wrong)
    with pytest.raises(TypeError, match="positional"):
        models.BertConfig(8)


@pytest.mark.parametrize("kind", ["Bert", "Llama", "Qwen2"])
def test_labels_go_by_number(kind, tmp_path):
    config = getattr(models, kind + "Config")(id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    again = type(config).from_pretrained(tmp_path)
    assert again.id2label[1] == again.label_name(1) == "good" and again == config and again.label2id == {"bad": 0, "good": 1}
    assert type(config).from_dict(again.to_dict(), num_labels=2).id2label[0] == "bad"  # the same number: the names stay
    assert type(config).from_dict(again.to_dict(), num_labels=3).id2label[2] == "LABEL_2"
    with pytest.raises(ValueError, match="id2label"):
        type(config)(id2label={"a": "b"})


# --- from_pretrained ------------------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
    build("Bert", "ForSequenceClassification", num_labels=3).save_pretrained(tmp_path)
    return tmp_path


def test_types_of_numbers(folder):
    read = models.BertForSequenceClassification.from_pretrained
    assert read(folder, dtype="auto").dtype == read(folder, torch_dtype="float32").dtype == np.float32
    assert read(folder, torch_dtype=bpnn.float64).dtype == np.float64
    assert models.AutoModel.from_pretrained(folder, torch_dtype="float64").dtype == np.float64
    for wrong in ("float16", "bfloat16", np.int64, "nonsense"):
        with pytest.raises(ValueError, match="dtype: expected float32"):
            read("no/such/folder", dtype=wrong)


def test_options_of_the_loader(folder):
    read = models.AutoModelForSequenceClassification.from_pretrained
    model = read(
        folder, device_map="cpu", low_cpu_mem_usage=True, trust_remote_code=False, attn_implementation="sdpa", token=None,
        use_safetensors=True, cache_dir=folder / "cache", output_hidden_states=True, hidden_dropout_prob=0.0,
    )
    assert model.config.extra["output_hidden_states"] is True and not {"device_map", "token", "cache_dir"} & {*model.config.extra}
    with pytest.raises(TypeError, match="hiden_dropout: neither"):
        read(folder, hiden_dropout=0.0)
    for wrong in ({"device_map": "cuda"}, {"trust_remote_code": True}, {"quantization_config": {}}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read(folder, **wrong)


def test_a_head_of_another_size(folder):
    read = models.BertForSequenceClassification.from_pretrained
    with pytest.raises(RuntimeError, match="classifier.weight"):
        read(folder, num_labels=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = read(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert "has no classifier.weight of this size, classifier.bias of this size" in str(caught[0].message)
    assert caught[0].filename == __file__ and len(caught) == 1
    assert model.classifier.weight.shape == (5, 8)
    with pytest.warns(UserWarning, match="qa_outputs") as caught:
        models.AutoModelForQuestionAnswering.from_pretrained(folder, num_labels=2)
    assert caught[0].filename == __file__
    with pytest.raises(RuntimeError, match="word_embeddings"):
        read(folder, vocab_size=12, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("name", ["xlm-roberta", "camembert"])
def test_other_names_of_roberta(name, tmp_path):
    build("Roberta", "Model", model_type=name).save_pretrained(tmp_path / "one")
    for cls in (models.RobertaModel, models.AutoModel):
        model = cls.from_pretrained(tmp_path / "one")
        assert type(model) is models.RobertaModel
        model.save_pretrained(tmp_path / "two")
        assert json.loads((tmp_path / "two" / "config.json").read_text())["model_type"] == name
    with pytest.raises(ValueError, match="BertConfig reads 'bert'"):
        models.BertModel.from_pretrained(tmp_path / "one")


def test_shards_of_an_earlier_index_are_removed(tmp_path):
    model = build("Bert", "Model")
    assert len(model.save_pretrained(tmp_path, max_shard_size=1500)) > 2
    (tmp_path / "other-00001-of-00002.safetensors").write_bytes(b"kept")
    assert len(model.save_pretrained(tmp_path, max_shard_size=3000)) > 1
    listed = {*json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values()}
    assert {path.name for path in tmp_path.glob("model-*.safetensors")} == listed
    model.save_pretrained(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.json", "model.safetensors", "other-00001-of-00002.safetensors"}


# --- tables of tokens -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "head"), [
    ("Bert", "ForMaskedLM"), ("Roberta", "ForMaskedLM"), ("DistilBert", "ForMaskedLM"), ("GPT2", "LMHeadModel"),
    ("Llama", "ForCausalLM"),
])
def test_vocabularies_grow_and_shrink(kind, head, tied, tmp_path):
    model = build(kind, head, tie_word_embeddings=tied)
    tokens = [[3, 5, 7]]
    before = model(tokens).logits.detach().numpy()
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    assert model.resize_token_embeddings(11) is table and table.weight.shape == (11, 8)
    model.resize_token_embeddings(14)
    assert model.config.vocab_size == 14 and table.weight.shape == output.weight.shape == (14, 8)
    assert (output.weight is table.weight) is tied and np.abs(table.weight.detach().numpy()[11:]).min() > 0
    after = model(tokens).logits.detach().numpy()
    assert after.shape == (1, 3, 14) and np.allclose(after[..., :11], before, atol=1e-6)
    model([[13, 12]], labels=[[13, 12]]).loss.backward()
    assert table.weight.grad is not None and table.weight.grad.shape == (14, 8)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert np.array_equal(again(tokens).logits.detach().numpy(), after)
    model.resize_token_embeddings(9, pad_to_multiple_of=5)
    assert np.allclose(model(tokens).logits.detach().numpy(), before[..., :10], atol=1e-6)
    model.set_input_embeddings(bpnn.nn.Embedding(10, 8))
    assert model.get_input_embeddings() is not table
    assert (output.weight is model.get_input_embeddings().weight) is tied
    assert model.device == "cpu" and model.dtype == np.float32


def test_models_without_a_table_of_tokens():
    model = models.ViTModel(models.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
    ))
    with pytest.raises(TypeError, match="ViTModel: has no table of tokens"):
        model.resize_token_embeddings(3)
    assert model.get_output_embeddings() is None and build("Bert", "Model").get_output_embeddings() is None
    with pytest.raises(ValueError, match="new_num_tokens"):
        build("Roberta", "Model").resize_token_embeddings(1)
