"""Replay, elastic weights and old answers against formulas in NumPy, and against forgetting."""
import copy

import numpy as np
import pytest

import bpnn
from bpnn import models, nn
from bpnn.finetune import EWC, LwF, Replay
from bpnn.optim import SGD, Adam
from bpnn.train import CheckpointWriter, Trainer
from bpnn.utils.data import DataLoader, TensorDataset

BERT = {
    "vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 16, "initializer_range": 0.3,
}


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def tensors(*arrays):
    return tuple(bpnn.from_numpy(np.asarray(array)) for array in arrays)


def linear(seed=0):
    bpnn.manual_seed(seed)
    return nn.Linear(4, 3).to(bpnn.float64)


def data(seed=0, n=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)), rng.integers(0, 3, n)


# Replay


def test_a_share_of_each_batch_is_old():
    bpnn.manual_seed(0)
    replay = Replay(0.3, capacity=50).fill([tensors(np.arange(100, 120.0), np.full(20, 1))])
    new = tensors(np.arange(10.0), np.zeros(10, np.int64))
    shown = np.zeros(10)
    for _ in range(400):
        x, y = replay.on_batch(None, new)
        assert (x.shape, y.shape, y.dtype) == ((10,), (10,), np.int64)
        old = x.numpy() >= 100
        np.testing.assert_array_equal(old, y.numpy() == 1)  # inputs and labels stay together
        assert old.sum() == 3
        assert len(set(x.tolist())) == 10
        shown[x.numpy()[~old].astype(int)] += 1
    np.testing.assert_allclose(shown / 400, 0.7, atol=0.1)
    assert len(replay) == 20  # without learn, the store stays


def test_every_sample_has_the_same_chance_to_be_stored():
    bpnn.manual_seed(0)
    kept = np.zeros(30)
    for _ in range(600):
        replay = Replay(capacity=6).fill([tensors(np.arange(30)[i : i + 7]) for i in range(0, 30, 7)])
        assert (len(replay), replay.seen) == (6, 30)
        kept[[int(sample["0"]) for sample in replay.samples]] += 1
    np.testing.assert_allclose(kept / 600, 6 / 30, atol=0.06)


def test_batches_of_tokens():
    old = {"input_ids": np.full((2, 3), 7), "attention_mask": np.ones((2, 3), int), "labels": np.full((2, 3), 2)}
    replay = Replay(0.5).fill([old])
    new = {"input_ids": np.full((4, 5), 9), "attention_mask": np.ones((4, 5), int), "labels": np.zeros((4, 5), int), "flag": True}
    mixed = replay.on_batch(None, new)
    assert mixed["flag"] is True
    assert mixed["input_ids"].tolist() == [[9] * 5] * 2 + [[7, 7, 7, 0, 0]] * 2
    assert mixed["attention_mask"].tolist() == [[1] * 5] * 2 + [[1, 1, 1, 0, 0]] * 2
    assert mixed["labels"].tolist() == [[0] * 5] * 2 + [[2, 2, 2, -100, -100]] * 2


def test_a_store_that_learns_and_draws_repeatedly():
    bpnn.manual_seed(0)
    replay = Replay(0.5, learn=True)
    first = tensors(np.arange(4.0))
    assert replay.on_batch(None, first) is first  # nothing stored yet
    assert len(replay) == 4
    x = replay.on_batch(None, tensors(np.arange(10.0, 30.0)))[0].numpy()
    assert (x < 10).sum() == 10  # ten of four: some are drawn twice
    assert len(replay) == 24


# EWC


def fisher(w, b, x, y):
    """Squares of the gradients of a linear classifier, sample by sample."""
    errors = np.exp(log_softmax(x @ w.T + b)) - np.eye(3)[y]
    return np.mean([np.outer(e, v) ** 2 for e, v in zip(errors, x, strict=True)], 0), np.mean(errors**2, 0)


