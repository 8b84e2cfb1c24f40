"""`bpnn evaluate RUN`: the scores of a run's model on its test set."""
from __future__ import annotations

import argparse

import bpnn

from .arguments import ranged
from .run import Run
from .tasks import task_of

NAME = "evaluate"
HELP = "score a run's model on the test set"
DESCRIPTION = "Load the model of a run folder and print its scores on the test set. Nothing is written."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument(
        "--data", metavar="DIR",
        help="where the data is now (default: where it was in training, or BPNN_DATA); of a fine-tuned model: any data to score",
    )
    parser.add_argument("--threads", type=ranged(int, 1, 1024), help="default: all processors")


def run(options: argparse.Namespace) -> int:
    folder = Run.open(options.folder)
    if options.threads is not None:
        bpnn.set_num_threads(options.threads)
    print(task_of(folder).evaluate(folder, options.data))
    return 0
