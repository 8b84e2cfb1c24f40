"""What `bpnn train lm` adds to the training loop: loss without logits, rate by steps or minutes, samples, lines of progress."""
from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.data import ConsecutiveWindows, RandomWindows
from bpnn.nn import functional as F
from bpnn.train import BestModel, Callback, Progress, Trainer


def window_loss(model: Any, tokens: Any, targets: Any) -> Any:
    """Mean cross entropy of the next token, from tokens and targets (B, T), without all logits at once."""
    x = model.transformer(tokens).last_hidden_state
    return F.linear_cross_entropy(x.reshape(-1, x.shape[-1]), model.lm_head.weight, targets.reshape(-1))


class LanguageTrainer(Trainer):
    def compute_loss(self, batch: Any) -> tuple[Any, Any, Any]:
        return window_loss(self.model, *batch), None, None


def optimizer_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def cosine(step: int, warmup: int, steps: int | None, final: float, used: float = 0.0) -> float:
    """The share of the peak rate: a linear rise over `warmup` steps, then a half wave down to `final` at the end.

    The end is step `steps` or where `used`, the share of a budget of time, is 1: what is nearer.
    """
    done = used if steps is None else max(used, (step - warmup) / max(steps - warmup, 1))
    wave = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    return wave * min((step + 1) / (warmup + 1), 1.0)


class Clock(Callback):
    """Counts the time of a run over all its resumes, and ends it when `minutes` are over, with a last evaluation.

    The history gets a column `minutes`.
    """

    def __init__(self, windows: RandomWindows, minutes: float | None) -> None:
        self.windows, self.minutes = windows, minutes
        self.seconds = 0.0
        self._last = time.perf_counter()

    @property
    def used(self) -> float:
        """The share of the budget that is used; 0 without one."""
        return 0.0 if self.minutes is None else self.seconds / (60 * self.minutes)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.seconds, self._last = self.seconds + now - self._last, now

    def on_fit_start(self, trainer: Trainer) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, trainer: Trainer) -> None:
        self._tick()
        if self.used >= 1:
            self.windows.end_pass()

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._tick()
        trainer.history.rows[-1]["minutes"] = self.seconds / 60
        if self.used >= 1:
            trainer.stop(f"{self.minutes:g} minutes are over")

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]