def test_fisher_information_and_penalty():
    model, (x, y) = linear(), data()
    w, b = (p.detach().numpy().copy() for p in model.parameters())
    ewc = EWC(7.0).consolidate(model, DataLoader(TensorDataset(*tensors(x, y)), 3), nn.CrossEntropyLoss())
    fw, fb = fisher(w, b, x, y)
    np.testing.assert_allclose(ewc.fisher["weight"], fw, rtol=1e-10)
    np.testing.assert_allclose(ewc.fisher["bias"], fb, rtol=1e-10)
    assert ewc.penalty_of(model).item() == 0
    assert model.weight.grad is None
    assert model.training
    with bpnn.no_grad():
        model.weight.add_(0.5)
        model.bias.sub_(0.25)
    np.testing.assert_allclose(ewc.penalty_of(model).item(), 3.5 * (fw.sum() * 0.25 + fb.sum() * 0.0625), rtol=1e-10)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), callbacks=[ewc])
    loss, output, _ = trainer.training_loss(tensors(x, y))
    loss.backward()
    errors = (np.exp(log_softmax(output.detach().numpy())) - np.eye(3)[y]) / len(x)
    np.testing.assert_allclose(model.weight.grad.numpy(), errors.T @ x + 7 * fw * 0.5, rtol=1e-9)
    np.testing.assert_allclose(model.bias.grad.numpy(), errors.sum(0) - 7 * fb * 0.25, rtol=1e-9)


def test_several_tasks():
    model, first, second = linear(), data(1), data(2, 5)
    weights = [p.detach().numpy().copy() for p in model.parameters()]
    ewc = EWC(1.0, decay=0.5).consolidate(model, [tensors(*first)], nn.CrossEntropyLoss())
    with bpnn.no_grad():
        model.weight.add_(1.0)
    ewc.consolidate(model, [tensors(*second)], nn.CrossEntropyLoss(), samples=4)
    old, _ = fisher(*weights, *first)
    new, _ = fisher(weights[0] + 1, weights[1], second[0][:4], second[1][:4])
    np.testing.assert_allclose(ewc.fisher["weight"], 0.5 * old + new, rtol=1e-10)
    np.testing.assert_allclose(ewc.anchor["weight"], weights[0] + 1)


def test_true_fisher_information():
    """With labels from the model itself the mean is over its own distribution: E[(p - e_y)²] = p (1 - p)."""
    model, (x, _) = linear(), data(0, 1)
    p = np.exp(log_softmax(x @ model.weight.detach().numpy().T + model.bias.detach().numpy()))[0]
    bpnn.manual_seed(0)
    many = [tensors(np.repeat(x, 1500, 0), np.zeros(1500, np.int64))]
    ewc = EWC().consolidate(model, many, empirical=False)
    np.testing.assert_allclose(ewc.fisher["bias"], p * (1 - p), rtol=0.1)


def test_models_that_compute_their_loss():
    bpnn.manual_seed(0)
    model = models.BertForSequenceClassification(models.BertConfig.from_dict(BERT)).to(bpnn.float64)
    model.bert.embeddings.requires_grad_(False)
    ids = np.random.default_rng(0).integers(1, 31, (3, 5))
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": np.array([0, 1, 1])}
    ewc = EWC().consolidate(model, [batch])
    assert not any(name.startswith("bert.embeddings") for name in ewc.fisher)
    model.eval()
    with bpnn.no_grad():
        logits = model(**batch).logits.numpy()
    errors = np.exp(log_softmax(logits)) - np.eye(2)[batch["labels"]]
    np.testing.assert_allclose(ewc.fisher["classifier.bias"], (errors**2).mean(0), rtol=1e-9)


# LwF


def test_old_answers():
    old, model, (x, y) = linear(1), linear(2), data()
    lwf = LwF(old, 3.0, 0.6, classes=2)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), callbacks=[lwf])
    s, t = (x @ m.weight.detach().numpy().T + m.bias.detach().numpy() for m in (model, old))
    p, q = log_softmax(t[:, :2] / 3), log_softmax(s[:, :2] / 3)
    expected = -log_softmax(s)[np.arange(7), y].mean() + 0.6 * 9 * (np.exp(p) * (p - q)).sum(-1).mean()
    np.testing.assert_allclose(trainer.training_loss(tensors(x, y))[0].item(), expected, rtol=1e-9)


