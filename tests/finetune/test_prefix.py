"""Prefix tuning: attention to the learned keys and values written out in NumPy, packing, generation."""
import numpy as np
import pytest
from adapter_models import IDS, LABELS, bert, gpt2, llama, logits, trained
from test_prompt import MASK, distilbert, roberta

import bpnn
from bpnn.finetune import PrefixTuningConfig, get_peft_model
from bpnn.models._cache import KeyValueCache
from bpnn.models._packing import Layout


def prefixed(make, task="CAUSAL_LM", count=3, **options):
    bpnn.manual_seed(2)
    return get_peft_model(make(), PrefixTuningConfig(task_type=task, num_virtual_tokens=count, **options)).eval()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_attention_with_a_prefix(packed, first):
    rng = np.random.default_rng(1)
    real = np.array([[True] * 5, [True, False, True, False, False], [False, True, True, True, True]])
    layout = Layout((3, 5), real, packed)
    rows, heads, width, count = len(layout), 2, 3, 4
    q, k, v = (rng.normal(size=(rows, heads * width)) for _ in range(3))
    key, value = (rng.normal(size=(count, heads, width)) for _ in range(2))
    asking = q[layout.cu_seqlens[:-1]] if first else q
    tensors = [bpnn.tensor(x, requires_grad=True) for x in (asking, k, v, key, value)]
    seen = layout.behind((tensors[3], tensors[4]))
    got = seen.attend(*tensors[:3], heads, first=first)
    got.sum().backward()
    assert layout.prefix is None and tensors[3].grad is not None and tensors[4].grad is not None
    want = []
    for text in range(3):
        begin, end = layout.cu_seqlens[text : text + 2]
        own = np.arange(begin, end)
        hidden = np.zeros(len(own), bool) if packed else ~real[text]
        for row in own[:1] if first else own:
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                keys, values = (np.concatenate([p[:, head], x[own, part]]) for p, x in ((key, k), (value, v)))
                scores = keys @ q[row, part] / np.sqrt(width)
                scores[count:][hidden] = -np.inf
                weights = np.exp(scores - scores.max())
                want.append(weights / weights.sum() @ values)
    np.testing.assert_allclose(got.detach().numpy(), np.reshape(want, got.shape), rtol=1e-10)


@pytest.mark.parametrize("make", [bert, roberta, distilbert])
def test_packed_is_padded(make):
    tuned = prefixed(make, "SEQ_CLS")
    found = []
    for packed in (True, False):
        tuned.zero_grad()
        output = tuned(IDS, MASK, labels=LABELS, packed=packed)
        output.loss.backward()
        found.append((output.logits.detach().numpy(), tuned.encoder.embedding.weight.grad.numpy().copy()))
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_padding_does_not_matter(make):
    tuned = prefixed(make)
    alone = logits(tuned, IDS[1:, :4])
    np.testing.assert_allclose(logits(tuned, attention_mask=MASK)[1:, :4], alone, rtol=1e-9, atol=1e-12)
    ids = np.concatenate([[[1, 1]], IDS[1:, :4]], 1)
    mask = np.array([[0, 0, 1, 1, 1, 1]])
    left = logits(tuned, ids, attention_mask=mask, position_ids=np.maximum(mask.cumsum(1) - 1, 0))
    np.testing.assert_allclose(left[:, 2:], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_the_keys_of_a_text_are_a_prefix(make):
    """A text in two halves: keys and values of the first as the prefix of the second."""
    model = make()
    want = logits(model, IDS[:1])[:, 3:]
    cache = KeyValueCache()
    with bpnn.no_grad():
        model(IDS[:1, :3], past_key_values=cache, use_cache=True)
    pairs = [[bpnn.from_numpy(store[0, :, :3].swapaxes(0, 1).copy()) for store in kept] for kept in cache._layers]
    np.testing.assert_allclose(logits(model, IDS[:1, 3:], prefix_key_values=pairs), want, rtol=1e-10, atol=1e-12)
    weights = model(IDS[:1, 3:], prefix_key_values=pairs, output_attentions=True)
    np.testing.assert_allclose(weights.logits.detach().numpy(), want, rtol=1e-10, atol=1e-12)
    assert weights.attentions[0].shape == (1, 2, 4, 7)


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize(("make", "task"), [(bert, "SEQ_CLS"), (gpt2, "CAUSAL_LM"), (llama, "CAUSAL_LM")])
def test_gradient(make, task, projection):
    tuned = prefixed(make, task, prefix_projection=projection, encoder_hidden_size=5)
    labels = LABELS if task == "SEQ_CLS" else IDS
    tuned.train()(IDS, MASK, labels=labels).loss.backward()
    for name, parameter in tuned.named_parameters():
        assert (parameter.grad is not None) == (name in trained(tuned)), name
    weight = tuned.encoder.embedding.weight
    for at in ((0, 1), (2, 7)):
        losses = []
        for step in (1e-6, -1e-6):
            with bpnn.no_grad():
                weight[at] += step
                losses.append(tuned(IDS, MASK, labels=labels).loss.item())
                weight[at] -= step
        np.testing.assert_allclose(weight.grad.numpy()[at], (losses[0] - losses[1]) / 2e-6, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_generate(make):
    tuned = prefixed(make)
    written = tuned.generate(IDS, max_new_tokens=5)
    ids = IDS
    for _ in range(5):  # without a cache
        ids = np.concatenate([ids, logits(tuned, ids)[:, -1].argmax(-1)[:, None]], 1)
    np.testing.assert_array_equal(written, ids)
    mask = np.array([[1] * 7, [0] * 2 + [1] * 5])
    padded = tuned.generate(np.where(mask, IDS, 0), mask, max_new_tokens=5)
    np.testing.assert_array_equal(padded[1:, 2:], tuned.generate(IDS[1:, 2:], max_new_tokens=5))
    assert tuned.context == tuned.base_model.context - 3


def test_sizes_and_starts():
    tuned = prefixed(llama, init_weights="zero")
    config = tuned.peft_config["default"]
    assert (config.token_dim, config.num_attention_heads, config.num_layers) == (8, 1, 2)  # of keys and values
    assert tuned.encoder.table().shape == (3, 2 * 2 * 8) and not tuned.encoder.table().detach().numpy().any()
    tuned = prefixed(gpt2, init_weights="zero", prefix_projection=True)
    assert tuned.encoder.embedding.weight.detach().numpy().all() and not tuned.encoder.table().detach().numpy().any()


def test_errors():
    with pytest.raises(ValueError, match="init_weights: expected None or 'zero', got 'one'"):
        PrefixTuningConfig(num_virtual_tokens=2, init_weights="one")
    tuned = prefixed(llama)
    with pytest.raises(ValueError, match="cu_seqlens: expected None with prompts and prefixes"):
        tuned(IDS.reshape(-1), cu_seqlens=[0, 14])
    with pytest.raises(ValueError, match="prefix_key_values: expected keys and values of 2 layers, got 1"):
        llama()(IDS, prefix_key_values=tuned.encoder.key_values()[:1])
    tuned.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="prefix_key_values: expected None where activations are computed again"):
        tuned.train()(IDS)
    with pytest.raises(ValueError, match="input_ids: expected at most 21 tokens"):
        tuned.eval()(np.ones((1, 22), int))
    tuned = prefixed(bert, "SEQ_CLS", 510)
    with pytest.raises(ValueError, match="input_ids: expected at most 2 tokens"):
        tuned(IDS)
