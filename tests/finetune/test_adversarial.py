"""Adversarial inputs and embeddings against formulas written out here."""
import math

import numpy as np
import pytest
from technique_models import (
    SEQUENCE, assert_equal_tensors, bert, convnet, gradients, images, make, seq2seq, tensors, text_classifier, texts,
)

import bpnn
from bpnn import nn, optim
from bpnn.finetune.adversarial import FGSM, PGD, fgsm, pgd
from bpnn.finetune.embedding_attacks import FGM, EmbeddingPGD, Examples, FreeLB
from bpnn.nn import functional as F
from bpnn.train import Accuracy, CheckpointWriter, Trainer

# --- inputs ----------------------------------------------------------------------------------------------------------------------

WEIGHT = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)


def linear_loss(x):
    """Its gradient is WEIGHT everywhere."""
    return (x * bpnn.from_numpy(WEIGHT)).sum()


def quadratic_loss(x):
    """Its gradient is x - WEIGHT."""
    return ((x - bpnn.from_numpy(WEIGHT)) ** 2).sum() / 2


def norms(x):
    return np.sqrt((x.reshape(len(x), -1) ** 2).sum(1)).reshape(-1, *[1] * (x.ndim - 1))


def start(seed=1):
    return np.random.default_rng(seed).uniform(0.2, 0.8, WEIGHT.shape).astype(np.float32)


def test_fgsm_is_its_formula():
    x = start()
    np.testing.assert_allclose(fgsm(linear_loss, x, 0.1).numpy(), x + np.float32(0.1) * np.sign(WEIGHT), rtol=1e-6)
    np.testing.assert_allclose(fgsm(linear_loss, x, 0.1, norm=2).numpy(), x + 0.1 * WEIGHT / norms(WEIGHT), rtol=1e-5)
    clipped = fgsm(linear_loss, bpnn.from_numpy(x), 0.5, clip=(0, 1)).numpy()
    np.testing.assert_allclose(clipped, np.clip(x + 0.5 * np.sign(WEIGHT), 0, 1), rtol=1e-6)
    by_channel = np.array([[0.3], [0.4]], np.float32)
    far = fgsm(linear_loss, x, 9.0, clip=(by_channel, 1)).numpy()
    np.testing.assert_allclose(far, np.where(WEIGHT > 0, 1, by_channel), rtol=1e-6)


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_pgd_is_its_formula(norm):
    x, eps, size, steps = start(), 0.3, 0.12, 5
    moved = x.astype(np.float64)
    for _ in range(steps):
        g = moved - WEIGHT
        moved = moved + size * (np.sign(g) if norm == math.inf else g / norms(g))
        change = moved - x
        change = change.clip(-eps, eps) if norm == math.inf else change * np.minimum(1, eps / norms(change))
        moved = (x + change).clip(0.1, 0.9)
    got = pgd(quadratic_loss, x, eps, step_size=size, steps=steps, clip=(0.1, 0.9), norm=norm, random_start=False)
    np.testing.assert_allclose(got.numpy(), moved, rtol=1e-5)


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_a_random_start_lies_in_the_ball(norm):
    x, flat = np.zeros((400, 3), np.float32), lambda x: (x * 0).sum()
    bpnn.manual_seed(2)
    moved = pgd(flat, x, 0.5, norm=norm, steps=1).numpy()
    assert (np.abs(moved).max() if norm == math.inf else norms(moved).max()) <= 0.5 + 1e-6
    volume = (np.abs(moved) < 0.25).all(1).mean() if norm == math.inf else (norms(moved) < 0.25).mean()
    assert volume == pytest.approx(0.125, abs=0.05)  # uniform: half the radius, an eighth of the points
    bpnn.manual_seed(2)
    np.testing.assert_array_equal(moved, pgd(flat, x, 0.5, norm=norm, steps=1).numpy())


def test_no_eps_moves_nothing_and_parameters_get_no_gradient():
    layer = nn.Linear(4, 2)
    x = start()[:, 0]
    np.testing.assert_array_equal(fgsm(lambda z: layer(z).sum(), x, 0).numpy(), x)
    np.testing.assert_array_equal(pgd(lambda z: layer(z).sum(), x, 0, step_size=0.1).numpy(), x)
    assert layer.weight.grad is None


