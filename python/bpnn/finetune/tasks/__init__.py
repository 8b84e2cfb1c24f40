"""The tasks of fine-tuning, one file each; `TASKS` has them by name. What a task can do is in `_task.py`."""
from __future__ import annotations

from ._task import Task, TaskDataset
from .classify import Classify
from .embed import Embed
from .image import ClassifyImages
from .lm import ModelLanguage
from .qa import AnswerQuestions
from .regress import Regress
from .tokens import TagTokens

__all__ = [
    "TASKS", "AnswerQuestions", "Classify", "ClassifyImages", "Embed", "ModelLanguage", "Regress", "TagTokens", "Task",
    "TaskDataset",
]

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Classify, Regress, TagTokens, AnswerQuestions, Embed, ModelLanguage, ClassifyImages)
}