def test_more_classes_than_before_and_heads():
    old, (x, y) = linear(1), data()
    bpnn.manual_seed(2)
    model = nn.Linear(4, 5).to(bpnn.float64)
    s, t = (x @ m.weight.detach().numpy().T + m.bias.detach().numpy() for m in (model, old))
    p, q = log_softmax(t / 2), log_softmax(s[:, :3] / 2)
    soft = 4 * (np.exp(p) * (p - q)).sum(-1).mean()
    hard = -log_softmax(s)[np.arange(7), y].mean()
    for lwf in (LwF(old), LwF(old, head=lambda m, batch: m(batch[0])[:, :3])):
        trainer = Trainer(model, SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), callbacks=[lwf])
        np.testing.assert_allclose(trainer.training_loss(tensors(x, y))[0].item(), hard + soft, rtol=1e-9)
    with pytest.raises(ValueError, match="classes: expected at most 3, as many as both give, got 4"):
        LwF(old, classes=4).on_loss(trainer, tensors(x, y), 0, model(tensors(x)[0]), None)


def test_tokens_that_do_not_count():
    config = models.BertConfig.from_dict({**BERT, "num_labels": 3})
    bpnn.manual_seed(0)
    old, model = (models.BertForTokenClassification(config).eval() for _ in range(2))
    ids, labels = np.random.default_rng(0).integers(1, 31, (2, 5)), np.array([[0, 1, -100, 2, -100], [1, -100, -100, -100, -100]])
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": labels}
    with bpnn.no_grad():
        hard, s, t = model(**batch).loss.item(), *(m(ids).logits.numpy()[labels >= 0] for m in (model, old))
    p, q = log_softmax(t / 2), log_softmax(s / 2)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), callbacks=[LwF(old)])
    np.testing.assert_allclose(
        trainer.training_loss(batch)[0].item(), hard + 4 * (np.exp(p) * (p - q)).sum(-1).mean(), rtol=1e-5)


# Together


def blobs(labels, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(labels, 160)
    centers = np.random.default_rng(9).normal(size=(4, 6)) * 2
    return TensorDataset(*tensors((centers[y] + rng.normal(size=(160, 6))).astype(np.float32), y))


def accuracy(model, dataset):
    x, y = dataset.tensors
    return (model(x).argmax(1) == y).numpy().mean()


def test_what_was_learned_is_kept():
    first, second = blobs([0, 1]), blobs([2, 3], 1)
    bpnn.manual_seed(0)
    start = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))

    def learn(model, dataset, callbacks=()):
        bpnn.manual_seed(1)
        trainer = Trainer(model, Adam(model.parameters(), lr=0.01), nn.CrossEntropyLoss(), callbacks=callbacks)
        trainer.fit(DataLoader(dataset, 16, shuffle=True), epochs=8)
        return model

    learn(start, first)
    assert accuracy(start, first) > 0.95
    forgot = learn(copy.deepcopy(start), second)
    assert accuracy(forgot, first) < 0.5
    replayed = learn(copy.deepcopy(start), second, [Replay(0.3).fill(DataLoader(first, 16))])
    assert accuracy(replayed, first) > 0.9
    assert accuracy(replayed, second) > 0.9
    before = start(first.tensors[0]).detach().numpy()
    kept = learn(copy.deepcopy(start), second, [LwF(copy.deepcopy(start), weight=3.0)])
    distance = [np.abs(log_softmax(m(first.tensors[0]).detach().numpy()) - log_softmax(before)).mean() for m in (kept, forgot)]
    assert distance[0] < 0.7 * distance[1]


