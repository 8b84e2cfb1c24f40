"""Readers of MNIST and the UCI digits: good files, and every kind of bad one."""
import functools
import gzip
import http.server
import struct
import threading

import numpy as np
import pytest

from bpnn.data import DataError, download, download_mnist, find_mnist, load_digits, load_mnist, load_uci_digits, read_idx
from bpnn.data.digits import MNIST_FILES

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx(array):
    """The bytes of an idx file."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def images(count, size=(6, 5), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size)).astype(np.uint8)


def labels(count):
    return (np.arange(count) % 10).astype(np.uint8)


def write_mnist(folder, compressed=True, train=30, test=12):
    """A folder of small files in MNIST's form."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(MNIST_FILES, (images(train), labels(train), images(test, seed=1), labels(test)), strict=True):
        content = idx(array)
        (folder / (name + (".gz" if compressed else ""))).write_bytes(gzip.compress(content) if compressed else content)
    return folder


# idx files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(0,), (7,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("compressed", [False, True])
def test_round_trip(tmp_path, dtype, shape, compressed):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    result = read_idx(path)
    assert result.dtype == np.dtype(dtype) and result.dtype.isnative
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 10, 15, 16, 20, -1])
def test_truncated(tmp_path, size):
    path = tmp_path / "short"
    path.write_bytes(idx(images(4))[:size])
    with pytest.raises(DataError, match=r"short: (not an idx file|truncated|its header announces)"):
        read_idx(path)


@pytest.mark.parametrize("size", [2, 9, 30, -9, -1])
def test_truncated_gzip(tmp_path, size):
    path = tmp_path / "short.gz"
    path.write_bytes(gzip.compress(idx(images(40)))[:size])
    with pytest.raises(DataError, match=r"short\.gz: .*(truncated|damaged)"):
        read_idx(path)


def test_damaged_gzip(tmp_path):
    content = bytearray(gzip.compress(idx(images(40))))
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.gz: "):
        read_idx(path)


