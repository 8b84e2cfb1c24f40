"""A picture of a training run. matplotlib is imported here, when a picture is drawn, and nowhere else."""
from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .history import History

INK, FAINT, GRID = "#2b2f36", "#8a919c", "#e6e8ec"
TRAIN, VALIDATION, RATE, AXIS = "#3b6fb6", "#d9722e", "#5a8f5a", "#b8bec8"
RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.4, "linestyle": ""}


def draw_curves(
    path: str | os.PathLike[str],
    history: History,
    confusion: Any = None,
    title: str = "",
    best_epoch: int | None = None,
    score: str = "accuracy",
    classes: Sequence[str] | None = None,
) -> None:
    """Writes a PNG: loss, `score` and learning rate over the epochs, and the confusion matrix (rows true) if given, with the names
    of its `classes`, numbers where None.

    Raises `ImportError` where matplotlib is missing.
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state, no choice of backend
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(11, 8.2), dpi=130, facecolor="white", layout=layout)
    axes = figure.subplots(2, 2)
    if title:
        figure.suptitle(title, fontsize=14, color=INK, fontweight="bold")
    _draw_loss(axes[0, 0], history, best_epoch)
    _draw_score(axes[0, 1], history, score, best_epoch)
    _draw_rate(axes[1, 0], history)
    if confusion is None:
        axes[1, 1].axis("off")
    else:
        _draw_confusion(axes[1, 1], np.asarray(confusion), classes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class whose letters the font lacks: boxes, and no line each
        figure.savefig(path, format="png")


def style(axis: Any, heading: str, along: str) -> None:
    """The look of an axis: its heading, a grid, and what runs `along` it."""
    axis.set_title(heading, loc="left", fontsize=11, color=INK, pad=8)
    axis.grid(True, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(AXIS)
    axis.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, length=3)
    axis.set_xlabel(along, fontsize=9, color=FAINT)


def _over_epochs(axis: Any, heading: str, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    style(axis, heading, "epoch")
    axis.set_xlim(0, max(epochs, 1) * 1.02)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))


def _column(history: History, name: str) -> tuple[Any, Any]:
    """(epochs, values) of a column, without the epochs that lack it."""
    pairs = [(row["epoch"], row[name]) for row in history.rows if name in row]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def _steps(history: History) -> tuple[Any, Any, Any]:
    """The entries of `history.steps`: where they lie in epochs, the loss, the learning rate."""
    step, loss, rate = np.array(history.steps, np.float64).reshape(-1, 3).T
    ends, epochs = _column(history, "step")[1], _column(history, "epoch")[1]
    known = step <= (ends[-1] if ends else 0)
    return np.interp(step[known], [0, *ends], [0, *epochs]), loss[known], rate[known]


def _lines(axis: Any, history: History, name: str, best_epoch: int | None, corner: str) -> None:
    few = len(history.rows) <= 40
    for column, color, label in ((name, TRAIN, "training"), (f"val_{name}", VALIDATION, "validation")):
        epochs, values = _column(history, column)
        if epochs:
            marker = "o" if few else ""
            axis.plot(epochs, values, color=color, label=label, linewidth=1.8, marker=marker, markersize=4)
        if column.startswith("val_") and best_epoch in epochs:
            axis.plot([best_epoch], [values[epochs.index(best_epoch)]], color=INK, label=f"kept: epoch {best_epoch}", **RING)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=9, labelcolor=INK, loc=corner)


def _draw_loss(axis: Any, history: History, best_epoch: int | None) -> None:
    _over_epochs(axis, "loss", len(history.rows))
    at, loss, _ = _steps(history)
    axis.plot(at, loss, color=TRAIN, alpha=0.3, linewidth=1)
    _lines(axis, history, "loss", best_epoch, "lower left")
    losses = [value for name in ("loss", "val_loss") for value in _column(history, name)[1]]
    if losses and min(losses) > 0:
        from matplotlib.ticker import LogLocator, NullFormatter

        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_score(axis: Any, history: History, score: str, best_epoch: int | None) -> None:
    _over_epochs(axis, score, len(history.rows))
    _lines(axis, history, score, best_epoch, "lower right")
    if score == "accuracy":
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _draw_rate(axis: Any, history: History) -> None:
    _over_epochs(axis, "learning rate", len(history.rows))
    at, _, rate = _steps(history)
    if len(rate) > len(history.rows):
        axis.plot(at, rate, color=RATE, linewidth=1.8)
    else:
        axis.plot(*_column(history, "lr"), color=RATE, linewidth=1.8, marker="o", markersize=4)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _draw_confusion(axis: Any, matrix: Any, names: Sequence[str] | None) -> None:
    """Shares of each true class; the scale is a root, so that rare mistakes can be seen."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    classes = len(matrix)
    axis.imshow(share**0.5, cmap="Blues", vmin=0, vmax=1.05, aspect="auto")
    axis.set_title("confusion on the test set", loc="left", fontsize=11, color=INK, pad=8)
    axis.set_xlabel("predicted", fontsize=9, color=FAINT)
    axis.set_ylabel("true", fontsize=9, color=FAINT)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.tick_params(length=0, labelsize=9, labelcolor=INK)
    if classes > 20:
        return
    axis.set_xticks(range(classes))
    axis.set_yticks(range(classes))
    if names is not None:
        axis.set_xticklabels(names)
        axis.set_yticklabels(names, rotation=90, va="center")
    axis.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.5)
    axis.tick_params(which="minor", length=0)
    for true in range(classes):
        for predicted in range(classes):
            count = int(matrix[true, predicted])
            if count:
                color = "white" if share[true, predicted] > 0.35 else INK
                axis.text(predicted, true, str(count), ha="center", va="center", fontsize=8, color=color)
