"""Where data comes from: files, members of zip archives, fsspec's URLs; and their lines, with limits and exact complaints.

    with open_source("reviews.csv.gz") as stream:    # also "memory://reviews.csv", "s3://bucket/reviews.csv", "all.zip/train.tsv"
        for line in text_lines(stream, "reviews.csv.gz"):
            ...
"""
from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from .idx import DataError

Source = str | os.PathLike[str]
LIMIT = 16 << 20  # bytes of one line, or of one field in quotes
CHUNK = 1 << 20
DAMAGED = (gzip.BadGzipFile, zlib.error, EOFError, lzma.LZMAError, zipfile.BadZipFile)
UNPACK: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
# UTF-32's mark begins with UTF-16's, so it comes first.
WIDE = ((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"))


def is_url(source: Any) -> bool:
    """Whether `source` is an address of fsspec, such as "s3://bucket/file.csv"."""
    return isinstance(source, str) and "://" in source


def fsspec() -> Any:
    """The package fsspec; `ImportError` that says how to get it."""
    try:
        import fsspec as package
    except ImportError:
        raise ImportError('addresses with "://" need the package fsspec: pip install "bpnn[data]"') from None
    return package


# Opening --------------------------------------------------------------------------------------------------------------


@contextmanager
def open_source(source: Source) -> Iterator[BinaryIO]:
    """The bytes of `source`, unpacked where they are compressed (gzip, bzip2, xz; seen from the content, not the name).

    Raises `DataError` naming the source where there is none, where it cannot be read or its compressed data is damaged, also while
    it is being read; `ImportError` where a package for its kind of address is missing.
    """
    name = os.fspath(source)
    try:
        with _opened(name) as plain:
            head = plain.read(6)
            plain.seek(0)
            unpack = next((kind for mark, kind in UNPACK if head.startswith(mark)), None)
            if unpack is None:
                yield plain
            else:
                with unpack(plain) as stream:
                    yield cast(BinaryIO, stream)
    except DAMAGED as error:
        raise DataError(f"{name}: its compressed data is damaged or cut off ({error})") from None


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if is_url(name):
        package = fsspec()
        try:
            file = package.open(name, "rb").open()
        except FileNotFoundError:
            raise DataError(f"{name}: no such file") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{name}: cannot be opened ({error or type(error).__name__})") from None
        with file:
            yield file
        return
    archive = _archive(name)
    if archive is not None:
        with zipfile.ZipFile(archive[0]) as opened:
            if archive[1] not in opened.namelist():
                raise DataError(f"{name}: no such file in the archive; there are {', '.join(opened.namelist()[:20])}")
            with opened.open(archive[1]) as member:
                yield cast(BinaryIO, member)
        return
    try:
        plain = open(name, "rb")  # noqa: SIM115  errors of opening are told from those of reading
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: expected a file, got a folder") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be opened ({error.strerror})") from None
    with plain:
        yield plain


def _archive(name: str) -> tuple[str, str] | None:
    """(archive, member) where a folder of the path `name` is a zip archive in fact."""
    path = Path(name)
    for folder in path.parents:
        if folder.suffix.lower() == ".zip" and folder.is_file():
            return str(folder), path.relative_to(folder).as_posix()
    return None


def list_folder(source: Source) -> list[str] | None:
    """The files of a folder or a zip archive, with their whole paths or addresses, by name; None where `source` is no folder."""
    name = os.fspath(source)
    if is_url(name):
        system, path = fsspec().core.url_to_fs(name)
        if not system.isdir(path):
            return None
        return sorted(system.unstrip_protocol(entry["name"]) for entry in system.ls(path, detail=True) if entry["type"] == "file")
    place = Path(name)
    if place.is_file() and place.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(place) as opened:
                return sorted(str(place / member) for member in opened.namelist() if not member.endswith("/"))
        except zipfile.BadZipFile as error:
            raise DataError(f"{name}: damaged zip archive ({error})") from None
    return sorted(str(file) for file in place.iterdir() if file.is_file()) if place.is_dir() else None


# Text -----------------------------------------------------------------------------------------------------------------


class _Recoded:
    """Reads UTF-16 and UTF-32 as UTF-8; `place` is that of the next byte in the file."""

    def __init__(self, stream: Any, encoding: str, name: str, place: int) -> None:
        self.stream, self.encoding, self.name, self.place = stream, encoding, name, place
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.line = 1

    def read(self, size: int) -> bytes:
        while True:
            chunk = self.stream.read(size)
            begun = self.decoder.getstate()[0]  # of a character that the last chunk had a part of
            try:
                text = self.decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                line = self.line + (begun + chunk)[: error.start].decode(self.encoding).count("\n")
                byte = self.place - len(begun) + error.start + 1
                kind = self.encoding.upper()[:6]
                raise DataError(f"{self.name}:{line}: expected {kind} ({error.reason}, byte {byte:,} of the file)") from None
            self.place += len(chunk)
            self.line += text.count("\n")
            if text or not chunk:
                return text.encode()


def text_lines(stream: Any, name: str, limit: int = LIMIT) -> Iterator[str]:
    """The lines of a stream of bytes, each with its "\\n" (the last may lack it): UTF-8, or UTF-16/32 with a byte order mark.

    Marks are dropped, "\\r\\n" becomes "\\n". No more than `limit` bytes of a line are ever held. Raises `DataError` with name and
    line for invalid UTF-8 (and the byte), a zero byte, a line longer than `limit`; line ends of "\\r" alone.
    """
    head = stream.read(4)
    mark, encoding = next(((mark, kind) for mark, kind in WIDE if head.startswith(mark)), (b"", None))
    begin = _Joined(head[len(mark) :], stream)
    source: Any = begin if encoding is None else _Recoded(begin, encoding, name, len(mark))
    rest = source.read(CHUNK)
    place = 3 if rest.startswith(codecs.BOM_UTF8) else 0  # of `rest` in the file
    rest = rest[place:]
    number, done = 1, False
    while rest or not done:
        end = rest.rfind(b"\n") + 1
        if not end and not done:
            _fits(rest, limit, name, number)
            more = source.read(CHUNK)
            done, rest = not more, rest + more
            continue
        block, rest = (rest, b"") if done and not end else (rest[:end], rest[end:])
        if len(block) > limit:
            for i, line in enumerate(block.split(b"\n")):
                _fits(line, limit, name, number + i)
        text = _decoded(block, name, number, place)
        place, number = place + len(block), number + block.count(b"\n")
        if "\r" in text:
            text = text.replace("\r\n", "\n")
            if done and text.endswith("\r"):
                text = text[:-1]
        yield from io.StringIO(text, newline="\n")
        if not done:
            more = source.read(CHUNK)
            done, rest = not more, rest + more


class _Joined:
    """A few bytes that were looked at, and the rest of the stream."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self.head, self.stream = head, stream

    def read(self, size: int) -> bytes:
        head, self.head = self.head, b""
        return head + cast(bytes, self.stream.read(size - len(head)))


def _fits(line: bytes, limit: int, name: str, number: int) -> None:
    if len(line) > limit:
        raise DataError(f"{name}:{number}: expected lines of at most {limit:,} bytes, got a longer one (limit= allows more)")


def _decoded(block: bytes, name: str, number: int, place: int) -> str:
    zero = block.find(b"\0")
    if zero >= 0:
        line = number + block.count(b"\n", 0, zero)
        raise DataError(f"{name}:{line}: has a zero byte (byte {place + zero + 1:,} of the file); expected text in UTF-8, or in "
                        "UTF-16 with a byte order mark")
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        byte = place + error.start + 1
        raise DataError(f"{name}:{line}: expected UTF-8 ({error.reason}, byte {byte:,} of the file)") from None


def read_all(source: Source, limit: int, hint: str = "") -> bytes:
    """All bytes of `source`; `DataError`, ending with `hint`, where they are more than `limit`."""
    with open_source(source) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise DataError(f"{os.fspath(source)}: expected at most {limit >> 20:,} MiB, got more{hint}")
    return content