@pytest.mark.parametrize(("call", "words"), [
    (lambda: fgsm(linear_loss, start(), -1), "eps: expected 0 or more, got -1"),
    (lambda: fgsm(linear_loss, start(), 1, norm=1), "norm: expected 2 or math.inf, got 1"),
    (lambda: fgsm(linear_loss, np.arange(3), 1), "x: expected floating-point numbers .* got int64"),
    (lambda: pgd(linear_loss, start(), 1, steps=0), "steps: expected at least 1, got 0"),
    (lambda: pgd(linear_loss, start(), 1, step_size=0), "step_size: expected a number above 0, got 0"),
    (lambda: FGSM(0.1, clean=1), "clean: expected a share in"),
    (lambda: PGD(0.1, steps=0), "steps: expected at least 1"),
    (lambda: FGM(0), "eps: expected a number above 0, got 0"),
    (lambda: FreeLB(step_size=-1), "step_size: expected a number above 0, got -1"),
    (lambda: EmbeddingPGD(steps=0), "steps: expected at least 1, got 0"),
])
def test_wrong_numbers_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


class Seen:
    """A loss that notes what the model was given in training."""

    def __init__(self, model):
        self.inputs = []
        model[0].register_forward_hook(lambda module, args, output: self.inputs.append(args[0].detach().numpy().copy()))


def test_training_on_fgsm_sees_the_moved_batch_and_leaves_statistics_alone():
    model, batch = convnet(), images(4)
    x, y = batch["pixel_values"], batch["labels"]
    model.eval()
    leaf = bpnn.from_numpy(x).requires_grad_()
    F.cross_entropy(model(leaf), bpnn.from_numpy(y)).backward()
    expected = np.concatenate([x[:2], (x + 0.1 * np.sign(leaf.grad.numpy()))[2:]])
    fresh = convnet()
    fresh.load_state_dict(model.state_dict())
    fresh(bpnn.from_numpy(expected))
    running = fresh[1].running_mean.numpy().copy()
    model.zero_grad()
    seen = Seen(model)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), nn.CrossEntropyLoss(), callbacks=[FGSM(0.1, clean=0.5)],
                      train_metrics=[Accuracy()])
    trainer.fit([(bpnn.from_numpy(x), bpnn.from_numpy(y))], epochs=1)
    np.testing.assert_allclose(seen.inputs[-1], expected, rtol=1e-6)
    np.testing.assert_allclose(model[1].running_mean.numpy(), running, rtol=1e-5)  # one pass in training, not two
    assert model.training


def test_adversarial_batches_of_dictionaries():
    model = make("vit")
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), callbacks=[PGD(0.05, clip=(-3, 3))])
    trainer.fit([images(4)], epochs=2)
    with pytest.raises(ValueError, match="key: the batch has no 'x'; it has pixel_values, labels"):
        Trainer(model, optim.SGD(model.parameters(), 0.1), callbacks=[FGSM(0.1, key="x")]).fit([images()], epochs=1)
    words = bert()
    with pytest.raises(ValueError, match="batch: expected one entry of floating-point numbers"):
        Trainer(words, optim.SGD(words.parameters(), 0.1), callbacks=[FGSM(0.1)]).fit(texts(), epochs=1)


# --- embeddings -------------------------------------------------------------------------------------------------------------------

LENGTHS = (7, 3, 5)


def unlike_tokens(model_name="bert"):
    """A batch where no token comes twice, so that a change of the table is a change of one place."""
    rng = np.random.default_rng(4)
    tokens, mask = np.zeros((3, 7), np.int64), np.arange(7) < np.array(LENGTHS)[:, None]
    tokens[mask] = rng.permutation(np.arange(3, 31))[: sum(LENGTHS)]
    return {"input_ids": tokens, "attention_mask": mask.astype(np.int64), "labels": np.array([2, 0, 1])}


TABLES = {"bert": "bert.embeddings.word_embeddings", "roberta": "roberta.embeddings.word_embeddings",
          "distilbert": "distilbert.embeddings.word_embeddings", "gpt2": "transformer.wte", "llama": "model.embed_tokens"}


