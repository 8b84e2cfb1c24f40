"""A frozen base in bfloat16 or int8: models, their files, training on top of it."""
import copy

import bpnn
import numpy as np
import pytest
from bpnn import nn
from bpnn.finetune.stored import make_dense, store_frozen
from bpnn.models.auto import AutoModelForCausalLM
from bpnn.models.bert import BertConfig, BertForMaskedLM, BertForSequenceClassification
from bpnn.models.gpt2 import Conv1D, GPT2Config, GPT2LMHeadModel
from bpnn.models.llama import LlamaConfig, LlamaForCausalLM
from bpnn.nn import StoredEmbedding, StoredLinear

KINDS = pytest.mark.parametrize("kind", ["bfloat16", "int8"])
TOKENS = np.array([[1, 5, 2, 9, 3], [4, 4, 7, 1, 0]])


def bert(head=BertForSequenceClassification):
    return head(BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
                           hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0,
                                      embd_pdrop=0.0, attn_pdrop=0.0))


def llama():
    return LlamaForCausalLM(LlamaConfig(vocab_size=30, hidden_size=16, intermediate_size=40, num_hidden_layers=2,
                                        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True))


MODELS = {"bert": bert, "gpt2": gpt2, "llama": llama}


def rounded(array, kind):
    """The numbers nearest to a matrix (N, K)."""
    if kind == "bfloat16":
        return (array.view(np.uint32) + 0x7FFF + (array.view(np.uint32) >> 16 & 1) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    out = array.copy()
    for i in range(0, array.shape[1], 32):
        scale = np.abs(array[:, i : i + 32]).max(1, keepdims=True) / np.float32(127)
        out[:, i : i + 32] = np.rint(array[:, i : i + 32] / np.where(scale > 0, scale, 1)) * scale
    return out


@KINDS
@pytest.mark.parametrize("name", MODELS)
def test_the_model_with_rounded_weights(name, kind):
    bpnn.manual_seed(0)
    model = MODELS[name]().eval()
    stored = store_frozen(copy.deepcopy(model), kind)
    places = [path for path, module in stored.named_modules() if isinstance(module, (StoredLinear, StoredEmbedding))]
    modules = dict(model.named_modules())
    assert len(places) == {"bert": 14, "gpt2": 10, "llama": 16}[name]  # no classifier, no other embeddings
    with bpnn.no_grad():
        for path in places:
            weight = modules[path].weight.requires_grad_(False)
            across = isinstance(modules[path], Conv1D)
            array = np.ascontiguousarray(weight.numpy().T if across else weight.numpy())
            weight.copy_(bpnn.from_numpy(rounded(array, kind).T.copy() if across else rounded(array, kind)))
    wanted, got = model(TOKENS).logits, stored(TOKENS).logits
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    dense = make_dense(copy.deepcopy(stored))
    assert not any(isinstance(module, (StoredLinear, StoredEmbedding)) for module in dense.modules())
    assert {k: v.shape for k, v in dense.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    np.testing.assert_allclose(dense(TOKENS).logits.detach().numpy(), wanted.detach().numpy(), rtol=1e-4, atol=1e-5)


@KINDS
def test_gradients_go_through_and_frozen_weights_get_none(kind):
    model = store_frozen(gpt2(), kind).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert [p.shape for p in trained if p.ndim > 1] == [(16, 16)] and len(trained) == 11  # positions and norms
    model(TOKENS, labels=TOKENS).loss.backward()
    assert all(p.grad is not None and np.isfinite(p.grad.numpy()).all() for p in trained)
    frozen = [m.bias for m in model.modules() if isinstance(m, StoredLinear) and m.bias is not None]
    assert len(frozen) == 8 and all(p.grad is None and not p.requires_grad for p in frozen)


def test_only_what_is_frozen():
    model = bert()
    for parameter in model.bert.encoder.layer[0].parameters():
        parameter.requires_grad_(False)
    store_frozen(model, "int8")
    kinds = [{type(m) for m in layer.modules() if hasattr(m, "in_features")} for layer in model.bert.encoder.layer]
    assert kinds == [{StoredLinear}, {nn.Linear}]


@KINDS
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_from_pretrained(tmp_path, name, kind):
    model = MODELS[name]().eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, store=kind)
    wanted = store_frozen(model, kind)
    assert not loaded.training
    np.testing.assert_array_equal(loaded(TOKENS).logits.detach().numpy(), wanted(TOKENS).logits.detach().numpy())
    with pytest.raises(ValueError, match="save_pretrained: weights of this model are kept as"):
        loaded.save_pretrained(tmp_path)
    make_dense(loaded).save_pretrained(tmp_path / "dense")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    np.testing.assert_allclose(again(TOKENS).logits.detach().numpy(), wanted(TOKENS).logits.detach().numpy(), rtol=1e-4, atol=1e-5)


@KINDS
def test_tied_tables_stay_tied(kind):
    model = bert(BertForMaskedLM).eval()
    stored = store_frozen(copy.deepcopy(model), kind)
    assert stored.cls.predictions.decoder.weight is stored.bert.embeddings.word_embeddings.weight
    dense = make_dense(copy.deepcopy(stored))
    assert dense.cls.predictions.decoder.weight is dense.bert.embeddings.word_embeddings.weight
    wanted, got = (m(TOKENS, labels=TOKENS) for m in (dense, stored))
    np.testing.assert_allclose(got.loss.item(), wanted.loss.item(), rtol=1e-5)
    np.testing.assert_allclose(got.logits.detach().numpy(), wanted.logits.detach().numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="resize_token_embeddings: the table is kept as"):
        stored.resize_token_embeddings(40)
    with pytest.raises(IndexError, match="0 to 29"):
        stored(np.array([[30]]))


def test_memory_of_a_matrix():
    model = store_frozen(nn.Sequential(nn.Linear(640, 320), nn.ReLU(), nn.Linear(320, 10)), "int8")
    assert sum(m.matrix.nbytes for m in model.modules() if isinstance(m, StoredLinear)) == (640 * 320 + 320 * 10) * 9 // 8


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="kind: expected bfloat16 or int8, got 'int4'"):
        store_frozen(gpt2(), "int4")
    gpt2().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="store: expected bfloat16 or int8, got 'fp8'"):
        AutoModelForCausalLM.from_pretrained(tmp_path, store="fp8")


def test_the_loss_of_a_stored_head_makes_no_logits():
    from bpcore.memory import memory_stats, reset_peak

    model = store_frozen(LlamaForCausalLM(LlamaConfig(
        vocab_size=20000, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        tie_word_embeddings=True,
    )), "int8")
    tokens = np.zeros((1, 2048), np.int64)
    reset_peak()
    before = memory_stats()["peak"]
    assert model(tokens, labels=tokens).loss.requires_grad
    assert memory_stats()["peak"] - before < 2048 * 20000 * 4 / 2
