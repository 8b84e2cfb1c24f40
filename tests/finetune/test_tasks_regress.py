"""Numbers of texts: correlations against SciPy, scales, scores, files."""
import numpy as np
import pytest
from scipy import stats
from task_models import again, bert, options, splits

import bpnn
from bpnn.data import DataError
from bpnn.finetune.tasks.regress import Pearson, Regress, pearson, ranks, spearman
from bpnn.train import Trainer

ROWS = [{"text": f"{'good ' * (i % 5)}film {i}", "score": (i % 5) / 4} for i in range(20)]
FAR = [{**row, "score": 1000 + 800 * row["score"]} for row in ROWS]


def test_correlations():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 9, 41).astype(float), rng.normal(size=41)
    np.testing.assert_allclose(pearson(x, y), stats.pearsonr(x, y).statistic, rtol=1e-12)
    np.testing.assert_allclose(spearman(x, y), stats.spearmanr(x, y).statistic, rtol=1e-12)
    np.testing.assert_array_equal(ranks(x), stats.rankdata(x))
    assert np.isnan(pearson([1, 1], [1, 2])) and np.isnan(pearson([1], [1])) and pearson([1, 2], [3, 5]) == 1.0
    with pytest.raises(ValueError, match="as many values in both, got 2 and 3"):
        pearson([1, 2], [1, 2, 3])
    metric, two = Pearson(), np.stack([x, -x], 1)
    for part in (slice(0, 7), slice(7, 41)):
        metric.update(two[part], np.stack([y, y], 1)[part])
    np.testing.assert_allclose(metric.compute(), 0.0, atol=1e-12)
    other = Pearson()
    other.load_state_dict(metric.state_dict())
    assert other.compute() == metric.compute()
    assert np.isnan(Pearson().compute())


def made(folder, rows, **settings):
    task = Regress(options(**settings))
    examples = task.read(splits(rows, rows[:7]))
    return task, task.load_model(folder), examples


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("rows", [ROWS, FAR], ids=["near", "far"])
def test_scale_and_files(tmp_path, pooling, rows):
    """Numbers far from 1 are learned standardized; outputs, scores and predictions are of the real ones."""
    task, model, examples = made(bert(tmp_path / "base"), rows, pooling=pooling)
    assert model.config.problem_type == "regression" and model.config.num_labels == 1
    truth = np.array([row["score"] for row in rows], float)
    far = rows is FAR
    np.testing.assert_allclose(task.mean, [truth.mean() if far else 0])
    np.testing.assert_allclose(task.deviation, [truth.std() if far else 1])
    data = task.dataset(examples["train"])
    batch = task.collate([data[3], data[0]])
    assert batch["labels"].dtype == np.float32 and batch["labels"].shape == (2, 1)
    np.testing.assert_allclose(batch["labels"][:, 0], (truth[[3, 0]] - task.mean) / task.deviation, rtol=1e-6)
    outputs = task.outputs(model, data, 5)
    batches = [{key: value for key, value in task.collate([item]).items() if key != "labels"} for item in data]
    raw = np.concatenate([model(**batch).logits.detach().numpy() for batch in batches])
    np.testing.assert_allclose(outputs, raw * task.deviation + task.mean, rtol=1e-4, atol=1e-4)
    said, scores = outputs[:, 0], task.scores(outputs, examples["train"])
    np.testing.assert_allclose(scores["mse"], np.mean((said - truth) ** 2))
    np.testing.assert_allclose(scores["rmse"] ** 2, scores["mse"])
    np.testing.assert_allclose(scores["mae"], np.mean(np.abs(said - truth)))
    np.testing.assert_allclose(scores["r2"], 1 - np.sum((said - truth) ** 2) / np.sum((truth - truth.mean()) ** 2))
    np.testing.assert_allclose(scores["spearman"], stats.spearmanr(said, truth).statistic)
    np.testing.assert_allclose(scores["pearson"], stats.pearsonr(said, truth).statistic)
    assert scores["texts"] == 20
    worst = task.worst(outputs, examples["train"], 3)
    first = int(np.argmax((said - truth) ** 2))
    assert worst[0]["where"] == f"train[{first}]" and worst[0]["label"] == truth[first] and len(worst) == 3
    assert task.predictions(outputs, examples["train"])[4] == {"value": float(said[4])}
    restored, loaded = again(task, model, tmp_path / "saved")
    np.testing.assert_array_equal(restored.outputs(loaded, restored.dataset(examples["train"]), 5), outputs)


def test_learns(tmp_path):
    task, model, examples = made(bert(tmp_path), FAR, pooling="mean")
    data = task.dataset(examples["train"], train=True)
    trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=3e-3), metrics=task.metrics())
    row = trainer.fit(task.loader(data, 5, shuffle=True), task.loader(data, 20), epochs=12).rows[-1]
    assert row["val_r2"] > 0.8 and row["val_mse"] == pytest.approx(row["val_loss"], rel=1e-5)
    assert task.scores(task.outputs(model, data), examples["train"])["mae"] < 150


def test_stars_are_far(tmp_path):
    """Ratings from 1 to 5 are learned standardized: from 0, the mean alone would take hundreds of steps at the usual rates."""
    task = Regress(options())
    stars = [{"text": f"film {i}", "score": 1 + i % 5} for i in range(10)]
    task.read(splits(stars))
    np.testing.assert_allclose((task.mean, task.deviation), ([3.0], [np.sqrt(2)]))
    task.read(splits([{**row, "score": row["score"] / 5} for row in stars]))
    assert task.mean == [0] and task.deviation == [1]


def test_settings_and_errors(tmp_path):
    task, _, _ = made(bert(tmp_path), FAR, standardize=False)
    assert task.mean == [0] and task.deviation == [1]
    with pytest.raises(DataError, match="differ"):
        Regress(options()).read(splits([ROWS[0], ROWS[0]]))
    with pytest.raises(DataError, match=r"validation\[1\]: score: expected a number, got 'many'"):
        Regress(options()).read(splits(ROWS, [ROWS[0], {"text": "x", "score": "many"}]))
    assert len(Regress(options()).read(splits(ROWS, [ROWS[0], ROWS[5]]))["validation"]) == 2  # one number alone
    with pytest.raises(DataError, match="validation: which column is the label"):
        Regress(options()).read(splits(ROWS, [{"text": "x"}]))
    with pytest.raises(DataError, match="train: expected at least one example, got none"):
        Regress(options()).read(splits(None))
    assert task.target(task.example("x")) is None
