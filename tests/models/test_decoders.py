"""What all decoders do alike: what may be asked for, recomputed layers, empty input, packed texts of a classifier."""
import numpy as np
import pytest

import bpnn
from bpnn import models

SIZES = {"vocab_size": 41, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 24}
SMALLER = {"intermediate_size": 48, "num_key_value_heads": 2}
KINDS = {"GPT2": {}, "Llama": SMALLER, "Mistral": SMALLER | {"sliding_window": 3}, "Qwen2": SMALLER}
CAUSAL = {"GPT2": "LMHeadModel"}
DECODERS = pytest.mark.parametrize("kind", KINDS)
IDS = np.random.default_rng(0).integers(3, 41, (2, 5))


def decoder(kind, head="Model", **changes):
    bpnn.manual_seed(4)
    head = CAUSAL.get(kind, head) if head == "ForCausalLM" else head
    config = getattr(models, f"{kind}Config").from_dict({**SIZES, **KINDS[kind], "initializer_range": 0.2, **changes})
    return getattr(models, kind + head)(config).double().eval()


@DECODERS
@pytest.mark.parametrize("head", ["Model", "ForCausalLM", "ForSequenceClassification"])
def test_arguments_of_other_programs(kind, head):
    model = decoder(kind, head, pad_token_id=0)
    plain = model(IDS)
    asked = {"return_dict": True, "use_cache": False, "output_attentions": None, "output_hidden_states": False}
    found = model(IDS, token_type_ids=None, **asked)
    assert found.keys() == plain.keys() and np.array_equal(found[0].detach().numpy(), plain[0].detach().numpy())
    model(IDS, return_dict=None)
    with pytest.raises(ValueError, match="return_dict: expected True or None, got False"):
        model(IDS, return_dict=False)


@DECODERS
def test_the_configuration_asks_too(kind):
    model = decoder(kind, "ForCausalLM", output_hidden_states=True, output_attentions=True)
    output = model(IDS)
    assert len(output.hidden_states) == 3 and [w.shape for w in output.attentions] == [(2, 4, 5, 5)] * 2
    assert model(IDS, output_hidden_states=False, output_attentions=False).keys() == ["logits"]


def test_encoders_and_the_cache():
    sizes = {**SIZES, "intermediate_size": 48}
    model = models.BertModel(models.BertConfig.from_dict(sizes)).eval()
    assert model(IDS, use_cache=False).keys() == model(IDS, use_cache=None).keys() == model(IDS).keys()
    with pytest.raises(ValueError, match="use_cache"):
        model(IDS, use_cache=True)


def test_the_configuration_of_images_asks_too():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 16,
             "patch_size": 8, "output_hidden_states": True, "output_attentions": True}
    model = models.ViTForImageClassification(models.ViTConfig.from_dict(sizes)).eval()
    output = model(np.zeros((1, 3, 16, 16), "float32"))
    assert len(output.hidden_states) == 3 and len(output.attentions) == 2
    with pytest.raises(ValueError, match="return_dict"):
        model(np.zeros((1, 3, 16, 16), "float32"), return_dict=False)


@DECODERS
def test_attentions_of_recomputed_layers(kind):
    """Asked for beside recomputing they are there, and the gradients are the same."""
    model, found = decoder(kind, "ForCausalLM", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).train(), []
    for again in (False, True):
        model.gradient_checkpointing_enable(again)
        model.zero_grad()
        output = model(IDS, labels=IDS, output_attentions=True, output_hidden_states=True)
        output.loss.backward()
        found.append([*output.attentions, *output.hidden_states, *(p.grad for p in model.parameters())])
        assert len(output.attentions) == 2 and len(output.hidden_states) == 3
    assert all(np.array_equal(a.detach().numpy(), b.detach().numpy()) for a, b in zip(*found, strict=True))


@DECODERS
@pytest.mark.parametrize("head", ["Model", "ForCausalLM", "ForSequenceClassification"])
def test_nothing_to_read(kind, head):
    model = decoder(kind, head, num_labels=3, pad_token_id=0)
    for shape in ((1, 0), (0, 0), (0,)):
        with pytest.raises(ValueError, match=r"input_ids: expected shape \(B, T\) with at least one token"):
            model(np.zeros(shape, int))
    shape = {"Model": (0, 3, 32), "ForCausalLM": (0, 3, 41)}.get(head, (0, 3))
    for asked in ({}, {"attention_mask": np.zeros((0, 3))}, {"output_attentions": True}):
        assert model(np.zeros((0, 3), int), **asked)[0].shape == shape
    with bpnn.no_grad():
        assert model(np.zeros((0, 3), int), use_cache=True)[0].shape == shape


@DECODERS
def test_an_empty_text_has_no_last_token(kind):
    model, ids = decoder(kind, "ForSequenceClassification"), IDS.reshape(-1)
    assert model(ids, cu_seqlens=[0, 4, 10]).logits.shape == (2, 2)
    for starts in ([0, 4, 4, 10], [0, 0, 10], [0, 10, 10]):
        with pytest.raises(ValueError, match="cu_seqlens: expected texts of at least one token"):
            model(ids, cu_seqlens=starts)
    for wrong in ([0, 4], [4, 10], [0, 7, 4, 10], 10):
        with pytest.raises(ValueError, match="cu_seqlens"):
            model(ids, cu_seqlens=wrong)


@DECODERS
def test_segments(kind):
    model = decoder(kind)
    if kind == "GPT2":
        with bpnn.no_grad():
            assert not np.allclose(model(IDS, token_type_ids=np.ones_like(IDS))[0].numpy(), model(IDS)[0].numpy())
        with pytest.raises(ValueError, match=r"token_type_ids: expected shape \(2, 5\)"):
            model(IDS, token_type_ids=[[1]])
    else:
        with pytest.raises(ValueError, match="token_type_ids: expected None"):
            model(IDS, token_type_ids=np.ones_like(IDS))
