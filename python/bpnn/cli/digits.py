"""`bpnn train digits`: handwritten digits, from the pixels to a finished run folder."""
from __future__ import annotations

import argparse
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.data import Digits, download_mnist, find_mnist, load_digits, load_mnist, load_uci_digits
from bpnn.data.digits import data_home, mnist_folder
from bpnn.data.download import MIRRORS
from bpnn.train import Accuracy, BestModel, CheckpointWriter, EarlyStopping, HistoryFile, Progress, StopOnInterrupt, Trainer
from bpnn.transforms import TransformedLoader
from bpnn.utils.data import DataLoader, TensorDataset, random_split

from . import build
from .arguments import ranged, widths
from .errors import INTERRUPTED, CliError
from .errors import describe as describe_error
from .scores import finish
from .run import Run, refuse_taken

HELP = "recognize handwritten digits (MNIST, or the UCI digits of scikit-learn)"
DESCRIPTION = (
    "Train a network on handwritten digits and leave a run folder with the model, its history, scores and a picture. MNIST is "
    "taken from --data, else from the folder in BPNN_DATA, else from an earlier --download; where there is none, the small "
    "UCI digits that scikit-learn ships are used."
)


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
    training.add_argument("--optimizer", choices=build.OPTIMIZERS, help="default adam, for resnet20 nesterov")
    training.add_argument(
        "--lr", type=ranged(float, 0, above=True), help="learning rate, the peak of a schedule (default: suits the optimizer)"
    )
    training.add_argument("--momentum", type=ranged(float, 0, 0.9999), default=0.9, help="of sgd and nesterov (default 0.9)")
    training.add_argument("--weight-decay", type=ranged(float, 0), metavar="W", help="default 0, for resnet20 0.0005")
    training.add_argument(
        "--schedule", choices=build.SCHEDULES, default="onecycle", help="how the learning rate goes (default onecycle)"
    )
    training.add_argument(
        "--warmup", type=ranged(float, 0), default=0.0, metavar="EPOCHS", help="let the learning rate rise over the first epochs"
    )
    training.add_argument(
        "--gamma",
        type=ranged(float, 0, 1, above=True),
        help="factor of the schedules step (default 0.1), exponential (0.9) and plateau (0.5)",
    )
    training.add_argument(
        "--step-size",
        type=ranged(int, 1),
        metavar="EPOCHS",
        help="epochs between the falls of step (default a third of all), or without gain before one of plateau (default 2)",
    )
    training.add_argument("--epochs", type=ranged(int, 1), help="default 10, for lenet5 and resnet20 8, for the UCI digits 60")
    training.add_argument("--batch-size", type=ranged(int, 1), metavar="N", help="default 64, for resnet20 128")
    training.add_argument(
        "--patience", type=ranged(int, 1), metavar="EPOCHS", help="stop after so many epochs without a lower validation loss"
    )
    training.add_argument(
        "--seed", type=ranged(int, 0, 2**63 - 1), default=0, help="of the weights, the order and the split (default 0)"
    )
    training.add_argument("--threads", type=ranged(int, 1, 1024), help="default: all processors")
    parser.add_argument("--out", metavar="DIR", help="the run folder, new or empty (default: the next free runs/digits, …)")


