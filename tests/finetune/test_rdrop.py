"""R-Drop, label smoothing and L2-SP against formulas written out here."""
import numpy as np
import pytest
from technique_models import assert_equal_tensors, bert, convnet, gradients, images, make, masked_lm, tensors, texts, token_batch

import bpnn
from bpnn import nn, optim
from bpnn.finetune.freeze import freeze_layers
from bpnn.finetune.l2sp import L2SP
from bpnn.finetune.rdrop import RDrop, symmetric_kl
from bpnn.finetune.rates import layer_groups
from bpnn.finetune.smoothing import LabelSmoothing
from bpnn.models.bert import BertConfig, BertForQuestionAnswering, BertForTokenClassification
from bpnn.train import Callback, CheckpointWriter, Trainer


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def cross_entropy(z, y, smoothing=0.0):
    log_p = np.log(softmax(z))
    return -((1 - smoothing) * log_p[np.arange(len(y)), y] + smoothing * log_p.mean(-1)).mean()


@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (33, 31)])
def test_the_divergence_is_its_formula(shape):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shape) * 3, rng.normal(size=shape) * 3
    p, q = softmax(a), softmax(b)
    x, y = (bpnn.from_numpy(z).requires_grad_() for z in (a, b))
    value = symmetric_kl(x, y)
    assert value.item() == pytest.approx((kl(p, q) + kl(q, p)).mean() / 2, rel=1e-12)
    assert bpnn.autograd.gradcheck(symmetric_kl, (x, y))
    assert symmetric_kl(x, x).item() == 0


@pytest.mark.rivals
def test_the_divergence_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    ours = [bpnn.from_numpy(z.copy()).requires_grad_() for z in (a, b)]
    theirs = [torch.tensor(z, requires_grad=True) for z in (a, b)]
    symmetric_kl(*ours).backward()
    logs = [torch.log_softmax(z, -1) for z in theirs]
    div = torch.nn.functional.kl_div
    loss = sum(div(logs[i], logs[1 - i], reduction="batchmean", log_target=True) for i in (0, 1)) / 2
    loss.backward()
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_shapes_that_say_nothing():
    with pytest.raises(ValueError, match="expected logits of at least 2 classes"):
        symmetric_kl(bpnn.zeros(3, 1), bpnn.zeros(3, 1))
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(2, 2\)"):
        symmetric_kl(bpnn.zeros(3, 2), bpnn.zeros(2, 2))
    with pytest.raises(ValueError, match="alpha: expected 0 or more, got -1"):
        RDrop(-1)


class Shaken(nn.Module):
    """x W with another noise each time it is called."""

    def __init__(self, noises):
        super().__init__()
        self.weight, self.noises, self.calls = nn.Parameter(bpnn.from_numpy(np.eye(4, 3))), noises, 0

    def forward(self, x):
        self.calls += 1
        return (x * bpnn.from_numpy(self.noises[self.calls - 1])) @ self.weight


def test_the_loss_of_a_trainer():
    rng = np.random.default_rng(1)
    noises = rng.uniform(size=(2, 5, 4)) * 2
    x, y = rng.normal(size=(5, 4)), np.array([0, 2, 1, 1, 0])
    model = Shaken(noises)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), nn.CrossEntropyLoss(), callbacks=[RDrop(0.7)])
    trainer.fit([(bpnn.from_numpy(x), bpnn.from_numpy(y))], epochs=1)

    def loss(weight):
        first, second = ((x * noise) @ weight for noise in noises)
        p, q = softmax(first), softmax(second)
        return (cross_entropy(first, y) + cross_entropy(second, y)) / 2 + 0.7 * (kl(p, q) + kl(q, p)).mean() / 2

    weight = np.eye(4, 3)
    assert trainer.history.rows[0]["loss"] == pytest.approx(loss(weight), rel=1e-12)
    step = np.zeros_like(weight)
    for i in np.ndindex(weight.shape):
        d = np.zeros_like(weight)
        d[i] = 1e-6
        step[i] = (loss(weight + d) - loss(weight - d)) / 2e-6
    np.testing.assert_allclose(model.weight.grad.numpy(), step, rtol=1e-6, atol=1e-9)


class Kept(Callback):
    """Keeps what each pass gave."""

    def __init__(self):
        self.outputs, self.value = [], None

    def on_loss(self, trainer, batch, loss, output, target):
        self.outputs.append((loss.item(), output))
        return loss


class Last(Callback):
    def on_loss(self, trainer, batch, loss, output, target):
        self.value = loss.item()
        return loss


