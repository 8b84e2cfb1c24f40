"""The tasks of `bpnn train`, each a module with:

    HELP, DESCRIPTION, add_options(parser)      its command line
    train(options), resume(run)                 make a run folder and fill it; go on with one; both return the exit code
    evaluate(run, data)                         scores on the test set, as text; `data`: where it is now, or None
    predict(run, inputs)                        print what the model says of new inputs
"""
from __future__ import annotations

from typing import Any

from . import digits, finetune, lm, sentiment
from .errors import CliError
from .run import Run

TASKS: dict[str, Any] = {"digits": digits, "lm": lm, "sentiment": sentiment}


def task_of(run: Run) -> Any:
    """The module of the task that a run is of."""
    task = run.config["task"]
    if task == finetune.NAME:  # a run of `bpnn finetune`, which is no task of `bpnn train`
        return finetune
    if task not in TASKS:
        raise CliError(f"{run.folder}: a run of task {task!r}, which this bpnn does not know")
    return TASKS[task]