def test_weights_that_matter_stay():
    """Two tasks that a linear model can do at once, each by half of its inputs; the other half is noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (2, 200))
    x = rng.normal(size=(2, 200, 6)).astype(np.float32) * 2
    for task in range(2):
        x[task, :, 3 * task : 3 * task + 3] += 2 * (2 * y[task] - 1)[:, None]
    first, second = (TensorDataset(*tensors(x[task], y[task])) for task in range(2))
    bpnn.manual_seed(0)
    start = nn.Linear(6, 2)
    loss = nn.CrossEntropyLoss()
    Trainer(start, Adam(start.parameters(), lr=0.03), loss).fit(DataLoader(first, 20), epochs=10)
    found = {}
    for penalty in (0.0, 10.0):
        model = copy.deepcopy(start)
        ewc = EWC(penalty).consolidate(start, DataLoader(first, 20), loss)
        Trainer(model, Adam(model.parameters(), lr=0.03), loss, callbacks=[ewc]).fit(DataLoader(second, 20), epochs=20)
        found[penalty] = accuracy(model, first), accuracy(model, second)
    assert found[10.0][0] > found[0.0][0] + 0.2
    assert found[10.0][1] > 0.85


def test_resume(tmp_path):
    old, dataset = blobs([0, 1]), blobs([2, 3], 1)

    def run(epochs, folder, resume=False, filled=True):
        bpnn.manual_seed(3)
        model = nn.Linear(6, 4)
        replay, ewc = Replay(0.4, 30, learn=True), EWC(5.0)
        if filled:
            replay.fill(DataLoader(old, 16))
            ewc.consolidate(model, DataLoader(old, 16), nn.CrossEntropyLoss(), samples=20)
        writer = CheckpointWriter(folder)
        trainer = Trainer(model, SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss(), callbacks=[replay, ewc, writer])
        if resume:
            bpnn.manual_seed(99)
            writer.resume(trainer)
        trainer.fit(DataLoader(dataset, 16, shuffle=True), epochs=epochs)
        return model.weight.detach().numpy().copy(), [sample["0"] for sample in replay.samples]

    whole = run(3, tmp_path / "a")
    run(1, tmp_path / "b")
    resumed = run(3, tmp_path / "b", resume=True, filled=False)  # the old data are in the checkpoint
    np.testing.assert_array_equal(whole[0], resumed[0])
    np.testing.assert_array_equal(whole[1], resumed[1])


def test_errors():
    model = linear()
    for call, message in [
        (lambda: Replay(1.5), "share: expected 0 to 1, got 1.5"), (lambda: Replay(capacity=0), "capacity: expected at least 1"),
        (lambda: EWC(-1), "penalty: expected 0 or more"), (lambda: EWC(decay=2), "decay: expected 0 to 1"),
        (lambda: LwF(model, temperature=0), "temperature: expected a number above 0"),
        (lambda: LwF(model, weight=-1), "weight: expected"),
        (lambda: LwF(model, classes=0), "classes: expected at least 1"),
        (lambda: Replay().add({"a": np.zeros(3), "b": np.zeros(2)}), "batch: expected arrays of as many samples each"),
        (lambda: Replay().fill([tensors(np.zeros(3))]).on_batch(None, {"x": np.zeros(4)}), "batch: expected 0 as the stored"),
        (lambda: Replay(0.5).fill([tensors(np.zeros((2, 3)))]).on_batch(None, tensors(np.zeros((2, 3, 4)))), "of one shape but"),
        (lambda: EWC().consolidate(model, [], nn.CrossEntropyLoss()), "loader: expected at least one sample"),
        (lambda: EWC().consolidate(nn.ReLU(), []), "model: expected parameters that are trained"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    ewc = EWC().consolidate(model, [tensors(*data())], nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match=r"model: bias: expected shape \(3,\)|model: weight: expected shape"):
        ewc.penalty_of(nn.Linear(4, 5))
    with pytest.raises(ValueError, match="bias, weight are missing"):
        ewc.penalty_of(nn.Sequential(nn.Linear(4, 3)))