class ByTable:
    """The same attacks, made by changing rows of the table of tokens."""

    def __init__(self, name, batch):
        self.model, self.batch, self.name = make(name), batch, TABLES[name] + ".weight"
        self.table = self.model.get_parameter(self.name)
        self.clean = self.table.detach().numpy().copy()
        self.rows = [batch["input_ids"][b, :n] for b, n in enumerate(LENGTHS)]

    def gradients(self, change):
        """Of all parameters, with the table moved."""
        with bpnn.no_grad():
            self.table.copy_(bpnn.from_numpy((self.clean + change).astype(np.float32)))
        self.model.zero_grad()
        self.model(**self.batch).loss.backward()
        return gradients(self.model)

    def unit(self, table_gradient):
        step = np.zeros_like(self.clean, np.float64)
        for rows in self.rows:
            step[rows] = table_gradient[rows] / np.sqrt((table_gradient[rows].astype(np.float64) ** 2).sum())
        return step

    def projected(self, change, eps):
        moved = np.zeros_like(change)
        for rows in self.rows:
            length = np.sqrt((change[rows] ** 2).sum())
            moved[rows] = change[rows] * min(1, eps / length)
        return moved


def mean(many):
    return {name: None if many[0][name] is None else sum(one[name] for one in many) / len(many) for name in many[0]}


def close(first, second, scale=1.0):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], scale * second[name], rtol=2e-3, atol=2e-6, err_msg=name)


def after_one_step(model, callback, batch, frozen=None):
    if frozen:
        model.get_parameter(frozen).requires_grad = False
    trainer = Trainer(model, optim.SGD([p for p in model.parameters() if p.requires_grad], 0.0), callbacks=[callback])
    trainer.fit([batch], epochs=1)
    return gradients(model)


@pytest.mark.parametrize("name", SEQUENCE)
@pytest.mark.parametrize("frozen", [False, True])
def test_fgm_adds_the_gradient_at_the_moved_embeddings(name, frozen):
    batch = unlike_tokens()
    by_table = ByTable(name, batch)
    clean = by_table.gradients(0)
    moved = by_table.gradients(0.5 * by_table.unit(clean[by_table.name]))
    got = after_one_step(make(name), FGM(0.5), batch, by_table.name if frozen else None)
    expected = mean([clean, moved])
    if frozen:
        assert got.pop(by_table.name) is None
        expected.pop(by_table.name)
    close(got, expected, 2.0)


@pytest.mark.parametrize("packed", [True, False])
def test_fgm_on_padded_rows(packed):
    batch = unlike_tokens()
    by_table = ByTable("bert", batch)
    clean = by_table.gradients(0)
    moved = by_table.gradients(0.5 * by_table.unit(clean[by_table.name]))
    model = make("bert")
    model.packed = packed
    close(after_one_step(model, FGM(0.5), batch), mean([clean, moved]), 2.0)


@pytest.mark.parametrize("name", SEQUENCE)
def test_pgd_on_embeddings(name):
    batch, eps, size, steps = unlike_tokens(), 0.5, 0.3, 3
    by_table = ByTable(name, batch)
    clean = found = by_table.gradients(0)
    change = np.zeros_like(by_table.clean, np.float64)
    for _ in range(steps):
        change = by_table.projected(change + size * by_table.unit(found[by_table.name]), eps)
        found = by_table.gradients(change)
    got = after_one_step(make(name), EmbeddingPGD(eps, size, steps), batch)
    close(got, mean([clean, found]), 2.0)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("steps", [1, 3])
def test_freelb_means_the_gradients_of_its_steps(name, steps):
    batch, eps, size = unlike_tokens(), 0.4, 0.2
    by_table = ByTable(name, batch)
    noted = []

    class Noted(FreeLB):
        def _first(self, change):
            noted.append(change.copy())
            super()._first(change)

    got = after_one_step(make(name), Noted(eps, size, steps), batch)
    mask = batch["attention_mask"].astype(bool)
    start = noted[0] if noted[0].ndim == 2 else noted[0][mask]
    change = np.zeros_like(by_table.clean, np.float64)
    change[batch["input_ids"][mask]] = start
    for rows, length in zip(by_table.rows, LENGTHS, strict=True):
        bound = eps / math.sqrt(length * 16)
        assert np.abs(change[rows]).max() <= bound and np.abs(change[rows]).max() > 0.9 * bound
    found = []
    for _ in range(steps):
        found.append(by_table.gradients(change))
        change = by_table.projected(change + size * by_table.unit(found[-1][by_table.name]), eps)
    close(got, mean(found))


