"""`bpnn embed MODEL FILE`: the vectors of texts, one text a line."""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .arguments import ranged
from .errors import CliError

NAME = "embed"
HELP = "turn texts into vectors with a pretrained model"
DESCRIPTION = (
    "Turn each line of FILE into a vector, so that texts of similar meaning get vectors of similar direction. MODEL: a folder or a "
    "name of the Hugging Face hub, of a model of sentence-transformers or of any other BERT, RoBERTa or DistilBERT."
)
FORMATS = (".npy", ".csv", ".jsonl")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model's folder, or its name on the hub")
    parser.add_argument("file", metavar="FILE", help="texts in UTF-8, one a line; - for standard input")
    parser.add_argument(
        "--out", metavar="FILE", help=(
            "where to write: .npy (float32, a row for each text), .csv (a line of numbers for each text) or .jsonl (text and "
            "vector); default: the lines of .jsonl, to standard output"
        ),
    )
    parser.add_argument("--batch-size", type=ranged(int, 1), default=32, metavar="N", help="texts at a time (default 32)")
    parser.add_argument(
        "--pooling", choices=("mean", "cls", "max"), help="how the tokens of a text become one vector (default: as the model says)"
    )
    parser.add_argument("--no-normalize", action="store_true", help="do not scale the vectors to length 1")


def run(options: argparse.Namespace) -> int:
    if options.out is not None and Path(options.out).suffix not in FORMATS:
        raise CliError(f"--out: expected a name that ends with {', '.join(FORMATS)}, got {options.out}")
    texts = read_lines(options.file)
    encoder = _encoder(options)
    tokens = encoder.tokenize(texts)
    _say_cut(options.file, tokens, encoder.max_seq_length)
    with _progress(len(texts)) as advance:
        vectors = encoder.encode_tokens(tokens, options.batch_size, not options.no_normalize, progress=advance)
    if options.out is None:
        _write_jsonl(sys.stdout, texts, vectors)
        return 0
    _save(options.out, texts, vectors)
    print(f"{options.out}: {len(vectors)} vectors of {vectors.shape[1]} numbers", file=sys.stderr)
    return 0


def read_lines(name: str) -> list[str]:
    """The texts of a file, or of standard input for "-". `CliError` names file and line of what is no text."""
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    called = "standard input" if name == "-" else name
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()  # what is behind the end of the last line
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise CliError(f"{called}, line {number}: is no UTF-8 ({error.reason} at byte {error.start + 1})") from None
        if not text:
            raise CliError(f"{called}, line {number}: is empty, expected a text")
        texts.append(text)
    if not texts:
        raise CliError(f"{called}: holds no texts")
    return texts


def _encoder(options: argparse.Namespace) -> Any:
    from bpnn.models.sentence import SentenceEncoder

    try:
        return SentenceEncoder.from_pretrained(options.model, pooling=options.pooling)
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise CliError(str(error)) from error


def _say_cut(name: str, tokens: list[list[int]], limit: int) -> None:
    full = [number for number, one in enumerate(tokens, 1) if len(one) >= limit]
    if full:
        others = f" and {len(full) - 1} more" if len(full) > 1 else ""
        print(f"bpnn: {name}, line {full[0]}{others}: read up to token {limit}, the model's limit", file=sys.stderr)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], Any] | None]:
    """Something to tell how many texts are done; None where nobody looks, or tqdm is missing."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(total=total, unit=" texts", leave=False, disable=not sys.stderr.isatty()) as bar:
        yield bar.update


def _save(name: str, texts: list[str], vectors: np.ndarray) -> None:
    from bpnn.utils._files import replacing

    with replacing(name) as temporary:
        if name.endswith(".npy"):
            with open(temporary, "wb") as file:
                np.save(file, vectors.astype(np.float32, copy=False), allow_pickle=False)
            return
        with open(temporary, "w", encoding="utf-8", newline="\n") as text:
            if name.endswith(".csv"):
                for vector in vectors:
                    text.write(",".join(map(_number, vector)) + "\n")
            else:
                _write_jsonl(text, texts, vectors)


def _write_jsonl(file: TextIO, texts: list[str], vectors: np.ndarray) -> None:
    for text, vector in zip(texts, vectors):
        file.write(json.dumps({"text": text}, ensure_ascii=False)[:-1] + f', "vector": [{", ".join(map(_number, vector))}]}}\n')


def _number(value: Any) -> str:
    return format(value, ".9g")  # enough to read the same float32 again
