"""Mixed batches, their losses and labels."""
import numpy as np
import pytest
from technique_models import assert_equal_tensors, convnet, gradients, images, make, tensors

import bpnn
from bpnn import nn, optim
from bpnn.finetune.mixup import CutMix, Mixup
from bpnn.finetune.smoothing import LabelSmoothing
from bpnn.nn import functional as F
from bpnn.train import Accuracy, Callback, CheckpointWriter, Trainer


class Batches(Callback):
    """Keeps batches, losses and targets."""

    def __init__(self):
        self.batches, self.losses, self.outputs = [], [], []

    def on_batch(self, trainer, batch):
        self.batches.append(batch)
        return batch

    def on_loss(self, trainer, batch, loss, output, target):
        self.losses.append(loss.item())
        self.outputs.append(output)
        return loss


def one_batch(mixer, x, y, model=None, loss=None, before=(), seed=5):
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(x.shape[1:])), 3)) if model is None else model
    seen = Batches()
    bpnn.manual_seed(seed)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), loss or nn.CrossEntropyLoss(), callbacks=[*before, mixer, seen],
                      train_metrics=[Accuracy()] if y.dtype.kind in "iu" else [])
    trainer.fit([(bpnn.from_numpy(x), bpnn.from_numpy(y))], epochs=1)
    return seen, trainer


def numbered(count=6, shape=(2, 8, 8)):
    """Image i is i everywhere, so that a mix tells of what it is made."""
    return np.broadcast_to(np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1), (count, *shape)).copy(), np.arange(count) % 3


def share_and_order(mixed):
    """From mixup of `numbered`: m_i = share i + (1 - share) order_i, whose sum over i tells nothing, but its values do."""
    values = mixed[:, 0, 0, 0].astype(np.float64)
    count = len(values)
    for order_0 in range(1, count):
        share = 1 - values[0] / order_0
        if not 0 <= share < 1:
            continue
        order = (values - share * np.arange(count)) / (1 - share)
        if np.allclose(order, np.round(order), atol=1e-3) and sorted(np.round(order)) == list(range(count)):
            return share, np.round(order).astype(int)
    raise AssertionError(values)


@pytest.mark.parametrize("seed", range(6))
def test_mixup_mixes_inputs_and_targets_alike(seed):
    x, y = numbered()
    seen, trainer = one_batch(Mixup(1.0), x, y, seed=seed)
    mixed, labels = seen.batches[0][0].numpy(), seen.batches[0][1].numpy()
    if mixed[0, 0, 0, 0] == 0:  # the first is mixed with itself
        return
    share, order = share_and_order(mixed)
    np.testing.assert_array_equal(labels, y if share >= 0.5 else y[order])
    soft = share * np.eye(3)[y] + (1 - share) * np.eye(3)[y[order]]
    z = seen.outputs[0].detach().numpy().astype(np.float64)
    log_p = z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True)
    assert seen.losses[0] == pytest.approx(-(soft * log_p).sum(1).mean(), rel=1e-4)
    assert trainer.history.rows[0]["accuracy"] == pytest.approx((z.argmax(1) == labels).mean())


def test_gradients_are_those_of_soft_targets():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4)).astype(np.float32), np.array([0, 2, 1, 1, 0])
    bpnn.manual_seed(0)
    model = nn.Linear(4, 3)
    mixer = Mixup(1.0)
    seen, _ = one_batch(mixer, x, y, model)
    mixed, first = seen.batches[0]
    share, other = mixer._share, mixer._other.numpy()
    assert 0.5 <= share < 1
    soft = share * np.eye(3)[first.numpy()] + (1 - share) * np.eye(3)[other]
    got = gradients(model)
    model.zero_grad()
    F.cross_entropy(model(mixed), bpnn.from_numpy(soft.astype(np.float32))).backward()
    for name, expected in gradients(model).items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_cutmix_pastes_one_box(seed):
    x, y = numbered(shape=(2, 9, 7))
    seen, _ = one_batch(CutMix(), x, y, seed=seed)
    mixed, labels = seen.batches[0][0].numpy(), seen.batches[0][1].numpy()
    pasted = mixed != x
    area = {int(p[0].sum()) for p in pasted} - {0}
    if not area:
        return
    (area,) = area
    share = 1 - area / 63
    order = np.array([int(m[0][p[0]][0]) if p.any() else i for i, (m, p) in enumerate(zip(mixed, pasted, strict=True))])
    assert sorted(order) == list(range(6))
    for p in pasted:
        rows, columns = np.flatnonzero(p[0].any(1)), np.flatnonzero(p[0].any(0))
        assert not p.any() or (len(rows) * len(columns) == area and (p[0] == p[1]).all())
    np.testing.assert_array_equal(labels, y if share >= 0.5 else y[order])
    z = seen.outputs[0]
    both = [F.cross_entropy(z, bpnn.from_numpy(labels)).item() for labels in (y, y[order])]
    assert seen.losses[0] == pytest.approx(share * both[0] + (1 - share) * both[1], rel=1e-4)


