"""What a person sees of a training run: a bar while it goes, one line an epoch, a table in a file."""
from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bpnn.utils._files import write_text

from .callbacks import Callback

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["HistoryFile", "Progress", "epoch_line"]


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """`epoch  3/10  loss 0.0712  accuracy 97.81 %  …` from a row of the history."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"]
    for name, value in row.items():
        if name in ("epoch", "step", "seconds", "samples_per_second"):
            continue
        if name == "lr":
            text = f"{value:.3g}"
        elif "accuracy" in name:
            text = f"{100 * value:.2f} %"
        else:
            text = f"{value:.4f}"
        parts.append(f"{name} {text}")
    if "samples_per_second" in row:
        parts.append(f"{row['samples_per_second']:,.0f} samples/s")
    if "seconds" in row:
        parts.append(f"{row['seconds']:.1f} s")
    return "  ".join(parts)


class Progress(Callback):
    """Prints a line an epoch; with `bar=True`, or by itself on a terminal, a bar with loss, rate, samples/s and time left."""

    REFRESH = 0.1  # seconds between updates of the bar

    def __init__(self, bar: bool | None = None) -> None:
        self.wanted = sys.stderr.isatty() if bar is None else bar
        self.bar: Any = None
        self._next = 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        if not self.wanted:
            return
        from tqdm import tqdm

        steps = _batches(trainer.loader)
        self.bar = tqdm(
            total=None if steps is None else steps * trainer.state.epochs,
            unit="batch",
            dynamic_ncols=True,
            leave=False,
            bar_format="{percentage:3.0f} % |{bar}| {elapsed} < {remaining}{postfix}" if steps is not None else None,
        )
        self.bar.initial = self._position(trainer)  # so that the time left counts only what this process did

    def _position(self, trainer: Trainer) -> int:
        state, steps = trainer.state, _batches(trainer.loader)
        return state.batch if steps is None else steps * state.epoch + state.batch

    def on_step_end(self, trainer: Trainer) -> None:
        bar = self.bar
        if bar is None or (now := time.perf_counter()) < self._next:
            return
        self._next = now + self.REFRESH
        state = trainer.state
        bar.n = self._position(trainer)
        rate = state.samples / state.seconds if state.seconds else 0.0
        bar.set_postfix_str(f"epoch {state.epoch + 1}  loss {state.mean_loss:.4f}  lr {state.lr:.3g}  {rate:,.0f} samples/s")

    def on_epoch_end(self, trainer: Trainer) -> None:
        line = epoch_line(trainer.history.rows[-1], trainer.state.epochs)
        if self.bar is None:
            print(line, flush=True)
        else:
            self.bar.write(line, file=sys.stdout)
            sys.stdout.flush()

    def on_fit_exit(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _batches(loader: Any) -> int | None:
    return len(loader) if hasattr(loader, "__len__") else None


class HistoryFile(Callback):
    """Writes the history to a CSV file after every epoch, replacing the file in one step."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_epoch_end(self, trainer: Trainer) -> None:
        write_text(self.path, trainer.history.csv())
