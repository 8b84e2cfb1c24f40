"""Texts with labels: SST-2 (English film reviews), ChnSentiCorp (Chinese reviews of hotels, books, laptops), tables of your own."""
from __future__ import annotations

import csv
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .idx import DataError

Array = np.ndarray[Any, np.dtype[Any]]
Row = tuple[str, str]  # label, text
LARGEST = 256 << 20  # bytes of one file, unpacked
PARTS = {"train": ("train",), "validation": ("dev", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class LabeledTexts:
    """Texts and their labels (N,), int64 numbers of classes."""

    texts: list[str]
    labels: Array

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextCorpus:
    """A corpus in three parts. `tokens` names the tokenizer that suits it, of `bpnn.data.text.TOKENIZERS`."""

    name: str
    source: str
    tokens: str
    classes: tuple[str, ...]
    train: LabeledTexts
    validation: LabeledTexts
    test: LabeledTexts


# Files ----------------------------------------------------------------------------------------------------------------


def _lines(content: bytes, where: str) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines that are not empty; `DataError` naming the line that is no UTF-8."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}:{number}: expected UTF-8 ({error.reason})") from None
        if text.strip():
            yield number, text


def _tabbed(content: bytes, where: str, label_first: bool, header: bool) -> list[Row]:
    """(label, text) of lines of two fields with a tab between; labels are 0 and 1."""
    rows = []
    order = "label<TAB>text" if label_first else "text<TAB>label"
    for number, line in _lines(content, where):
        if header and number == 1:
            if not line.lower().startswith("label\t"):
                raise DataError(f"{where}:1: expected the header label<TAB>text_a, got {line[:40]!r}")
            continue
        fields = line.split("\t", 1) if label_first else line.rsplit("\t", 1)
        if len(fields) != 2:
            raise DataError(f"{where}:{number}: expected {order}, got no tab in {line[:40]!r}")
        label, text = fields if label_first else fields[::-1]
        if label.strip() not in ("0", "1"):
            raise DataError(f"{where}:{number}: expected {order} with a label 0 or 1, got {label[:20]!r}")
        if not text.strip():
            raise DataError(f"{where}:{number}: expected a text, got none")
        rows.append((label.strip(), text))
    if not rows:
        raise DataError(f"{where}: expected lines {order}, got none")
    return rows


def _numbered(rows: list[Row], classes: tuple[str, ...]) -> LabeledTexts:
    numbers = {name: number for number, name in enumerate(classes)}
    return LabeledTexts([text for _, text in rows], np.array([numbers[label] for label, _ in rows], np.int64))


def _parts(folder: Path, ending: str, read: Callable[[str], bytes | None]) -> dict[str, tuple[str, bytes]]:
    """(name, content) of each part of a corpus, under the first of its names that `read` finds."""
    found = {}
    for part, names in PARTS.items():
        for name in names:
            content = read(f"{name}{ending}")
            if content is not None:
                found[part] = f"{name}{ending}", content
                break
        else:
            raise DataError(f"{folder}: {names[0]}{ending} is missing")
    return found


def _read(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MiB")
    return path.read_bytes()


def _read_beside(folder: Path) -> Callable[[str], bytes | None]:
    return lambda name: _read(folder / name) if (folder / name).is_file() else None


# Known corpora --------------------------------------------------------------------------------------------------------


def _find(corpus: str, data: str | os.PathLike[str] | None, holds: Callable[[Path], bool]) -> Path | None:
    """The folder of a corpus: `data` or its folder of the corpus's name, else the same of BPNN_DATA; None without either."""
    given = data if data is not None else os.environ.get("BPNN_DATA") or None
    if given is None:
        return None
    folder = Path(given)
    if data is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return next((place for place in (folder / corpus, folder) if holds(place)), None)


def find_sst2(data: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder of SST-2's files in `data`, else in BPNN_DATA; None where there is none."""
    return _find("sst2", data, lambda place: (place / "train.tsv").is_file() and _looks_like_sst2(place / "train.tsv"))


def find_chnsenticorp(data: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder of ChnSentiCorp's files in `data`, else in BPNN_DATA; None where there is none."""
    return _find("chnsenticorp", data, _holds_chnsenticorp)


def _looks_like_sst2(path: Path) -> bool:
    with open(path, "rb") as file:
        return not file.read(7).lower().startswith(b"label\t")


def _holds_chnsenticorp(place: Path) -> bool:
    unpacked = place / "train.tsv"
    return (place / "chnsenticorp.zip").is_file() or (unpacked.is_file() and not _looks_like_sst2(unpacked))


def _located(corpus: str, folder: Path | None, data: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        return folder
    if data is None and not os.environ.get("BPNN_DATA"):
        raise DataError(f"no folder of {corpus} is known: give one, or set BPNN_DATA to the folder that holds {corpus}")
    raise DataError(f"{data if data is not None else os.environ['BPNN_DATA']}: holds no files of {corpus}")


def load_sst2(data: str | os.PathLike[str] | None = None) -> TextCorpus:
    """SST-2, the Stanford Sentiment Treebank as whole sentences, positive or negative: 6,920, 872 and 1,821 of them.

    data: the folder of train.tsv, dev.tsv and test.tsv (`text<TAB>label`), or the one above it, named sst2; BPNN_DATA where None.
    Raises `DataError` naming file and line. Socher et al., "Recursive Deep Models for Semantic Compositionality Over a Sentiment
    Treebank" (2013).
    """
    folder = _located("sst2", find_sst2(data), data)
    files = _parts(folder, ".tsv", _read_beside(folder))
    rows = {part: _tabbed(content, str(folder / name), False, False) for part, (name, content) in files.items()}
    return _corpus("sst2", folder, "words", rows)


def load_chnsenticorp(data: str | os.PathLike[str] | None = None) -> TextCorpus:
    """ChnSentiCorp: Chinese reviews of hotels, books and laptops, positive or negative; 9,600, 1,200 and 1,200 of them.

    data: the folder of chnsenticorp.zip, or of its train.tsv, dev.tsv and test.tsv (`label<TAB>text_a`, with that header), or the
    folder above it, named chnsenticorp; BPNN_DATA where None. Raises `DataError` naming file and line.
    """
    folder = _located("chnsenticorp", find_chnsenticorp(data), data)
    archive = folder / "chnsenticorp.zip"
    where = archive if archive.is_file() else folder
    files = _unzipped(archive) if archive.is_file() else _parts(folder, ".tsv", _read_beside(folder))
    rows = {part: _tabbed(content, str(where / name), True, True) for part, (name, content) in files.items()}
    return _corpus("chnsenticorp", folder, "characters", rows)


def _unzipped(archive: Path) -> dict[str, tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(archive) as opened:

            def read(name: str) -> bytes | None:
                if name not in opened.namelist():
                    return None
                if opened.getinfo(name).file_size > LARGEST:
                    raise DataError(f"{archive / name}: larger than {LARGEST >> 20} MiB")
                return opened.read(name)

            return _parts(archive, ".tsv", read)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise DataError(f"{archive}: damaged zip archive ({error})") from None


def _corpus(name: str, folder: Path, tokens: str, rows: dict[str, list[Row]]) -> TextCorpus:
    parts = {part: _numbered(found, ("0", "1")) for part, found in rows.items()}
    return TextCorpus(name, str(folder.absolute()), tokens, ("negative", "positive"), **parts)


# Tables of one's own --------------------------------------------------------------------------------------------------


def load_labeled_texts(
    data: str | os.PathLike[str], validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> TextCorpus:
    """A corpus from a table of labels and texts, `.csv` (commas, quotes) or `.tsv` (tabs).

    The first line may name the columns, `label` and `text` among them in any order; without such names the first column is the
    label and the second the text. Labels may be any text; the classes are these in order.

    data: a file, of which shares `validation` and `test` are held out, chosen by `seed`; or a folder of train.csv, dev.csv (or
    validation.csv) and test.csv, where dev and test may be missing and are then held out of train. Raises `DataError` naming
    file and line.
    """
    path = Path(data)
    if path.is_dir():
        rows = _table_folder(path)
    elif path.is_file():
        rows = {"train": _table(path)}
    else:
        raise DataError(f"{path}: no such file or folder")
    classes = tuple(sorted({label for part in rows.values() for label, _ in part}))
    if len(classes) < 2:
        raise DataError(f"{path}: expected at least two labels, got {' '.join(classes)!r} alone")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(rows["train"]))
    training = [rows["train"][i] for i in order]
    total = len(training)
    for part, share in (("validation", validation), ("test", test)):
        if part not in rows:
            count = round(share * total)
            rows[part], training = training[:count], training[count:]
    if not training or not rows["test"]:
        raise DataError(f"{path}: {total} texts are too few to hold some out of them")
    rows["train"] = training
    tokens = "characters" if _spaceless(training) else "words"
    name = path.stem if path.is_file() else path.name
    return TextCorpus(name, str(path.absolute()), tokens, classes, **{part: _numbered(rows[part], classes) for part in PARTS})


def _table_folder(folder: Path) -> dict[str, list[Row]]:
    rows = {}
    for part, names in PARTS.items():
        files = [folder / f"{name}{ending}" for name in names for ending in (".csv", ".tsv")]
        found = next((file for file in files if file.is_file()), None)
        if found is not None:
            rows[part] = _table(found)
    if "train" not in rows:
        raise DataError(f"{folder}: holds no train.csv or train.tsv")
    return rows


def _table(path: Path) -> list[Row]:
    """(label, text) of a table's rows."""
    lines = list(_lines(_read(path), str(path)))
    tabs = path.suffix.lower() == ".tsv"
    if tabs:
        records = [(number, line.split("\t")) for number, line in lines]
    else:
        reader = csv.reader(io.StringIO("".join(f"{line}\n" for _, line in lines)), strict=True)
        records = []
        try:
            begins = 0
            for fields in reader:
                records.append((lines[begins][0], fields))
                begins = min(reader.line_num, len(lines) - 1)
        except csv.Error as error:
            raise DataError(f"{path}:{lines[min(begins, len(lines) - 1)][0]}: {error}") from None
    if not records:
        raise DataError(f"{path}: expected rows of label and text, got none")
    names = [field.strip().lower() for field in records[0][1]]
    label, text = 0, 1
    if "label" in names and any(name in names for name in ("text", "text_a", "sentence")):
        label = names.index("label")
        text = next(names.index(name) for name in ("text", "text_a", "sentence") if name in names)
        del records[0]
    rows = []
    for number, fields in records:
        if len(fields) <= max(label, text):
            raise DataError(f"{path}:{number}: expected a label and a text, got {len(fields)} field{'s' * (len(fields) != 1)}")
        if not fields[label].strip() or not fields[text].strip():
            which = "text" if fields[label].strip() else "label"
            raise DataError(f"{path}:{number}: expected a label and a text, got an empty {which}")
        rows.append((fields[label].strip(), fields[text]))
    if not rows:
        raise DataError(f"{path}: expected rows of label and text, got none")
    return rows


def _spaceless(rows: list[Row]) -> bool:
    """Whether most characters are of scripts that put no spaces between words: Chinese, Japanese."""
    sample = "".join(text for _, text in rows[:1000])
    ideographs = sum("\u3040" <= character <= "\u9fff" for character in sample)
    return ideographs > len(sample) / 4
