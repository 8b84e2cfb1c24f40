"""Language models: batches without padding, losses by hand, hidden tokens by their shares, what is written behind prompts."""
import numpy as np
import pytest
from task_models import again, bert, gpt2, options, splits

import bpnn
from bpnn.data import DataError
from bpnn.finetune.tasks._masking import mask_tokens, ordinary
from bpnn.finetune.tasks.lm import ModelLanguage
from bpnn.train import Trainer

TEXTS = [{"text": "the film he saw was good"}, {"text": "bad"}, {"text": "a b c " * 20}]
PROMPTS = [{"prompt": "2+3=", "completion": "5"}, {"prompt": "10+10=", "completion": "20"}, {"prompt": "a" * 70, "completion": "b"}]


def made(folder, rows, **settings):
    task = ModelLanguage(options(**settings))
    examples = task.read(splits(rows))
    return task, task.load_model(folder), examples


def cross_entropy(logits, labels):
    """-log softmax of what each place foretells of the next token, of the labels that count."""
    logits, target = logits[:-1].astype(np.float64), labels[1:]
    counted = target != -100
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(shares[np.arange(len(target)), np.where(counted, target, 0)])[counted]


def test_completions(tmp_path):
    """The loss of a batch of prompts with completions is that of the completions alone, each behind its own prompt."""
    task, model, examples = made(gpt2(tmp_path), PROMPTS)
    data = task.dataset(examples["train"])
    assert task.max_length == 64 and data.cut == 1 and len(data) == 2  # of the third nothing of the completion is left
    batch = task.collate([data[0], data[1]])
    assert batch["input_ids"].ndim == 1 and batch["cu_seqlens"].tolist() == [0, 6, 15]
    tokens = [task.tokenizer.encode(text) + [0] for text in ("2+3=5", "10+10=20")]
    assert batch["input_ids"].tolist() == tokens[0] + tokens[1]
    assert (batch["labels"] != -100).tolist() == [False] * 4 + [True] * 2 + [False] * 6 + [True] * 3
    losses = []
    for ids, begin in zip(tokens, (4, 6)):
        labels = np.array([-100] * begin + ids[begin:])
        losses.append(cross_entropy(model(np.array([ids])).logits.detach().numpy()[0], labels))
    np.testing.assert_allclose(model(**batch).loss.item(), np.concatenate(losses).mean(), rtol=1e-5)
    outputs = task.outputs(model, data)
    np.testing.assert_allclose([one["loss"] for one in outputs], [one.mean() for one in losses], rtol=1e-5)
    assert [one["tokens"] for one in outputs] == [2, 3]
    scores = task.scores(outputs, examples["train"][:2])
    np.testing.assert_allclose(scores["loss"], np.concatenate(losses).mean(), rtol=1e-5)
    np.testing.assert_allclose(scores["perplexity"], np.exp(np.concatenate(losses).mean()), rtol=1e-4)
    worst = task.worst(outputs, examples["train"][:2], 1)[0]
    assert worst["where"] == f"train[{int(losses[1].mean() > losses[0].mean())}]"
    assert made(tmp_path, PROMPTS, completion_only=False)[0].dataset(examples["train"]).cut == 1
    with pytest.raises(DataError, match=r"train\[2\].*expected texts to learn from"):
        task.dataset(examples["train"][2:])


def test_padded_where_something_stands_before_each_text(tmp_path):
    task, model, examples = made(gpt2(tmp_path), PROMPTS, method="prefix")
    data = task.dataset(examples["train"])
    batch = task.collate([data[0], data[1]])
    assert batch["input_ids"].shape == (2, 9) and batch["attention_mask"].sum(1).tolist() == [6, 9]
    packed = made(tmp_path, PROMPTS)[0].collate([data[0], data[1]])
    np.testing.assert_allclose(model(**batch).loss.item(), model(**packed).loss.item(), rtol=1e-5)


def test_long_texts_are_read_in_windows(tmp_path):
    task, model, examples = made(gpt2(tmp_path), TEXTS, max_length=16)
    data = task.dataset(examples["train"])
    third = [item for item in data if item["example"] == 2]
    ids = task.tokenizer.encode(TEXTS[2]["text"]) + [0]
    foretold = [token for item in third for token in item["input_ids"][1:].tolist()]
    assert foretold == ids[1:] and max(data.lengths) == 16  # every token once
    assert task.outputs(model, data)[2]["tokens"] == len(ids) - 1


def test_prompts_are_written_on(tmp_path):
    task, model, _ = made(gpt2(tmp_path / "base"), PROMPTS, max_new_tokens=5)
    some = [task.example("2+3="), task.example({"prompt": "a"}), task.example({"text": "x" * 100})]
    said = task.predictions(task.outputs(model, task.dataset(some)), some)
    for text, one in zip(("2+3=", "a", "x" * 59), said):
        ids = np.array([task.tokenizer.encode(text)])
        for _ in range(5):
            ids = np.append(ids, model(ids).logits.detach().numpy()[:, -1:].argmax(-1), 1)
        written = ids[0, len(text) :].tolist()
        written = written[: written.index(0)] if 0 in written else written
        assert one == {"text": task.tokenizer.decode(written)}
    restored, loaded = again(task, model, tmp_path / "saved")
    assert restored.predictions(restored.outputs(loaded, restored.dataset(some)), some) == said
    table = splits([{"prompt": "2+3="}]).train
    assert task.read_table(table, labeled=False)[0].prompt == "2+3="


