"""Cross-validation: every sample is tested once, by a model that did not learn from it.

    result = cross_validate(make_trainer, dataset, labels, k=5, epochs=3, batch_size=32)
    print(result)                       # a line a fold, then mean ± deviation
    result.mean["accuracy"], result.std["accuracy"]

`KFold`, `StratifiedKFold` and `GroupKFold` have scikit-learn's names, and give its splits.
"""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.utils._files import write_text
from bpnn.utils.data import DataLoader, Subset

__all__ = ["CrossValidation", "GroupKFold", "KFold", "StratifiedKFold", "cross_validate"]

Array = np.ndarray[Any, np.dtype[Any]]


class _Folds:
    """Base: `numbers(n, y, groups)` says in which fold each of n samples is tested."""

    def __init__(self, n_splits: int = 5) -> None:
        if isinstance(n_splits, bool) or not isinstance(n_splits, (int, np.integer)) or n_splits < 2:
            raise ValueError(f"n_splits: expected a whole number of at least 2, got {n_splits!r}")
        self.n_splits = int(n_splits)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds."""
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Array, Array]]:
        """Pairs of indices (training, test), both in order; X: the samples, of which only the number matters."""
        n = len(X)
        if n < self.n_splits:
            raise ValueError(f"n_splits: expected at most the number of samples, {n}, got {self.n_splits}")
        for name, values in (("y", y), ("groups", groups)):
            if values is not None and len(values) != n:
                raise ValueError(f"{name}: expected {n} values, one a sample, got {len(values)}")
        fold = self.numbers(n, y, groups)
        for number in range(self.n_splits):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)

    def numbers(self, n: int, y: Any, groups: Any) -> Array:
        """(n,): the fold of each sample."""
        raise TypeError(f"{type(self).__name__} has no numbers")


class _Shuffled(_Folds):
    def __init__(self, n_splits: int = 5, *, shuffle: bool = False, random_state: int | None = None) -> None:
        super().__init__(n_splits)
        if random_state is not None and not shuffle:
            raise ValueError(f"random_state: expected None without shuffle, got {random_state!r}")
        self.shuffle, self.random_state = shuffle, random_state

    def _generator(self) -> np.random.RandomState:
        """NumPy's old generator, which scikit-learn shuffles with; its seed from bpnn's where none is given."""
        return np.random.RandomState(int(bpnn.randint(2**31 - 1, (1,)).item()) if self.random_state is None else self.random_state)


class KFold(_Shuffled):
    """`n_splits` folds of successive samples, the first ones a sample larger where it does not come out even.

    shuffle: samples in an order drawn by `random_state` (None: by bpnn's generator). More folds than samples: `ValueError`.
    """

    def numbers(self, n: int, y: Any, groups: Any) -> Array:
        order = np.arange(n)
        if self.shuffle:
            self._generator().shuffle(order)
        fold = np.empty(n, np.int64)
        fold[order] = np.repeat(np.arange(self.n_splits), [len(part) for part in np.array_split(order, self.n_splits)])
        return fold


class StratifiedKFold(_Shuffled):
    """Folds with the classes' shares of the whole, to a sample; y (n,): the classes.

    Raises `ValueError` where no class has as many samples as there are folds.
    """

    def numbers(self, n: int, y: Any, groups: Any) -> Array:
        if y is None:
            raise ValueError("y: expected the class of each sample, got None")
        values = np.asarray(y)
        if values.ndim != 1:
            raise ValueError(f"y: expected classes (n,), got shape {values.shape}")
        _, first, found = np.unique(values, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))  # classes count in the order in which they appear
        classes = rank[found]
        counts = np.bincount(classes)
        if (counts < self.n_splits).all():
            raise ValueError(f"n_splits: expected at most the samples of the largest class, {counts.max()}, got {self.n_splits}")
        # Deal the samples, sorted by class, to the folds like cards: how many of each class a fold gets.
        dealt = np.sort(classes)
        share = np.stack([np.bincount(dealt[i :: self.n_splits], minlength=len(counts)) for i in range(self.n_splits)])
        generator = self._generator() if self.shuffle else None
        fold = np.empty(n, np.int64)
        for number in range(len(counts)):
            of_class = np.repeat(np.arange(self.n_splits), share[:, number])
            if generator is not None:
                generator.shuffle(of_class)
            fold[classes == number] = of_class
        return fold


class GroupKFold(_Folds):
    """No group is in two folds; the folds are about even: groups, the largest first, each go where the fewest samples are.

    groups (n,): anything that can be compared, such as the patient or the author of a sample. Raises `ValueError` for fewer groups
    than folds.
    """

    def numbers(self, n: int, y: Any, groups: Any) -> Array:
        if groups is None:
            raise ValueError("groups: expected the group of each sample, got None")
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        if len(names) < self.n_splits:
            raise ValueError(f"n_splits: expected at most the number of groups, {len(names)}, got {self.n_splits}")
        sizes = np.bincount(member)
        load = np.zeros(self.n_splits, np.int64)
        fold = np.empty(len(names), np.int64)
        for group in np.argsort(sizes, kind="stable")[::-1]:
            fold[group] = lightest = int(load.argmin())
            load[lightest] += sizes[group]
        return fold[member]


@dataclass
class CrossValidation:
    """The scores of every fold, in order, and which samples it was tested on."""

    folds: list[dict[str, float]] = field(default_factory=list)
    tested: list[list[int]] = field(default_factory=list, repr=False)

    def __getitem__(self, name: str) -> list[float]:
        """A score, fold by fold."""
        return [scores[name] for scores in self.folds]

    @property
    def mean(self) -> dict[str, float]:
        """Means over the folds."""
        return {name: float(np.mean(self[name])) for name in self.folds[0]}

    @property
    def std(self) -> dict[str, float]:
        """Deviations between the folds, with n - 1."""
        return {name: float(np.std(self[name], ddof=1)) for name in self.folds[0]}

    def __str__(self) -> str:
        lines = [f"fold {i}  " + "  ".join(f"{n} {v:.4f}" for n, v in scores.items()) for i, scores in enumerate(self.folds, 1)]
        total = "  ".join(f"{name} {self.mean[name]:.4f} ± {self.std[name]:.4f}" for name in self.folds[0])
        return "\n".join([*lines, f"mean    {total}"])


def cross_validate(
    make_trainer: Callable[[int], Any], dataset: Any, labels: Sequence[Any] | Array | None = None, k: int = 5, *, epochs: int = 1,
    batch_size: int = 32, folds: _Folds | None = None, groups: Sequence[Any] | Array | None = None, validation_share: float = 0.0,
    collate_fn: Callable[[list[Any]], Any] | None = None, seed: int = 0, folder: str | os.PathLike[str] | None = None,
) -> CrossValidation:
    """Train and test k times; the test scores of each fold, `Trainer.evaluate`'s numbers.

    Arguments:
        make_trainer: gives a `Trainer` with a model of its own for fold 0 … k - 1. bpnn's generator is seeded before it by `seed`
            and the fold, so that folds do not depend on each other.
        dataset: anything with a length and items by number. labels: the classes, (n,): stratified folds; None: plain ones.
        groups: samples of one group stay together. folds: any splitter, instead of the shuffled one that labels and groups ask for.
        validation_share: of each fold's training part, what `fit` gets as validation, for `BestModel` and `EarlyStopping`. The test
            part is never shown to them: what was chosen by a fold would score too well on it.
        folder: keeps the scores of each fold as it ends; a later call with the same arguments takes up what is there.

    Raises `ValueError` naming the argument, also for a folder of other settings.
    """
    if not 0 <= validation_share < 1:
        raise ValueError(f"validation_share: expected 0 to less than 1, got {validation_share}")
    if folds is None:
        if groups is not None:
            folds = GroupKFold(k)
        else:
            folds = (KFold if labels is None else StratifiedKFold)(k, shuffle=True, random_state=seed)
    splits = list(folds.split(range(len(dataset)), labels, groups))
    home = None if folder is None else Path(folder)
    told = {
        "samples": len(dataset), "folds": len(splits), "epochs": epochs, "batch_size": batch_size, "seed": seed,
        "validation_share": validation_share,
    }
    result = CrossValidation()
    for number, (train, test) in enumerate(splits):
        path = None if home is None else home / f"fold-{number + 1}.json"
        scores = None if path is None else _kept(path, told | {"tested": test.tolist()})
        if scores is None:
            scores = _fold(make_trainer, dataset, number, train, test, epochs, batch_size, validation_share, collate_fn, seed)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps({**told, "tested": test.tolist(), "scores": scores}) + "\n")
        result.folds.append(scores)
        result.tested.append(test.tolist())
    return result


def _fold(
    make_trainer: Callable[[int], Any], dataset: Any, number: int, train: Array, test: Array, epochs: int, batch_size: int,
    validation_share: float, collate_fn: Any, seed: int,
) -> dict[str, float]:
    """Train and test one fold."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    bpnn.manual_seed(own)
    trainer = make_trainer(number)
    validation = None
    if validation_share:
        order = np.random.default_rng(own).permutation(train)
        held = max(1, round(len(order) * validation_share))
        validation, train = np.sort(order[:held]), np.sort(order[held:])
    if not len(train):
        raise ValueError(f"validation_share: expected to leave samples for training, got {validation_share} of {held}")

    def loader(indices: Array, shuffle: bool = False) -> Any:
        generator = bpnn.Generator().manual_seed(own) if shuffle else None
        part = Subset(dataset, indices.tolist())
        return DataLoader(part, batch_size, shuffle=shuffle, collate_fn=collate_fn, generator=generator)

    trainer.fit(loader(train, shuffle=True), None if validation is None else loader(validation), epochs=epochs)
    scores = trainer.evaluate(loader(test))
    return {name: float(value) for name, value in scores.items() if isinstance(value, (int, float, np.number))}


def _kept(path: Path, told: dict[str, Any]) -> dict[str, float] | None:
    """The scores that an earlier call left, None where it left none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scores: dict[str, float] = content.pop("scores")
    except (ValueError, KeyError, AttributeError):
        raise ValueError(f"folder: {path} is damaged; remove it to train the fold again") from None
    for name, value in told.items():
        if content.get(name) != value:
            shown = "other samples" if name == "tested" else f"{name} {content.get(name)!r} instead of {value!r}"
            raise ValueError(f"folder: {path} is of a run with {shown}; choose another folder")
    return scores
