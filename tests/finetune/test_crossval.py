"""Folds against scikit-learn and against what they promise; cross-validation against fits by hand."""
import json

import numpy as np
import pytest

import bpnn
from bpnn import nn
from bpnn.finetune.crossval import GroupKFold, KFold, StratifiedKFold, cross_validate
from bpnn.train import Accuracy, BestModel, Trainer
from bpnn.utils.data import DataLoader, Subset, TensorDataset

SIZES = [(7, 2), (10, 5), (11, 3), (33, 4)]


def same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    for (a, b), (c, d) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_every_sample_is_tested_once(n, k):
    y, groups = np.arange(n) % 2, np.arange(n) // 2
    bpnn.manual_seed(0)
    for folds in (KFold(k), KFold(k, shuffle=True), StratifiedKFold(k, shuffle=True), GroupKFold(k)):
        parts = list(folds.split(range(n), y, groups))
        assert len(parts) == folds.get_n_splits() == k
        assert sorted(np.concatenate([test for _, test in parts])) == list(range(n))
        for train, test in parts:
            assert not set(train) & set(test)
            assert len(train) + len(test) == n
            if isinstance(folds, StratifiedKFold):
                assert abs((y[test] == 1).sum() - (y == 1).sum() / k) < 1
            elif isinstance(folds, GroupKFold):
                assert not set(groups[train]) & set(groups[test])
            else:
                assert len(test) in (n // k, n // k + 1)


@pytest.mark.rivals
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_folds_of_scikit_learn(n, k):
    selection = pytest.importorskip("sklearn.model_selection")
    rng = np.random.default_rng(n)
    x = np.zeros((n, 1))
    same(KFold(k).split(x), selection.KFold(k).split(x))
    same(KFold(k, shuffle=True, random_state=3).split(x), selection.KFold(k, shuffle=True, random_state=3).split(x))
    for y in (rng.permutation(np.arange(n) % 2), np.array(["b", "a", "c"])[np.sort(np.arange(n) % 3)]):
        if np.unique(y, return_counts=True)[1].min() < k:
            continue
        same(StratifiedKFold(k).split(x, y), selection.StratifiedKFold(k).split(x, y))
        for seed in (0, 5):
            ours, theirs = (kind(k, shuffle=True, random_state=seed) for kind in (StratifiedKFold, selection.StratifiedKFold))
            same(ours.split(x, y), theirs.split(x, y))
    groups = rng.integers(0, k + 3, n)
    if len(np.unique(groups)) >= k:
        same(GroupKFold(k).split(x, None, groups), selection.GroupKFold(k).split(x, None, groups))


def test_shuffling_follows_bpnns_generator():
    bpnn.manual_seed(1)
    first, second = (list(KFold(3, shuffle=True).split(range(20))) for _ in range(2))
    assert any((a[1].tolist() != b[1].tolist()) for a, b in zip(first, second, strict=True))
    bpnn.manual_seed(1)
    same(first, KFold(3, shuffle=True).split(range(20)))


def data(n=30):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[np.arange(n), y] += 2
    return TensorDataset(bpnn.from_numpy(x), bpnn.from_numpy(y)), y


def make_trainer(fold, callbacks=()):
    model = nn.Linear(4, 3)
    return Trainer(
        model, bpnn.optim.SGD(model.parameters(), lr=0.3), nn.CrossEntropyLoss(), metrics=[Accuracy()], callbacks=callbacks)


def test_scores_are_those_of_training_by_hand():
    dataset, y = data()
    result = cross_validate(make_trainer, dataset, y, 3, epochs=2, batch_size=8, seed=4)
    expected = []
    for fold, (train, test) in enumerate(StratifiedKFold(3, shuffle=True, random_state=4).split(y, y)):
        assert result.tested[fold] == test.tolist()
        seed = int(np.random.SeedSequence([4, fold]).generate_state(1)[0])
        bpnn.manual_seed(seed)
        trainer = make_trainer(fold)
        loader = DataLoader(Subset(dataset, train.tolist()), 8, shuffle=True, generator=bpnn.Generator().manual_seed(seed))
        trainer.fit(loader, epochs=2)
        expected.append(trainer.evaluate(DataLoader(Subset(dataset, test.tolist()), 8)))
    assert result.folds == expected
    accuracies = np.array([scores["accuracy"] for scores in expected])
    assert result["accuracy"] == accuracies.tolist()
    np.testing.assert_allclose(result.mean["accuracy"], accuracies.sum() / 3)
    np.testing.assert_allclose(result.std["accuracy"], np.sqrt(((accuracies - accuracies.mean()) ** 2).sum() / 2))
    assert str(result).count("fold") == 3
    assert "±" in str(result)
    assert cross_validate(make_trainer, dataset, y, 3, epochs=2, batch_size=8, seed=4).folds == expected


def test_a_validation_part_of_the_training_part():
    dataset, y = data()
    seen = []

    def make(fold):
        trainer = make_trainer(fold, [BestModel("val_accuracy", "max")])
        fit = trainer.fit

        def watched(loader, validation, epochs):
            seen.append((set(loader.dataset.indices), set(validation.dataset.indices)))
            return fit(loader, validation, epochs)

        trainer.fit = watched
        return trainer

    result = cross_validate(make, dataset, y, 3, epochs=2, validation_share=0.25)
    for (train, validation), test in zip(seen, result.tested, strict=True):
        assert len(validation) == 5
        assert not train & validation
        assert train | validation == set(range(30)) - set(test)


def test_a_folder_keeps_what_is_done(tmp_path):
    dataset, y = data()
    whole = cross_validate(make_trainer, dataset, y, 3)
    asked = []

    def until(last):
        def make(fold):
            if fold == last:
                raise KeyboardInterrupt
            asked.append(fold)
            return make_trainer(fold)

        return make

    with pytest.raises(KeyboardInterrupt):
        cross_validate(until(2), dataset, y, 3, folder=tmp_path / "cv")
    again = cross_validate(until(None), dataset, y, 3, folder=tmp_path / "cv")
    assert asked == [0, 1, 2]
    assert again.folds == whole.folds
    with pytest.raises(ValueError, match="of a run with epochs 1 instead of 2"):
        cross_validate(make_trainer, dataset, y, 3, epochs=2, folder=tmp_path / "cv")
    (tmp_path / "cv" / "fold-1.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"fold-1.json is damaged"):
        cross_validate(make_trainer, dataset, y, 3, folder=tmp_path / "cv")
    assert json.loads((tmp_path / "cv" / "fold-2.json").read_text(encoding="utf-8"))["scores"] == whole.folds[1]


def test_groups_and_other_splitters():
    dataset, y = data()
    groups = np.arange(30) // 5
    result = cross_validate(make_trainer, dataset, y, 3, groups=groups)
    for tested in result.tested:
        assert {g for i, g in enumerate(groups) if i in tested}.isdisjoint({g for i, g in enumerate(groups) if i not in tested})
    plain = cross_validate(make_trainer, dataset, folds=KFold(2))
    assert plain.tested == [list(range(15)), list(range(15, 30))]


def test_errors():
    for value in (1, 2.5, True):
        with pytest.raises(ValueError, match="n_splits: expected a whole number of at least 2"):
            KFold(value)
    with pytest.raises(ValueError, match="random_state: expected None without shuffle, got 3"):
        KFold(3, random_state=3)
    for folds, given, message in [
        (KFold(5), (range(3),), "n_splits: expected at most the number of samples, 3, got 5"),
        (StratifiedKFold(3), (range(6),), "y: expected the class of each sample"),
        (StratifiedKFold(3), (range(4), [0, 0, 1, 1]), "the samples of the largest class, 2, got 3"),
        (StratifiedKFold(2), (range(3), [0, 1]), "y: expected 3 values, one a sample, got 2"),
        (GroupKFold(3), (range(4), None, [0, 0, 1, 1]), "n_splits: expected at most the number of groups, 2, got 3"),
        (GroupKFold(2), (range(4),), "groups: expected the group of each sample"),
    ]:
        with pytest.raises(ValueError, match=message):
            list(folds.split(*given))
    with pytest.raises(ValueError, match="validation_share: expected 0 to less than 1"):
        cross_validate(make_trainer, data()[0], validation_share=1.0)