def test_freelb_keeps_dropout_and_reports_the_whole_loss():
    seen = []

    class Noted(FreeLB):
        def on_loss(self, trainer, batch, loss, output, target):
            seen.append((output.logits.detach().numpy().copy(), loss.item()))
            return super().on_loss(trainer, batch, loss, output, target)

    bpnn.manual_seed(1)
    model = bert(0.5)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), callbacks=[Noted(1e-6, 1e-6, 3)])
    trainer.fit(texts(8), epochs=1)
    for first, *others in (seen[:3], seen[3:]):
        for other in others:
            np.testing.assert_allclose(other[0], first[0], atol=1e-4)
    assert trainer.history.rows[0]["loss"] == pytest.approx((seen[0][1] + seen[3][1]) / 2, rel=1e-5)


def test_other_models_that_read_tokens():
    rng = np.random.default_rng(0)
    batch = tuple(bpnn.from_numpy(x) for x in (rng.integers(1, 31, (4, 6)), np.array([6, 2, 3, 6]), np.array([0, 1, 2, 0])))
    for attack in (FGM(), EmbeddingPGD(), FreeLB()):
        model = text_classifier()
        Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[attack]).fit([batch], epochs=1)
        translator = seq2seq()
        pairs = {"input_ids": rng.integers(3, 31, (2, 5)), "attention_mask": np.array([[1] * 5, [1, 1, 0, 0, 0]]),
                 "labels": np.array([[5, 6, 7, 2], [9, 2, -100, -100]])}
        Trainer(translator, optim.SGD(translator.parameters(), 0.1), callbacks=[attack]).fit([pairs], epochs=1)
        language = make("llama-lm")
        tokens = rng.integers(3, 31, (1, 9))
        packed = {"input_ids": tokens, "labels": tokens, "cu_seqlens": np.array([0, 4, 9])}
        Trainer(language, optim.SGD(language.parameters(), 0.1), callbacks=[attack]).fit([packed], epochs=1)
    model = convnet()
    with pytest.raises(ValueError, match="model: expected one that reads tokens"):
        Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[FGM()]).fit([batch], epochs=1)


def test_which_rows_are_whose():
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    batch = {"attention_mask": mask}
    assert Examples.of(batch, (5, 4)).owner.tolist() == [0, 0, 1, 1, 1]
    assert Examples.of(batch, (6, 4)).owner.tolist() == [0, 0, -1, 1, 1, 1]
    assert Examples.of(batch, (2, 3, 4)).owner.tolist() == [[0, 0, -1], [1, 1, 1]]
    assert Examples.of({"cu_seqlens": [0, 2, 5]}, (1, 5, 4)).owner.tolist() == [[0, 0, 1, 1, 1]]
    assert Examples.of((), (2, 3, 4)).owner.tolist() == [[0, 0, 0], [1, 1, 1]]
    x = np.arange(20, dtype=float).reshape(5, 4)
    expected = np.repeat([np.linalg.norm(x[:2]), np.linalg.norm(x[2:])], [2, 3])
    np.testing.assert_allclose(Examples.of(batch, (5, 4)).norms(x)[:, 0], expected)
    with pytest.raises(ValueError, match="tell whose the 7 rows of the embedding are"):
        Examples.of(batch, (7, 4))


def test_one_attack_and_its_place():
    model = bert()
    with pytest.raises(ValueError, match="expected one attack on embeddings, got FGM and FreeLB"):
        Trainer(model, optim.SGD(model.parameters(), 0.1), callbacks=[FGM(), FreeLB()]).fit(texts(), epochs=1)


@pytest.mark.parametrize("attack", [FGM, EmbeddingPGD, FreeLB])
@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_resumed_run_has_the_same_bits(attack, stop_at, tmp_path):
    from bpnn.train import Callback

    class Stop(Callback):
        def __init__(self, at):
            self.at = at

        def on_step_end(self, trainer):
            if trainer.state.step == self.at:
                trainer.stop("asked", interrupted=True)

    def build(folder, at=None):
        bpnn.manual_seed(3)
        model = bert(0.2)
        return Trainer(model, optim.AdamW(model.parameters(), 1e-2), accumulate=2, callbacks=[
            attack(), Stop(at), CheckpointWriter(tmp_path / folder)])

    whole = build("whole")
    whole.fit(texts(), epochs=2)
    build("cut", stop_at).fit(texts(), epochs=2)
    second = build("cut")
    second.callbacks[-1].resume(second)
    second.fit(texts(), epochs=2)
    assert_equal_tensors(tensors(whole.model), tensors(second.model))