def test_shares_follow_beta():
    x, y = numbered(2)
    bpnn.manual_seed(0)
    mixer, shares = Mixup(0.4), []
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), nn.CrossEntropyLoss(), callbacks=[mixer])
    for _ in range(3000):
        mixer.on_batch(trainer, (x, y))
        shares.append(mixer._share)
    rng = np.random.default_rng(0)
    drawn = rng.beta(0.4, 0.4, 100000)
    assert np.mean(shares) == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.01)


def test_models_that_compute_their_own_loss():
    for mixer in (Mixup(1.0), CutMix()):
        model, seen = make("vit"), Batches()
        bpnn.manual_seed(1)
        trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), callbacks=[mixer, seen], train_metrics=[Accuracy()])
        trainer.fit([images(6)], epochs=1)
        first, share = seen.batches[0]["labels"], mixer._share
        z = seen.outputs[0].logits
        both = [F.cross_entropy(z, bpnn.from_numpy(np.asarray(labels))).item() for labels in (first, mixer._other)]
        assert seen.losses[0] == pytest.approx(share * both[0] + (1 - share) * both[1], rel=1e-4)


@pytest.mark.parametrize("order", [0, 1])
def test_label_smoothing_of_mixed_labels(order):
    model, seen, mixer = make("vit"), Batches(), Mixup(1.0)
    bpnn.manual_seed(1)
    callbacks = [mixer, LabelSmoothing(0.3)][:: -1 if order else 1]
    Trainer(model, optim.SGD(model.parameters(), 0.0), callbacks=[*callbacks, seen]).fit([images(6)], epochs=1)
    z, share = seen.outputs[0].logits, mixer._share
    both = [F.cross_entropy(z, bpnn.from_numpy(np.asarray(labels)), label_smoothing=0.3).item()
            for labels in (seen.batches[0]["labels"], mixer._other)]
    assert seen.losses[0] == pytest.approx(share * both[0] + (1 - share) * both[1], rel=1e-4)


def test_numbers_and_probabilities_are_mixed_themselves():
    x = numbered(4)[0]
    for y in (np.arange(4, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32), np.eye(4, 3, dtype=np.float32)):
        seen, _ = one_batch(Mixup(1.0), x, y, loss=nn.MSELoss(), seed=4)
        mixed, target = seen.batches[0][0].numpy(), seen.batches[0][1].numpy()
        share, order = share_and_order(mixed)
        np.testing.assert_allclose(target, share * y + (1 - share) * y[order], rtol=1e-4, atol=1e-5)
        assert seen.losses[0] == pytest.approx(((seen.outputs[0].detach().numpy() - target) ** 2).mean(), rel=1e-5)


def test_evaluation_sees_the_examples_as_they_are():
    x, y = numbered()
    _, trainer = one_batch(Mixup(1.0), x, y)
    z = trainer.model(bpnn.from_numpy(x))
    expected = F.cross_entropy(z, bpnn.from_numpy(y)).item()
    assert trainer.evaluate([(bpnn.from_numpy(x), bpnn.from_numpy(y))])["loss"] == pytest.approx(expected, rel=1e-6)


def test_some_batches_stay_as_they_are():
    mixer, (x, y) = Mixup(1.0, p=0.25), numbered()
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 3))
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.0), nn.CrossEntropyLoss(), callbacks=[mixer])
    bpnn.manual_seed(0)
    kept = sum(mixer.on_batch(trainer, (x, y))[0] is x for _ in range(400))
    assert 270 < kept < 330
    assert mixer.on_batch(trainer, (x[:1], y[:1]))[0] is not None and mixer._other is None


def test_errors():
    x, y = numbered()
    for call, words in [
        (lambda: Mixup(0), "alpha: expected a number above 0, got 0"),
        (lambda: CutMix(p=0), "p: expected a probability above 0, got 0"),
        (lambda: one_batch(CutMix(), x.reshape(6, -1), y), r"expected images \(B, C, H, W\), got shape \(6, 128\)"),
        (lambda: one_batch(Mixup(), x.astype(int), y), "batch: expected a floating-point input, got int64"),
        (lambda: one_batch(Mixup(), x, y, before=[CutMix()]), "callbacks: expected one that mixes examples"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("mixer", [Mixup, CutMix])
def test_a_resumed_run_has_the_same_bits(mixer, tmp_path):
    def build(folder):
        model = convnet(3)
        callbacks = [mixer(), CheckpointWriter(tmp_path / folder)]
        return Trainer(model, optim.Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), callbacks=callbacks)

    data = [tuple(map(bpnn.from_numpy, images(6, seed).values())) for seed in range(3)]
    whole = build("whole")
    whole.fit(data, epochs=3)
    build("cut").fit(data, epochs=1)
    second = build("cut")
    second.callbacks[-1].resume(second)
    second.fit(data, epochs=3)
    assert_equal_tensors(tensors(whole.model), tensors(second.model))