def test_conversations(tmp_path):
    folder = gpt2(tmp_path)
    template = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}]
    task, _, examples = made(folder, rows)
    assert task.chat and task.state()["chat"]
    item = task.dataset(examples["train"])[0]
    said = [token for token, label in zip(item["input_ids"], item["labels"]) if label != -100]
    assert task.tokenizer.decode(said) == "ho\n"
    prompt = "<u>hi\n<a>"
    for value in ("hi", {"messages": rows[0]["messages"]}):
        example = task.example(value)
        assert task.tokenizer.decode(task.dataset([example])[0]["prompt"]) == prompt


def test_masking():
    """Of 15 % of the tokens 80 % are hidden, 10 % are others, 10 % stay; special ones never; at least one a text."""
    random, tokens = np.random.default_rng(0), np.arange(100_000) % 40 + 5
    fixed = np.arange(100_000) % 10 == 0
    words = ordinary(45, [0, 1, 2, 3, 4])
    assert words.tolist() == list(range(5, 45))
    hidden, labels = mask_tokens(tokens, fixed, 4, words, random)
    chosen = labels != -100
    assert not chosen[fixed].any() and (labels[chosen] == tokens[chosen]).all() and (hidden[~chosen] == tokens[~chosen]).all()
    assert abs(chosen[~fixed].mean() - 0.15) < 0.005
    masked = (hidden[chosen] == 4).mean()
    kept = (hidden[chosen] == tokens[chosen]).mean()
    assert abs(masked - 0.8) < 0.015 and abs(kept - 0.1 - 0.1 / 40) < 0.015
    for _ in range(20):
        _, labels = mask_tokens(np.array([2, 7, 3]), np.array([True, False, True]), 4, words, random)
        assert labels.tolist() == [-100, 7, -100]
    assert (mask_tokens(np.array([2, 3]), np.array([True, True]), 4, words, random)[1] == -100).all()


def test_encoders(tmp_path):
    """Hidden anew for training, from the library's generator; the same for validation."""
    task, model, examples = made(bert(tmp_path / "base"), TEXTS, max_length=20)
    assert task.masked and type(model).__name__ == "BertForMaskedLM"
    held, data = (task.dataset(examples["train"], train=train) for train in (False, True))
    assert len(held) == len(data) == 6 and all("labels" in item for item in held) and "labels" not in data[0]
    repeated = task.dataset(examples["train"])
    assert all((a["input_ids"] == b["input_ids"]).all() and (a["labels"] == b["labels"]).all() for a, b in zip(held, repeated))
    items = [data[i] for i in range(6)]
    bpnn.manual_seed(1)
    one, other = task.collate(items), task.collate(items)
    bpnn.manual_seed(1)
    same = task.collate(items)
    assert (one["labels"] == same["labels"]).all() and not (one["labels"] == other["labels"]).all()
    fixed = np.isin(one["input_ids"], [0, 2, 3])
    assert (one["labels"][fixed & (one["input_ids"] != 4)] == -100).all()
    outputs = task.outputs(model, held)
    losses = []
    for item in held:
        logits = model(item["input_ids"][None]).logits.detach().numpy()[0].astype(np.float64)
        counted = item["labels"] != -100
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-np.log(shares[counted, item["labels"][counted]]))
    np.testing.assert_allclose(task.scores(outputs, examples["train"])["loss"], np.concatenate(losses).mean(), rtol=1e-4)
    restored, loaded = again(task, model, tmp_path / "saved")
    assert restored.outputs(loaded, restored.dataset(examples["train"])) == outputs
    filled = task.predictions(task.outputs(model, task.dataset([task.example("the [MASK]")])), [None])[0]
    ids = np.array([task.tokenizer.encode("the [MASK]")])
    assert filled["words"] == task.tokenizer.decode([int(model(ids).logits.detach().numpy()[0, 2].argmax())])
    with pytest.raises(DataError, match="expected texts for a model of hidden tokens, got completion"):
        task.dataset(made(tmp_path / "base", PROMPTS)[2]["train"])


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_learns_and_resumes(tmp_path, kind):
    """A run that is cut off within an epoch and resumed ends with the same bits: what is hidden too."""
    folder = gpt2(tmp_path / "base") if kind == "decoder" else bert(tmp_path / "base")

    def run(stop=None, state=None):
        bpnn.manual_seed(0)
        task, model, examples = made(folder, TEXTS * 3, max_length=24)
        data = task.dataset(examples["train"], train=True)
        trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=3e-3), metrics=task.metrics(), callbacks=[Stop(stop)])
        if state is not None:
            trainer.load_state_dict(state)
        trainer.fit(task.loader(data, 4, shuffle=True), epochs=4)
        return trainer

    whole = run()
    part = run(stop=7)
    resumed = run(state=part.state_dict())
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), resumed.model.state_dict()[name].numpy(), err_msg=name)
    losses = whole.history["loss"]
    assert losses[-1] < losses[0]


class Stop(bpnn.train.Callback):
    """Ends a run after so many steps, to be resumed."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            trainer.stop("here", interrupted=True)


def test_errors(tmp_path):
    task, _, _ = made(gpt2(tmp_path), TEXTS)
    with pytest.raises(ValueError, match="inputs: expected a column prompt, text or messages, got question_"):
        task.example({"question_": 1})
    with pytest.raises(TypeError, match="inputs: expected a text or a dictionary, got int"):
        task.example(5)
    with pytest.raises(ValueError, match="max_length: expected at most 64"):
        made(tmp_path, TEXTS, max_length=65)
