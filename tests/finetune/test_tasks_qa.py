"""Answers in contexts: windows and spans by hand-made cases, scores as the official scripts have them, CMRC 2018."""
import numpy as np
import pytest
from task_models import SPECIAL, again, bert, options, splits

import bpnn
from bpnn.data.tables import read_table
from bpnn.finetune.tasks._answers import answer_scores, common_run, exact_match, f1, pieces, plain
from bpnn.finetune.tasks.qa import AnswerQuestions, best_spans
from bpnn.train import Trainer


def row(question, context, answer=None):
    answers = [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}]
    return {"id": question, "question": question, "context": context, "answers": answers}


LONG = " ".join(["the film"] * 12 + ["he saw good"] + ["the bad"] * 10)
ROWS = [row("saw", "he saw the film in 1999", "1999"), row("he", LONG, "good"), row("in", "he saw bad", "he saw")]


def made(folder, rows=ROWS, **settings):
    task = AnswerQuestions(options(**settings))
    examples = task.read(splits(rows))
    return task, task.load_model(folder), examples


def test_squads_scores():
    assert plain(" The  Big-Apple, an apple. ") == "bigapple apple"
    assert exact_match("the Cat!", "a cat") == 1 and exact_match("cats", "cat") == 0
    assert f1("the cat sat", "cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    assert f1("a a b", "a b b") == pytest.approx(2 * 1 / (1 + 2))  # "a" is an article: b against b b
    assert f1("", "") == 1.0 == f1("the", "a") and f1("x", "") == 0.0
    assert answer_scores(["x y", ""], [["y", "x y z"], []]) == {"exact_match": 50.0, "f1": pytest.approx(100 * (0.8 + 1) / 2)}


def test_cmrcs_scores():
    assert pieces("在1998年，NBA 的“球队”(3.5)") == ["在", "1998", "年", "nba", "的", "球", "队", "(", "3.5", ")"]
    assert common_run("abcd", "xbcy") == 2 and common_run("", "a") == 0
    assert exact_match("《红楼梦》", "红楼梦。") == 1 and exact_match("红楼", "红楼梦") == 0
    # the longest run that both have, not all they have in common
    assert f1("中国北京市", "北京") == pytest.approx(2 * 2 / (5 + 2))
    assert f1("北大京", "北京") == pytest.approx(2 * 1 / (3 + 2))


def test_windows(tmp_path):
    """Windows overlap, cover the whole context, and have the answer where it is in them."""
    task, _, examples = made(bert(tmp_path), max_length=24, stride=6)
    data = task.dataset(examples["train"], train=True)
    windows = [item for item in data if item["example"] == 1]
    assert len(windows) > 2 and data.cut == 1 and max(data.lengths) <= 24
    seen = np.zeros(len(LONG), int)
    for item in windows:
        for begin, end in item["offsets"][item["context"]]:
            seen[begin:end] += 1
        pieces_ = task.tokenizer.convert_ids_to_tokens(item["input_ids"])
        assert pieces_[:3] == ["[CLS]", "he", "[SEP]"]
        first, last = item["start_positions"], item["end_positions"]
        inside = "good" in pieces_
        assert item["inside"] == inside and (pieces_[first : last + 1] == ["good"]) == inside
        assert inside or (first, last) == (0, 0)
        assert item["token_type_ids"] == [0] * 3 + [1] * (len(pieces_) - 3)
    assert (seen[[i for i, letter in enumerate(LONG) if letter != " "]] > 0).all() and seen.max() == 2
    spans = {i: next(item for item in data if item["example"] == i) for i in (0, 2)}
    assert LONG[LONG.index("good") :][:4] == "good"
    for i, answer in ((0, "1999"), (2, "he saw")):
        begin, end = spans[i]["offsets"][spans[i]["start_positions"], 0], spans[i]["offsets"][spans[i]["end_positions"], 1]
        assert examples["train"][i].context[begin:end] == answer


def test_long_question_is_cut(tmp_path):
    task, _, examples = made(bert(tmp_path), [row("the film " * 30, LONG, "good")], max_length=30)
    data = task.dataset(examples["train"])
    assert max(data.lengths) <= 30 and any(item["inside"] for item in data)


def test_best_spans():
    start, end = np.array([9.0, 1, 5, 2, 0]), np.array([9.0, 4, 0, 3, 1])
    allowed = np.array([False, True, True, True, True])
    assert best_spans(start, end, allowed, 3)[:2] == [(8.0, 2, 3), (6.0, 2, 4)]
    # of equals the one with the likelier beginning first
    assert best_spans(start, end, allowed, 1) == [(5.0, 2, 2), (5.0, 3, 3), (5.0, 1, 1), (1.0, 4, 4)]
    every = [(start[i] + end[j], i, j) for i in range(1, 5) for j in range(i, min(5, i + 3))]
    assert sorted(every, reverse=True) == sorted(best_spans(start, end, allowed, 3), reverse=True)
    assert best_spans(start, end, np.zeros(5, bool), 3) == []


def test_outputs_and_files(tmp_path):
    task, model, examples = made(bert(tmp_path / "base"), max_length=24, stride=6)
    data = task.dataset(examples["train"])
    outputs = task.outputs(model, data, 2)
    best, losses = {}, {}
    for item in data:  # by hand: every span of every window
        output = model(np.array([item["input_ids"]]), None, np.array([item["token_type_ids"]]))
        start, end = (x.detach().numpy()[0].astype(float) for x in (output.start_logits, output.end_logits))
        places = np.flatnonzero(item["context"])
        for i in places:
            for j in places:
                if i <= j < i + task.longest:
                    span = start[i] + end[j], int(item["offsets"][i, 0]), int(item["offsets"][j, 1])
                    best[item["example"]] = max(best.get(item["example"], span), span)
        labels = (start, item["start_positions"]), (end, item["end_positions"])
        loss = [-np.log(np.exp(x[place]) / np.exp(x).sum()) for x, place in labels]
        losses.setdefault(item["example"], []).append(np.mean(loss))
    for i, one in enumerate(outputs):
        assert (one["start"], one["end"]) == best[i][1:]
        np.testing.assert_allclose([one["score"], one["loss"]], [best[i][0], np.mean(losses[i])], rtol=1e-4, atol=1e-5)
        assert 0 < one["probability"] <= 1
    answers = [e.context[one["start"] : one["end"]] for e, one in zip(examples["train"], outputs)]
    assert [p["answer"] for p in task.predictions(outputs, examples["train"])] == answers
    restored, loaded = again(task, model, tmp_path / "saved")
    assert restored.outputs(loaded, restored.dataset(examples["train"]), 2) == outputs


def test_questions_without_answers(tmp_path):
    task, _, examples = made(bert(tmp_path), [*ROWS, row("bad", "the film")])
    assert task.unanswerable
    best = {"start": 0, "end": 2, "score": 3.0, "probability": 0.5, "loss": 1.0}
    outputs = [{**best, "no_answer": none} for none in (2.0, 3.5, 4.0, 9.0)]
    assert task.answers(outputs, examples["train"]) == ["he", "", "", ""]
    task.settings.no_answer_threshold = 0.5
    assert task.answers(outputs, examples["train"]) == ["he", "th", "", ""]
    assert task.predictions(outputs, examples["train"])[2]["answer_start"] == -1
    scores = task.scores(outputs, examples["train"])
    assert scores["questions"] == 4 and scores["exact_match"] == 25.0 and scores["loss"] == 1.0
    worst = task.worst(outputs, examples["train"], 4)
    assert worst[-1]["where"] == "train[3]" and worst[-1]["exact_match"] and not worst[0]["exact_match"]
    answerable = made(bert(tmp_path / "other"))[0]
    assert not answerable.unanswerable and answerable.answers(outputs[3:], examples["train"][:1]) == ["he"]


def test_batches_and_training(tmp_path):
    rows = [row(f"saw {word}", f"he saw the {word} {other} film", word) for word in ("good", "bad") for other in "abcd"]
    task, model, examples = made(bert(tmp_path), rows)
    data = task.dataset(examples["train"], train=True)
    batch = task.collate([data[0], data[1]])
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions"}
    trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=5e-3), metrics=task.metrics())
    row_ = trainer.fit(task.loader(data, 4, shuffle=True), task.loader(data, 8), epochs=12).rows[-1]
    assert row_["val_loss"] < row_["loss"] + 1 and task.monitor == ("val_loss", "min")
    assert task.scores(task.outputs(model, data), examples["train"])["exact_match"] == 100.0


