"""BERT, RoBERTa and DistilBERT by themselves: without padding as with it, what is computed when, what is refused.

That they compute what `transformers` computes: test_architectures.py.
"""
import json

import numpy as np
import pytest

import bpnn
from bpnn import models

SIZES = {"vocab_size": 50, "max_position_embeddings": 24, "initializer_range": 0.3}
BERT = {**SIZES, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
DISTIL = {**SIZES, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20}
QUIET = {"Bert": ("hidden_dropout_prob", "attention_probs_dropout_prob")}
QUIET["Roberta"] = QUIET["Bert"]
QUIET["DistilBert"] = ("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout")
KINDS = tuple(QUIET)
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
every = pytest.mark.parametrize("kind", KINDS)
each_head = pytest.mark.parametrize("head", HEADS)
LENGTHS = np.array([9, 4, 1, 6])
MASK = (np.arange(9) < LENGTHS[:, None]).astype(np.int64)


def build(kind, head, dtype=bpnn.float64, dropout=0.0, **changes):
    sizes = dict(DISTIL if kind == "DistilBert" else BERT) | dict.fromkeys(QUIET[kind], dropout) | changes
    bpnn.manual_seed(5)
    model = getattr(models, kind + head)(getattr(models, kind + "Config").from_dict(sizes))
    return model.to(dtype)


def batch(kind, head="Model", mask=MASK):
    rng = np.random.default_rng(0)
    ids = rng.integers(2, 50, MASK.shape)
    ids[mask == 0] = 1 if kind == "Roberta" else 0
    given = {"input_ids": ids, "attention_mask": mask}
    if head == "ForMaskedLM":
        given["labels"] = np.where(mask * (rng.random(mask.shape) < 0.5), rng.integers(0, 50, mask.shape), -100)
        given["labels"][0, 0] = 3
    if head == "ForSequenceClassification":
        given["labels"] = np.array([0, 1, 1, 0])
    if head == "ForTokenClassification":
        given["labels"] = np.where(mask, rng.integers(0, 2, mask.shape), -100)
    if head == "ForQuestionAnswering":
        given["start_positions"], given["end_positions"] = LENGTHS // 2, LENGTHS - 1
    return given


def loss_of(output, mask):
    if "loss" in output:
        return output.loss
    x = output.last_hidden_state
    factor = np.random.default_rng(1).standard_normal(x.shape) * mask[..., None]
    total = (x * bpnn.from_numpy(factor)).sum()
    return total if output.pooler_output is None else total + output.pooler_output.sin().sum()


def names_of(output):
    return [name for name in ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits") if name in output]


def results(model, given, **arguments):
    model.zero_grad()
    output = model(**given, **arguments)
    loss = loss_of(output, given["attention_mask"])
    loss.backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    outputs = {key: output[key].detach().numpy() for key in names_of(output)}
    return loss.item(), outputs, gradients


def assert_same(got, want, mask, rtol=1e-9):
    assert got[0] == pytest.approx(want[0], rel=rtol)
    assert got[1].keys() == want[1].keys() and got[2].keys() == want[2].keys()
    for mine, value in ((got[1][key], want[1][key]) for key in want[1]):
        where = mask == 1 if value.shape[:2] == mask.shape else ...
        np.testing.assert_allclose(mine[where], value[where], rtol=rtol, atol=1e-12)
    largest = max(np.abs(value).max() for value in want[2].values())
    for name, value in want[2].items():
        np.testing.assert_allclose(got[2][name], value, rtol=1e-7, atol=1e-11 * largest, err_msg=name)


@every
@each_head
@pytest.mark.parametrize("side", ["right", "left", "holes"])
def test_packed_is_padded(kind, head, side):
    mask = MASK if side == "right" else MASK[:, ::-1].copy()
    if side == "holes":
        mask = np.ones_like(MASK)
        mask[0, 3] = mask[1, 5:7] = mask[2, 1:] = 0
    model = build(kind, head)
    given = batch(kind, head, mask)
    if head == "ForQuestionAnswering":  # whose loss is over all places
        given = {key: given[key] for key in ("input_ids", "attention_mask")}
        with bpnn.no_grad():
            packed, model.packed = model(**given), False
            padded = model(**given)
        np.testing.assert_allclose(packed.start_logits.numpy()[mask == 1], padded.start_logits.numpy()[mask == 1], rtol=1e-9)
        assert (packed.end_logits.numpy()[mask == 0] == -np.inf).all()
        return
    want = results(model, given, packed=False) if head == "Model" else None
    if want is None:
        model.packed = False
        want = results(model, given)
        model.packed = True
    assert_same(results(model, given), want, mask)


@every
def test_one_text_alone(kind):
    """A text is what it is whatever stands beside it."""
    model, given = build(kind, "Model").eval(), batch(kind)
    with bpnn.no_grad():
        together = model(**given).last_hidden_state.numpy()
        for row, length in enumerate(LENGTHS):
            alone = model(given["input_ids"][row : row + 1, :length]).last_hidden_state.numpy()[0]
            np.testing.assert_allclose(together[row, :length], alone, rtol=1e-9)
            assert not together[row, length:].any()


@every
@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification"])
def test_labels_at_padding_count(kind, head):
    model, given = build(kind, head), batch(kind, head)
    given["labels"] = np.where(MASK, given["labels"], 1)
    got = results(model, given)
    model.packed = False
    assert_same(got, results(model, given), MASK)


@every
def test_only_first_tokens_of_the_last_layer(kind):
    """A classifier does not compute what it does not look at, and gets what it would get."""
    model, given = build(kind, "ForSequenceClassification"), batch(kind, "ForSequenceClassification")
    rows = []
    (model.base_model.encoder if kind != "DistilBert" else model.base_model.transformer).layer[-1].register_forward_hook(
        lambda module, inputs, output: rows.append(len(output))
    )
    got = results(model, given)
    want = results(model, given, output_hidden_states=True)
    assert_same(got, want, MASK)
    assert rows == [len(MASK), MASK.sum()]


@every
def test_logits_beside_a_loss(kind):
    model, given = build(kind, "ForMaskedLM").eval(), batch(kind, "ForMaskedLM")
    output = model(**given)
    assert type(output._values["logits"]).__name__ == "Later"
    alone = model(given["input_ids"], given["attention_mask"])
    np.testing.assert_allclose(output.logits.detach().numpy(), alone.logits.detach().numpy(), rtol=1e-9, atol=1e-12)
    chosen = given["labels"] >= 0
    logits, labels = alone.logits.detach().numpy()[chosen], given["labels"][chosen]
    log_sums = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    assert output.loss.item() == pytest.approx((log_sums - logits[np.arange(len(labels)), labels]).mean(), rel=1e-9)


@every
@each_head
def test_recomputed(kind, head):
    """Gradient checkpointing changes memory and time, nothing else; dropout falls on the same places."""
    model, given = build(kind, head, dropout=0.2).train(), batch(kind, head)
    bpnn.manual_seed(3)
    want = results(model, given)
    model.gradient_checkpointing_enable()
    bpnn.manual_seed(3)
    assert_same(results(model, given), want, MASK)


@every
def test_dropout_only_in_training(kind):
    model, given = build(kind, "Model", dropout=0.5), batch(kind)
    with bpnn.no_grad():
        one, two = (model.train()(**given).last_hidden_state.numpy() for _ in range(2))
        three, four = (model.eval()(**given).last_hidden_state.numpy() for _ in range(2))
    assert (one != two).any() and (three == four).all()


@every
def test_forms_of_inputs(kind):
    model, given = build(kind, "Model").eval(), batch(kind)
    ids, mask = given["input_ids"], given["attention_mask"]
    with bpnn.no_grad():
        want = model(ids, mask).last_hidden_state.numpy()
        for form in (lambda x: x.tolist(), bpnn.tensor, lambda x: x.astype(np.int32)):
            np.testing.assert_array_equal(model(form(ids), form(mask)).last_hidden_state.numpy(), want)
        first = 2 if kind == "Roberta" else 0
        places = np.arange(first, first + 9)
        np.testing.assert_array_equal(model(ids, mask, position_ids=places[None]).last_hidden_state.numpy(), want)
        assert (model(ids, mask, position_ids=places + 1).last_hidden_state.numpy() != want).any()


@every
def test_hidden_states_and_attentions(kind):
    model, given = build(kind, "Model").eval(), batch(kind)
    with bpnn.no_grad():
        plain = model(**given)
        output = model(**given, output_hidden_states=True, output_attentions=True)
        packed = model(**given, output_hidden_states=True)
    assert plain.hidden_states is None and plain.attentions is None
    assert len(output.hidden_states) == 3 and len(output.attentions) == 2
    np.testing.assert_allclose(output.last_hidden_state.numpy()[MASK == 1], plain.last_hidden_state.numpy()[MASK == 1], rtol=1e-9)
    for mine, other in zip(packed.hidden_states, output.hidden_states):
        np.testing.assert_allclose(mine.numpy()[MASK == 1], other.numpy()[MASK == 1], rtol=1e-9)
    for weights in output.attentions:
        assert weights.shape == (4, 3, 9, 9)
        np.testing.assert_allclose(weights.numpy().sum(-1), 1)


@every
def test_refusals(kind):
    model, given = build(kind, "Model"), batch(kind)
    ids = given["input_ids"]
    first = 2 if kind == "Roberta" else 0
    cases = [
        (IndexError, r"input_ids: expected tokens from 0 to 49, got 50 at \(1, 2\)", {"input_ids": put(ids, 50)}),
        (IndexError, r"input_ids: .*got -1", {"input_ids": put(ids, -1)}),
        (ValueError, f"input_ids: expected at most {24 - first} tokens.*got 25", {"input_ids": np.ones((1, 25), int)}),
        (ValueError, r"input_ids: expected shape \(B, T\)", {"input_ids": ids[0]}),
        (ValueError, "input_ids: expected rows of one length", {"input_ids": [[1, 2], [3]]}),
        (TypeError, "input_ids: expected whole numbers, got float64", {"input_ids": ids.astype(float)}),
        (ValueError, "input_ids: expected tokens, got None", {}),
        (ValueError, "inputs_embeds: expected None", {"input_ids": ids, "inputs_embeds": np.zeros((4, 9, 12))}),
        (ValueError, "attention_mask: expected shape", {"input_ids": ids, "attention_mask": MASK[:, :5]}),
        (ValueError, "position_ids: expected shape", {"input_ids": ids, "position_ids": np.zeros((3, 9), int)}),
        (IndexError, "position_ids: expected positions from 0 to 23", {"input_ids": ids, "position_ids": np.full((1, 9), 24)}),
        (ValueError, "token_type_ids: expected shape", {"input_ids": ids, "token_type_ids": np.zeros((4, 8), int)}),
        (IndexError, "token_type_ids: expected segments from 0", {"input_ids": ids, "token_type_ids": np.full((4, 9), 2)}),
        (ValueError, "return_dict: expected True or None", {"input_ids": ids, "return_dict": False}),
    ]
    for error, words, arguments in cases:
        with pytest.raises(error, match=words):
            model(**arguments)


def put(ids, value):
    ids = ids.copy()
    ids[1, 2] = value
    return ids


@every
def test_refused_labels(kind):
    ids = batch(kind)["input_ids"]
    with pytest.raises(ValueError, match=r"labels: expected shape \(4, 9\)"):
        build(kind, "ForMaskedLM")(ids, labels=ids[:, :4])
    with pytest.raises(IndexError, match="labels: expected 0 to 1, or -100"):
        build(kind, "ForTokenClassification")(ids, labels=np.full((4, 9), 2))
    with pytest.raises(IndexError, match="labels: expected 0 to 1"):
        build(kind, "ForSequenceClassification")(ids, labels=[0, 1, 5, 0])
    with pytest.raises(ValueError, match="start_positions"):
        build(kind, "ForQuestionAnswering")(ids, start_positions=[1], end_positions=[1, 1, 1, 1])
    with pytest.raises(ValueError, match="problem_type"):
        build(kind, "ForSequenceClassification", problem_type="what")(ids, labels=[0, 1, 1, 0])


@every
def test_refused_configurations(kind):
    names = ("n_heads", "dim", "activation") if kind == "DistilBert" else ("num_attention_heads", "hidden_size", "hidden_act")
    heads, width, act = names
    with pytest.raises(ValueError, match=f"{width} 12 is no multiple of {heads} 5"):
        build(kind, "Model", **{heads: 5})
    with pytest.raises(ValueError, match=f"config: {act}: expected one of gelu.*got 'what'"):
        build(kind, "Model", **{act: "what"})
    with pytest.raises(ValueError, match="num_labels: expected 2"):
        build(kind, "ForQuestionAnswering", num_labels=3)
    if kind != "DistilBert":
        with pytest.raises(ValueError, match="is_decoder"):
            build(kind, "Model", is_decoder=True)
        with pytest.raises(ValueError, match="position_embedding_type"):
            build(kind, "Model", position_embedding_type="relative_key")


@every
@each_head
def test_files(kind, head, tmp_path):
    """Saved and read again; the tied table is in the file once."""
    model = build(kind, head, bpnn.float32)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), tensor.numpy())
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [kind + head]
    if head == "ForMaskedLM":
        table, decoder = again.base_model.embeddings.word_embeddings.weight, again.decoder()
        assert decoder.weight is table
        stored = bpnn.load(tmp_path / "model.safetensors")
        assert sum(value.shape == table.shape for value in stored.values()) == 1


@every
def test_another_head(kind, tmp_path):
    """A file of the masked-word model serves a classifier: what is missing is named."""
    build(kind, "ForMaskedLM", bpnn.float32).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="classifier"):
        model = getattr(models, kind + "ForSequenceClassification").from_pretrained(tmp_path, num_labels=3)
    assert model(batch(kind)["input_ids"]).logits.shape == (4, 3)


def test_starting_values():
    """Padding's row is 0, also of a tied table."""
    for head in ("Model", "ForMaskedLM"):
        table = build("Bert", head).base_model.embeddings.word_embeddings.weight.detach().numpy()
        assert not table[0].any() and 0.25 < table[1:].std() < 0.35


def test_training_moves_the_loss():
    head = "ForSequenceClassification"
    model, given = build("Bert", head, bpnn.float32, dropout=0.1).train(), batch("Bert", head)
    optimizer = bpnn.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(**given).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
