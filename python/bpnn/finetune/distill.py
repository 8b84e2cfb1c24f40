"""Knowledge distillation: a small student learns what a large teacher says, its hidden states and where it looks.

    teacher = BertForSequenceClassification.from_pretrained("tuned")
    student = student_of(teacher, layers=2)
    distillation = Distillation(teacher, temperature=2.0, alpha=0.9, hidden=1.0, layer_map=[(0, 0), (1, 1), (2, 6)])
    optimizer = AdamW([*student.parameters(), *distillation.parameters()], lr=1e-4)
    Trainer(student, optimizer, callbacks=[distillation]).fit(loader, epochs=5)
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import bpnn
from bpnn import nn
from bpnn.models._decoder_heads import NextTokenHead
from bpnn.models._layers import IGNORED
from bpnn.nn import functional as F
from bpnn.train import Callback
from bpnn.train.batches import split_batch

from ._inputs import array_of
from ._structure import pretrained_in

__all__ = ["Distillation", "distillation_loss"]

HIDDEN = -1e9  # the logit of what cannot be chosen


def distillation_loss(student: Any, teacher: Any, temperature: float = 2.0, counted: Any = None) -> Any:
    """`T² KL(softmax(teacher / T) || softmax(student / T))`, mean over the rows; logits (…, C). Hinton, Vinyals and Dean 2015.

    counted: bool (…), which rows count. With one number a row (C = 1), a regression: `(student - teacher)²`. Gradients flow into
    `student` alone. Raises `ValueError` for logits of other shapes.
    """
    if tuple(student.shape) != tuple(teacher.shape):
        raise ValueError(f"teacher: expected logits {tuple(student.shape)}, as the student's, got {tuple(teacher.shape)}")
    classes = student.shape[-1]
    student, teacher = student.reshape(-1, classes), teacher.detach().reshape(-1, classes)
    if counted is not None:
        rows = bpnn.from_numpy(np.flatnonzero(np.asarray(counted).reshape(-1)))
        if not len(rows):
            return student.sum() * 0.0
        student, teacher = student[rows], teacher[rows]
    if classes == 1:
        return F.mse_loss(student, teacher)
    soft = F.log_softmax(teacher / temperature, -1)
    apart: Any = F.kl_div(F.log_softmax(student / temperature, -1), soft, reduction="batchmean", log_target=True)
    return apart * temperature**2


class Distillation(Callback):
    """Adds to the loss of a `Trainer`, the hard loss of the labels, what tells the student's outputs from the teacher's:

        alpha T² KL(teacher || student) + (1 - alpha) hard + hidden L_hidden + attention L_attention

    Arguments:
        teacher: a model that takes the student's batches; it is frozen and put into evaluation mode.
        temperature, alpha: T > 0, and the share of the soft targets in 0 … 1 (Hinton et al. 2015). One number a row, a regression,
            takes the squared error of the two instead.
        hidden: weight of hidden states' difference, mean over real tokens and layers. hidden_loss: "mse", mean over the numbers of
            a state too (TinyBERT, Jiao et al. 2020), or "cosine", `1 - cos` (DistilBERT, Sanh et al. 2019).
        attention: weight of the squared distance of the weights that a token gives to the others, mean over real tokens, heads and
            layers (TinyBERT has it of the weights before the softmax). Where padding is a key both weights are 0.
        layer_map: pairs (student's, teacher's) of hidden states, 0 for the embeddings and l for what layer l gives. By default all
            of the student's, the teacher's evenly apart. Attention takes the pairs without 0.
        projection: a module from the student's hidden size to the teacher's, such as `nn.Linear(312, 768)`, learned along: give
            its `parameters()` to the optimizer too. Its values are kept in the run's checkpoints.

    Classifiers of texts, tokens (labels of -100 do not count), images; language models (padding and labels of -100 do not count)
    and answers (`start_logits`, `end_logits`, over real tokens). Hidden states and attention take dictionary batches and models
    that return them. `precompute(loader)` computes the teacher's logits once instead of in every epoch.

    Raises `ValueError` naming the argument for values out of range and for outputs that do not fit together.
    """

    def __init__(
        self, teacher: Any, temperature: float = 2.0, alpha: float = 0.5, *, hidden: float = 0.0, hidden_loss: str = "mse",
        attention: float = 0.0, layer_map: Sequence[tuple[int, int]] | None = None, projection: nn.Module | None = None,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha: expected 0 to 1, got {alpha}")
        for name, value in (("hidden", hidden), ("attention", attention)):
            if not value >= 0:
                raise ValueError(f"{name}: expected a weight of 0 or more, got {value}")
        if hidden_loss not in ("mse", "cosine"):
            raise ValueError(f"hidden_loss: expected 'mse' or 'cosine', got {hidden_loss!r}")
        if projection is not None and not hidden:
            raise ValueError("projection: expected None where hidden is 0")
        self.teacher, self.temperature, self.alpha = teacher.eval().requires_grad_(False), float(temperature), float(alpha)
        self.hidden, self.hidden_loss, self.attention = float(hidden), hidden_loss, float(attention)
        self.layer_map = None if layer_map is None else [(int(s), int(t)) for s, t in layer_map]
        self.projection = projection
        self.parts: dict[str, float] = {}  # of the latest batch: "hard", "soft", "hidden", "attention"
        self._known: dict[bytes, dict[str, np.ndarray]] = {}

    def parameters(self) -> Iterator[Any]:
        """What the optimizer must train beside the student: those of the projection."""
        return iter(()) if self.projection is None else self.projection.parameters()

    # The teacher ------------------------------------------------------------------------------------------------------

    def _ask(self, batch: Any, target_key: str) -> Any:
        """The teacher's output for a batch, without labels where they are but a target."""
        args, inputs, _ = split_batch(batch, target_key)
        training = self.teacher.training
        self.teacher.eval()
        try:
            with bpnn.no_grad():
                return self.teacher(*args, **inputs)
        finally:
            self.teacher.train(training)

    def precompute(self, loader: Iterable[Any], target_key: str = "labels") -> int:
        """Remember the teacher's logits of every sample of `loader`; returns how many are known.

        A sample is known again by its inputs (its real tokens, whatever the padding), in any batch and order; the teacher is asked
        about batches that hold an unknown one. Memory: the logits, of a language model tokens × vocabulary. Not with `hidden` or
        `attention`, which need all of the teacher's work. To resume a run with the same bits, call it again with the same loader.
        """
        if self.hidden or self.attention:
            raise ValueError("precompute: expected hidden and attention of 0, the teacher must run for them in every step")
        for batch in loader:
            keys, real = _samples(batch, target_key)
            logits = {name: value.detach().numpy() for name, value in _logits(self._ask(batch, target_key)).items()}
            for i, key in enumerate(keys):
                self._known[key] = {name: np.array(_real_rows(name, value[i], real, i)) for name, value in logits.items()}
        return len(self._known)

    def _targets(self, batch: Any, target_key: str) -> tuple[dict[str, Any], Any]:
        """The teacher's logits by name, and its whole output where it was asked."""
        if self._known:
            keys, real = _samples(batch, target_key)
            if all(key in self._known for key in keys):
                rows = [self._known[key] for key in keys]
                return {name: bpnn.from_numpy(_put_back(name, [row[name] for row in rows], real)) for name in rows[0]}, None
        output = self._ask(batch, target_key)
        return _logits(output), output

    # The callback -----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Any) -> None:
        owned = {id(parameter) for parameter in trainer.owned_parameters()}
        if any(id(parameter) not in owned for parameter in self.parameters()):
            raise ValueError("projection: the optimizer does not have its parameters; give it distillation.parameters() too")

    def on_batch(self, trainer: Any, batch: Any) -> Any:
        """Asks both models for what is compared."""
        wanted = {"output_hidden_states": True} if self.hidden else {}
        wanted |= {"output_attentions": True} if self.attention else {}
        if not wanted:
            return batch
        if not isinstance(batch, Mapping):
            raise ValueError(f"batch: hidden and attention take dictionary batches, got {type(batch).__name__}")
        return {**batch, **wanted}

    def on_loss(self, trainer: Any, batch: Any, loss: Any, output: Any, target: Any) -> Any:
        known, taught = self._targets(batch, trainer.target_key)
        said = _logits(output)
        names = [name for name in said if name in known]
        if not names:
            raise ValueError(f"teacher: expected {', '.join(said)} as the student gives, got {', '.join(known)}")
        self.parts = {"hard": float(loss.item())}
        total = loss * (1 - self.alpha)
        if self.alpha:
            soft: Any = 0.0
            for name in names:
                ours, theirs = (_scores(name, logits, batch, trainer.loss is not None) for logits in (said[name], known[name]))
                counted = _counted(batch, target, ours, trainer.model)
                soft = soft + distillation_loss(ours, theirs, self.temperature, counted)
            soft = soft / len(names)
            total = total + soft * self.alpha
            self.parts["soft"] = float(soft.item())
        for name, weight, compare in (
            ("hidden", self.hidden, self._hidden_loss), ("attention", self.attention, self._attention_loss),
        ):
            if weight:
                part = compare(batch, output, taught)
                total = total + part * weight
                self.parts[name] = float(part.item())
        return total

    def _pairs(self, students: int, teachers: int) -> list[tuple[int, int]]:
        """`layer_map` checked against the numbers of hidden states, or the one that lies evenly."""
        if self.layer_map is None:
            return [(i, round(i * (teachers - 1) / max(students - 1, 1))) for i in range(students)]
        for s, t in self.layer_map:
            if not (0 <= s < students and 0 <= t < teachers):
                raise ValueError(f"layer_map: expected pairs of 0 … {students - 1} and 0 … {teachers - 1}, got {(s, t)}")
        return self.layer_map

    def _hidden_loss(self, batch: Any, output: Any, taught: Any) -> Any:
        ours, theirs = _states(output, "hidden_states", "student"), _states(taught, "hidden_states", "teacher")
        total: Any = 0.0
        pairs = self._pairs(len(ours), len(theirs))
        for s, t in pairs:
            x, y = ours[s], theirs[t].detach()
            if self.projection is not None:
                x = self.projection(x)
            if tuple(x.shape) != tuple(y.shape):
                raise ValueError(
                    f"projection: the student's hidden states are {tuple(x.shape)}, the teacher's {tuple(y.shape)}; "
                    f"give nn.Linear({ours[s].shape[-1]}, {y.shape[-1]})"
                )
            rows = _real_tokens(batch, x)
            x, y = (z.reshape(-1, z.shape[-1]) for z in (x, y))
            if rows is not None:
                x, y = x[rows], y[rows]
            total = total + (F.mse_loss(x, y) if self.hidden_loss == "mse" else (1 - F.cosine_similarity(x, y, -1)).mean())
        return total / len(pairs)

    def _attention_loss(self, batch: Any, output: Any, taught: Any) -> Any:
        ours, theirs = _states(output, "attentions", "student"), _states(taught, "attentions", "teacher")
        pairs = [(s - 1, t - 1) for s, t in self._pairs(len(ours) + 1, len(theirs) + 1) if s and t]
        if not pairs:
            raise ValueError("layer_map: expected at least one pair without 0, attention is compared layer by layer")
        total: Any = 0.0
        for s, t in pairs:
            x, y = ours[s], theirs[t].detach()
            if tuple(x.shape) != tuple(y.shape):
                raise ValueError(
                    f"attention: the student's weights are (B, heads, T, T) {tuple(x.shape)}, the teacher's {tuple(y.shape)}; "
                    "both need as many heads"
                )
            apart = ((x - y) ** 2).sum(-1).mean(1)  # (B, T)
            rows = _real_tokens(batch, apart.unsqueeze(-1))
            apart = apart.reshape(-1)
            total = total + (apart if rows is None else apart[rows]).mean()
        return total / len(pairs)

    def state_dict(self) -> dict[str, Any]:
        if self.projection is None:
            return {}
        return {"projection": {name: np.array(value.detach().numpy()) for name, value in self.projection.state_dict().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.projection is not None:
            self.projection.load_state_dict({name: bpnn.from_numpy(np.array(a)) for name, a in state["projection"].items()})


# Batches and outputs ------------------------------------------------------------------------------------------------------


def _logits(output: Any) -> dict[str, Any]:
    """The logits of an output by name."""
    if isinstance(output, bpnn.Tensor):
        return {"logits": output}
    found = {name: output[name] for name in ("logits", "start_logits", "end_logits") if name in output}
    if not found:
        raise ValueError(f"model: expected a tensor or something with logits, got {type(output).__name__}")
    return found


def _scores(name: str, logits: Any, batch: Any, outside: bool) -> Any:
    """Logits with what is chosen from last: real tokens for the ends of an answer, classes otherwise.

    outside: a loss of the trainer's has classes in dimension 1.
    """
    if name == "logits":
        return logits.permute(0, *range(2, logits.ndim), 1) if outside and logits.ndim > 2 else logits
    mask = _mask(batch)
    return logits if mask is None or mask.shape != tuple(logits.shape) else logits.masked_fill(bpnn.from_numpy(~mask), HIDDEN)


def _states(output: Any, name: str, whose: str) -> Sequence[Any]:
    found = output.get(name) if hasattr(output, "get") else getattr(output, name, None)
    if found is None:
        raise ValueError(f"{name}: the {whose} returned none, got {type(output).__name__}")
    return tuple(found)


def _mask(batch: Any) -> np.ndarray | None:
    """The attention mask (B, T) as bool."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return None if mask is None else array_of(mask) != 0


def _real_tokens(batch: Any, x: Any) -> Any:
    """Which rows of x (B, T, …) are real tokens; None for all of them."""
    mask = _mask(batch)
    if mask is None or mask.all() or mask.shape != tuple(x.shape[:2]):
        return None
    return bpnn.from_numpy(np.flatnonzero(mask))


def _counted(batch: Any, target: Any, logits: Any, model: Any) -> np.ndarray | None:
    """Which rows of logits (…, C) count, bool (…): none of padding, none whose label is -100; None for all."""
    places = tuple(logits.shape[:-1])
    counted = None
    mask = _mask(batch)
    if mask is not None and mask.shape == places:
        counted = mask
    if target is not None and isinstance(batch, Mapping):
        labels = array_of(target)
        if labels.shape == places and labels.dtype.kind in "iu":
            real = labels != IGNORED
            found = pretrained_in(model)
            if found is not None and isinstance(found[1], NextTokenHead):
                real = np.concatenate([real[..., 1:], np.zeros_like(real[..., :1])], -1)  # the label of a row is the next token
            counted = real if counted is None else counted & real
    return counted


def _samples(batch: Any, target_key: str) -> tuple[list[bytes], np.ndarray | None]:
    """A key for the inputs of each sample, and the mask of real tokens (B, T) or None."""
    args, inputs, _ = split_batch(batch, target_key)
    real = _mask(batch)
    named = [(str(i), value) for i, value in enumerate(args)]
    named += [(name, value) for name, value in sorted(inputs.items()) if name != "attention_mask"]
    arrays = [(name, array_of(value)) for name, value in named if getattr(value, "ndim", 0)]
    if not arrays:
        raise ValueError("batch: expected at least one array of inputs, got none")
    keys = []
    for i in range(len(arrays[0][1])):
        digest = hashlib.blake2b(digest_size=16)
        for name, array in arrays:
            row = np.ascontiguousarray(array[i][real[i]] if real is not None and array.shape == real.shape else array[i])
            digest.update(f"{name} {row.shape} {row.dtype} ".encode())
            digest.update(row.tobytes())
        keys.append(digest.digest())
    return keys, real


def _by_token(name: str, row: np.ndarray) -> bool:
    """Whether a sample's logits are some for each token: (T, C), or (T,) for the ends of an answer."""
    return row.ndim > 1 or name != "logits"


def _real_rows(name: str, row: np.ndarray, real: np.ndarray | None, i: int) -> np.ndarray:
    """Of a sample's logits those of real tokens, where there is one of each."""
    return row[real[i]] if real is not None and _by_token(name, row) and len(row) == real.shape[1] else row


def _put_back(name: str, rows: Sequence[np.ndarray], real: np.ndarray | None) -> np.ndarray:
    """`_real_rows` undone: (B, …), 0 at padding."""
    if real is None or not _by_token(name, rows[0]):
        return np.stack(rows)
    whole = np.zeros((*real.shape, *rows[0].shape[1:]), rows[0].dtype)
    for i, row in enumerate(rows):
        whole[i, real[i]] = row
    return whole