def test_cmrc(tmp_path, data_dir):
    """A slice of CMRC 2018: every answer is found again from its labels."""
    path = data_dir / "cmrc2018" / "cmrc2018_trial.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    task = AnswerQuestions(options(max_length=96, stride=24))
    examples = task.read_table(read_table(path).take(range(12)))
    letters = sorted({letter for e in examples for letter in (e.question + e.context).lower() if not letter.isspace()})
    words = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    model = task.load_model(bert(tmp_path, words, max_position_embeddings=96))
    data = task.dataset(examples, train=True)
    assert data.cut == len(examples) and max(data.lengths) == 96
    found = {i: set() for i in range(len(examples))}
    for item in data:
        if item["inside"]:
            begin, end = item["offsets"][item["start_positions"], 0], item["offsets"][item["end_positions"], 1]
            found[item["example"]].add(examples[item["example"]].context[begin:end])
    assert all(said == {e.answers[0][0].strip()} for e, said in zip(examples, found.values()) if said)
    assert sum(map(bool, found.values())) >= 11  # an answer may be longer than what two windows share
    outputs = task.outputs(model, data, 8)
    scores = task.scores(outputs, examples)
    assert scores["questions"] == 12 and 0 <= scores["exact_match"] <= scores["f1"] <= 100


def test_inputs_that_are_wrong():
    task = AnswerQuestions(options())
    assert task.example(("why?", "because")).context == "because"
    with pytest.raises(ValueError, match="inputs: expected texts question and context"):
        task.example({"question": "why?"})
