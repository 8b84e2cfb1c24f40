"""From files into models and back: names, tied and transposed tensors, configurations."""
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import bpnn
from bpnn import nn
from bpnn.pretrained import PretrainedConfig, load_into, open_weights, read_config, save_weights, write_config


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(3, 6)
        self.LayerNorm = nn.LayerNorm(3)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(5, 3)
        self.h = nn.ModuleList([Block(), Block()])


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = Base()
        self.lm_head = nn.Linear(3, 5, bias=False)
        self.lm_head.weight = self.transformer.wte.weight


def arrays_of(model):
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def same(model, arrays):
    return all(np.array_equal(value.numpy(), arrays[name]) for name, value in model.state_dict().items())


@pytest.fixture
def head():
    bpnn.manual_seed(1)
    return Head()


def test_there_and_back(tmp_path, head):
    files = save_weights(head, tmp_path, transposed=["*.c_attn.weight"])
    assert files == ["model.safetensors"]
    stored = load_file(tmp_path / files[0])  # the reference implementation reads it
    assert "lm_head.weight" not in stored and stored["transformer.h.0.c_attn.weight"].shape == (3, 6)
    with safe_open(tmp_path / files[0], "np") as file:
        assert file.metadata() == {"format": "pt"}
    expected = arrays_of(head)
    bpnn.manual_seed(2)
    other = Head()
    assert not same(other, expected)
    report = load_into(other, open_weights(tmp_path), transposed=["*.c_attn.weight"])
    assert report.missing == [] and report.ignored == [] and same(other, expected)
    assert other.lm_head.weight is other.transformer.wte.weight


def test_prefixes_on_either_side(head):
    full = arrays_of(head)
    base = {name.removeprefix("transformer."): array for name, array in full.items() if name != "lm_head.weight"}
    other = Head()
    load_into(other, base, prefixes=["transformer."])
    assert same(other, full)
    small = Base()
    report = load_into(small, full, prefixes=["transformer."], ignore=["lm_head.*"])
    assert report.ignored == ["lm_head.weight"] and same(small, base)


def test_old_and_other_names(head):
    def older(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta").replace(".h.",
            ".layer.")

    full = {older(name): array for name, array in arrays_of(head).items()}
    other = Head()
    load_into(other, full, rename={"layer": "h"})
    assert same(other, arrays_of(head))
    other = Head()
    full["n"] = np.ones(1)
    report = load_into(other, full, rename=lambda name: None if name == "n" else name.replace(".layer.", ".h."))
    assert same(other, arrays_of(head)) and report.ignored == ["n"]


def test_every_problem_at_once(head):
    arrays = arrays_of(head)
    h = "transformer.h."
    del arrays[h + "0.c_attn.bias"], arrays[h + "1.c_attn.bias"]
    arrays[h + "0.c_attn.weight"] = arrays[h + "0.c_attn.weight"].T
    arrays["transformer.wte.weight"] = arrays["transformer.wte.weight"] + 1
    arrays[h + "1.LayerNorm.gamma"] = arrays[h + "1.LayerNorm.weight"]
    arrays[h + "0.LayerNorm.bias"] = np.full(3, 2j)
    arrays["pooler.weight"] = np.ones(2)
    other = Head()
    before = arrays_of(other)
    with pytest.raises(RuntimeError) as caught:
        load_into(other, arrays)
    for part in (
        "arrays does not fit Head", f"missing: {h}0.c_attn.bias, {h}1.c_attn.bias", "unexpected: pooler.weight",
        f"{h}0.c_attn.weight: expected shape (6, 3), got (3, 6)", "lm_head.weight: is one with transformer.wte.weight",
        f"{h}1.LayerNorm.weight: the file has it as {h}1.LayerNorm.weight and as {h}1.LayerNorm.gamma",
        f"{h}0.LayerNorm.bias: expected float32, got complex128",
    ):
        assert part in str(caught.value)
    assert same(other, before)
    del arrays["lm_head.weight"], arrays[h + "1.LayerNorm.gamma"], arrays[h + "0.c_attn.weight"]
    arrays[h + "0.LayerNorm.bias"] = np.ones(3)
    report = load_into(other, arrays, ignore=["pooler.*"], optional=["*.c_attn.*"])
    assert report.missing == [f"transformer.h.{i}.c_attn.{name}" for i, name in ((0, "weight"), (0, "bias"), (1, "bias"))]


