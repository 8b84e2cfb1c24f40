"""`bpnn predict RUN image.png …`, `bpnn predict RUN "a text"`: what a run's model makes of something new."""
from __future__ import annotations

import argparse

from . import finetune
from .errors import CliError
from .run import Run
from .tasks import task_of

NAME = "predict"
HELP = "use a run's model: labels of texts and images, answers, digits, sentiments, how texts go on"
DESCRIPTION = (
    "Print what a run's model says of each INPUT, with probabilities. Digits: image files, .npy arrays (H, W) or (N, H, W), "
    "folders of them, or patterns such as 'scans/*.png'; an image of another size than the training images is cropped to its ink, "
    "scaled and centered like them, and dark ink on a light ground is inverted. Sentiment: texts; without any, the lines of "
    "standard input. Language models: beginnings of texts, which the model goes on with; without any, standard input as one. "
    "Fine-tuned models: texts or image files, as the task wants; without any, the lines of standard input; or a whole table with "
    "--input, whose rows get the predictions as new columns."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="images or texts, as the run's task wants")
    parser.add_argument("--input", metavar="FILE", help="of fine-tuned models: a table (.csv, .tsv, .jsonl, .parquet …) of inputs")
    parser.add_argument(
        "--output", metavar="FILE", help="where that table goes with its predictions (.csv, .tsv, .jsonl; default: to the terminal)"
    )


def run(options: argparse.Namespace) -> int:
    folder = Run.open(options.folder)
    task = task_of(folder)
    if task is finetune:
        finetune.predict(folder, options.inputs, options.input, options.output)
        return 0
    for name in ("input", "output"):
        if getattr(options, name) is not None:
            raise CliError(f"--{name}: is for fine-tuned models; {folder.folder} is a run of bpnn train {folder.config['task']}")
    task.predict(folder, options.inputs)
    return 0
