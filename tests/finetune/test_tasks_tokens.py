"""Tags of words: alignment and names by hand-made cases, scores against formulas."""
import numpy as np
import pytest
from task_models import WORDS, again, bert, gpt2, options, splits

import bpnn
from bpnn.data import DataError
from bpnn.finetune.tasks._entities import entities, entity_scores, marks_entities
from bpnn.finetune.tasks.tokens import TagScores, TagTokens, align, first_tokens
from bpnn.train import Trainer

ROWS = [
    {"tokens": ["he", "saw", "ann", "lee", "in", "rome"], "tags": ["O", "O", "B-PER", "I-PER", "O", "B-LOC"]},
    {"tokens": ["bob", "."], "tags": ["B-PER", "O"]},
    {"tokens": ["the", "film", "is", "good"], "tags": ["O", "O", "O", "O"]},
    {"tokens": ["in", "new", "york", ",", "bo"], "tags": ["O", "B-LOC", "I-LOC", "O", "B-PER"]},
]


@pytest.mark.parametrize(("tags", "want", "strict"), [
    ("O O", "", ""),
    ("B-A I-A O", "A:0-2", "A:0-2"),
    ("B-A B-A", "A:0-1 A:1-2", "A:0-1 A:1-2"),
    ("I-A I-A O", "A:0-2", ""),
    ("O I-A", "A:1-2", ""),
    ("B-A I-B", "A:0-1 B:1-2", "A:0-1"),
    ("B-A I-B I-B B-B", "A:0-1 B:1-3 B:3-4", "A:0-1 B:3-4"),
    ("B-A I-A E-A I-A", "A:0-3 A:3-4", "A:0-3"),
    ("S-A S-A B-A E-A", "A:0-1 A:1-2 A:2-4", "A:0-1 A:1-2 A:2-4"),
    ("U-A I-A", "A:0-1 A:1-2", "A:0-1"),
    ("B-A-x I-A-x L-A-x", "A-x:0-3", "A-x:0-3"),
    ("", "", ""),
])
def test_entities(tags, want, strict):
    def spelled(found):
        return " ".join(f"{kind}:{begin}-{end}" for kind, begin, end in found)

    assert spelled(entities(tags.split())) == want
    assert spelled(entities(tags.split(), strict=True)) == strict


def test_entity_scores():
    truth = [["B-A", "I-A", "O", "B-B"], ["B-A", "O"]]
    said = [["B-A", "I-A", "O", "B-A"], ["B-A", "I-A"]]  # right: one A; said: A, A, A; true: A, B, A
    found = entity_scores(said, truth)
    assert (found["precision"], found["recall"], found["f1"]) == (1 / 3, 1 / 3, 1 / 3)
    assert found["per_type"] == {
        "A": {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "support": 2},
        "B": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    }
    assert entity_scores([["O"]], [["O"]])["f1"] == 0.0
    assert marks_entities(["O", "B-A"]) and not marks_entities(["NOUN", "O"]) and not marks_entities(["O"])


def test_alignment():
    words = ["ab", "c", "def"]  # "ab c def"
    assert align(words, [(0, 0), (0, 1), (1, 2), (3, 4), (5, 7), (7, 8), (0, 0)]) == [None, 0, 0, 1, 2, 2, None]
    assert align(words, [(0, 2), (2, 4), (4, 5), (4, 8)]) == [0, 1, None, 2]  # tokens that begin with the space, one that is it
    assert first_tokens(words, [(0, 1), (1, 2), (5, 8)]).tolist() == [0, -1, 2]
    assert first_tokens([], []).tolist() == []


def made(folder, rows=ROWS, **settings):
    task = TagTokens(options(**settings))
    examples = task.read(splits(rows, rows[:2]))
    return task, task.load_model(folder), examples


def test_labels_stand_at_first_tokens(tmp_path):
    task, model, examples = made(bert(tmp_path))
    assert task.labels == ["O", "B-LOC", "B-PER", "I-LOC", "I-PER"] and model.config.id2label[2] == "B-PER"
    item = task.dataset(examples["train"])[0]
    pieces = task.tokenizer.convert_ids_to_tokens(item["input_ids"])
    assert pieces == ["[CLS]", "he", "saw", "a", "##n", "##n", "l", "##e", "##e", "in", "r", "##o", "##m", "##e", "[SEP]"]
    assert item["labels"].tolist() == [-100, 0, 0, 2, -100, -100, 4, -100, -100, 0, 1, -100, -100, -100, -100]
    batch = task.collate([task.dataset(examples["train"])[i] for i in (1, 0)])
    assert batch["labels"].shape == batch["input_ids"].shape and (batch["labels"][0, 6:] == -100).all()


def test_byte_level_tokens_begin_with_the_space(tmp_path):
    """In such a tokenizer the space before a word belongs to its first token."""
    from bpnn.pretrained import AutoTokenizer

    words = ["hé", "中", "x"]
    found = AutoTokenizer.from_pretrained(gpt2(tmp_path))([" ".join(words)]).encodings[0]
    places = first_tokens(words, found.offsets)
    assert found.tokens[places[0]] == "h" and sorted(places.tolist()) == places.tolist()


