"""Learning something new without forgetting the old: old samples, old weights, or the old model's answers hold on to it.

    replay = Replay(share=0.25, capacity=1000); replay.fill(old_loader)
    ewc = EWC(penalty=100.0); ewc.consolidate(model, old_loader, nn.CrossEntropyLoss())
    lwf = LwF(old_model, temperature=2.0, weight=1.0)
    Trainer(model, optimizer, nn.CrossEntropyLoss(), callbacks=[replay, ewc]).fit(new_loader, epochs=3)
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import bpnn
from bpnn.train import Callback
from bpnn.train.batches import batch_size, loss_of, prediction_of, split_batch

from ._inputs import array_of
from .distill import _counted, distillation_loss

__all__ = ["EWC", "LwF", "Replay"]


class Replay(Callback):
    """Puts stored samples into every batch, in the place of new ones drawn at random.

    A batch of B keeps `B - round(share B)` of its own, the others have their turn in other passes; the rest are drawn from the
    store, without repetition where it has enough. The store holds `capacity` samples; of all that were shown to it each is there
    with the same probability (reservoir sampling, Vitter 1985, algorithm R). After Rebuffi et al. 2017 and Chaudhry et al. 2019.

    share: 0 to 1. learn: also show every batch's own samples to the store, before it is changed, as where tasks come one after
    the other. Batches are tuples or dictionaries of tensors or arrays (B, …), like the stored ones; sequences that are shorter than
    others are filled up at the end with 0, labels with -100. What else a dictionary holds stays.

    The store is part of the run's checkpoints; draws come from bpnn's generator.
    """

    def __init__(self, share: float = 0.25, capacity: int = 1000, learn: bool = False) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected 0 to 1, got {share}")
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.share, self.capacity, self.learn = float(share), int(capacity), bool(learn)
        self.samples: list[dict[str, np.ndarray]] = []  # a sample: its arrays by name, or by place as "0", "1" …
        self.seen = 0

    def __len__(self) -> int:
        """How many samples are stored."""
        return len(self.samples)

    def fill(self, loader: Iterable[Any]) -> Replay:
        """Show the batches of a loader to the store; returns self."""
        for batch in loader:
            self.add(batch)
        return self

    def add(self, batch: Any) -> None:
        """Show the samples of a batch to the store."""
        arrays = _arrays(batch)
        count = _count(arrays)
        for i in range(count):
            self.seen += 1
            place = len(self.samples)
            if place == self.capacity:
                place = _below(self.seen)
                if place >= self.capacity:
                    continue
                self.samples[place] = _one(arrays, i)
            else:
                self.samples.append(_one(arrays, i))

    def on_batch(self, trainer: Any, batch: Any) -> Any:
        stored = list(self.samples) if self.learn else self.samples
        arrays = _arrays(batch)
        count = _count(arrays)
        if self.learn:
            self.add(batch)
        old = round(self.share * count)
        if not stored or not old:
            return batch
        if stored[0].keys() != arrays.keys():
            raise ValueError(f"batch: expected {', '.join(stored[0])} as the stored samples have, got {', '.join(arrays)}")
        kept = np.sort(bpnn.randperm(count).numpy()[: count - old])
        drawn = bpnn.randperm(len(stored)).numpy()[:old] if len(stored) >= old else [_below(len(stored)) for _ in range(old)]
        mixed = {
            name: _stacked([*array[kept], *(stored[i][name] for i in drawn)], name, array.dtype) for name, array in arrays.items()
        }
        return _as(mixed, batch)

    def state_dict(self) -> dict[str, Any]:
        return {"samples": [dict(sample) for sample in self.samples], "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.samples = [{name: np.array(array) for name, array in sample.items()} for sample in state["samples"]]
        self.seen = state["seen"]


def _below(limit: int) -> int:
    return int(bpnn.randint(limit, (1,)).item())


def _arrays(batch: Any) -> dict[str, np.ndarray]:
    """The arrays of a batch by name, or by place."""
    if isinstance(batch, Mapping):
        named = {name: value for name, value in batch.items() if getattr(value, "ndim", 0)}
    else:
        named = {str(i): value for i, value in enumerate(batch if isinstance(batch, (tuple, list)) else (batch,))}
    return {name: array_of(value) for name, value in named.items()}


def _count(arrays: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(array) if array.ndim else 1 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"batch: expected arrays of as many samples each, got {lengths or 'none'}")
    return next(iter(lengths.values()))


def _one(arrays: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: np.array(array[i]) for name, array in arrays.items()}


def _stacked(rows: list[np.ndarray], name: str, dtype: Any) -> np.ndarray:
    """(B, …): rows (T, …) of several lengths T filled up at the end."""
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        if len({shape[1:] for shape in shapes}) > 1 or () in shapes:
            raise ValueError(f"batch: {name}: expected samples of one shape but for their length, got {sorted(shapes)}")
        longest = max(shape[0] for shape in shapes)
        fill = -100 if name == "labels" else 0
        rows = [np.pad(row, [(0, longest - len(row))] + [(0, 0)] * (row.ndim - 1), constant_values=fill) for row in rows]
    return np.stack(rows).astype(dtype, copy=False)


def _as(arrays: dict[str, np.ndarray], batch: Any) -> Any:
    """Arrays in the form of a batch."""
    def form(name: str, like: Any) -> Any:
        return bpnn.from_numpy(arrays[name]) if isinstance(like, bpnn.Tensor) else arrays[name]

    if isinstance(batch, Mapping):
        return {name: form(name, value) if name in arrays else value for name, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)([form(str(i), value) for i, value in enumerate(batch)])
    return form("0", batch)


class EWC(Callback):
    """Elastic weight consolidation: weights that the old task needs are held where they were. Kirkpatrick et al. 2017.

        loss + penalty / 2 sum_i F_i (w_i - w*_i)²,   F_i = mean over samples of (d log p(y | x) / d w_i)²

    F is the diagonal of the Fisher information, from `consolidate` on data of the old task. Called for several tasks in turn it
    adds to F, anchored at the newest weights: online EWC (Schwarz et al. 2018), `F = decay F + F_new`. Without `consolidate`
    the penalty is none. F and w* are part of the run's checkpoints.
    """

    def __init__(self, penalty: float = 100.0, decay: float = 1.0) -> None:
        if not penalty >= 0:
            raise ValueError(f"penalty: expected 0 or more, got {penalty}")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay: expected 0 to 1, got {decay}")
        self.penalty, self.decay = float(penalty), float(decay)
        self.fisher: dict[str, np.ndarray] = {}
        self.anchor: dict[str, np.ndarray] = {}

    def consolidate(
        self, model: Any, loader: Iterable[Any], loss: Callable[..., Any] | None = None, *, samples: int | None = None,
        target_key: str = "labels", empirical: bool = True,
    ) -> EWC:
        """Take in a task that `model` has learned: F over the samples of `loader`, w* its weights; returns self.

        loss: as `Trainer`'s, the mean of `-log p(y | x)`; None: the model computes it. samples: stop after as many. empirical: y
        are the labels; False: drawn from the model's own softmax, which is the true Fisher information, for plain classifiers.
        Dropout is off. One sample at a time, as the squares of sums are not sums of squares: a few hundred samples do.
        """
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not trained:
            raise ValueError("model: expected parameters that are trained, got none")
        sums = {name: np.zeros(parameter.shape, np.float64) for name, parameter in trained.items()}
        training, done = model.training, 0
        before = {name: parameter.grad for name, parameter in trained.items()}
        model.eval()
        try:
            for batch in loader:
                for one in _singles(batch):
                    if samples is not None and done >= samples:
                        break
                    for parameter in trained.values():
                        parameter.grad = None
                    _likelihood(model, one, loss, target_key, empirical).backward()
                    for name, parameter in trained.items():
                        if parameter.grad is not None:
                            sums[name] += np.square(parameter.grad.numpy(), dtype=np.float64)
                    done += 1
        finally:
            model.train(training)
            for name, parameter in trained.items():
                parameter.grad = before[name]
        if not done:
            raise ValueError("loader: expected at least one sample, got none")
        for name, parameter in trained.items():
            new = sums[name] / done
            if name in self.fisher:
                new += self.decay * self.fisher[name]
            self.fisher[name] = new.astype(parameter.dtype)
            self.anchor[name] = np.array(parameter.detach().numpy())
        return self

    def penalty_of(self, model: Any) -> Any:
        """`penalty / 2 sum F (w - w*)²`, a scalar; 0 before anything was consolidated. Differentiable."""
        total: Any = bpnn.zeros(())
        parameters = dict(model.named_parameters())
        if missing := self.fisher.keys() - parameters.keys():
            raise ValueError(f"model: expected the parameters of the old task, {', '.join(sorted(missing))} are missing")
        for name, fisher in self.fisher.items():
            parameter = parameters[name]
            if tuple(parameter.shape) != fisher.shape:
                raise ValueError(f"model: {name}: expected shape {fisher.shape} as in the old task, got {tuple(parameter.shape)}")
            if parameter.requires_grad:
                total = total + (bpnn.from_numpy(fisher) * (parameter - bpnn.from_numpy(self.anchor[name])) ** 2).sum()
        return total * (self.penalty / 2)

    def on_loss(self, trainer: Any, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        return loss + self.penalty_of(trainer.model) if self.fisher else loss

    def state_dict(self) -> dict[str, Any]:
        return {"fisher": dict(self.fisher), "anchor": dict(self.anchor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fisher = {name: np.array(array) for name, array in state["fisher"].items()}
        self.anchor = {name: np.array(array) for name, array in state["anchor"].items()}


def _singles(batch: Any) -> Iterable[Any]:
    """The samples of a batch as batches of one."""
    for i in range(batch_size(batch)):
        if isinstance(batch, Mapping):
            yield {name: value[i : i + 1] if getattr(value, "ndim", 0) else value for name, value in batch.items()}
        elif isinstance(batch, (tuple, list)):
            yield tuple(value[i : i + 1] for value in batch)
        else:
            yield batch[i : i + 1]


def _likelihood(model: Any, batch: Any, loss: Any, target_key: str, empirical: bool) -> Any:
    """`-log p(y | x)` of one sample."""
    args, inputs, target = split_batch(batch, target_key)
    if empirical and loss is None:
        return loss_of(model(**batch) if isinstance(batch, Mapping) else model(*(batch if isinstance(batch, tuple) else (batch,))))
    output = model(*args, **inputs)
    if empirical:
        return loss(output) if target is None else loss(output, target)
    logits = prediction_of(output)
    with bpnn.no_grad():
        chances = bpnn.nn.functional.softmax(logits.detach(), -1)
        drawn = bpnn.multinomial(chances, 1).reshape(-1)
    return bpnn.nn.functional.cross_entropy(logits, drawn)


class LwF(Callback):
    """Learning without forgetting: on the new data the model goes on saying what it said before. Li and Hoiem 2016.

        loss + weight T² KL(softmax(old / T) || softmax(new / T))

    old_model: a copy of the model before it learns the new task (`copy.deepcopy(model)`); frozen. temperature: T, 2 in the paper.
    classes: only the first so many outputs are held, those that the old model had where the new one has more; by default all
    of the old model's. head: another way from the model's output to the old task's logits, where that has a head of its own:
    called with (model, batch) it returns them. Padding and tokens with a label of -100 do not count.
    """

    def __init__(
        self, old_model: Any, temperature: float = 2.0, weight: float = 1.0, classes: int | None = None,
        head: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        if not weight >= 0:
            raise ValueError(f"weight: expected 0 or more, got {weight}")
        if classes is not None and classes < 1:
            raise ValueError(f"classes: expected at least 1, got {classes}")
        self.old_model = old_model.eval().requires_grad_(False)
        self.temperature, self.weight, self.classes, self.head = float(temperature), float(weight), classes, head

    def on_loss(self, trainer: Any, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        args, inputs, _ = split_batch(batch, trainer.target_key)
        self.old_model.eval()
        with bpnn.no_grad():
            old = self.head(self.old_model, batch) if self.head else prediction_of(self.old_model(*args, **inputs))
        new = self.head(trainer.model, batch) if self.head else prediction_of(output)
        count = old.shape[-1] if self.classes is None else self.classes
        if min(old.shape[-1], new.shape[-1]) < count:
            raise ValueError(f"classes: expected at most {min(old.shape[-1], new.shape[-1])}, as many as both give, got {count}")
        counted = _counted(batch, target, new, trainer.model)
        return loss + self.weight * distillation_loss(new[..., :count], old[..., :count], self.temperature, counted)