def test_checksum_of_gzip_is_looked_at(tmp_path):
    content = bytearray(gzip.compress(idx(images(40))))
    content[-6] ^= 1
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged gzip data"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n and so on", "not an idx file"),
        (b"\0\0\x07\x01\0\0\0\0", "not an idx file"),
        (b"\0\0\x08\x00", "not an idx file"),
        (b"\0\0\x08\x02\0\0", "truncated within the header"),
        (idx(images(2)) + b"x", "but there are more"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"1234", "but there are only 4"),
    ],
)
def test_other_files(tmp_path, content, words):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_idx(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")


# MNIST ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_folder(tmp_path, compressed):
    digits = load_mnist(write_mnist(tmp_path, compressed))
    assert digits.size == (6, 5) and digits.name == "mnist"
    np.testing.assert_array_equal(digits.train_images, images(30))
    np.testing.assert_array_equal(digits.test_labels, labels(12))
    rows = digits.pixels("test")
    assert rows.shape == (12, 30) and rows.dtype == np.float32 and digits.test_labels.dtype == np.int64
    np.testing.assert_array_equal(rows, images(12, seed=1).reshape(12, 30).astype(np.float32) / 255)


def test_both_spellings(tmp_path):
    write_mnist(tmp_path, compressed=False)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert len(load_mnist(tmp_path).train_labels) == 30


def change(folder, name, array):
    (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("train-labels-idx1-ubyte", labels(29), "holds 30 images, but .* 29 labels"),
        ("train-labels-idx1-ubyte", labels(30) + 1, "expected labels 0 … 9, got 1 … 10"),
        ("train-labels-idx1-ubyte", labels(30).reshape(5, 6), "expected labels"),
        ("train-images-idx3-ubyte", images(30).reshape(30, 30), "expected images"),
        ("train-images-idx3-ubyte", images(30).astype(np.float32), "expected images"),
        ("t10k-images-idx3-ubyte", images(12, (5, 5)), r"training images are \(6, 5\), test images \(5, 5\)"),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, array, words):
    write_mnist(tmp_path)
    change(tmp_path, name, array)
    with pytest.raises(DataError, match=words):
        load_mnist(tmp_path)


def test_missing_files_are_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte missing"):
        load_mnist(tmp_path)


@pytest.mark.parametrize("inner", ["", "mnist", "MNIST/raw"])
def test_where_mnist_is_found(tmp_path, monkeypatch, inner):
    folder = write_mnist(tmp_path / "data" / inner)
    assert find_mnist(tmp_path / "data") == folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.delenv("BPNN_DATA", raising=False)
    assert find_mnist() is None
    monkeypatch.setenv("BPNN_DATA", str(tmp_path / "data"))
    assert find_mnist() == folder
    monkeypatch.delenv("BPNN_DATA")
    cached = write_mnist(tmp_path / "cache" / "bpnn" / "mnist")
    assert find_mnist() == cached
    assert load_digits().name == "mnist"


def test_a_given_folder_must_have_it(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_mnist(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no MNIST files"):
        find_mnist(tmp_path)


def test_real_mnist(mnist_dir):
    digits = load_mnist(mnist_dir)
    assert digits.train_images.shape == (60000, 28, 28) and digits.test_images.shape == (10000, 28, 28)
    assert digits.train_labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert np.bincount(digits.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# UCI -----------------------------------------------------------------------------------------------------------------


def test_uci_digits(monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    digits = load_uci_digits()
    assert digits.size == (8, 8) and len(digits.train_labels) + len(digits.test_labels) == 1797
    assert digits.pixels("train").max() == 1.0 and digits.pixels("train").min() == 0.0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.delenv("BPNN_DATA", raising=False)
    assert load_digits().name == "uci"


def test_no_data_at_all(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="give --data DIR, set BPNN_DATA, add --download, or pip install"):
        load_uci_digits()


# Download ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path):
    """A mirror on this machine: its address and its folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    folder = write_mnist(tmp_path / "mirror")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


@pytest.fixture
def known(mirror, monkeypatch):
    """The checksums of the mirror's small files, in the place of MNIST's."""
    import hashlib

    sums = {name: hashlib.sha256(gzip.decompress((mirror[1] / f"{name}.gz").read_bytes())).hexdigest() for name in MNIST_FILES}
    monkeypatch.setattr(download, "SHA256", sums)


@pytest.mark.usefixtures("known")
def test_download(mirror, tmp_path):
    said = []
    folder = download_mnist(tmp_path / "new" / "mnist", (mirror[0],), said.append)
    assert len(load_mnist(folder).train_labels) == 30
    assert len(said) == 4 and all("checksum verified" in line for line in said)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.gz" for name in MNIST_FILES)
    download_mnist(folder, ("http://127.0.0.1:1",), said.append)  # nothing is missing: nobody is asked
    assert len(said) == 4


@pytest.mark.usefixtures("known")
def test_the_next_mirror_is_tried(mirror, tmp_path):
    folder = download_mnist(tmp_path / "new", (f"{mirror[0]}/nowhere", mirror[0] + "/"), lambda line: None)
    assert len(load_mnist(folder).test_labels) == 12


@pytest.mark.parametrize("spoil", ["other", "truncated", "no gzip", "empty"])
def test_wrong_content_is_never_kept(mirror, tmp_path, known, spoil):
    path = mirror[1] / f"{MNIST_FILES[1]}.gz"
    content = path.read_bytes()
    path.write_bytes(
        {"other": gzip.compress(idx(labels(31))), "truncated": content[:-3], "no gzip": b"<html>", "empty": b""}[spoil]
    )
    with pytest.raises(DataError, match="cannot download train-labels-idx1-ubyte: http"):
        download_mnist(tmp_path / "new", (mirror[0],), lambda line: None)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{MNIST_FILES[0]}.gz"]


def test_no_mirror_answers(tmp_path):
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/.*; ftp://x/.* expected an http or https address"):
        download_mnist(tmp_path / "new", ("http://127.0.0.1:1", "ftp://x"), lambda line: None)


def test_pinned_checksums_are_those_of_the_real_files(mnist_dir):
    for name in MNIST_FILES:
        download._check(name, (mnist_dir / f"{name}.gz").read_bytes())
