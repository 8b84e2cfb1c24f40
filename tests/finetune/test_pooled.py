"""The classifier on pooled rows against its formula, and its files."""
import json

import numpy as np
import pytest
from task_models import bare, bert, gpt2

import bpnn
from bpnn.finetune import PooledClassifier, get_peft_model, head_only
from bpnn.finetune.pooled import pooling_of
from bpnn.pretrained import open_weights

TOKENS = np.array([[2, 7, 9, 3, 0, 0, 0], [2, 11, 3, 0, 0, 0, 0], [2, 30, 31, 32, 33, 34, 3]])


def model_of(kind, pooling="mean", labels=3, **changes):
    config = bare(kind).config
    config.num_labels = labels
    bpnn.manual_seed(5)
    model = PooledClassifier(config, pooling, **changes)
    with bpnn.no_grad():
        model.classifier.bias.copy_(bpnn.arange(labels).float())
    return model.eval()


def pooled_by_hand(model, mask):
    """The formula, of the padded rows that the encoder gives."""
    rows = model.model(TOKENS, mask, packed=False).last_hidden_state.detach().numpy().astype(np.float64)
    if model.pooling == "cls":
        pooled = rows[:, 0]
    elif model.pooling == "mean":
        pooled = (rows * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    else:
        pooled = np.where(mask[..., None] > 0, rows, -np.inf).max(1)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in (model.classifier.weight, model.classifier.bias))
    return pooled @ weight.T + bias


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_formula(kind, pooling):
    model = model_of(kind, pooling)
    mask = (TOKENS != 0).astype(np.int64)
    mask[0, 0] = 1
    want = pooled_by_hand(model, mask)
    labels = np.array([2, 0, 1])
    output = model(TOKENS, mask, labels=labels)
    np.testing.assert_allclose(output.logits.detach().numpy(), want, atol=1e-5)
    shifted = np.exp(want - want.max(1, keepdims=True))
    loss = -np.log((shifted / shifted.sum(1, keepdims=True))[np.arange(3), labels]).mean()
    np.testing.assert_allclose(output.loss.item(), loss, rtol=1e-5)


def test_regression_loss():
    model = model_of("bert", labels=1)
    wanted = np.array([0.5, -1.0, 2.0], np.float32)
    output = model(TOKENS, TOKENS != 0, labels=wanted)
    np.testing.assert_allclose(output.loss.item(), ((output.logits.detach().numpy()[:, 0] - wanted) ** 2).mean(), rtol=1e-5)


def test_dropout_is_the_configurations():
    assert model_of("distilbert").dropout.p == 0.2 and model_of("bert").dropout.p == 0.1
    assert model_of("bert", dropout=0.4).dropout.p == 0.4


def test_only_the_head_and_adapters():
    """What freezes and adapts pretrained models knows this one."""
    from bpnn.finetune import LoraConfig

    model = model_of("bert")
    assert model.base_model is model.model
    assert sorted(head_only(model)) == ["classifier.bias", "classifier.weight"]
    adapted = get_peft_model(model_of("bert"), LoraConfig(r=2, task_type="SEQ_CLS"))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert any("lora_A" in name for name in trained) and any("classifier" in name for name in trained)
    adapted(TOKENS, TOKENS != 0, labels=np.array([0, 1, 2])).loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_files(tmp_path, kind):
    model = model_of(kind, "max")
    model.config.id2label = {0: "red", 1: "green", 2: "blue"}
    model.max_seq_length = 17
    model.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "2_Dense" / "config.json").read_text())
    assert told == {"in_features": 16, "out_features": 3, "bias": True, "activation_function": "torch.nn.modules.linear.Identity"}
    types = [part["type"] for part in json.loads((tmp_path / "modules.json").read_text())]
    assert [name.rpartition(".")[2] for name in types] == ["Transformer", "Pooling", "Dense"]
    weights = open_weights(tmp_path / "2_Dense")
    np.testing.assert_array_equal(weights["linear.weight"], model.classifier.weight.detach().numpy())
    np.testing.assert_array_equal(weights["linear.bias"], [0, 1, 2])
    loaded = PooledClassifier.from_pretrained(tmp_path)
    assert loaded.pooling == "max" == pooling_of(str(tmp_path)) and loaded.max_seq_length == 17 and not loaded.training
    assert loaded.config.id2label == {0: "red", 1: "green", 2: "blue"}
    np.testing.assert_array_equal(
        loaded(TOKENS, TOKENS != 0).logits.detach().numpy(), model(TOKENS, TOKENS != 0).logits.detach().numpy())


def test_head_of_another_size(tmp_path):
    model_of("bert").save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"linear\.weight: expected \(4, 16\), got \(3, 16\)"):
        PooledClassifier.from_pretrained(tmp_path, num_labels=4)
    with pytest.warns(UserWarning, match="new numbers were drawn"):
        model = PooledClassifier.from_pretrained(tmp_path, num_labels=4, ignore_mismatched_sizes=True)
    assert model.classifier.weight.shape == (4, 16)


def test_plain_folder(tmp_path):
    with pytest.warns(UserWarning, match="has no classifier"):
        model = PooledClassifier.from_pretrained(bert(tmp_path), num_labels=5)
    assert model.pooling == "mean" and pooling_of(str(tmp_path)) is None and model.classifier.out_features == 5


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="pooling: expected mean, cls, max, got 'sum'"):
        model_of("bert", "sum")
    with pytest.raises(ValueError, match="model_type: expected bert, roberta, distilbert.* got 'gpt2'"):
        PooledClassifier.from_pretrained(gpt2(tmp_path))
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.LSTM", "path": ""}]')
    with pytest.raises(ValueError, match=r"modules\.json: expected Transformer, Pooling .* got 'LSTM' as part 0"):
        PooledClassifier.from_pretrained(tmp_path)


@pytest.mark.rivals
def test_others_read_the_files(tmp_path):
    """What sentence-transformers computes of the files, with the parts it is made of."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from safetensors.torch import load_file

    model = model_of("bert")
    model.save_pretrained(tmp_path)
    encoder = transformers.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    dense = torch.nn.Linear(16, 3)
    stored = load_file(tmp_path / "2_Dense" / "model.safetensors")
    dense.load_state_dict({name.removeprefix("linear."): value for name, value in stored.items()})
    mask = torch.tensor(TOKENS != 0)
    with torch.no_grad():
        rows = encoder(torch.tensor(TOKENS), mask.long()).last_hidden_state
        want = dense((rows * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    np.testing.assert_allclose(model(TOKENS, TOKENS != 0).logits.detach().numpy(), want.numpy(), atol=1e-5)
