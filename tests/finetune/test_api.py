"""`bpnn.finetune(…)`: every task and method on tiny models, what a run leaves, what is loaded again, data in memory, mistakes."""
import csv
import json
import re

import numpy as np
import pytest
import tiny_models

import bpnn
from bpnn.data import DataError
from bpnn.finetune import Finetuned, PeftModel, SettingsError

COMMON = {"verbose": False, "epochs": 2, "lr": 0.01, "threads": 1}
SAY = ["a fine film", "the dull plot , and the actors"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    tiny_models.tiny_bert(folder / "base", max_position_embeddings=40)
    tiny_models.table(folder / "data.csv")
    return folder


def same(one, other):
    """Predictions agree to rounding."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert value == pytest.approx(b[key], abs=1e-5) if isinstance(value, float) else value == b[key], key


# --- a run -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(home):
    able = {**COMMON, "pooling": "mean", "batch_size": 8, "dropout": 0.0, "epochs": 6}
    return bpnn.finetune(home / "base", home / "data.csv", out=home / "done", **able)


def test_it_learns(finished):
    assert finished.metrics["test"]["accuracy"] >= 0.9 and finished.metrics["test"]["texts"] == 12
    assert [said["label"] for said in finished.predict(SAY)] == ["yes", "no"]
    same(finished.predict(SAY[0]), finished.predict(SAY)[:1])
    assert finished.history["loss"][-1] < finished.history["loss"][0]


def test_of_equal_scores_the_lowest_loss(tmp_path):
    """Scores by epoch 0.5 0.9 0.9 0.9 0.8 with losses 0.7 0.6 0.4 0.5 0.1: the third is kept, also by a resumed run."""
    from types import SimpleNamespace

    from bpnn.finetune import BestScore

    rows = [{"val_accuracy": a, "val_loss": b} for a, b in ((0.5, 0.7), (0.9, 0.6), (0.9, 0.4), (0.9, 0.5), (0.8, 0.1))]
    best = BestScore("val_accuracy")
    for epoch in range(1, 6):
        trainer = SimpleNamespace(
            history=SimpleNamespace(rows=rows[:epoch]), state=SimpleNamespace(epoch=epoch),
            model_state=lambda epoch=epoch: {"w": bpnn.tensor([float(epoch)])},
        )
        best.on_epoch_end(trainer)
        again = BestScore("val_accuracy")
        again.load_state_dict(best.state_dict())
        best = again
    assert (best.best_epoch, best.best, best.loss, best.weights["w"].tolist()) == (3, 0.9, 0.4, [3.0])


def test_what_a_run_leaves(home, finished):
    run = home / "done"
    config, metrics = (json.loads((run / name).read_text()) for name in ("config.json", "metrics.json"))
    assert config["task"] == "finetune" and config["options"]["task"] == "classify" and config["options"]["lr"] == 0.01
    assert (config["data"]["train"], config["data"]["validation"], config["data"]["test"]) == (96, 12, 12)
    assert config["base"]["path"] == str(home / "base") and config["state"]["labels"] == ["no", "yes"]
    rows = list(csv.DictReader((run / "history.csv").open()))
    best = max(range(len(rows)), key=lambda i: (float(rows[i]["val_accuracy"]), -float(rows[i]["val_loss"])))
    assert metrics["best_epoch"] == best + 1 and metrics["validation"]["accuracy"] == float(rows[best]["val_accuracy"])
    assert np.array(metrics["test"]["confusion_matrix"]).sum() == 12
    mistakes = list(csv.DictReader((run / "worst.csv").open()))
    assert len(mistakes) == 12 and re.fullmatch(r".*data\.csv:\d+", mistakes[0]["where"])
    assert float(mistakes[0]["loss"]) >= float(mistakes[-1]["loss"])
    lines = (home / "data.csv").read_text().splitlines()
    for row in mistakes:  # the place is that of the text in the file
        line = int(row["where"].rsplit(":", 1)[1])
        assert row["text"] in lines[line - 1].replace('"', "")
    card = (run / "README.md").read_text()
    assert "| method | full |" in card and "| test | accuracy |" in card and "| lr | 0.01 |" in card
    assert f"{config['base']['parameters']:,} parameters" in card
    assert json.loads((run / "model" / "config.json").read_text())["id2label"] == {"0": "no", "1": "yes"}
    if (run / "curves.png").exists():
        assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_load_evaluate_and_save(home, finished, tmp_path):
    loaded = Finetuned.load(home / "done")
    same(loaded.predict(SAY), finished.predict(SAY))
    tiny_models.table(tmp_path / "more.csv", 40, seed=9)
    scores = loaded.evaluate(tmp_path / "more.csv")
    assert scores["texts"] == 40
    rows = tiny_models.texts(40, seed=9)
    said = [one["label"] for one in loaded.predict([text for text, _ in rows])]
    assert scores["accuracy"] == np.mean([a == label for a, (_, label) in zip(said, rows, strict=True)])
    finished.save(tmp_path / "copy")
    same(Finetuned.load(tmp_path / "copy").predict(SAY), finished.predict(SAY))
    assert loaded.predict([]) == []


def test_an_empty_or_taken_folder(home, finished):
    with pytest.raises(SettingsError, match="done: holds a run already; choose another --out, or go on with it"):
        bpnn.finetune(home / "base", home / "data.csv", out=home / "done", **COMMON)
    with pytest.raises(SettingsError, match="base: not the folder of a fine-tuning run"):
        Finetuned.load(home / "base")
    said = bpnn.finetune.resume(home / "done", verbose=False)  # nothing to do
    same(said.predict(SAY), finished.predict(SAY))


def test_same_seed_same_bits(home):
    one, two, other = (bpnn.finetune(home / "base", home / "data.csv", **COMMON, seed=seed) for seed in (3, 3, 4))
    weights = [t.model.classifier.weight.detach().numpy() for t in (one, two, other)]
    assert (weights[0] == weights[1]).all() and (weights[0] != weights[2]).any() and one.folder is None


# --- data in memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pairs", "dicts", "columns", "parts"])
def test_data_in_memory(home, kind):
    rows = tiny_models.texts(60)
    texts, labels = ([row[i] for row in rows] for i in range(2))
    data = {
        "pairs": (texts, labels),
        "dicts": [{"text": text, "label": label} for text, label in rows],
        "columns": {"text": texts, "label": labels},
        "parts": {name: (texts[a:b], labels[a:b]) for name, a, b in (("train", 0, 40), ("validation", 40, 50), ("test", 50, 60))},
    }[kind]
    tuned = bpnn.finetune(home / "base", data, **{**COMMON, "epochs": 1})
    assert tuned.metrics["test"]["texts"] == (10 if kind == "parts" else 6)


def test_resume_with_data_in_memory(home, tmp_path):
    data = tiny_models.texts(60)
    data = [text for text, _ in data], [label for _, label in data]
    bpnn.finetune(home / "base", data, out=tmp_path / "run", **COMMON)
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(SettingsError, match="its data was in memory; give it again"):
        bpnn.finetune.resume(tmp_path / "run", verbose=False)
    assert bpnn.finetune.resume(tmp_path / "run", data, verbose=False).metrics["test"]["texts"] == 6


def test_a_config_file(home, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text(f"data: {home / 'data.csv'}\nmethod: lora\nrank: 2\nlr: 1e-3\nepochs: 9\n")
    tuned = bpnn.finetune(home / "base", config=tmp_path / "c.yaml", epochs=1, verbose=False)
    assert (tuned.settings.method, tuned.settings.rank, tuned.settings.lr, len(tuned.history)) == ("lora", 2, 1e-3, 1)
    (tmp_path / "c.yaml").write_text("rnak: 2\n")
    with pytest.raises(SettingsError, match=r"c\.yaml: unknown key 'rnak'; did you mean 'rank'\?"):
        bpnn.finetune(home / "base", home / "data.csv", config=tmp_path / "c.yaml", verbose=False)


# --- methods ---------------------------------------------------------------------------------------------------------------

METHODS = {
    "head": {}, "frozen": {"freeze_layers": 2}, "gradual": {"validation_share": 0.0}, "dora": {"rank": 2}, "ia3": {}, "bitfit": {},
    "prompt": {"virtual_tokens": 4}, "prefix": {"virtual_tokens": 4}, "lora": {"rslora": True, "targets": ["query", "value"]},
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_methods(home, tmp_path, method):
    """Only what the method trains changes, and what was saved says the same."""
    tuned = bpnn.finetune(home / "base", home / "data.csv", out=tmp_path / "run", method=method, **METHODS[method], **COMMON)
    same(Finetuned.load(tmp_path / "run").predict(SAY), tuned.predict(SAY))
    base, now = (bpnn.load(folder / "model.safetensors") if (folder / "model.safetensors").exists() else None
                 for folder in (home / "base", tmp_path / "run" / "model"))
    if now is None:
        assert isinstance(tuned.model, PeftModel) and (tmp_path / "run" / "model" / "adapter_config.json").exists()
        return
    changed = {name for name, value in base.items() if (now[f"bert.{name}"].numpy() != value.numpy()).any()}
    if method == "head":
        assert {name.split(".")[0] for name in changed} <= {"pooler"}
    elif method == "frozen":
        assert all(name.startswith(("encoder.layer.2", "pooler")) for name in changed)
        assert "encoder.layer.2.output.dense.bias" in changed
    elif method == "bitfit":
        assert changed and all(name.endswith("bias") or "pooler" in name for name in changed)
    else:
        assert {name[:15] for name in changed if "layer" in name} == {"encoder.layer.2"}  # two epochs: the head, then a layer too


@pytest.mark.parametrize(("method", "base"), [("lora", "int8"), ("lora", "bfloat16"), ("head", "int8"), ("prefix", "int8")])
def test_stored_bases(home, tmp_path, method, base):
    few = {"virtual_tokens": 4} if method == "prefix" else {}
    tuned = bpnn.finetune(home / "base", home / "data.csv", out=tmp_path / "run", method=method, base=base, **few, **COMMON)
    same(Finetuned.load(tmp_path / "run").predict(SAY), tuned.predict(SAY))


def test_merged(home, tmp_path):
    """`merge` leaves a plain model that says what the adapter said."""
    tuned = bpnn.finetune(home / "base", home / "data.csv", out=tmp_path / "run", method="lora", merge=True, **COMMON)
    assert not (tmp_path / "run" / "model" / "adapter_config.json").exists()
    same(Finetuned.load(tmp_path / "run").predict(SAY), tuned.predict(SAY))


def test_the_base_of_an_adapter_must_be_the_same(tmp_path):
    tiny_models.tiny_bert(tmp_path / "base")
    tiny_models.table(tmp_path / "data.csv")
    bpnn.finetune(tmp_path / "base", tmp_path / "data.csv", out=tmp_path / "run", method="lora", **COMMON)
    tiny_models.tiny_bert(tmp_path / "base", seed=7)
    with pytest.raises(SettingsError, match="its base model .*base has other weights now"):
        Finetuned.load(tmp_path / "run")


TECHNIQUES = [
    {"adversarial": "pgd"}, {"adversarial": "freelb", "adversarial_epsilon": 0.1}, {"r_drop": 1.0, "label_smoothing": 0.1},
    {"swa": 0.5}, {"ema": 0.9, "layer_decay": 0.8}, {"stochastic_depth": 0.2}, {"augment": True}, {"gradient_checkpointing": True},
    {"schedule": "exponential", "warmup": 2, "accumulate": 2}, {"schedule": "cosine", "clip_norm": 0}, {"schedule": "constant"},
    {"log": ["tensorboard"], "patience": 1},
]  # fmt: skip


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: "-".join(t))
def test_techniques(home, tmp_path, technique):
    if "log" in technique:
        pytest.importorskip("tensorboardX")
    tuned = bpnn.finetune(home / "base", home / "data.csv", out=tmp_path / "run", **technique, **COMMON)
    assert np.isfinite(tuned.history["loss"]).all() and len(tuned.history) <= 2
    same(Finetuned.load(tmp_path / "run").predict(SAY), tuned.predict(SAY))
    if "log" in technique:
        assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_distillation(home, finished, tmp_path):
    student = bpnn.finetune(home / "base", home / "data.csv", teacher=str(home / "done"), distill_weight=1.0, **COMMON)
    assert np.isfinite(student.history["loss"]).all()
    bpnn.finetune(home / "base", home / "data.csv", method="lora", out=tmp_path / "adapter", **COMMON)
    student = bpnn.finetune(home / "base", home / "data.csv", teacher=str(tmp_path / "adapter"), **COMMON)
    assert np.isfinite(student.history["loss"]).all()
    tiny_models.table(tmp_path / "other.csv", header=("text", "label"))
    text = (tmp_path / "other.csv").read_text().replace(",yes", ",maybe")
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(SettingsError, match="teacher: expected the labels maybe, no, in this order, got no, yes"):
        bpnn.finetune(home / "base", tmp_path / "other.csv", teacher=str(home / "done"), **COMMON)


def test_heads_over_stored_layers_are_whole(home):
    """A base in few bits leaves the head as it is: what trains is the same, and no other part."""
    runs = [bpnn.finetune(home / "base", home / "data.csv", method="head", base=base, **COMMON) for base in ("float32", "int8")]
    trained = [{name for name, p in run.model.named_parameters() if p.requires_grad} for run in runs]
    assert trained[0] == trained[1] and trained[0]


# --- folds, trials ---------------------------------------------------------------------------------------------------------


def test_cross_validation(home, tmp_path):
    scores = bpnn.finetune(home / "base", home / "data.csv", folds=3, out=tmp_path / "folds", **COMMON)
    assert len(scores.folds) == 3 and sorted(i for fold in scores.tested for i in fold) == list(range(120))
    told = json.loads((tmp_path / "folds" / "metrics.json").read_text())
    assert told["mean"]["accuracy"] == pytest.approx(np.mean(scores["accuracy"]))
    (tmp_path / "folds" / "metrics.json").unlink()
    (tmp_path / "folds" / "fold-2.json").unlink()  # as if it had been killed: the second fold is trained again
    assert bpnn.finetune.resume(tmp_path / "folds", verbose=False).folds == scores.folds


def test_search(home, tmp_path):
    pytest.importorskip("optuna")
    pytest.importorskip("yaml")
    (tmp_path / "space.yaml").write_text("lr: [log, 1e-4, 1e-1]\nbatch_size: [8, 16]\nepochs: 1\n")
    given = {name: value for name, value in COMMON.items() if name not in ("lr", "epochs")}
    tuned = bpnn.finetune(home / "base", home / "data.csv", trials=2, search=tmp_path / "space.yaml", out=tmp_path / "run", **given)
    assert tuned.settings.batch_size in (8, 16) and 1e-4 <= tuned.settings.lr <= 1e-1 and tuned.settings.epochs == 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["search"]["trials"] == 2 and config["options"]["trials"] is None and config["options"]["lr"] == tuned.settings.lr
    (tmp_path / "run" / "metrics.json").unlink()
    same(bpnn.finetune.resume(tmp_path / "run", verbose=False).predict(SAY), tuned.predict(SAY))
    (tmp_path / "space.yaml").write_text("task: [lm, qa]\n")
    with pytest.raises(SettingsError, match=r"space\.yaml: task: cannot be searched"):
        bpnn.finetune(home / "base", home / "data.csv", trials=2, search=tmp_path / "space.yaml", **given)


# --- mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"label": "nothing"}, DataError, "nothing"),
        ({"labels": ["yes", "perhaps"]}, DataError, r"data\.csv:\d+: .*'no'"),
        ({"warmup": 100}, SettingsError, "warmup: expected fewer than the 6 steps of the run, got 100"),
        ({"max_length": 1000}, ValueError, "max_length: expected at most 40"),
        ({"method": "prompt", "virtual_tokens": 39}, ValueError, "virtual_tokens: expected less than the 40 tokens"),
        ({"method": "lora", "targets": ["nowhere"]}, SettingsError, "targets: .*nowhere"),
        ({"method": "frozen", "freeze": ["nowhere*"]}, SettingsError, "freeze: .*nowhere"),
        ({"method": "frozen", "freeze_layers": 9}, SettingsError, "freeze_layers: expected a number of layers"),
        ({"method": "frozen", "freeze": ["*"]}, SettingsError, "method frozen: leaves nothing to train"),
        ({"nonsense": 1}, SettingsError, "options: unknown key 'nonsense'"),
    ],
)
def test_mistakes_cost_no_training(home, tmp_path, options, kind, words, monkeypatch):
    monkeypatch.setattr("bpnn.train.Trainer.fit", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(kind, match=words):
        bpnn.finetune(home / "base", home / "data.csv", out=tmp_path / "run", **{**COMMON, **options})
    assert not (tmp_path / "run").exists()


def test_too_little_memory(home, monkeypatch):
    monkeypatch.setattr("bpnn.finetune.preparation.available_memory", lambda: 1_000_000)
    monkeypatch.setattr("bpnn.finetune.preparation.resident_memory", lambda: 0)
    with pytest.raises(SettingsError, match=r"this run needs about \d+ MiB: .* 1 MiB are available: choose a smaller batch_size"):
        bpnn.finetune(home / "base", home / "data.csv", **COMMON)
    assert len(bpnn.finetune(home / "base", home / "data.csv", force=True, **{**COMMON, "epochs": 1}).history) == 1
    monkeypatch.setattr("bpnn.finetune.preparation.available_memory", lambda: 1000)
    with pytest.raises(SettingsError, match=r"base: its [\d,]+ weights need"):
        bpnn.finetune(home / "base", home / "data.csv", **COMMON)
