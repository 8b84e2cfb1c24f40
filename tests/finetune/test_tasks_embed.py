"""Vectors of texts: losses against their formulas, scores, sentence-transformers' files."""
import numpy as np
import pytest
from scipy import stats
from task_models import again, bert, options, splits

import bpnn
from bpnn.data import DataError
from bpnn.finetune.tasks.embed import Embed, own_ranks
from bpnn.models import SentenceEncoder
from bpnn.train import Trainer

FIRST, SECOND, THIRD = (
    ["a good film", "bad", "he saw the film", "in 1999"], ["good", "the bad film was bad", "saw", "1999, was it"],
    ["in the bad film", "good good", "1234 567", "he"],
)
PAIRS = [{"anchor": a, "positive": b} for a, b in zip(FIRST, SECOND)]
TRIPLETS = [{**row, "negative": c} for row, c in zip(PAIRS, THIRD)]
SCORED = [{"sentence1": a, "sentence2": b, "score": s} for a, b, s in zip(FIRST, SECOND, (5, 0.5, 4, 2.5))]


def made(folder, rows, **settings):
    task = Embed(options(**settings))
    examples = task.read(splits(rows))
    return task, task.load_model(folder), examples


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def vectors(folder, *columns):
    """What the sentence encoder of the library makes of the texts, not normalized."""
    encoder = SentenceEncoder.from_pretrained(folder)
    return [encoder.encode(column, normalize=False).astype(np.float64) for column in columns]


def cross_entropy(logits):
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(shares[np.arange(len(logits)), np.arange(len(logits))]).mean()


def forward(task, model, examples):
    data = task.dataset(examples["train"])
    batch = task.collate([data[i] for i in range(len(data))])
    return batch, model(**batch)


@pytest.mark.parametrize("rows", [PAIRS, TRIPLETS], ids=["pairs", "with negatives"])
def test_multiple_negatives(tmp_path, rows):
    task, model, examples = made(bert(tmp_path), rows)
    assert task.loss == "multiple_negatives" and task.monitor == ("val_accuracy_at_1", "max")
    a, b, c = (unit(x) for x in vectors(tmp_path, FIRST, SECOND, THIRD))
    want = 20 * a @ (b if rows is PAIRS else np.concatenate([b, c])).T
    batch, output = forward(task, model, examples)
    assert next(iter(batch)) == "labels" and len(batch["input_ids"]) == len(rows) * len(rows[0])
    np.testing.assert_allclose(output.logits.detach().numpy(), want, atol=1e-4)
    np.testing.assert_allclose(output.loss.item(), cross_entropy(want), rtol=1e-4)
    output.loss.backward()
    assert np.abs(model.model.embeddings.word_embeddings.weight.grad.numpy()).max() > 0


def test_triplets(tmp_path):
    task, model, examples = made(bert(tmp_path), TRIPLETS, loss="triplet")
    a, b, c = vectors(tmp_path, FIRST, SECOND, THIRD)
    want = np.maximum(0, np.linalg.norm(a - b, axis=1) - np.linalg.norm(a - c, axis=1) + 5).mean()
    _, output = forward(task, model, examples)
    np.testing.assert_allclose(output.loss.item(), want, rtol=1e-5)
    np.testing.assert_allclose(np.diag(output.logits.detach().numpy()), -np.linalg.norm(a - b, axis=1), rtol=1e-4)
    with pytest.raises(DataError, match="expected a column negative"):
        made(tmp_path, PAIRS, loss="triplet")


def test_scored_pairs(tmp_path):
    task, model, examples = made(bert(tmp_path), SCORED)
    assert task.loss == "cosine" and task.divisor == 5 and task.monitor == ("val_spearman", "max")
    a, b = (unit(x) for x in vectors(tmp_path, FIRST, SECOND))
    cosines, wanted = (a * b).sum(1), np.array([5, 0.5, 4, 2.5]) / 5
    batch, output = forward(task, model, examples)
    np.testing.assert_allclose(batch["labels"], wanted, rtol=1e-6)
    np.testing.assert_allclose(output.logits.detach().numpy(), cosines, atol=1e-5)
    np.testing.assert_allclose(output.loss.item(), ((cosines - wanted) ** 2).mean(), rtol=1e-4)
    outputs = task.outputs(model, task.dataset(examples["train"]), 3)
    scores = task.scores(outputs, examples["train"])
    np.testing.assert_allclose(scores["spearman"], stats.spearmanr(cosines, wanted).statistic)
    np.testing.assert_allclose(scores["pearson"], stats.pearsonr(cosines, wanted).statistic, rtol=1e-4)
    metric = task.metrics()[0]
    metric.update(output.logits, batch["labels"])
    np.testing.assert_allclose(metric.compute(), scores["spearman"])
    worst = task.worst(outputs, examples["train"], 1)[0]
    assert worst["where"] == f"train[{np.argmax((cosines - wanted) ** 2)}]"
    np.testing.assert_allclose(worst["loss"], ((cosines - wanted) ** 2).max(), rtol=1e-4)
    near = made(tmp_path, [{**row, "score": row["score"] / 5} for row in SCORED])[0]
    assert near.divisor == 1


