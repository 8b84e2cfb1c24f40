"""Distillation against formulas written out in NumPy; students against the layers they were made of."""
import numpy as np
import pytest

import bpnn
from bpnn import models, nn
from bpnn.finetune.distill import Distillation, distillation_loss
from bpnn.finetune.student import student_of
from bpnn.optim import AdamW
from bpnn.train import CheckpointWriter, Trainer
from bpnn.utils.data import DataLoader, TensorDataset

SIZES = {
    "vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3,
}
GPT2 = {
    "vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 3, "n_head": 2, "resid_pdrop": 0, "embd_pdrop": 0,
    "attn_pdrop": 0,
}
DISTIL = {"vocab_size": 31, "max_position_embeddings": 16, "dim": 12, "n_layers": 3, "n_heads": 2, "hidden_dim": 16}
VIT = {**SIZES, "image_size": 8, "patch_size": 4, "num_labels": 3}
LENGTHS = np.array([7, 3, 1, 5])
MASK = (np.arange(7) < LENGTHS[:, None]).astype(np.int64)


def bert(seed=0, head="ForSequenceClassification", **changes):
    bpnn.manual_seed(seed)
    config = models.BertConfig.from_dict({**SIZES, "num_labels": 3, **changes})
    return getattr(models, "Bert" + head)(config).to(bpnn.float64)


def batch(labels=(0, 2, 1, 1)):
    ids = np.random.default_rng(0).integers(1, 31, MASK.shape) * MASK
    return {"input_ids": ids, "attention_mask": MASK, "labels": np.array(labels)}


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def soft_loss(student, teacher, temperature):
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1).mean()


def trained_loss(distillation, student, given, loss=None):
    trainer = Trainer(student, AdamW([*student.parameters(), *distillation.parameters()]), loss, callbacks=[distillation])
    return trainer.training_loss(distillation.on_batch(trainer, given))[0]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.5])
def test_soft_loss_and_its_gradient(temperature):
    rng = np.random.default_rng(1)
    s, t = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    student = bpnn.from_numpy(s).requires_grad_()
    loss = distillation_loss(student, bpnn.from_numpy(t), temperature)
    loss.backward()
    np.testing.assert_allclose(loss.item(), soft_loss(s, t, temperature), rtol=1e-12)
    expected = temperature * (np.exp(log_softmax(s / temperature)) - np.exp(log_softmax(t / temperature))) / 5  # T² / T: Hinton's
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-12)


def test_soft_loss_of_counted_rows_and_of_numbers():
    rng = np.random.default_rng(2)
    s, t = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    counted = np.array([[True, False, True], [False, False, True]])
    loss = distillation_loss(bpnn.from_numpy(s), bpnn.from_numpy(t), 3.0, counted)
    np.testing.assert_allclose(loss.item(), soft_loss(s[counted], t[counted], 3.0), rtol=1e-12)
    assert distillation_loss(bpnn.from_numpy(s), bpnn.from_numpy(t), 3.0, np.zeros((2, 3), bool)).item() == 0
    a, b = rng.normal(size=(6, 1)), rng.normal(size=(6, 1))
    np.testing.assert_allclose(distillation_loss(bpnn.from_numpy(a), bpnn.from_numpy(b)).item(), ((a - b) ** 2).mean(), rtol=1e-12)
    with pytest.raises(ValueError, match=r"teacher: expected logits \(6, 1\).*got \(5, 1\)"):
        distillation_loss(bpnn.from_numpy(a), bpnn.from_numpy(b[:5]))


@pytest.mark.rivals
def test_soft_loss_against_torch():
    torch = pytest.importorskip("torch")
    s, t = np.random.default_rng(3).normal(size=(2, 9, 5))
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(torch.tensor(s) / 4, -1), torch.softmax(torch.tensor(t) / 4, -1), reduction="batchmean") * 16
    np.testing.assert_allclose(distillation_loss(bpnn.from_numpy(s), bpnn.from_numpy(t), 4.0).item(), expected.item(), rtol=1e-10)