def test_cut_texts(tmp_path):
    """Words behind the limit are foretold as O and count as that."""
    task, model, examples = made(bert(tmp_path), max_length=8)
    data = task.dataset(examples["train"])
    assert data.cut == 2 and (data[0]["places"] < 0).tolist() == [False, False, False, False, True, True]
    outputs = task.outputs(model, data, 3)
    assert np.isnan(outputs[0][4:]).all() and not np.isnan(outputs[0][:4]).any()
    assert task.tags(outputs)[0][4:] == ["O", "O"]
    assert task.scores(outputs, examples["train"])["words"] == 17


def test_outputs_scores_and_files(tmp_path):
    task, model, examples = made(bert(tmp_path / "base"))
    data = task.dataset(examples["train"])
    outputs = task.outputs(model, data, 3)
    losses, right, count = [], 0, 0
    for item, example, said in zip(data, examples["train"], outputs):
        batch = task.collate([item])
        logits = model(batch["input_ids"], batch["attention_mask"]).logits.detach().numpy()[0]
        own = logits[batch["labels"][0] != -100]
        np.testing.assert_allclose(said, own, atol=1e-5)
        truth = [task.labels.index(tag) for tag in example.tags]
        shares = np.exp(own) / np.exp(own).sum(1, keepdims=True)
        losses += [-np.log(shares[i, t]) for i, t in enumerate(truth)]
        right, count = right + int((own.argmax(1) == truth).sum()), count + len(truth)
    scores = task.scores(outputs, examples["train"])
    np.testing.assert_allclose(scores["loss"], np.mean(losses), rtol=1e-5)
    assert scores["accuracy"] == right / count and scores["words"] == count and {"precision", "f1", "per_type"} < set(scores)
    predicted = task.predictions(outputs, examples["train"])
    assert predicted[1]["tokens"] == "bob ." and len(predicted[1]["tags"].split()) == 2
    assert task.worst(outputs, examples["train"], 1)[0].keys() == {"where", "text", "label", "prediction", "loss"}
    restored, loaded = again(task, model, tmp_path / "saved")
    for before, after in zip(outputs, restored.outputs(loaded, restored.dataset(examples["train"]), 3)):
        np.testing.assert_array_equal(before, after)


def test_learns(tmp_path):
    task, model, examples = made(bert(tmp_path), ROWS * 4)
    assert task.monitor == ("val_f1", "max")
    data = task.dataset(examples["train"], train=True)
    trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=5e-3), metrics=task.metrics())
    row = trainer.fit(task.loader(data, 4, shuffle=True), task.loader(data, 16), epochs=10).rows[-1]
    scores = task.scores(task.outputs(model, data), examples["train"])
    assert row["val_f1"] == scores["f1"] == 1.0 and row["val_accuracy"] == scores["accuracy"] == 1.0


def test_parts_of_speech(tmp_path):
    rows = [{"tokens": ["he", "saw"], "tags": ["PRON", "VERB"]}, {"tokens": ["films"], "tags": ["NOUN"]}]
    task, model, examples = made(bert(tmp_path), rows)
    assert task.monitor == ("val_accuracy", "max") and [m.name for m in task.metrics()] == ["accuracy"]
    scores = task.scores(task.outputs(model, task.dataset(examples["train"])), examples["train"])
    assert "f1_macro" in scores and np.sum(scores["confusion_matrix"]) == 3


def test_metric():
    metric = TagScores(["O", "B-A"], "f1")
    logits = np.array([[[1, 0], [0, 1], [0, 1]], [[0, 1], [1, 0], [1, 0]]], np.float32)
    metric.update(logits[:1], np.array([[0, 1, -100]]))
    metric.update(logits[1:], np.array([[0, 1, -100]]))
    assert metric.compute() == 0.5  # one of two said, one of two true
    again = TagScores(["O", "B-A"], "f1")
    again.load_state_dict(metric.state_dict())
    assert again.compute() == 0.5


def test_inputs_and_errors(tmp_path):
    task, _, _ = made(bert(tmp_path))
    assert task.example("Ann's cat-like 3 films, 电影!").tokens == ["Ann's", "cat-like", "3", "films", ",", "电", "影", "!"]
    assert task.example({"tokens": ["a", "b"]}).tokens == ["a", "b"] == task.example(["a", "b"]).tokens
    with pytest.raises(ValueError, match="inputs: expected a text or a list of words"):
        task.example([])
    with pytest.raises(ValueError, match="inputs: expected a column tokens, words or text, got body"):
        task.example({"body": "x"})
    with pytest.raises(DataError, match=r"validation\[0\]: tags: expected one of the tags .* got 'B-ORG'"):
        TagTokens(options()).read(splits(ROWS, [{"tokens": ["x"], "tags": ["B-ORG"]}]))
    assert len(WORDS) == len(set(WORDS))