def complete(options: argparse.Namespace) -> None:
    """Fills in the defaults that depend on other options, and refuses what does not go together."""
    defaults = build.DEFAULTS[options.model]
    for name in ("layers", "activation", "dropout"):
        if name not in defaults and getattr(options, name) is not None:
            raise CliError(f"--{name}: only --model mlp takes it, not {options.model}")
    if options.epochs is None and options.data is None and options.download is None and find_mnist() is None:
        options.epochs = 60
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.lr is None:
        options.lr = build.LEARNING_RATES[options.optimizer]
    if options.gamma is None:
        options.gamma = build.GAMMAS.get(options.schedule, 1.0)
    if options.step_size is None:
        options.step_size = 2 if options.schedule == "plateau" else max(options.epochs // 3, 1)
    if options.optimizer == "nesterov" and not options.momentum:
        raise CliError("--momentum: nesterov needs one above 0")
    if options.warmup and options.warmup >= options.epochs:
        raise CliError(f"--warmup: expected fewer than the {options.epochs} epochs, got {options.warmup:g}")
    if not options.validation and options.patience:
        raise CliError("--patience: needs validation images; give --validation a share above 0")
    if not options.validation and options.schedule == "plateau":
        raise CliError("--schedule plateau: needs validation images; give --validation a share above 0")


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
        raise CliError(f"{run.folder}: its data is no longer in {wanted['source']}; set BPNN_DATA to where it is")
    found = describe(digits)
    if found["crc32"] != wanted["crc32"]:
        raise CliError(
            f"{run.folder}: was trained on other data ({wanted['name']} from {wanted['source']}, "
            f"{wanted['train']:,} + {wanted['test']:,} images) than found in {digits.source}"
        )
    return digits


# Training -------------------------------------------------------------------------------------------------------------


def make_model(run: Run) -> Any:
    options, data = argparse.Namespace(**run.config["options"]), run.config["data"]
    return build.MODELS[options.model](tuple(data["size"]), data["classes"], options)


def sample_shape(run: Run) -> tuple[int, ...]:
    """The form in which the run's model takes an image."""
    return build.sample_shape(run.config["options"]["model"], tuple(run.config["data"]["size"]))


def make_trainer(run: Run, digits: Digits) -> tuple[Trainer, Any, Any]:
    """(trainer, training loader, validation loader or None), the same each time for a run's config."""
    options = argparse.Namespace(**run.config["options"])
    bpnn.set_num_threads(options.threads)
    bpnn.manual_seed(options.seed)
    model = make_model(run)
    shape = sample_shape(run)
    images, labels = bpnn.from_numpy(digits.pixels("train").reshape(-1, *shape)), bpnn.from_numpy(digits.train_labels)
    held_out = round(options.validation * len(labels))
    whole = TensorDataset(images, labels)
    split = bpnn.Generator().manual_seed(options.seed)
    training, validation = random_split(whole, [len(labels) - held_out, held_out], split)
    loader: Any = DataLoader(training, options.batch_size, shuffle=True)
    if getattr(options, "augment", False):  # runs of bpnn 0.1.0 do not know the option
        loader = TransformedLoader(loader, build.augmentation(shape, digits.size))
    optimizer = build.OPTIMIZERS[options.optimizer](model.parameters(), options)
    callbacks: list[Any] = [StopOnInterrupt(), HistoryFile(run.folder / "history.csv")]
    if held_out:
        callbacks.append(BestModel("val_loss"))
        if options.patience:
            callbacks.append(EarlyStopping("val_loss", options.patience))
    trainer = Trainer(
        model,
        optimizer,
        bpnn.nn.CrossEntropyLoss(),
        metrics=[Accuracy()],
        train_metrics=[Accuracy()],
        scheduler=build.make_schedule(optimizer, options, len(loader)),
        schedule_every="step",
        callbacks=[*callbacks, Progress(), CheckpointWriter(run.checkpoints)],
        log_every=max(1, len(loader) // 20),
    )
    return trainer, loader, DataLoader(validation, 1000) if held_out else None


def train(options: argparse.Namespace) -> int:
    complete(options)
    refuse_taken(options.out)
    if options.threads is None:
        options.threads = bpnn.get_num_threads()
    digits = fetch(options)
    count = len(digits.train_labels)
    if options.validation and not 0 < round(options.validation * count) < count:
        raise CliError(f"--validation: a share of {options.validation:g} of {count} images leaves one side empty")
    kept = {
        name: value
        for name, value in sorted(vars(options).items())
        if name not in ("run", "task", "resume", "out", "data", "download")
    }
    config = {"created": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "data": describe(digits), "options": kept}
    run = Run.create(options.out, "digits", config)
    return carry_on(run, digits, resumed=False)


def resume(run: Run) -> int:
    if run.finished:
        print(f"{run.folder} is finished; nothing to resume")
        return 0
    if run.config["bpnn"] != bpnn.__version__:
        print(f"note: {run.folder} was begun with bpnn {run.config['bpnn']}; its last bits may differ with {bpnn.__version__}")
    return carry_on(run, fetch_again(run), resumed=True)


def carry_on(run: Run, digits: Digits, resumed: bool) -> int:
    """Trains the run to its end, or until it is interrupted, and finishes its folder."""
    try:
        return _carry_on(run, digits, resumed)
    except BrokenPipeError:
        raise
    except OSError as error:  # no room, most likely
        raise CliError(f"{describe_error(error)}; what was saved is kept, go on with: bpnn train --resume {run.folder}") from error


def _carry_on(run: Run, digits: Digits, resumed: bool) -> int:
    options, data = run.config["options"], run.config["data"]
    trainer, loader, validation = make_trainer(run, digits)
    writer = next(callback for callback in trainer.callbacks if isinstance(callback, CheckpointWriter))
    held_out = len(validation.dataset) if validation is not None else 0
    print(
        f"data   {data['name']} from {data['source']}: {data['train'] - held_out:,} training, {held_out:,} validation, "
        f"{data['test']:,} test images of {data['size'][0]} × {data['size'][1]}"
    )
    title, more = build.describe_model(tuple(data["size"]), data["classes"], argparse.Namespace(**options))
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"model  {title}{more}, {parameters:,} parameters" + (", augmented images" if options.get("augment") else ""))
    print(
        f"train  {options['optimizer']}, learning rate {options['lr']:g} ({options['schedule']}), "
        f"batches of {options['batch_size']}, {options['epochs']} epochs, seed {options['seed']}, threads {options['threads']}"
    )
    if resumed and writer.latest is not None:
        print(f"resume {writer.resume(trainer)}: epoch {trainer.state.epoch + 1}, step {trainer.state.step}", flush=True)
    else:
        print(f"folder {run.folder}", flush=True)
    trainer.fit(loader, validation, options["epochs"])
    if trainer.state.interrupted:
        print(
            f"stopped in epoch {min(trainer.state.epoch + 1, options['epochs'])} after step {trainer.state.step}; "
            f"go on with: bpnn train --resume {run.folder}",
            flush=True,
        )
        return INTERRUPTED
    if trainer.state.stopped:
        print(f"stopped early: {trainer.state.stopped}")
    finish(run, trainer, digits, title, sample_shape(run))
    return 0