def test_plain_models():
    bpnn.manual_seed(0)
    student, teacher = nn.Linear(4, 3).to(bpnn.float64), nn.Linear(4, 3).to(bpnn.float64)
    x, y = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 2, 1, 0])
    loss = trained_loss(
        Distillation(teacher, 3.0, 0.7), student, (bpnn.from_numpy(x), bpnn.from_numpy(y)), nn.CrossEntropyLoss())
    s, t = (x @ m.weight.detach().numpy().T + m.bias.detach().numpy() for m in (student, teacher))
    hard = -log_softmax(s)[np.arange(6), y].mean()
    np.testing.assert_allclose(loss.item(), 0.7 * soft_loss(s, t, 3.0) + 0.3 * hard, rtol=1e-10)
    loss.backward()
    assert teacher.weight.grad is None and not teacher.weight.requires_grad and not teacher.training


def test_hidden_states_and_attention():
    teacher, student = bert(1), bert(2, num_hidden_layers=2)
    distillation = Distillation(teacher, 2.0, 0.4, hidden=0.3, attention=0.2, layer_map=[(0, 0), (1, 2), (2, 3)])
    given = batch()
    asked = {**given, "output_hidden_states": True, "output_attentions": True}
    with bpnn.no_grad():
        s, t = student.train()(**asked), teacher(**asked)
    real = MASK.astype(bool)
    hidden = np.mean([
        ((s.hidden_states[i].numpy()[real] - t.hidden_states[j].numpy()[real]) ** 2).mean() for i, j in [(0, 0), (1, 2), (2, 3)]
    ])
    attention = np.mean([
        ((s.attentions[i].numpy() - t.attentions[j].numpy()) ** 2).sum(-1).transpose(0, 2, 1)[real].mean()
        for i, j in [(0, 1), (1, 2)]
    ])
    soft = soft_loss(s.logits.numpy(), t.logits.numpy(), 2.0)
    loss = trained_loss(distillation, student, given)
    np.testing.assert_allclose(loss.item(), 0.4 * soft + 0.6 * s.loss.item() + 0.3 * hidden + 0.2 * attention, rtol=1e-9)
    for name, value in {"soft": soft, "hidden": hidden, "attention": attention, "hard": s.loss.item()}.items():
        np.testing.assert_allclose(distillation.parts[name], value, rtol=1e-9)


def test_cosine_of_projected_states():
    teacher, student = bert(1), bert(2, hidden_size=8, intermediate_size=10)
    bpnn.manual_seed(3)
    projection = nn.Linear(8, 12).to(bpnn.float64)
    distillation = Distillation(teacher, alpha=0.0, hidden=1.0, hidden_loss="cosine", projection=projection)
    given = batch()
    with bpnn.no_grad():
        s, t = (m(**given, output_hidden_states=True) for m in (student, teacher))
    expected = 0
    for x, y in zip(s.hidden_states, t.hidden_states, strict=True):
        x = x.numpy() @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()
        x, y = x[MASK > 0], y.numpy()[MASK > 0]
        expected += (1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)).mean() / 4
    loss = trained_loss(distillation, student, given)
    np.testing.assert_allclose(loss.item(), s.loss.item() + expected, rtol=1e-9)
    loss.backward()
    assert all(parameter.grad is not None for parameter in projection.parameters())


def test_tokens_that_do_not_count():
    teacher, student = bert(1, "ForTokenClassification"), bert(2, "ForTokenClassification")
    labels = np.where(MASK, 1, -100)
    labels[0, 2] = -100
    given = batch(labels)
    with bpnn.no_grad():
        s, t = (m(**given).logits.numpy() for m in (student, teacher))
    loss = trained_loss(Distillation(teacher, 2.0, 1.0), student, given)
    np.testing.assert_allclose(loss.item(), soft_loss(s[labels >= 0], t[labels >= 0], 2.0), rtol=1e-9)