class StepProgress(Progress):
    """The lines and the bar of a run that is counted in steps; `steps` None: in the clock's minutes."""

    def __init__(self, clock: Clock, steps: int | None, tokens: int, bar: bool | None = None) -> None:
        super().__init__(bar)
        self.clock, self.steps, self.tokens = clock, steps, tokens

    def _place(self, trainer: Trainer) -> int:
        return trainer.state.step if self.steps is not None else int(self.clock.seconds)

    def on_fit_start(self, trainer: Trainer) -> None:
        super().on_fit_start(trainer)
        if self.bar is not None:
            self.bar.total = self.steps if self.steps is not None else round(60 * (self.clock.minutes or 0))
            self.bar.initial = self.bar.n = self._place(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        if self.bar is None or (now := time.perf_counter()) < self._next:
            return
        self._next, state = now + self.REFRESH, trainer.state
        self.bar.n = self._place(trainer)
        rate = state.samples * self.tokens / state.seconds if state.seconds else 0.0
        self.bar.set_postfix_str(f"step {state.step}  loss {state.mean_loss:.4f}  lr {state.lr:.3g}  {rate:,.0f} tokens/s")

    def on_epoch_end(self, trainer: Trainer) -> None:
        row = trainer.history.rows[-1]
        count = f"{row['step']:>{len(str(self.steps))}}/{self.steps}" if self.steps is not None else f"{row['step']:>6}"
        self.write(
            f"step {count}  loss {row['loss']:.4f}  val_loss {row['val_loss']:.4f}  lr {row['lr']:.3g}  "
            f"{row['samples_per_second'] * self.tokens:,.0f} tokens/s  {row['minutes']:.1f} min"
        )

    def write(self, text: str) -> None:
        """Print beside the bar."""
        if self.bar is None:
            print(text, flush=True)
        else:
            self.bar.write(text, file=sys.stdout)
            sys.stdout.flush()


class Sampler(Callback):
    """Shows every `every` steps what the model writes. Draws from numbers of its own: training does not notice."""

    def __init__(self, every: int, write: Callable[[Trainer], str], show: Callable[[str], None]) -> None:
        self.every, self.write, self.show = every, write, show

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step % self.every == 0:
            text = self.write(trainer)
            self.show(f"--- sample after step {trainer.state.step} ---\n{text}\n---")


class KeepModel(Callback):
    """Writes the model's folder at every evaluation that is the best so far; stands behind its `BestModel`."""

    def __init__(self, best: BestModel, save: Callable[[Any], None]) -> None:
        self.best, self.save = best, save

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self.best.best_epoch == trainer.state.epoch:
            self.save(trainer.model)


# Scores and texts -----------------------------------------------------------------------------------------------------


def text_scores(model: Any, tokens: np.ndarray, characters: int, context: int, batch_size: int = 16) -> dict[str, Any]:
    """Loss a token, perplexity and bits a character over windows side by side, every token of the text but the first predicted.

    characters: how many the tokens stand for.
    """
    training, loss_sum, count = model.training, 0.0, 0
    windows = ConsecutiveWindows(tokens, context, batch_size)
    rest = [] if windows.rest is None else [windows.rest]
    model.eval()
    try:
        with bpnn.no_grad():
            for x, y in chain(windows, rest):
                loss_sum += window_loss(model, x, y).item() * y.numel()
                count += y.numel()
    finally:
        model.train(training)
    loss = loss_sum / count
    return {
        "tokens": count, "characters": characters, "loss": loss, "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_character": loss_sum / characters / math.log(2),
    }


def continue_text(
    model: Any, prompt: np.ndarray, count: int, *, seed: int = 0, temperature: float = 0.8, top_k: int | None = None
) -> Iterable[int]:
    """`count` tokens after those of `prompt` (at least one), one at a time. Where the context is full, half of it is read anew."""
    choice = {"do_sample": True, "temperature": temperature, "top_k": top_k or 0} if temperature else {"do_sample": False}
    context, tokens, made = model.config.n_positions, [int(token) for token in prompt], 0
    training = model.training
    model.eval()
    try:
        while made < count:
            if len(tokens) >= context:
                tokens = tokens[-max(context // 2, 1) :]
            new = min(count - made, context - len(tokens))
            for (token,) in model.stream([tokens], max_new_tokens=new, eos_token_id=None, seed=seed + made, **choice):
                tokens.append(int(token))
                made += 1
                yield tokens[-1]
    finally:
        model.train(training)


def draw_run(path: str | Path, history: Any, title: str, best_step: int | None) -> None:
    """Writes a PNG: loss and learning rate over the steps. Raises `ImportError` where matplotlib is missing."""
    from matplotlib.figure import Figure

    from bpnn.train.plots import INK, RATE, RING, TRAIN, VALIDATION, style

    figure = Figure(figsize=(11, 5), dpi=130, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=14, color=INK, fontweight="bold")
    for axis, heading in ((left, "loss"), (right, "learning rate")):
        style(axis, heading, "step")
    steps = history["step"]
    fine = np.array(history.steps, np.float64).reshape(-1, 3)
    left.plot(fine[:, 0], fine[:, 1], color=TRAIN, alpha=0.3, linewidth=1)
    left.plot(steps, history["loss"], color=TRAIN, linewidth=1.8, label="training")
    left.plot(steps, history["val_loss"], color=VALIDATION, linewidth=1.8, label="validation")
    if best_step is not None:
        left.plot([best_step], [history["val_loss"][steps.index(best_step)]], color=INK, label=f"kept: step {best_step}", **RING)
    left.legend(frameon=False, fontsize=9, labelcolor=INK)
    right.plot(fine[:, 0], fine[:, 2], color=RATE, linewidth=1.8)
    right.set_ylim(bottom=0)
    figure.savefig(path, format="png")
