"""`bpnn predict RUN image.png …`: which digits a run's model sees in pictures."""
from __future__ import annotations

import argparse
import glob
from pathlib import Path
from typing import Any

import numpy as np

import bpnn

from .digits import make_model, sample_shape
from .errors import CliError
from .images import SUFFIXES, prepare, read
from .run import Run

NAME = "predict"
HELP = "recognize digits in image files"
DESCRIPTION = (
    "Print the digit and the probabilities that a run's model gives for each image: image files, .npy arrays (H, W) or "
    "(N, H, W), folders of them, or patterns such as 'scans/*.png'. An image of another size than the training images is "
    "cropped to its ink, scaled and centered like them; dark ink on a light ground is inverted."
)
INK = {"mnist": 20 / 28, "uci": 1.0}  # how much of an image's side the digits of a data set fill


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="an image or .npy file, a folder of them, or a pattern")


def expand(names: list[str]) -> list[Path]:
    """Files for names of files, folders and patterns, in order."""
    paths: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
            if not found:
                raise CliError(f"{path}: the folder holds no images ({', '.join(sorted(SUFFIXES))})")
        elif path.exists() or not glob.has_magic(name):
            found = [path]
        else:
            found = sorted(map(Path, glob.glob(name, recursive=True)))
            if not found:
                raise CliError(f"{name}: no file matches")
        paths += found
    return paths


def run(options: argparse.Namespace) -> int:
    folder = Run.open(options.folder)
    model = make_model(folder)
    folder.load_weights(model)
    data = folder.config["data"]
    size = tuple(data["size"])
    shape = sample_shape(folder)
    titles, notes, batch = [], [], []
    for path in expand(options.images):
        images = read(path)
        for number, image in enumerate(images):
            title = f"{path}" if len(images) == 1 else f"{path}[{number}]"
            pixels, note = prepare(image, size, INK.get(data["name"], 1.0), title)
            titles.append(title)
            notes.append(note)
            batch.append(pixels.reshape(shape))
    for title, note, chances in zip(titles, notes, probabilities(model, np.stack(batch)), strict=True):
        digit = int(chances.argmax())
        print(f"{title}: {digit}  ({100 * chances[digit]:.1f} %)" + (f"  [{note}]" if note else ""))
        print("   " + "  ".join(f"{i}: {100 * chance:.1f} %" for i, chance in enumerate(chances)))
    return 0


def probabilities(model: Any, images: Any) -> Any:
    """(N, classes) from images in the form that the model takes."""
    model.eval()
    with bpnn.no_grad():
        return bpnn.nn.functional.softmax(model(bpnn.from_numpy(images)), 1).numpy()