def test_language_models_learn_where_the_next_token_counts():
    bpnn.manual_seed(0)
    teacher, student = (models.GPT2LMHeadModel(models.GPT2Config.from_dict(GPT2)).to(bpnn.float64) for _ in range(2))
    given = batch()
    labels = np.where(MASK, given["input_ids"], -100)
    labels[0, :3] = -100  # a prompt
    given["labels"] = labels
    with bpnn.no_grad():
        s, t = (m(given["input_ids"], given["attention_mask"]).logits.numpy() for m in (student, teacher))
    counted = np.zeros(MASK.shape, bool)
    counted[:, :-1] = labels[:, 1:] >= 0
    loss = trained_loss(Distillation(teacher, 2.0, 1.0), student, given)
    np.testing.assert_allclose(loss.item(), soft_loss(s[counted], t[counted], 2.0), rtol=1e-9)


def test_answers():
    teacher, student = bert(1, "ForQuestionAnswering", num_labels=2), bert(2, "ForQuestionAnswering", num_labels=2)
    given = batch()
    del given["labels"]
    given |= {"start_positions": np.array([1, 0, 0, 2]), "end_positions": np.array([2, 1, 0, 4])}
    with bpnn.no_grad():
        s, t = student(**given), teacher(**given)
    hidden = np.where(MASK, 0, -1e6)  # padding is no place of an answer
    ends = ("start_logits", "end_logits")
    expected = np.mean([soft_loss(s[name].numpy() + hidden, t[name].numpy() + hidden, 2.0) for name in ends])
    np.testing.assert_allclose(trained_loss(Distillation(teacher, 2.0, 1.0), student, given).item(), expected, rtol=1e-9)


def test_classes_in_dimension_1():
    bpnn.manual_seed(0)
    teacher, student = (nn.Conv1d(3, 4, 1).to(bpnn.float64) for _ in range(2))
    x, y = bpnn.randn(2, 3, 5, dtype=bpnn.float64), bpnn.randint(0, 4, (2, 5))
    s, t = (model(x).detach().numpy().transpose(0, 2, 1) for model in (student, teacher))
    loss = trained_loss(Distillation(teacher, 2.0, 1.0), student, (x, y), nn.CrossEntropyLoss())
    np.testing.assert_allclose(loss.item(), soft_loss(s, t, 2.0), rtol=1e-9)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"])
def test_precomputed_logits(head):
    answers = head == "ForQuestionAnswering"
    teacher, student = (bert(seed, head, num_labels=2 if answers else 3) for seed in (1, 2))
    tokens = head == "ForTokenClassification"
    given = batch(np.where(MASK, 1, -100) if tokens else (0, 2, 1, 1))
    if answers:
        given["start_positions"] = given["end_positions"] = given.pop("labels") * 0
    once = Distillation(teacher)
    assert once.precompute([given]) == 4
    expected = trained_loss(Distillation(teacher), student, given).item()
    once.teacher = None  # nobody asks it
    np.testing.assert_allclose(trained_loss(once, student, given).item(), expected, rtol=1e-9)
    # another order, less padding
    short = {name: value[[2, 1], :3] if value.ndim == 2 else value[[2, 1]] for name, value in given.items()}
    np.testing.assert_allclose(
        trained_loss(once, student, short).item(), trained_loss(Distillation(teacher), student, short).item(), rtol=1e-9)
    once.teacher = teacher
    other = {**given, "input_ids": given["input_ids"][:, ::-1].copy() * MASK}  # unknown: asks
    np.testing.assert_allclose(
        trained_loss(once, student, other).item(), trained_loss(Distillation(teacher), student, other).item(), rtol=1e-9)


