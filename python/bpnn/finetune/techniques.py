"""Settings to callbacks: what changes the loss, the batch or the weights during training, in the order in which they must act."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .settings import Settings, SettingsError

__all__ = ["check_loggers", "loggers", "technique_callbacks"]


def technique_callbacks(ready: Any) -> list[Any]:
    """The callbacks that the settings ask for: what is trained, batches, losses from the simplest on, attacks, averages."""
    s = ready.settings
    found: list[Any] = []
    if s.method == "gradual":
        from .freeze import GradualUnfreezing

        found.append(GradualUnfreezing(s.layers_per_epoch))
    if s.stochastic_depth is not None:
        from .stochastic_depth import DropPath

        found.append(DropPath(s.stochastic_depth))
    if s.mixup is not None or s.cutmix is not None:
        from .mixup import CutMix, Mixup

        found.append(Mixup(s.mixup) if s.mixup is not None else CutMix(s.cutmix))
    if s.label_smoothing:
        from .smoothing import LabelSmoothing

        found.append(LabelSmoothing(s.label_smoothing))
    if s.teacher is not None:
        from .distill import Distillation

        found.append(Distillation(load_teacher(ready), s.temperature, s.distill_weight))
    if s.r_drop is not None:
        from .rdrop import RDrop

        found.append(RDrop(s.r_drop))
    if s.adversarial is not None:
        found.append(attack(s))
    if s.ema is not None or s.swa is not None:
        found.append(average(ready))
    return found


def attack(s: Settings) -> Any:
    """The adversarial training by name: on embeddings, or of images on their numbers."""
    if s.task == "image":
        from .adversarial import PGD

        return PGD(s.adversarial_epsilon or 0.03)
    from .embedding_attacks import FGM, EmbeddingPGD, FreeLB

    kind = {"fgm": FGM, "pgd": EmbeddingPGD, "freelb": FreeLB}[str(s.adversarial)]
    return kind() if s.adversarial_epsilon is None else kind(s.adversarial_epsilon)


def average(ready: Any) -> Any:
    """The average of the weights that is used in the end."""
    from .averaging import EMA, SWA

    s = ready.settings
    if s.ema is not None:
        return EMA(s.ema)
    return SWA(s.swa)


def load_teacher(ready: Any) -> Any:
    """The teacher's model. Raises `SettingsError` where its task, labels or tokens are not the student's."""
    from .tasks import TASKS
    from .tuned import Finetuned

    s, ours = ready.settings, ready.task
    if Path(s.teacher, "config.json").is_file() and Path(s.teacher, "model").is_dir():
        taught = Finetuned.load(s.teacher)
        task, model = taught.task, taught.model
    else:
        task = TASKS[s.task]()
        task.load_state({**task.state(), "labels": getattr(ours, "labels", None)} if hasattr(ours, "labels") else task.state())
        model = task.load_saved(s.teacher)
    if task.name != ours.name:
        raise SettingsError(f"teacher: expected a model of task {ours.name}, got one of {task.name}")
    if getattr(task, "labels", None) != getattr(ours, "labels", None):
        raise SettingsError(f"teacher: expected the labels {_listed(ours)}, in this order, got {_listed(task)}")
    if getattr(ours, "tokenizer", None) is not None:
        texts = [str(getattr(example, "text", "")) for example in ready.examples["train"][:100]]
        if [task.tokenizer(text)["input_ids"] for text in texts] != [ours.tokenizer(text)["input_ids"] for text in texts]:
            raise SettingsError(f"teacher: {s.teacher} has another tokenizer than the student")
    return model


def _listed(task: Any) -> str:
    return ", ".join(map(str, getattr(task, "labels", []))) or "none"


# --- loggers ---------------------------------------------------------------------------------------------------------------

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def check_loggers(settings: Settings) -> None:
    """`SettingsError` for a logger whose package is missing."""
    for name in settings.log or ():
        if name in PACKAGES and find_spec(PACKAGES[name]) is None:
            raise SettingsError(f"log: {name} needs the package {PACKAGES[name]}: pip install {PACKAGES[name]}")


def loggers(settings: Settings, folder: Path, config: dict[str, Any]) -> list[Any]:
    """The logging callbacks by name, with the run's settings; a CSV is written anyhow."""
    from bpnn.train.loggers import MLflow, TensorBoard, Trackio, WandB

    found: list[Any] = []
    for name in dict.fromkeys(settings.log or ()):
        if name == "tensorboard":
            found.append(TensorBoard(folder / "tensorboard", config))
        elif name == "wandb":
            found.append(WandB(name=folder.name, config=config))
        elif name == "mlflow":
            found.append(MLflow(name=folder.name, config=config))
        elif name == "trackio":
            found.append(Trackio("bpnn", folder.name, config))
    return found
