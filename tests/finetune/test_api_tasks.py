"""`bpnn.finetune(…)` and its runs for every task but classification, which `test_api.py` has: data, scores, saved and loaded."""
import csv
import json

import numpy as np
import pytest
import tiny_models

import bpnn
from bpnn.finetune import Finetuned

COMMON = {"verbose": False, "epochs": 1, "lr": 0.01, "threads": 1}
ROWS = tiny_models.texts(60)
TELLING = {*tiny_models.GOOD, *tiny_models.BAD}


def telling(text):
    """The word of a text that tells."""
    return next(word for word in text.split() if word in TELLING)


DATA = {
    "regress": [{"text": text, "score": 1.0 if label == "yes" else -1.0} for text, label in ROWS],
    "tokens": [{"tokens": text.split(), "tags": ["B-T" if word in TELLING else "O" for word in text.split()]} for text, _ in ROWS],
    "qa": [{"id": str(i), "question": "the plot", "context": text,
            "answers": [{"text": telling(text), "answer_start": text.index(telling(text))}]} for i, (text, _) in enumerate(ROWS)],
    "embed": [{"sentence1": one, "sentence2": other, "score": float(a == b)}
              for (one, a), (other, b) in zip(ROWS, ROWS[1:] + ROWS[:1], strict=True)],
    "lm": [{"text": text} for text, _ in ROWS],
}  # fmt: skip
ASK = {"regress": ["a fine film"], "tokens": ["a fine film"], "qa": [{"question": "the plot", "context": "a fine film"}],
       "embed": ["a fine film"], "lm": ["a [MASK] film"]}  # fmt: skip
SAYS = {"regress": {"value"}, "tokens": {"tokens", "tags"}, "qa": {"id", "answer", "answer_start", "probability"},
        "embed": {"embedding"}, "lm": {"text", "words"}}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_models.tiny_bert(tmp_path_factory.mktemp("tasks") / "base", max_position_embeddings=64)


def check_run(tuned, folder, ask):
    """The folder is whole, and what is loaded from it says the same."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"][tuned.task.samples] == tuned.metrics["test"][tuned.task.samples] > 0
    assert np.isfinite(metrics["test"]["loss"]) and list(csv.DictReader((folder / "worst.csv").open()))
    assert f"fine-tuned with bpnn {bpnn.__version__}" in (folder / "README.md").read_text()
    said, again = tuned.predict(ask), Finetuned.load(folder).predict(ask)
    assert len(said) == len(ask) and said[0].keys() == again[0].keys()
    for key, value in said[0].items():
        if isinstance(value, (float, list)):
            np.testing.assert_allclose(value, again[0][key], atol=1e-5)
        else:
            assert value == again[0][key]
    return said


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("task", DATA)
def test_tasks(base, tmp_path, task, method):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in DATA[task]))
    tuned = bpnn.finetune(base, data, task, method=method, out=tmp_path / "run", **COMMON)
    said = check_run(tuned, tmp_path / "run", ASK[task])
    assert set(said[0]) == SAYS[task]
    if task == "qa":  # a file may hold all questions in one line: their ids tell which are meant
        assert {row["id"] for row in csv.DictReader((tmp_path / "run" / "worst.csv").open())} <= {row["id"] for row in DATA["qa"]}
    scores = Finetuned.load(tmp_path / "run").evaluate(DATA[task][:20])
    assert np.isfinite(scores["loss"])


def test_decoders_read_plain_text_and_completions(tmp_path):
    """A running text is cut into its parts at line ends; completions alone are learned."""
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel

    folder = tiny_models.tiny_bert(tmp_path / "base")  # for its tokenizer
    bpnn.manual_seed(0)
    GPT2LMHeadModel(GPT2Config.from_dict({"vocab_size": len(tiny_models.WORDS), "n_embd": 16, "n_layer": 2, "n_head": 2,
                                          "n_positions": 32})).save_pretrained(folder)  # fmt: skip
    (tmp_path / "story.txt").write_text("".join(f"{text}\n" for text, _ in ROWS * 4))
    tuned = bpnn.finetune(folder, tmp_path / "story.txt", "lm", max_new_tokens=3, out=tmp_path / "run", **COMMON)
    assert tuned.metrics["test"]["perplexity"] < len(tiny_models.WORDS)
    check_run(tuned, tmp_path / "run", ["a fine"])
    rows = [{"prompt": "the plot", "completion": f" {telling(text)}"} for text, _ in ROWS]
    other = bpnn.finetune(folder, rows, "lm", method="lora", max_new_tokens=3, **COMMON)
    assert np.isfinite(other.metrics["test"]["loss"])


@pytest.mark.parametrize("more", [{"mixup": 0.2}, {"cutmix": 1.0}, {"method": "lora"}, {"adversarial": "pgd", "augment": True}],
                         ids=lambda more: "-".join(more))  # fmt: skip
def test_images(tmp_path, more):
    Image = pytest.importorskip("PIL.Image")
    from bpnn.models.vit import ViTConfig, ViTForImageClassification

    rng = np.random.default_rng(0)
    for name, shift in (("dark", 0), ("light", 120)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = (rng.integers(0, 100, (16, 16, 3)) + shift).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    bpnn.manual_seed(0)
    ViTForImageClassification(ViTConfig.from_dict({
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 16,
        "patch_size": 8,
    })).save_pretrained(tmp_path / "vit")  # fmt: skip
    tuned = bpnn.finetune(tmp_path / "vit", tmp_path / "images", "image", out=tmp_path / "run", **more, **COMMON)
    assert tuned.task.labels == ["dark", "light"]
    check_run(tuned, tmp_path / "run", [str(tmp_path / "images" / "dark" / "0.png")])
    assert Finetuned.load(tmp_path / "run").evaluate(tmp_path / "images")["images"] == 40
