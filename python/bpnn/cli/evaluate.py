"""`bpnn evaluate RUN`: the scores of a run's model on its test set."""
from __future__ import annotations

import argparse

import bpnn

from .arguments import ranged
from .digits import fetch_again, make_model, sample_shape
from .scores import score, table
from .run import Run

NAME = "evaluate"
HELP = "score a run's model on the test set"
DESCRIPTION = "Load the model of a run folder and print its scores on the test set. Nothing is written."


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument("--data", metavar="DIR", help="where the data is now (default: where it was in training, or BPNN_DATA)")
    parser.add_argument("--threads", type=ranged(int, 1, 1024), help="default: all processors")


def run(options: argparse.Namespace) -> int:
    folder = Run.open(options.folder)
    if options.threads is not None:
        bpnn.set_num_threads(options.threads)
    model = make_model(folder)
    folder.load_weights(model)
    print(table(score(model, fetch_again(folder, options.data), sample_shape(folder))))
    return 0