def tokens_head(kind, **changes):
    bpnn.manual_seed(1)
    return kind(BertConfig.from_dict({
        "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 20, "hidden_dropout_prob": 0.3, **changes}))


def of_rows(outputs, chosen, name="logits"):
    return [np.asarray(getattr(output, name).detach().numpy(), np.float64)[chosen] for _, output in outputs]


def expected(outputs, chosen, alpha, name="logits"):
    p, q = (softmax(z) for z in of_rows(outputs, chosen, name))
    return sum(loss for loss, _ in outputs) / 2 + alpha * (kl(p, q) + kl(q, p)).mean() / 2


def one_step(model, batch, callbacks):
    Trainer(model, optim.SGD(model.parameters(), 0.0), callbacks=callbacks).fit([batch], epochs=1)


def test_heads_of_texts_tokens_and_the_next_token():
    for model, batch, chosen in [
        (bert(0.3), token_batch(), ...),
        (tokens_head(BertForTokenClassification, num_labels=5), token_batch(lm=True), None),
        (make("llama-lm"), token_batch(lm=True), "next"),
    ]:
        kept, last = Kept(), Last()
        if isinstance(batch["labels"], np.ndarray) and batch["labels"].ndim == 2:
            batch["labels"] = np.where(batch["labels"] >= 0, batch["labels"] % 5, -100)
            batch["labels"][0, :2] = -100
            mask = batch["labels"] != -100
            chosen = np.pad(mask[:, 1:], ((0, 0), (0, 1))) if chosen == "next" else mask
        one_step(model, batch, [kept, RDrop(2.0), last])
        assert len(kept.outputs) == 2
        assert last.value == pytest.approx(expected(kept.outputs, chosen, 2.0), rel=1e-4)


def test_answers_have_two_divergences():
    model, kept, last = tokens_head(BertForQuestionAnswering), Kept(), Last()
    batch = token_batch() | {"start_positions": np.array([1, 2, 0]), "end_positions": np.array([3, 2, 4])}
    del batch["labels"]
    one_step(model, batch, [kept, RDrop(2.0), last])
    parts = [expected(kept.outputs, ..., 2.0, name) for name in ("start_logits", "end_logits")]
    assert last.value == pytest.approx(sum(parts) / 2, rel=1e-4)


# --- label smoothing -----------------------------------------------------------------------------------------------------------


def test_smoothed_losses():
    for model, batch in [(bert(0.0), token_batch()), (make("vit"), images()), (make("gpt2-lm"), token_batch(lm=True)),
                         (masked_lm(), token_batch(lm=True))]:
        kept, last = Kept(), Last()
        one_step(model, batch, [kept, LabelSmoothing(0.2), last])
        z = np.asarray(kept.outputs[0][1].logits.detach().numpy(), np.float64)
        y = np.asarray(batch["labels"])
        if y.ndim == 2:
            if type(model).__name__.startswith("GPT2"):
                z, y = z[:, :-1], y[:, 1:]
            z, y = z[y != -100], y[y != -100]
        assert last.value == pytest.approx(cross_entropy(z, y, 0.2), rel=1e-5)
        assert kept.outputs[0][0] == pytest.approx(cross_entropy(z, y), rel=1e-5)


def test_smoothing_under_r_drop_smooths_both():
    kept, last, model, batch = Kept(), Last(), bert(0.3), token_batch()
    one_step(model, batch, [LabelSmoothing(0.2), kept, RDrop(0.0), last])
    z = of_rows(kept.outputs, ...)
    assert last.value == pytest.approx(sum(cross_entropy(one, batch["labels"], 0.2) for one in z) / 2, rel=1e-5)


def test_what_cannot_be_smoothed():
    with pytest.raises(ValueError, match=r"epsilon: expected a number in \[0, 1\], got 2"):
        LabelSmoothing(2)
    model = bert(labels=1)
    batch = token_batch() | {"labels": np.array([0.1, 0.2, 0.3])}
    with pytest.raises(ValueError, match="labels: expected whole numbers"):
        one_step(model, batch, [LabelSmoothing()])
    model = convnet()
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), callbacks=[LabelSmoothing()])
    with pytest.raises(ValueError, match=r"loss: expected None, the model's own"):
        trainer.fit([tuple(images().values())], epochs=1)


# --- L2-SP ---------------------------------------------------------------------------------------------------------------------


def test_weights_are_pulled_to_their_start():
    model, plain = bert(0.0), bert(0.0)
    plain.load_state_dict(model.state_dict())
    start = tensors(model)
    callback = L2SP(0.5, 0.25)
    batch = token_batch((4, 4, 4, 4))
    halves = [{name: value[i : i + 2] for name, value in batch.items()} for i in (0, 2)]
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1), callbacks=[callback], accumulate=2)
    trainer.fit(halves, epochs=1)
    moved = tensors(model)
    trainer.fit(halves, epochs=2)
    plain.load_state_dict({name: bpnn.from_numpy(value) for name, value in moved.items()})
    other = Trainer(plain, optim.SGD(plain.parameters(), 0.0), accumulate=2)
    other.fit(halves, epochs=1)
    head = {name for name, _ in layer_groups(model)[-1].parameters}
    found, base = gradients(model), gradients(plain)
    for name in found:
        pull = 0.25 * moved[name] if name in head else 0.5 * (moved[name] - start[name])
        np.testing.assert_allclose(found[name], base[name] + pull, rtol=1e-4, atol=1e-6, err_msg=name)
    with pytest.raises(ValueError, match="beta: expected 0 or more, got -1"):
        L2SP(0, -1)


def test_what_is_trained_later_starts_later():
    model, callback = bert(0.0), L2SP(0.5, 0.25)
    for first in (2, 0):  # the first layers are frozen, then none
        model.requires_grad_(True)
        freeze_layers(model, first)
        start = tensors(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        Trainer(model, optim.SGD(trained, 0.1), callbacks=[callback]).fit(texts(8), epochs=1)
    name = "bert.encoder.layer.0.output.dense.weight"
    np.testing.assert_array_equal(callback.start[name], start[name])


def test_the_start_is_part_of_a_checkpoint(tmp_path):
    def build(folder):
        bpnn.manual_seed(2)
        model = bert(0.1)
        callbacks = [L2SP(), RDrop(), CheckpointWriter(tmp_path / folder)]
        return Trainer(model, optim.AdamW(model.parameters(), 1e-2), callbacks=callbacks)

    whole = build("whole")
    whole.fit(texts(), epochs=3)
    build("cut").fit(texts(), epochs=1)
    second = build("cut")
    second.callbacks[-1].resume(second)
    second.fit(texts(), epochs=3)
    assert_equal_tensors(tensors(whole.model), tensors(second.model))
