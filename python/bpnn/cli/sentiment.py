"""`bpnn train sentiment`: texts and what their writers felt, from the letters to a finished run folder."""
from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import bpnn
from bpnn.data import (
    TOKENIZERS, BucketBatchSampler, DataError, LabeledTexts, PadCollate, SequenceDataset, TextCorpus, Vocabulary,
    find_chnsenticorp, find_sst2, load_chnsenticorp, load_labeled_texts, load_sst2,
)
from bpnn.train import Trainer
from bpnn.utils.data import DataLoader

from .arguments import ranged
from .errors import CliError
from .run import Run
from .scores import finish, score, table
from .training import (
    add_out, add_training_options, carry_on, complete, create_run, fit, gone, make_trainer, may_resume, prepare, refuse_other_data,
)

HELP = "tell the sentiment of texts (SST-2, ChnSentiCorp, or texts and labels of your own)"
DESCRIPTION = (
    "Train a recurrent network that reads texts both ways, from scratch, and leave a run folder with the model, its vocabulary, "
    "its history, scores and a picture. Without --data the corpus (sst2 unless --corpus says otherwise) is taken from the folder "
    "in BPNN_DATA."
)
LOADERS = {"sst2": load_sst2, "chnsenticorp": load_chnsenticorp}
FINDERS = {"sst2": find_sst2, "chnsenticorp": find_chnsenticorp}

# What an option is where the command does not say it, for texts of words and of characters. Chosen on the validation parts of SST-2
# and ChnSentiCorp.
DEFAULTS: dict[str, dict[str, Any]] = {
    "words": {"optimizer": "adam", "weight_decay": 0.0, "epochs": 6, "batch_size": 32, "lr": 1e-3, "min_freq": 2,
              "max_length": 400},
    "characters": {"optimizer": "adam", "weight_decay": 0.0, "epochs": 6, "batch_size": 64, "lr": 2e-3, "min_freq": 2,
                   "max_length": 256},
}  # fmt: skip


# Options --------------------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", metavar="PATH", help="folder of SST-2 or ChnSentiCorp; or a .csv or .tsv of labels and texts, or a folder of them"
    )
    data.add_argument("--corpus", choices=[*LOADERS, "table"], help="what --data holds (default: what it looks like)")
    data.add_argument(
        "--validation", type=ranged(float, 0, 0.9), default=0.1, metavar="SHARE",
        help="of a table without such a part: share held out to choose the best epoch (default 0.1)",
    )
    data.add_argument(
        "--test", type=ranged(float, 0, 0.9, above=True), default=0.1, metavar="SHARE",
        help="of a table without such a part: share held out for the scores (default 0.1)",
    )
    data.add_argument("--tokens", choices=TOKENIZERS, help="what a text is made of (default: characters for Chinese, else words)")
    data.add_argument(
        "--min-freq", type=ranged(int, 1), metavar="N", help="tokens that are rarer in the training texts are unknown (default 2)"
    )
    data.add_argument("--max-tokens", type=ranged(int, 3), metavar="N", help="the largest vocabulary (default: no limit)")
    data.add_argument(
        "--max-length", type=ranged(int, 1), metavar="N", help="read no more tokens of a text (default 400 words, 256 characters)"
    )

    model = parser.add_argument_group("model")
    model.add_argument("--cell", choices=("lstm", "gru"), default="lstm", help="kind of recurrence (default lstm)")
    model.add_argument("--embedding", type=ranged(int, 1), default=128, metavar="N", help="width of a token (default 128)")
    model.add_argument("--hidden", type=ranged(int, 1), default=128, metavar="N", help="width of each direction (default 128)")
    model.add_argument("--layers", type=ranged(int, 1), default=1, metavar="N", help="recurrent layers (default 1)")
    model.add_argument(
        "--dropout", type=ranged(float, 0, 0.99), default=0.5, metavar="P", help="of embeddings, layers and features (default 0.5)"
    )

    training = parser.add_argument_group("training")
    add_training_options(
        training, optimizer="adam", weight_decay="0", schedule="linear", epochs="6", batch_size="32 for words, 64 for characters",
    )
    add_out(parser, "sentiment")


# Data -----------------------------------------------------------------------------------------------------------------