def test_resume_with_a_projection(tmp_path):
    x = np.random.default_rng(0).integers(1, 31, (10, 5))
    data = [{"input_ids": x[i], "labels": np.int64(i % 3)} for i in range(10)]

    def run(epochs, folder, resume=False):
        teacher, student = bert(1), bert(2, hidden_size=8, hidden_dropout_prob=0.2)
        projection = nn.Linear(8, 12).to(bpnn.float64)
        distillation = Distillation(teacher, hidden=1.0, projection=projection)
        optimizer = AdamW([*student.parameters(), *distillation.parameters()], lr=1e-2)
        writer = CheckpointWriter(folder)
        trainer = Trainer(student, optimizer, callbacks=[distillation, writer])
        if resume:
            bpnn.manual_seed(99)
            writer.resume(trainer)
        trainer.fit(DataLoader(data, batch_size=3, shuffle=True), epochs=epochs)
        return [p.detach().numpy().copy() for p in [*student.parameters(), *projection.parameters()]]

    bpnn.manual_seed(7)
    whole = run(3, tmp_path / "a")
    bpnn.manual_seed(7)
    run(1, tmp_path / "b")
    for a, b in zip(whole, run(3, tmp_path / "b", resume=True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_student_learns_from_soft_targets_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    bpnn.manual_seed(0)
    teacher, student = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)), nn.Linear(4, 3)
    wrong = bpnn.from_numpy(rng.integers(0, 3, 200))
    optimizer = bpnn.optim.Adam(student.parameters(), lr=0.05)
    trainer = Trainer(student, optimizer, nn.CrossEntropyLoss(), callbacks=[Distillation(teacher, 2.0, 1.0)])
    trainer.fit(DataLoader(TensorDataset(bpnn.from_numpy(x), wrong), 20), epochs=15)
    agree = (student(bpnn.from_numpy(x)).argmax(1) == teacher(bpnn.from_numpy(x)).argmax(1)).numpy().mean()
    assert agree > 0.9


@pytest.mark.parametrize(("kind", "head", "sizes", "stack"), [
    ("Bert", "ForSequenceClassification", SIZES, "bert.encoder.layer."),
    ("Roberta", "ForTokenClassification", SIZES, "roberta.encoder.layer."),
    ("DistilBert", "ForQuestionAnswering", DISTIL, "distilbert.transformer.layer."),
    ("GPT2", "LMHeadModel", GPT2, "transformer.h."),
    ("Llama", "ForCausalLM", SIZES, "model.layers."),
    ("ViT", "ForImageClassification", VIT, "vit.encoder.layer."),
])
def test_students(kind, head, sizes, stack):
    bpnn.manual_seed(0)
    teacher = getattr(models, kind + head)(getattr(models, kind + "Config").from_dict(sizes))
    student = student_of(teacher, [0, 2])
    theirs, ours = teacher.state_dict(), student.state_dict()
    renamed = {}
    for name in theirs:
        number = name[len(stack)] if name.startswith(stack) else ""
        if number != "1":
            renamed[name if number != "2" else f"{stack}1{name[len(stack) + 1:]}"] = theirs[name]
    assert ours.keys() == renamed.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value.numpy(), renamed[name].numpy())
    assert student.config.num_hidden_layers == 2 and teacher.config.num_hidden_layers == 3
    with bpnn.no_grad():
        next(student.parameters()).add_(1.0)  # a copy: the teacher does not feel it
    assert not np.array_equal(next(student.parameters()).tolist(), next(teacher.parameters()).tolist())


def test_a_student_computes_with_the_layers_it_has():
    teacher = bert(0).eval()
    given = batch()
    kept = teacher.bert.encoder.layer[1]
    student = student_of(teacher, [1])
    with bpnn.no_grad():
        expected = student_hidden = student(**given, output_hidden_states=True).hidden_states
        before = teacher(**given, output_hidden_states=True).hidden_states
    np.testing.assert_array_equal(student_hidden[0].numpy(), before[0].numpy())
    teacher.bert.encoder.layer = nn.ModuleList([kept])
    with bpnn.no_grad():
        np.testing.assert_array_equal(teacher(**given, output_hidden_states=True).hidden_states[1].numpy(), expected[1].numpy())


def test_students_are_saved_and_read(tmp_path):
    student = student_of(bert(0).to(bpnn.float32).eval(), 2)
    student.save_pretrained(tmp_path)
    again = models.BertForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.num_hidden_layers == 2
    with bpnn.no_grad():
        np.testing.assert_array_equal(again(**batch()).logits.numpy(), student(**batch()).logits.numpy())


