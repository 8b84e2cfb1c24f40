"""What fine-tuning leaves: a model with its task, to predict, to score, to save and to load."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import bpnn
from bpnn.data import DataError
from bpnn.train import History

from .methods import VIRTUAL
from .reading import read_test
from .run_folder import RunFolder
from .settings import ADAPTERS, Settings, SettingsError
from .tasks import TASKS

__all__ = ["Finetuned"]

ADAPTER_FILE = "adapter_config.json"


class Finetuned:
    """A fine-tuned model.

        tuned = bpnn.finetune("all-MiniLM-L6-v2/", "reviews.csv", method="lora")
        tuned.predict(["a moving and often funny film"])       # [{"label": "positive", "probability": 0.98}]
        tuned.evaluate("more.csv")["accuracy"]
        tuned.save("mine");  Finetuned.load("mine")

    model: ready to use; task: knows tokenizer, labels, batches. history: a row an epoch. folder: the run's, None where none was
    written. metrics: the content of metrics.json.
    """

    def __init__(
        self, model: Any, task: Any, settings: Settings, *, config: dict[str, Any] | None = None, history: History | None = None,
        trainer: Any = None, folder: Path | None = None, metrics: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.config = config or {}
        self.history, self.trainer, self.folder = history or History(), trainer, folder
        self.metrics = metrics or {}

    def __repr__(self) -> str:
        return f"Finetuned({type(self.model).__name__}, task {self.task.name}, method {self.settings.method}, folder {self.folder})"

    # --- use -----------------------------------------------------------------------------------------------------------------

    def predict(self, inputs: Any, batch_size: int = 64) -> list[dict[str, Any]]:
        """A dictionary for each input, such as `{"label": "positive", "probability": 0.98}`.

        inputs: a list of texts, of pairs of texts, of dictionaries with the columns of the data, or of image files; or one of them.
        Raises `TypeError` for other things, `DataError` for columns that are missing.
        """
        single = isinstance(inputs, (str, os.PathLike, Mapping))
        some = [inputs] if single else list(inputs)
        if not some:
            return []
        examples = [self.task.example(item) for item in some]
        return self.predict_examples(examples, batch_size)

    def predict_examples(self, examples: Sequence[Any], batch_size: int = 64) -> list[dict[str, Any]]:
        """As `predict`, of examples of the task."""
        outputs = self.task.outputs(self.model, self.task.dataset(examples), batch_size)
        return list(self.task.predictions(outputs, examples))

    def evaluate(self, data: Any, batch_size: int = 64) -> dict[str, Any]:
        """The scores on a file, a folder's test part, or data in memory. Raises `DataError` with file and line."""
        return self.score(self.read(data), batch_size)

    def read(self, data: Any) -> list[Any]:
        """The checked examples of what `evaluate` takes."""
        examples = list(self.task.read_table(read_test(self.settings, data)))
        if not examples:
            raise DataError(f"{data}: holds no examples")
        return examples

    def score(self, examples: Sequence[Any], batch_size: int = 64) -> dict[str, Any]:
        """The scores on examples of the task."""
        return dict(self.task.scores(self.task.outputs(self.model, self.task.dataset(examples), batch_size), examples))

    # --- files ---------------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what `load` reads: config.json, and in model/ the model or its adapter; and the model card."""
        from .card import model_card
        from .report import write_model

        run = RunFolder(folder, {**self.config, "state": self.task.state()})
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_json("config.json", run.config)
        write_model(run.model, self.model, self.task, self.settings)
        (run.path / "README.md").write_text(model_card(run.config, self.metrics), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """The model of a finished run, or of `save`. Raises `SettingsError` naming what is wrong with the folder."""
        import json

        run = RunFolder.open(folder)
        if not run.model.is_dir():
            raise SettingsError(f"{folder}: has no model yet; finish the run: bpnn finetune --resume {folder}")
        settings = run.settings
        task = TASKS[settings.task].restore(run.config["state"], settings)
        metrics = json.loads((run.path / "metrics.json").read_text(encoding="utf-8")) if run.finished else {}
        model = load_model(run, task, settings)
        return cls(model, task, settings, config=run.config, folder=run.path, metrics=metrics)


def load_model(run: RunFolder, task: Any, settings: Settings) -> Any:
    """The model of a run's folder: as it was saved, or its base with the adapter. In evaluation mode."""
    if not (run.model / ADAPTER_FILE).is_file():
        return task.load_saved(run.model).eval()
    from . import PeftModel
    from .run_folder import checksum_of_weights
    from .stored import store_frozen

    path = run.config["base"]["path"]
    bpnn.manual_seed(settings.seed)  # a head that the base lacks gets the numbers that it had
    try:
        base = task.load_model(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{run.path}: its base model {path} cannot be read ({error})") from None
    if checksum_of_weights(base) != run.config["base"]["crc32"]:
        raise SettingsError(f"{run.path}: its base model {path} has other weights now")
    task.load_state(run.config["state"])  # the length that leaves room for virtual tokens, not the base's
    virtual = settings.method in VIRTUAL  # in the order of `prepare_model`
    if settings.base != "float32" and not virtual:
        store_frozen(base, settings.base)
    model = PeftModel.from_pretrained(base, run.model, is_trainable=True)  # what was trained is told from what is stored by that
    if settings.base != "float32" and virtual:
        store_frozen(model, settings.base)
    return model.requires_grad_(False).eval()


def saves_adapter(settings: Settings) -> bool:
    """Whether a run leaves an adapter, not a whole model."""
    return settings.method in ADAPTERS and not settings.merge
