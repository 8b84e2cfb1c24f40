"""`bpnn predict RUN image.png …`, `bpnn predict RUN "a text"`: what a run's model makes of something new."""
from __future__ import annotations

import argparse

from .run import Run
from .tasks import task_of

NAME = "predict"
HELP = "use a run's model: recognize digits in images, tell the sentiment of texts, go on with texts"
DESCRIPTION = (
    "Print what a run's model says of each INPUT, with probabilities. Digits: image files, .npy arrays (H, W) or (N, H, W), "
    "folders of them, or patterns such as 'scans/*.png'; an image of another size than the training images is cropped to its ink, "
    "scaled and centered like them, and dark ink on a light ground is inverted. Sentiment: texts; without any, the lines of "
    "standard input. Language models: beginnings of texts, which the model goes on with; without any, standard input as one."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="images or texts, as the run's task wants")


def run(options: argparse.Namespace) -> int:
    folder = Run.open(options.folder)
    task_of(folder).predict(folder, options.inputs)
    return 0
