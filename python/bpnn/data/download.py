"""MNIST from a public mirror. Every file is checked before it gets its name, whatever the mirror sent."""
from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from .digits import MNIST_FILES, find_file
from .idx import DataError

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")

# Of the uncompressed content: mirrors may compress differently.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
LARGEST = 64 << 20  # bytes, compressed or not: more is no MNIST file
TIMEOUT = 30.0  # seconds without an answer


def download_mnist(
    folder: str | os.PathLike[str],
    mirrors: tuple[str, ...] = MIRRORS,
    say: Callable[[str], object] = print,
) -> Path:
    """Fetches the files that `folder` lacks and returns it; tries each of `mirrors` in turn.

    Raises `DataError` naming each mirror's failure; a file that fails its checksum is never kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in MNIST_FILES:
        if find_file(folder, name) is None:
            _fetch(folder, name, mirrors, say)
    return folder


def _fetch(folder: Path, name: str, mirrors: tuple[str, ...], say: Callable[[str], object]) -> None:
    from http.client import HTTPException  # here: importing the network's half of the library takes 30 ms

    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}.gz"
        try:
            content = _get(url)
            _check(name, content)
        except (OSError, HTTPException, EOFError, zlib.error, DataError) as error:
            failures.append(f"{url}: {getattr(error, 'reason', error)}")
            continue
        _write(folder / f"{name}.gz", content)
        say(f"downloaded {url} ({len(content) / 1e6:.1f} MB, checksum verified)")
        return
    raise DataError(f"cannot download {name}: " + "; ".join(failures))


def _get(url: str) -> bytes:
    import urllib.request

    if not url.startswith(("https://", "http://")):
        raise DataError("expected an http or https address")
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        content: bytes = answer.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DataError(f"more than {LARGEST >> 20} MiB, no MNIST file")
    return content


def _check(name: str, content: bytes) -> None:
    unpacker = zlib.decompressobj(wbits=31)  # gzip; bounded, as an answer may unpack to anything
    values = unpacker.decompress(content, LARGEST)
    if not unpacker.eof or hashlib.sha256(values).hexdigest() != SHA256[name]:
        raise DataError("the checksum is not that of MNIST")


def _write(path: Path, content: bytes) -> None:
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
