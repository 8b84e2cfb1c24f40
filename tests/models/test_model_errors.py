"""Bad files, configurations and inputs: what is said, and that nothing is lost."""
import json
import struct
import sys

import numpy as np
import pytest
from architectures import ARCHITECTURES, MODELS, inputs, named
from comparing import write_model

import bpnn
from bpnn import models


def loaded(folder, name="bert", head="Model", **changes):
    return getattr(models, ARCHITECTURES[name].prefix + head).from_pretrained(folder, **changes)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """Small models, each made once."""
    made = {}

    def model(name, head):
        if (name, head) not in made:
            made[name, head] = loaded(write_model(tmp_path_factory.mktemp(name), name, head), name, head)
        return made[name, head]

    return model


# --- damaged files -------------------------------------------------------------------------------------------------------------

FIRST = "embeddings.LayerNorm.bias"
SECOND = "embeddings.LayerNorm.weight"


def reheaded(path, change):
    """Write a safetensors file's header again after `change`."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = change(json.loads(data[8:8 + length]))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])


def truncated(path):
    path.write_bytes(path.read_bytes()[:-10])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:40])


def oversized(path):
    path.write_bytes(struct.pack("<Q", 1 << 50) + path.read_bytes()[8:])


def overlapping(path):
    def change(header):
        header[SECOND]["data_offsets"] = header[FIRST]["data_offsets"]
        return header

    reheaded(path, change)


def other_type(kind):
    def damage(path):
        def change(header):
            header[FIRST]["dtype"] = kind
            return header

        reheaded(path, change)

    return damage


def integers(path):
    tensors = bpnn.load(path)
    tensors[FIRST] = bpnn.zeros(32, dtype=bpnn.int64)
    bpnn.save(tensors, path)


def wrong_shape(path):
    def change(header):
        header[FIRST]["shape"] = [2, 32]
        return header

    reheaded(path, change)


@pytest.mark.parametrize(("damage", "error", "message"), [
    (truncated, ValueError, r"tensor '[\w.]+' ends at byte \d+, the file has \d+ bytes of tensors: it is truncated"),
    (cut_header, ValueError, r"is truncated: the header has \d+ bytes, the file has 40"),
    (oversized, ValueError, r"its header would have 1125899906842624 bytes, more than"),
    (overlapping, ValueError, rf"tensor '{SECOND}' begins at byte .*'{FIRST}' ends .*overlap"),
    (other_type("F8_E4M3"), ValueError, rf"tensor '{FIRST}' has type 'F8_E4M3', which bpnn does not read"),
    (other_type("F16"), ValueError, rf"tensor '{FIRST}': shape \(32,\) of F16 takes 64 bytes, data_offsets .* hold 128"),
    (other_type("I32"), RuntimeError, rf"{FIRST}: expected float32, got I32"),
    (integers, RuntimeError, rf"{FIRST}: expected float32, got (I64|int64)"),
    (wrong_shape, ValueError, rf"tensor '{FIRST}': shape \(2, 32\) of F32 takes 256 bytes"),
], ids=lambda value: getattr(value, "__name__", None))
def test_damaged_weights(tmp_path, damage, error, message):
    folder = write_model(tmp_path / "model", "bert", "Model")
    damage(folder / "model.safetensors")
    for kind in (models.BertModel, models.AutoModel):
        with pytest.raises(error, match=r"model\.safetensors(?s:.*)" + message):
            kind.from_pretrained(folder)


def test_pickled_weights(tmp_path):
    folder = write_model(tmp_path / "model", "bert", "Model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for kind in (models.BertModel, models.AutoModel):
        with pytest.raises(ValueError, match=r"pytorch_model\.bin: is pickled.*safetensors"):
            kind.from_pretrained(folder)


def test_missing_files(tmp_path):
    folder = write_model(tmp_path / "model", "bert", "Model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model: has neither model\.safetensors nor"):
        models.BertModel.from_pretrained(folder)
    (folder / "config.json").unlink()
    for kind in (models.BertModel, models.AutoModel, models.AutoConfig, models.BertConfig):
        with pytest.raises(FileNotFoundError, match=r"config\.json: there is no such file"):
            kind.from_pretrained(folder)
        with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such folder"):
            kind.from_pretrained(tmp_path / "nowhere")


def test_missing_and_unexpected_tensors(tmp_path):
    """All that is wrong is said at once, and with the file's name."""
    folder = write_model(tmp_path / "model", "bert", "Model", tensors=lambda tensors: {
        **{key: value for key, value in tensors.items() if key not in (FIRST, "encoder.layer.1.output.dense.weight")},
        "encoder.layer.7.novel": np.ones(2, "float32"), "cls.seq_relationship.bias": np.ones(2, "float32")})
    with pytest.raises(RuntimeError) as caught:
        models.BertModel.from_pretrained(folder)
    text = str(caught.value)
    assert text.startswith(str(folder / "model.safetensors"))
    assert f"missing: {FIRST}, encoder.layer.1.output.dense.weight" in text.replace("bert.", "")
    assert "unexpected: encoder.layer.7.novel\n" in text  # a head that is not asked for is no fault