def fetch(options: argparse.Namespace) -> TextCorpus:
    """The corpus that the options ask for; `options.corpus` says afterwards which kind it is."""
    if options.corpus is None:
        options.corpus = "sst2"
        if options.data is not None:
            if not Path(options.data).exists():
                raise DataError(f"{options.data}: no such file or folder")
            folder = Path(options.data).is_dir()
            options.corpus = next((name for name, find in FINDERS.items() if folder and find(options.data)), "table")
    if options.corpus in LOADERS:
        if options.data is not None and Path(options.data).is_file():
            raise CliError(f"--data: expected the folder of {options.corpus}, got the file {options.data}")
        return LOADERS[options.corpus](options.data)
    if options.data is None:
        raise CliError("--corpus table: name the file or folder with --data")
    return load_labeled_texts(options.data, options.validation, options.test, options.seed)


def describe(corpus: TextCorpus) -> dict[str, Any]:
    """What the config remembers of a corpus; the checksum tells whether it is the same at a later time."""
    checksum = 0
    for part in (corpus.train, corpus.validation, corpus.test):
        checksum = zlib.crc32("\n".join(part.texts).encode(), checksum)
        checksum = zlib.crc32(part.labels.data, checksum)
    return {
        "name": corpus.name,
        "source": corpus.source,
        "train": len(corpus.train),
        "validation": len(corpus.validation),
        "test": len(corpus.test),
        "classes": list(corpus.classes),
        "crc32": f"{checksum:08x}",
    }


def fetch_again(run: Run, data: str | None = None) -> TextCorpus:
    """The corpus of a run: in `data` if given, else where it was then, else where it is found now. It must be the same."""
    options, source = argparse.Namespace(**run.config["options"]), run.config["data"]["source"]
    options.data = data if data is not None else source if Path(source).exists() else None
    if options.data is None and (options.corpus not in FINDERS or FINDERS[options.corpus]() is None):
        raise gone(run)
    corpus = fetch(options)
    refuse_other_data(run, describe(corpus), "texts")
    return corpus


# Texts to batches -----------------------------------------------------------------------------------------------------


class Encoder:
    """Texts to vectors of token numbers, at least one each; `unknown` counts the tokens that the vocabulary lacks."""

    def __init__(self, vocabulary: Vocabulary, tokens: str, max_length: int) -> None:
        self.vocabulary, self.split, self.max_length = vocabulary, TOKENIZERS[tokens], max_length

    def __call__(self, text: str) -> Any:
        ids = self.vocabulary.encode(self.split(text)[: self.max_length])
        return ids if len(ids) else np.array([self.vocabulary.unknown], np.int64)

    def data(self, part: LabeledTexts) -> SequenceDataset:
        return SequenceDataset([self(text) for text in part.texts], part.labels)


def make_vocabulary(run: Run, corpus: TextCorpus) -> Vocabulary:
    options = run.config["options"]
    split = TOKENIZERS[options["tokens"]]
    return Vocabulary.build(map(split, corpus.train.texts), options["min_freq"], options["max_tokens"])


def load_encoder(run: Run) -> Encoder:
    path = run.folder / "vocabulary.json"
    if not path.is_file():
        raise CliError(f"{run.folder}: has no vocabulary.json; go on with the run: bpnn train --resume {run.folder}")
    return Encoder(Vocabulary.load(path), run.config["options"]["tokens"], run.config["options"]["max_length"])


def batches(data: SequenceDataset, size: int, shuffle: bool) -> DataLoader[Any]:
    """(tokens (B, T), lengths (B,), labels (B,)) of texts of almost equal lengths."""
    return DataLoader(data, batch_sampler=BucketBatchSampler(data.lengths, size, shuffle), collate_fn=PadCollate())


# Training -------------------------------------------------------------------------------------------------------------


def make_model(run: Run, vocabulary: Vocabulary) -> Any:
    from bpnn.models.text_classifier import TextClassifier

    o = argparse.Namespace(**run.config["options"])
    return TextClassifier(
        len(vocabulary), len(run.config["data"]["classes"]), o.embedding, o.hidden, o.layers, o.cell, o.dropout, vocabulary.padding
    )


