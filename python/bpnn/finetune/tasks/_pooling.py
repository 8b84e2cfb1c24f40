"""What tasks with one answer a text share: the architecture's own head, or a linear map of what is pooled."""
from __future__ import annotations

import os
from typing import Any

from bpnn.models.auto import AutoModelForSequenceClassification

from ..pooled import PooledClassifier, pooling_of
from ._texts import TextTask


def read_pooling(model_path: str, wanted: str | None) -> str:
    """"cls" for the architecture's own head; "mean" or "max" for `PooledClassifier`, by default where `modules.json` says so."""
    if wanted is not None:
        return wanted
    return pooling_of(model_path) or "cls"


class PooledTextTask(TextTask):
    """Settings: pooling ("cls", "mean", "max")."""

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.pooling: str | None = self.option("pooling")

    def load_saved(self, folder: str | os.PathLike[str]) -> Any:
        self.pooling = read_pooling(os.fspath(folder), self.pooling)
        return self.settle(self._load(os.fspath(folder)), folder)

    def _load(self, folder: str, **options: Any) -> Any:
        if self.pooling == "cls":
            return AutoModelForSequenceClassification.from_pretrained(folder, **options)
        return PooledClassifier.from_pretrained(folder, pooling=self.pooling, **options)
