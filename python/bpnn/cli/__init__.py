"""The command `bpnn`. Each task of `bpnn train` is one module (see `tasks`).

    bpnn train digits [options]      bpnn evaluate RUN      bpnn predict RUN image.png …
    bpnn train --resume RUN          bpnn versions          bpnn --version
    bpnn embed MODEL texts.txt       bpnn generate MODEL "a prompt"
    bpnn finetune MODEL --data FILE
"""
from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from . import embed, evaluate, finetune, generate, predict
from .arguments import Parser
from .errors import CliError, report
from .run import Run
from .tasks import TASKS, task_of


def parser() -> Parser:
    import bpnn

    top = Parser(prog="bpnn", description="Train neural networks on the CPU, look at the result, use it.")
    top.add_argument("--version", action="version", version=f"bpnn {bpnn.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = commands.add_parser("train", help="train a network", description="Train a network, or go on with a run.")
    train.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, exactly as if it had not stopped")
    train.set_defaults(run=_train, task=None)
    tasks = train.add_subparsers(title="tasks", metavar="TASK")
    for name, task in TASKS.items():
        sub = tasks.add_parser(name, help=task.HELP, description=task.DESCRIPTION)
        sub.set_defaults(task=name)
        task.add_options(sub)

    for module in (finetune, evaluate, predict, embed, generate):
        sub = commands.add_parser(module.NAME, help=module.HELP, description=module.DESCRIPTION)
        sub.set_defaults(run=module.run)
        module.add_options(sub)

    versions = commands.add_parser("versions", help="show what is installed and how it was built, for a bug report")
    versions.set_defaults(run=_versions)
    return top


def _train(options: Any) -> int:
    if options.resume is not None and options.task is not None:
        raise CliError(f"--resume takes the task and its options from {options.resume}; leave {options.task!r} out")
    if options.resume is not None:
        run = Run.open(options.resume)
        return int(task_of(run).resume(run))
    if options.task is None:
        raise CliError(f"nothing to train: name a task ({', '.join(TASKS)}) or give --resume RUN")
    return int(TASKS[options.task].train(options))


def _versions(options: Any) -> int:
    import bpnn

    bpnn.show_versions()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    options = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *where: print(f"bpnn: {message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without × shows ? in its place
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