@pytest.mark.parametrize(("name", "key", "value"), [
    ("bert", "hidden_size", 64), ("roberta", "hidden_size", 64), ("distilbert", "dim", 64), ("gpt2", "n_embd", 64),
    ("llama", "hidden_size", 64), ("qwen2", "hidden_size", 64), ("vit", "hidden_size", 64), ("bert", "vocab_size", 62),
    ("bert", "intermediate_size", 50), ("bert", "num_hidden_layers", 3), ("bert", "num_hidden_layers", 1),
    ("vit", "image_size", 20), ("vit", "patch_size", 8), ("llama", "num_key_value_heads", 1), ("gpt2", "n_positions", 41),
    ("mistral", "head_dim", 16), ("bert", "max_position_embeddings", 39),
])
def test_configuration_that_disagrees_with_the_weights(tmp_path, name, key, value):
    """Every tensor of another shape is named, with both shapes; none is missed."""
    right = loaded(write_model(tmp_path / "right", name, "Model"), name).state_dict()
    config = json.loads((tmp_path / "right" / "config.json").read_text())
    changed = getattr(models, ARCHITECTURES[name].prefix + "Config").from_dict({**config, key: value})
    wrong = getattr(models, ARCHITECTURES[name].prefix + "Model")(changed).state_dict()
    expected = [key for key in right if key in wrong and right[key].shape != wrong[key].shape]
    expected += list(right.keys() ^ wrong.keys())
    assert expected
    with pytest.raises(RuntimeError) as caught:
        loaded(write_model(tmp_path / "wrong", name, "Model", {key: value}), name)
    text = str(caught.value)
    assert str(tmp_path / "wrong" / "model.safetensors") in text
    if name != "vit":  # whose names in files are others
        for item in expected:
            assert item in text
            if item in right and item in wrong:
                assert f"expected shape {tuple(wrong[item].shape)}, got {tuple(right[item].shape)}" in text
    assert text.count("expected shape") == sum(key in right and key in wrong for key in expected)