def train(options: argparse.Namespace) -> int:
    corpus = fetch(options)
    if options.tokens is None:
        options.tokens = corpus.tokens
    if not len(corpus.validation):
        options.validation = 0.0
    defaults = DEFAULTS[options.tokens]
    if options.optimizer not in (None, defaults["optimizer"]):
        defaults = {**defaults, "lr": None}  # the rate that suits the other one
    complete(options, defaults, "texts")
    run = create_run("sentiment", options, describe(corpus))
    return carry_on(run, lambda: work(run, corpus, resumed=False))


def resume(run: Run) -> int:
    if not may_resume(run):
        return 0
    corpus = fetch_again(run)
    return carry_on(run, lambda: work(run, corpus, resumed=True))


def work(run: Run, corpus: TextCorpus, resumed: bool) -> bool:
    """Trains the run to its end and finishes its folder; False where it was interrupted."""
    options, data = argparse.Namespace(**run.config["options"]), run.config["data"]
    prepare(options)
    vocabulary = make_vocabulary(run, corpus)
    vocabulary.save(run.folder / "vocabulary.json")
    encode = Encoder(vocabulary, options.tokens, options.max_length)
    loader = batches(encode.data(corpus.train), options.batch_size, shuffle=True)
    validation = batches(encode.data(corpus.validation), 256, shuffle=False) if len(corpus.validation) else None
    trainer = make_trainer(run, make_model(run, vocabulary), loader, len(corpus.validation))
    print(
        f"data   {data['name']} from {data['source']}: {data['train']:,} training, {data['validation']:,} validation, "
        f"{data['test']:,} test texts of {options.tokens}, {len(vocabulary):,} of them known"
    )
    title = f"{options.embedding}-{options.cell}{options.hidden}×2" + f"×{options.layers}" * (options.layers > 1)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"model  {title}-{len(data['classes'])}, dropout {options.dropout:g}, {parameters:,} parameters")
    if not fit(run, trainer, loader, validation, resumed):
        return False
    test = score_texts(trainer.model, encode.data(corpus.test), data["classes"])
    finish(run, trainer, test, f"{data['name']} · {title}", "texts", data["classes"])
    return True


# Afterwards -----------------------------------------------------------------------------------------------------------


def score_texts(model: Any, data: SequenceDataset, classes: list[str]) -> dict[str, Any]:
    """Scores of `model` on the test set."""
    loader = batches(data, 256, shuffle=False)
    order = np.concatenate(loader.batch_sampler.batches(0, 0))  # type: ignore[union-attr]
    outputs = Trainer(model, None, None).predict(loader)
    return score(outputs, bpnn.from_numpy(data.labels[order]), len(classes), "texts")


def evaluate(run: Run, data: str | None) -> str:
    """The scores of the run's model on the test set, for a person."""
    encode, corpus = load_encoder(run), fetch_again(run, data)
    model = make_model(run, encode.vocabulary)
    run.load_weights(model)
    classes = run.config["data"]["classes"]
    return table(score_texts(model, encode.data(corpus.test), classes), "texts", "class", classes)


def predict(run: Run, texts: list[str]) -> None:
    """Print the class of each text, or of each line of standard input, and its probability."""
    encode, classes = load_encoder(run), run.config["data"]["classes"]
    model = make_model(run, encode.vocabulary)
    run.load_weights(model)
    model.eval()
    wide = max(map(len, classes))
    for some in _groups(texts or _lines()):
        rows, lengths = map(bpnn.from_numpy, bpnn.data.pad([encode(text) for text in some]))
        with bpnn.no_grad():
            chances = bpnn.nn.functional.softmax(model(rows, lengths), 1).numpy()
        for text, row in zip(some, chances, strict=True):
            best = int(row.argmax())
            print(f"{classes[best]:<{wide}}  {100 * row[best]:5.1f} %  {text}", flush=True)


def _lines() -> Iterator[str]:
    """The lines of standard input that are not blank."""
    if not sys.stdin.isatty() and hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """64 texts at a time; one at a time where a person types them."""
    size = 1 if not isinstance(texts, list) and sys.stdin.isatty() else 64
    source = iter(texts)
    while some := list(islice(source, size)):
        yield some