@pytest.mark.parametrize("kind", ["Bert", "ViT"])
@pytest.mark.parametrize("pooler", [False, True])
def test_students_without_a_head(kind, pooler):
    config = getattr(models, kind + "Config").from_dict(SIZES if kind == "Bert" else VIT)
    student = student_of(getattr(models, kind + "Model")(config, add_pooling_layer=pooler), 2)
    assert (student.pooler is not None) == pooler
    assert len(student.encoder.layer) == 2


def test_layers_lie_evenly():
    teacher = bert(0, num_hidden_layers=6)
    layers = teacher.bert.encoder.layer
    for count, kept in [(1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (6, range(6))]:
        student = student_of(teacher, count).bert.encoder.layer
        assert len(student) == count
        for ours, number in zip(student, kept, strict=True):
            assert ours.output.dense.weight.tolist() == layers[number].output.dense.weight.tolist()


def test_students_of_classifiers_on_pooled_rows():
    from bpnn.finetune.pooled import PooledClassifier

    bpnn.manual_seed(0)
    teacher = PooledClassifier(models.BertConfig.from_dict({**SIZES, "num_labels": 3}), "max", 0.25, 9)
    student = student_of(teacher, 1)
    assert (student.pooling, student.dropout.p, student.max_seq_length) == ("max", 0.25, 9)
    assert len(student.model.encoder.layer) == 1
    assert student.classifier.weight.tolist() == teacher.classifier.weight.tolist()
    trained_loss(Distillation(teacher, hidden=1.0), student, batch()).backward()


def test_errors():
    teacher = bert(1)
    for given, message in [
        ({"temperature": 0}, "temperature: expected a number above 0, got 0"), ({"alpha": 1.5}, "alpha: expected 0 to 1"),
        ({"hidden": -1}, "hidden: expected"), ({"attention": -1}, "attention: expected"),
        ({"hidden": 1, "hidden_loss": "l1"}, "hidden_loss: expected 'mse' or 'cosine', got 'l1'"),
        ({"projection": nn.Linear(2, 2)}, "projection: expected None where hidden is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Distillation(teacher, **given)
    narrow = bert(2, hidden_size=8)
    with pytest.raises(ValueError, match=r"give nn.Linear\(8, 12\)"):
        trained_loss(Distillation(teacher, hidden=1.0), narrow, batch())
    with pytest.raises(ValueError, match="both need as many heads"):
        trained_loss(Distillation(teacher, attention=1.0), bert(2, num_attention_heads=4), batch())
    with pytest.raises(ValueError, match=r"layer_map: expected pairs of 0 … 3 and 0 … 3, got \(1, 9\)"):
        trained_loss(Distillation(teacher, hidden=1.0, layer_map=[(1, 9)]), bert(2), batch())
    with pytest.raises(ValueError, match="layer_map: expected at least one pair without 0"):
        trained_loss(Distillation(teacher, attention=1.0, layer_map=[(0, 1)]), bert(2), batch())
    with pytest.raises(ValueError, match="precompute: expected hidden and attention of 0"):
        Distillation(teacher, hidden=1.0).precompute([batch()])
    with pytest.raises(ValueError, match="expected dictionary batches|take dictionary batches, got tuple"):
        Distillation(teacher, hidden=1.0).on_batch(None, (1, 2))
    student, distillation = bert(2, hidden_size=8), Distillation(teacher, hidden=1.0, projection=nn.Linear(8, 12).to(bpnn.float64))
    with pytest.raises(ValueError, match="the optimizer does not have its parameters"):
        Trainer(student, AdamW(student.parameters()), callbacks=[distillation]).fit([batch()])
    with pytest.raises(TypeError, match="model: expected a pretrained model"):
        student_of(nn.Linear(2, 2), 1)
    for layers in (0, 4, [1, 0], [0, 3], []):
        with pytest.raises(ValueError, match="layers: expected"):
            student_of(teacher, layers)