def test_ranks():
    anchors = np.eye(3)
    partners = np.array([[0.9, 0.1, 0], [0.95, 0.2, 0], [0, 0, 0.5]])
    names, texts = ["a", "b", "c"], ["x", "y", "z"]
    for chunk in (1, 2, 1024):
        rank, loss = own_ranks(anchors, partners, names, texts, chunk=chunk)
        assert rank.tolist() == [2, 1, 1]
        np.testing.assert_allclose(loss.mean(), cross_entropy(20 * anchors @ partners.T))
    assert own_ranks(anchors[:2], np.ones((2, 3)), names[:2], texts[:2])[0].tolist() == [2, 2]  # of equals the others are higher
    # the same anchor twice: its partners do not stand in each other's way; and a text that two anchors share counts once
    assert own_ranks(anchors[[0, 0, 2]], partners, ["a", "a", "c"], texts)[0].tolist() == [1, 1, 1]
    assert own_ranks(anchors[[0, 1]], partners[[1, 1]], names[:2], ["y", "y"])[0].tolist() == [1, 1]


def test_what_is_no_negative(tmp_path):
    """Partners of the same anchor, and texts like the own partner, are left out of the softmax."""
    rows = [*PAIRS, {"anchor": FIRST[0], "positive": "a bad film"}, {"anchor": "1234", "positive": SECOND[1]}]
    task, model, examples = made(bert(tmp_path), rows)
    batch, output = forward(task, model, examples)
    want = np.zeros((6, 6), bool)
    want[0, 4] = want[4, 0] = want[1, 5] = want[5, 1] = True
    np.testing.assert_array_equal(batch["same"], want)
    a, b = (unit(x) for x in vectors(tmp_path, *([row[key] for row in rows] for key in ("anchor", "positive"))))
    logits = np.where(want, -np.inf, 20 * a @ b.T)
    np.testing.assert_allclose(output.loss.item(), cross_entropy(logits), rtol=1e-4)
    negatives = [{**row, "negative": row["positive"] if i == 2 else c} for i, (row, c) in enumerate(zip(PAIRS, THIRD))]
    task, model, examples = made(tmp_path, negatives)
    batch, output = forward(task, model, examples)
    assert np.argwhere(batch["same"]).tolist() == [[2, 6]] and np.isfinite(output.loss.item())


def test_scores_of_pairs(tmp_path):
    task, model, examples = made(bert(tmp_path), TRIPLETS)
    outputs = task.outputs(model, task.dataset(examples["train"]), 5)
    a, b, c = (unit(x) for x in vectors(tmp_path, FIRST, SECOND, THIRD))
    for one, *want in zip(outputs, a, b, c):
        np.testing.assert_allclose(one, want, atol=1e-5)
    scores = task.scores(outputs, examples["train"])
    rank = np.array([1 + sum(a[i] @ b[j] >= a[i] @ b[i] for j in range(4) if j != i) for i in range(4)])
    assert scores["accuracy_at_1"] == np.mean(rank == 1) and scores["mrr"] == np.mean(1 / rank) and scores["accuracy_at_5"] == 1
    assert scores["triplet_accuracy"] == np.mean((a * b).sum(1) > (a * c).sum(1))
    np.testing.assert_allclose(scores["loss"], cross_entropy(20 * a @ b.T), rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_files(tmp_path, pooling):
    """What is saved is a sentence encoder."""
    task, model, examples = made(bert(tmp_path / "base"), PAIRS, pooling=pooling, max_length=11)
    outputs = task.outputs(model, task.dataset(examples["train"]), 4)
    restored, loaded = again(task, model, tmp_path / "saved")
    for before, after in zip(outputs, restored.outputs(loaded, restored.dataset(examples["train"]), 4)):
        np.testing.assert_array_equal(before, after)
    encoder = SentenceEncoder.from_pretrained(tmp_path / "saved")
    assert encoder.pooling == pooling and encoder.max_seq_length == 11
    np.testing.assert_allclose(encoder.encode(FIRST), [one[0] for one in outputs], atol=1e-5)


def test_learns(tmp_path):
    task, model, examples = made(bert(tmp_path, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), PAIRS)
    data = task.dataset(examples["train"], train=True)
    trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=3e-3), metrics=task.metrics())
    rows = trainer.fit(task.loader(data, 4, shuffle=True), task.loader(data, 4), epochs=20).rows
    assert rows[-1]["loss"] < rows[0]["loss"] / 2 and rows[-1]["val_accuracy_at_1"] == 1.0


def test_predictions_and_errors(tmp_path):
    task, model, _ = made(bert(tmp_path), PAIRS)
    examples = [task.example("a film"), task.example(("a film", "good")), task.example({"text": "a film"})]
    said = task.predictions(task.outputs(model, task.dataset(examples), 2), examples)
    (a,), (b,) = vectors(tmp_path, ["a film"], ["good"])
    np.testing.assert_allclose(said[0]["embedding"], a / np.linalg.norm(a), atol=1e-5)
    np.testing.assert_allclose(said[1]["similarity"], a @ b / np.linalg.norm(a) / np.linalg.norm(b), atol=1e-5)
    np.testing.assert_allclose(said[2]["embedding"], said[0]["embedding"], atol=1e-6)
    with pytest.raises(ValueError, match="loss: expected multiple_negatives, cosine, triplet, got 'arcface'"):
        Embed(options(loss="arcface"))
    with pytest.raises(TypeError, match="inputs: expected a text, a pair of texts or a dictionary, got float"):
        task.example(1.5)
    with pytest.raises(ValueError, match="input_ids: expected two or three texts for each of 3 labels, got 4"):
        model(np.ones((4, 3), int), labels=np.arange(3))