@pytest.mark.parametrize(("name", "change", "error", "message"), [
    ("bert", {"hidden_size": "32"}, TypeError, "hidden_size: expected int, got '32'"),
    ("bert", {"num_attention_heads": 5}, ValueError, "num_attention_heads|hidden_size"),
    ("gpt2", {"n_head": 5}, ValueError, "n_head|n_embd"),
    ("distilbert", {"n_heads": 5}, ValueError, "n_heads|dim"),
    ("vit", {"num_attention_heads": 5}, ValueError, "num_attention_heads|hidden_size"),
    ("llama", {"num_key_value_heads": 3}, ValueError, "num_key_value_heads"),
    ("bert", {"hidden_act": "gellu"}, ValueError, "hidden_act.*gellu"),
    ("gpt2", {"activation_function": "gellu"}, ValueError, "activation_function.*gellu"),
    ("distilbert", {"activation": "gellu"}, ValueError, "activation.*gellu"),
    ("llama", {"hidden_act": "gellu"}, ValueError, "hidden_act.*gellu"),
    ("vit", {"hidden_act": "gellu"}, ValueError, "hidden_act.*gellu"),
    ("llama", {"rope_scaling": {"rope_type": "yarnish", "factor": 2.0}, "rope_parameters": None}, ValueError, "rope.*yarnish"),
    ("vit", {"patch_size": 5}, (ValueError, RuntimeError), "patch_size|position_embeddings"),
    ("bert", {"model_type": "bart"}, ValueError, "model_type is 'bart', BertConfig reads 'bert'"),
])
def test_configuration_that_makes_no_sense(tmp_path, name, change, error, message):
    folder = write_model(tmp_path / "model", name, "Model", change)
    with pytest.raises(error, match=message):
        loaded(folder, name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "bert", "hidden_size": 32', "\x00\x01"])
def test_damaged_configuration(tmp_path, text):
    folder = write_model(tmp_path / "model", "bert", "Model")
    (folder / "config.json").write_text(text)
    for kind in (models.BertModel, models.AutoModel, models.AutoConfig):
        with pytest.raises(ValueError, match=r"config\.json"):
            kind.from_pretrained(folder)


@pytest.mark.parametrize("content", [{"model_type": "t5"}, {"hidden_size": 3}, {"model_type": 5}, {"model_type": ["bert"]}])
def test_unknown_architecture(tmp_path, content):
    folder = write_model(tmp_path / "model", "bert", "Model")
    (folder / "config.json").write_text(json.dumps(content))
    found = repr(content["model_type"]) if "model_type" in content else "no model_type"
    for kind in (models.AutoModel, models.AutoConfig, models.AutoModelForCausalLM):
        with pytest.raises(ValueError) as caught:
            kind.from_pretrained(folder)
        text = str(caught.value)
        assert str(folder / "config.json") in text and found in text and "bert, camembert, distilbert" in text


# --- bad inputs ----------------------------------------------------------------------------------------------------------------

TEXTS = [(name, head) for name, head in MODELS if not ARCHITECTURES[name].images]
WITH_LABELS = [(name, head) for name, head in MODELS if head != "Model" and head != "ForQuestionAnswering"]


@named(TEXTS)
def test_tokens_out_of_range(model_of, name, head):
    model = model_of(name, head)
    for bad in (61, -1, 2**40):
        for mask in (None, np.array([[1, 1, 1, 1], [1, 1, 1, 0]])):
            ids = np.array([[5, 6, 7, 8], [9, 10, bad, 3]])
            with pytest.raises((IndexError, ValueError), match=rf"input_ids.* {bad}\b") as caught:
                model(input_ids=ids, attention_mask=mask)
            assert "60" in str(caught.value)
    with pytest.raises((TypeError, ValueError), match="input_ids"):
        model(input_ids=np.array([[1.5, 2.0]]))
    with pytest.raises((TypeError, ValueError), match="input_ids"):
        model(input_ids=np.zeros((2, 3, 4), int))
    with pytest.raises((TypeError, ValueError), match="input_ids"):
        model(input_ids=[[1, 2], [3]])


@named(TEXTS)
def test_texts_longer_than_the_context(model_of, name, head):
    model = model_of(name, head)
    for length in (41, 100):
        with pytest.raises(ValueError, match=rf"(?s)\b{length}\b.*\b4[02]\b|\b4[02]\b.*\b{length}\b") as caught:
            model(input_ids=np.full((1, length), 5))
        assert "input_ids" in str(caught.value) or "position_ids" in str(caught.value)
        assert "max_position_embeddings" in str(caught.value) or "n_positions" in str(caught.value)
    if "left" in ARCHITECTURES[name].padding and head != "ForSequenceClassification":
        with bpnn.no_grad():
            cache = model(input_ids=np.full((1, 39), 5), use_cache=True).past_key_values
            model(input_ids=np.full((1, 1), 5), past_key_values=cache, use_cache=True)
            with pytest.raises(ValueError, match=r"\b41\b"):
                model(input_ids=np.full((1, 1), 5), past_key_values=cache, use_cache=True)
    if name != "distilbert":
        with pytest.raises((IndexError, ValueError), match=r"position_ids.*\b9999\b"):
            model(input_ids=np.array([[5, 6]]), position_ids=np.array([[0, 9999]]))


@named(TEXTS)
def test_masks_of_another_shape(model_of, name, head):
    model = model_of(name, head)
    for mask in (np.ones((2, 4)), np.ones((1, 3)), np.ones(3), np.ones((3, 3, 1))):
        with pytest.raises(ValueError, match=r"attention_mask.*\(2, 3\)"):
            model(input_ids=np.array([[5, 6, 7], [8, 9, 10]]), attention_mask=mask.astype(int))
    if name == "bert":
        with pytest.raises(ValueError, match="token_type_ids"):
            model(input_ids=np.array([[5, 6, 7]]), token_type_ids=np.zeros((1, 2), int))
        with pytest.raises((IndexError, ValueError), match=r"token_type_ids.*\b2\b"):
            model(input_ids=np.array([[5, 6, 7]]), token_type_ids=np.array([[0, 1, 2]]))


@named(WITH_LABELS)
def test_labels_out_of_range(model_of, name, head):
    model, about = model_of(name, head), ARCHITECTURES[name]
    given = inputs(about, head, "small", about.config("small"))
    for bad in (61, -1):
        labels = given["labels"].copy()
        labels.reshape(-1)[-1] = bad
        with pytest.raises((IndexError, ValueError), match=rf"labels.*{bad}"):
            model(**{**given, "labels": labels}).loss
    with pytest.raises(ValueError, match="labels"):
        model(**{**given, "labels": given["labels"][:2]}).loss


@named([(name, head) for name, head in MODELS if ARCHITECTURES[name].images])
def test_images_of_another_size(model_of, name, head):
    model = model_of(name, head)
    for shape in ((1, 3, 16, 20), (1, 1, 16, 16), (3, 16, 16), (1, 3, 8, 8)):
        with pytest.raises(ValueError, match="pixel_values"):
            model(pixel_values=np.zeros(shape, "float32"))


def test_unknown_arguments(model_of, tmp_path):
    model = model_of("bert", "Model")
    folder = write_model(tmp_path / "model", "bert", "Model")
    for given in ({"input_idz": np.array([[1]])}, {"input_ids": np.array([[1]]), "attention_masks": np.array([[1]])}):
        with pytest.raises(TypeError, match="input_idz|attention_masks"):
            model(**given)
    with pytest.raises(TypeError, match="config: .*hiden_size"):
        models.BertModel.from_pretrained(folder, config=model.config, hiden_size=3)


# --- nothing is lost -----------------------------------------------------------------------------------------------------------

def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_failed_save_leaves_the_folder(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "model", "bert", "Model")
    model = models.BertModel.from_pretrained(folder)
    before = contents(folder)
    with pytest.raises((TypeError, ValueError), match="float17"):
        model.save_pretrained(folder, dtype="float17")
    assert contents(folder) == before

    saving = sys.modules["bpnn.pretrained.saving"]
    monkeypatch.setattr(saving, "_bfloat16", lambda array: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(folder, dtype="bfloat16")  # fails in the middle of the file
    assert contents(folder) == before


def test_a_failed_load_changes_nothing(tmp_path):
    from bpnn.pretrained import open_weights

    model = models.BertModel.from_pretrained(write_model(tmp_path / "model", "bert", "Model"))
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    other = write_model(tmp_path / "other", "bert", "Model", tensors=lambda tensors: {
        key: 2 * value for key, value in tensors.items() if key != FIRST})
    with pytest.raises(RuntimeError, match=FIRST):
        model.load_file(open_weights(other))
    assert all(np.array_equal(value.numpy(), before[key]) for key, value in model.state_dict().items())


def test_saving_into_the_folder_it_came_from(tmp_path):
    """The file that weights are mapped from is replaced, not written into; whole and in parts."""
    folder = write_model(tmp_path / "model", "bert", "Model")
    model = models.BertModel.from_pretrained(folder)
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    for size in (None, 20_000, None):
        model.save_pretrained(folder, max_shard_size=size)
        again = models.BertModel.from_pretrained(folder).state_dict()
        assert all(np.array_equal(again[key].numpy(), value) for key, value in before.items())
        assert all(np.array_equal(value.numpy(), before[key]) for key, value in model.state_dict().items())
