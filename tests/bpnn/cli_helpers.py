"""The command `bpnn` in a process of its own, small data for it, and what its tests look at."""
import gzip
import hashlib
import os
import struct
import subprocess
import sys

import numpy as np

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def pictures(count, seed):
    """Ten patterns of 28 × 28 that are easy to tell apart, with noise, and which one each is."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.integers(0, 60, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[4 + 2 * label : 8 + 2 * label, 6:22] += 180
    images[:, [0, -1]] = images[:, :, [0, -1]] = 0
    return images.astype(np.uint8), labels.astype(np.uint8)


def write_data(folder, train=400, test=100):
    folder.mkdir(parents=True)
    arrays = (*pictures(train, 0), *pictures(test, 1))
    for name, array in zip(NAMES, arrays, strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
    return folder


def environment(**changes):
    values = {name: value for name, value in os.environ.items() if not name.startswith("BPNN")}
    return values | {"COLUMNS": "100"} | changes


def bpnn(*arguments, cwd, **changes):
    """Runs the command; `(exit code, standard output, standard error)` as an object."""
    return subprocess.run(
        [sys.executable, "-m", "bpnn", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=120, env=environment(**changes),
    )  # fmt: skip


QUICK = ("--layers", "16", "--epochs", "3", "--batch-size", "20", "--lr", "0.02", "--threads", "1")


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fails(done, words, code=1):
    """One clear line on standard error, no traceback, and the exit code."""
    assert done.returncode == code, (done.returncode, done.stderr, done.stdout)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("bpnn") and words in done.stderr, done.stderr
    assert "internal error" not in done.stderr
