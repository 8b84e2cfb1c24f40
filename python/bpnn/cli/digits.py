"""`bpnn train digits`: handwritten digits, from the pixels to a finished run folder."""
from __future__ import annotations

import argparse
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.data import Digits, download_mnist, find_mnist, load_digits, load_mnist, load_uci_digits
from bpnn.data.digits import data_home, mnist_folder
from bpnn.data.download import MIRRORS
from bpnn.train import Trainer
from bpnn.utils.data import DataLoader, TensorDataset, random_split

from . import build
from .arguments import ranged, widths
from .errors import CliError
from .images import expand, read
from .images import prepare as prepare_image
from .run import Run
from .scores import finish, score, table
from .training import (
    add_out, add_training_options, carry_on, complete, create_run, fit, gone, make_trainer, may_resume, prepare, refuse_other_data,
)

HELP = "recognize handwritten digits (MNIST, or the UCI digits of scikit-learn)"
DESCRIPTION = (
    "Train a network on handwritten digits and leave a run folder with the model, its history, scores and a picture. MNIST is "
    "taken from --data, else from the folder in BPNN_DATA, else from an earlier --download; where there is none, the small "
    "UCI digits that scikit-learn ships are used."
)
INK = {"mnist": 20 / 28, "uci": 1.0}  # how much of an image's side the digits of a data set fill


# Options --------------------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="DIR", help="folder of the MNIST idx files, gzip-compressed or not, or its parent")
    data.add_argument(
        "--download",
        nargs="?",
        const="",
        metavar="URL",
        help="fetch MNIST first if it is not there, into --data DIR/mnist or the user's cache, from a public mirror or from URL",
    )
    data.add_argument(
        "--validation",
        type=ranged(float, 0, 0.9),
        default=0.1,
        metavar="SHARE",
        help="share of the training images held out to choose the best epoch; the test set takes no part in that (default 0.1)",
    )

    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", choices=build.MODELS, default="mlp", help="mlp (default), or convolutions: lenet5, resnet20 (slow and best)"
    )
    model.add_argument("--layers", type=widths, metavar="N,N,…", help="of mlp: widths of the hidden layers, or none (default 500)")
    model.add_argument("--activation", choices=build.ACTIVATIONS, help="of mlp: between the layers (default relu)")
    model.add_argument(
        "--dropout", type=ranged(float, 0, 0.99), metavar="P", help="of mlp: share of hidden units dropped (default 0.2)"
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        help="turn, move, scale and shear every training image anew each time (default: yes for lenet5 and resnet20)",
    )
    add_training_options(
        training, optimizer="adam, for resnet20 nesterov", weight_decay="0, for resnet20 0.0005", schedule="onecycle",
        epochs="10, for lenet5 and resnet20 8, for the UCI digits 60", batch_size="64, for resnet20 128",
    )
    add_out(parser, "digits")


def complete_options(options: argparse.Namespace) -> None:
    """Fills in what the command does not say, and refuses what does not go together."""
    defaults = dict(build.DEFAULTS[options.model])
    if options.optimizer not in (None, defaults["optimizer"]):
        defaults.pop("lr", None)  # it suits the model's own optimizer
    for name in ("layers", "activation", "dropout"):
        if name not in defaults and getattr(options, name) is not None:
            raise CliError(f"--{name}: only --model mlp takes it, not {options.model}")
    if options.epochs is None and options.data is None and options.download is None and find_mnist() is None:
        options.epochs = 60
    complete(options, defaults, "images")


# Data -----------------------------------------------------------------------------------------------------------------


def fetch(options: argparse.Namespace) -> Digits:
    """The data the options ask for."""
    if options.download is None:
        return load_digits(options.data)
    if options.data is None:
        folder = find_mnist() or data_home() / "mnist"
    else:
        folder = mnist_folder(Path(options.data)) or Path(options.data) / "mnist"
    return load_mnist(download_mnist(folder, (options.download,) if options.download else MIRRORS))


def describe(digits: Digits) -> dict[str, Any]:
    """What the config remembers of the data; the checksum tells whether it is the same at a later time."""
    checksum = 0
    for part in (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels):
        checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
    return {
        "name": digits.name,
        "source": digits.source,
        "train": len(digits.train_labels),
        "test": len(digits.test_labels),
        "size": list(digits.size),
        "classes": 10,
        "crc32": f"{checksum:08x}",
    }


def fetch_again(run: Run, data: str | None = None) -> Digits:
    """The data of a run: in `data` if given, else where it was then, else where it is found now. It must be the same data."""
    wanted = run.config["data"]
    if wanted["name"] == "uci":
        digits = load_uci_digits()
    elif data is not None or Path(wanted["source"]).is_dir():
        digits = load_digits(data if data is not None else wanted["source"])
    elif find_mnist() is not None:
        digits = load_digits()
    else:
        raise gone(run)
    refuse_other_data(run, describe(digits), "images")
    return digits


# Training -------------------------------------------------------------------------------------------------------------