def test_tied_by_name():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3))
    load_into(model, {"0.weight": np.ones((3, 2)), "0.bias": np.zeros(3)}, tied={"1.weight": "0.weight", "1.bias": "0.bias"})
    assert model[1].weight.tolist() == [[1, 1]] * 3 and model[1].weight is not model[0].weight


def test_integers_do_not_become_weights():
    module = nn.Module()
    module.register_buffer("n", bpnn.zeros(2, dtype=bpnn.int64))
    with pytest.raises(RuntimeError, match=r"n: expected int64, got float64"):
        load_into(module, {"n": np.ones(2)})


def test_a_double_model_and_a_transposed_parameter(tmp_path):
    model = nn.Linear(4, 3).double()
    values = np.random.default_rng(0).normal(size=(3, 4)).astype("float16")
    save_file({"weight": values, "bias": np.ones(3, "float32")}, tmp_path / "model.safetensors")
    model.weight.data = bpnn.from_numpy(np.zeros((4, 3))).t()
    load_into(model, open_weights(tmp_path))
    assert model.weight.dtype == bpnn.float64
    np.testing.assert_array_equal(model.weight.detach().numpy(), values.astype("float64"))


def test_sixteen_bits_there_and_back(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(0).normal(size=(40, 9)).astype("float32") * np.float32(1e-3)
    values[0, :4] = [np.inf, -np.inf, np.nan, 3.4e38]
    for dtype in (ml_dtypes.bfloat16, np.float16):
        with np.errstate(over="ignore"):
            rounded = values.astype(dtype)
        save_file({"weight": rounded}, tmp_path / "model.safetensors")
        model = nn.Linear(9, 40, bias=False)
        load_into(model, open_weights(tmp_path))
        save_weights(model, tmp_path / "again", dtype=np.dtype(dtype).name)
        assert load_file(tmp_path / "again" / "model.safetensors")["weight"].tobytes() == rounded.tobytes()
    model.weight.data = bpnn.from_numpy(values)
    save_weights(model, tmp_path / "again", dtype={"weight": "bfloat16"})
    expected = values.astype(ml_dtypes.bfloat16).astype("float32")
    np.testing.assert_array_equal(open_weights(tmp_path / "again")["weight"], expected)
    with pytest.raises(TypeError, match="weight: expected one of .* got int4"):
        save_weights(model, tmp_path, dtype="int4")


def test_unchanged_tensors_keep_their_bytes(tmp_path, head):
    save_weights(head, tmp_path / "one")
    other = Head()
    load_into(other, open_weights(tmp_path / "one"))
    save_weights(other, tmp_path / "two")
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()


def test_shards(tmp_path, head):
    save_weights(head, tmp_path)
    files = save_weights(head, tmp_path, max_shard_size=100)
    assert len(files) > 1 and not (tmp_path / "model.safetensors").exists()
    content = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    sizes = [array.nbytes for name, array in arrays_of(head).items() if name != "lm_head.weight"]
    assert content["metadata"]["total_size"] == sum(sizes)
    other = Head()
    load_into(other, open_weights(tmp_path))
    assert same(other, arrays_of(head))
    save_weights(head, tmp_path)
    assert not (tmp_path / "model.safetensors.index.json").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ru_maxrss in kilobytes")
def test_loading_needs_no_second_copy(tmp_path):
    size = 48 << 20  # numbers
    save_file({"a": np.zeros((48, size // 48), "float16"), "b": np.zeros((size,), "float32")}, tmp_path / "model.safetensors")
    code = f"""
import resource, numpy as np, bpnn
from bpnn import nn
from bpnn.pretrained import load_into, open_weights
class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(bpnn.ones(48, {size // 48})), nn.Parameter(bpnn.ones({size}))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
m = M(); before = peak(); load_into(m, open_weights('.')); print(peak() - before)
assert float(m.a.sum()) == float(m.b.sum()) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.25 * size * 4 / 1024  # the pages of one tensor, of 2.5 in the file and the model's two


# --- configurations -------------------------------------------------------------------------------------------------------

@dataclass(kw_only=True)
class TinyConfig(PretrainedConfig):
    model_type = "tiny"
    aliases: ClassVar = {"n_embd": "hidden_size"}

    hidden_size: int = 8
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    activation: Literal["gelu", "relu"] | None = "gelu"
    window: int | None = None
    rope_scaling: dict | None = None
    id2label: dict[str, str] | None = None


def test_unknown_keys_are_kept(tmp_path):
    content = {"model_type": "tiny", "n_embd": 16, "layer_norm_eps": 1, "task": {"a": [1, None]}, "window": 4}
    content["architectures"] = ["Tiny"]
    config = TinyConfig.from_dict(content)
    assert config.hidden_size == config.n_embd == 16 and config.layer_norm_eps == 1.0 and config.architectures == ["Tiny"]
    assert config.extra == {"task": {"a": [1, None]}, "architectures": ["Tiny"]}
    written = config.to_dict()
    del content["n_embd"]
    assert written.items() >= content.items() and written["hidden_size"] == 16 and "n_embd" not in written
    config.save_pretrained(tmp_path)
    assert TinyConfig.from_pretrained(tmp_path) == config == TinyConfig.from_dict(written)
    assert TinyConfig.from_pretrained(tmp_path, hidden_size=3).hidden_size == 3
    assert read_config(tmp_path) == written
    with pytest.raises(AttributeError, match="no key 'other'"):
        config.other


def test_configurations_that_are_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"model_type is 'bert', TinyConfig reads 'tiny'"):
        TinyConfig.from_dict({"model_type": "bert"})
    with pytest.raises(ValueError, match="hidden_size.*another name|n_embd.*another name"):
        TinyConfig.from_dict({"n_embd": 4, "hidden_size": 5})
    for key, value, expected in (
        ("hidden_size", "8", "expected int, got '8'"), ("hidden_size", 8.5, "expected int, got 8.5"), ("hidden_size", True, "int"),
        ("hidden_size", None, "expected int"), ("layer_norm_eps", "x", "expected float"), ("tie_word_embeddings", 1, "bool"),
        ("window", "a", "expected int or null"), ("rope_scaling", [], "expected dict or null"),
        ("activation", "silu", "expected 'gelu' or 'relu' or null, got 'silu'"),
    ):
        with pytest.raises(TypeError, match=expected) as caught:
            TinyConfig.from_dict({key: value}, source="here/config.json")
        assert f"here/config.json: {key}" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: is damaged"):
        read_config(tmp_path)


def test_plain_configurations(tmp_path):
    write_config(tmp_path / "new", {"b": 1, "a": {"x": None}})
    assert read_config(tmp_path / "new") == {"a": {"x": None}, "b": 1}
    assert PretrainedConfig.from_dict({"model_type": "any", "x": 1}).to_dict() == {"model_type": "any", "x": 1}


# --- transformers ---------------------------------------------------------------------------------------------------------

@pytest.mark.rivals
def test_transformers_reads_what_we_write(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=6)
    theirs = transformers.GPT2LMHeadModel(config)
    theirs.save_pretrained(tmp_path / "theirs")
    model = nn.Module()

    def place(module, path, value):
        for part in path[:-1]:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        module.register_parameter(path[-1], nn.Parameter(bpnn.zeros(*value.shape)))

    weights = open_weights(tmp_path / "theirs")
    for name in weights:
        place(model, name.split("."), weights[name])
    load_into(model, weights)
    save_weights(model, tmp_path / "ours")
    write_config(tmp_path / "ours", read_config(tmp_path / "theirs"))
    assert (tmp_path / "ours" / "config.json").read_text() == (tmp_path / "theirs" / "config.json").read_text()
    again, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    ours, stored = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert all(array.tobytes() == ours[name].tobytes() for name, array in stored.items())