def make_model(run: Run) -> Any:
    options, data = argparse.Namespace(**run.config["options"]), run.config["data"]
    return build.MODELS[options.model](tuple(data["size"]), data["classes"], options)


def sample_shape(run: Run) -> tuple[int, ...]:
    """The form in which the run's model takes an image."""
    return build.sample_shape(run.config["options"]["model"], tuple(run.config["data"]["size"]))


def make_parts(run: Run, digits: Digits) -> tuple[Trainer, Any, Any]:
    """(trainer, training loader, validation loader or None), the same each time for a run's config."""
    options = argparse.Namespace(**run.config["options"])
    prepare(options)
    model = make_model(run)
    shape = sample_shape(run)
    images, labels = bpnn.from_numpy(digits.pixels("train").reshape(-1, *shape)), bpnn.from_numpy(digits.train_labels)
    held_out = round(options.validation * len(labels))
    whole = TensorDataset(images, labels)
    split = bpnn.Generator().manual_seed(options.seed)
    training, validation = random_split(whole, [len(labels) - held_out, held_out], split)
    loader: Any = DataLoader(training, options.batch_size, shuffle=True)
    if getattr(options, "augment", False):  # runs of bpnn 0.1.0 do not know the option
        from bpnn.transforms import TransformedLoader  # it takes SciPy's sparse matrices along

        loader = TransformedLoader(loader, build.augmentation(shape, digits.size))
    trainer = make_trainer(run, model, loader, held_out)
    return trainer, loader, DataLoader(validation, 1000) if held_out else None


def train(options: argparse.Namespace) -> int:
    complete_options(options)
    digits = fetch(options)
    build.check_size(options.model, digits.size)
    count = len(digits.train_labels)
    if options.validation and not 0 < round(options.validation * count) < count:
        raise CliError(f"--validation: a share of {options.validation:g} of {count} images leaves one side empty")
    run = create_run("digits", options, describe(digits))
    return carry_on(run, lambda: work(run, digits, resumed=False))


def resume(run: Run) -> int:
    if not may_resume(run):
        return 0
    digits = fetch_again(run)
    return carry_on(run, lambda: work(run, digits, resumed=True))


def work(run: Run, digits: Digits, resumed: bool) -> bool:
    """Trains the run to its end and finishes its folder; False where it was interrupted."""
    options, data = run.config["options"], run.config["data"]
    trainer, loader, validation = make_parts(run, digits)
    held_out = len(validation.dataset) if validation is not None else 0
    print(
        f"data   {data['name']} from {data['source']}: {data['train'] - held_out:,} training, {held_out:,} validation, "
        f"{data['test']:,} test images of {data['size'][0]} × {data['size'][1]}"
    )
    title, more = build.describe_model(tuple(data["size"]), data["classes"], argparse.Namespace(**options))
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"model  {title}{more}, {parameters:,} parameters" + (", augmented images" if options.get("augment") else ""))
    if not fit(run, trainer, loader, validation, resumed):
        return False
    finish(run, trainer, score_digits(trainer.model, digits, sample_shape(run)), f"{digits.name} · {title}", "images")
    return True


# Afterwards -----------------------------------------------------------------------------------------------------------


def score_digits(model: Any, digits: Digits, shape: tuple[int, ...]) -> dict[str, Any]:
    """Scores of `model`, which takes images of `shape`, on the test set."""
    outputs = Trainer(model, None, None).predict(bpnn.from_numpy(digits.pixels("test").reshape(-1, *shape)), batch_size=1000)
    return score(outputs, bpnn.from_numpy(digits.test_labels), 10, "images")


def evaluate(run: Run, data: str | None) -> str:
    """The scores of the run's model on the test set, for a person."""
    model = make_model(run)
    run.load_weights(model)
    return table(score_digits(model, fetch_again(run, data), sample_shape(run)), "images", "digit", list(map(str, range(10))))


def predict(run: Run, names: list[str]) -> None:
    """Print the digit in each image and the probabilities."""
    if not names:
        raise CliError("predict: name the images to look at: files, folders, or patterns")
    model = make_model(run)
    run.load_weights(model)
    data = run.config["data"]
    size, shape = tuple(data["size"]), sample_shape(run)
    titles, notes, batch = [], [], []
    for path in expand(names):
        images = read(path)
        for number, image in enumerate(images):
            title = f"{path}" if len(images) == 1 else f"{path}[{number}]"
            pixels, note = prepare_image(image, size, INK.get(data["name"], 1.0), title)
            titles.append(title)
            notes.append(note)
            batch.append(pixels.reshape(shape))
    model.eval()
    with bpnn.no_grad():
        probabilities = bpnn.nn.functional.softmax(model(bpnn.from_numpy(np.stack(batch))), 1).numpy()
    for title, note, chances in zip(titles, notes, probabilities, strict=True):
        digit = int(chances.argmax())
        print(f"{title}: {digit}  ({100 * chances[digit]:.1f} %)" + (f"  [{note}]" if note else ""))
        print("   " + "  ".join(f"{i}: {100 * chance:.1f} %" for i, chance in enumerate(chances)))
