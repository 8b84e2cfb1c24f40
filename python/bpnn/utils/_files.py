"""Files that are either the old one or the new one, whatever happens in between."""
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def sync_file(path: str | os.PathLike[str]) -> None:
    """Wait until the content of `path` is on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Wait until the names in the folder `path` are on the disk. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give the name of an empty temporary file beside `path`; when the block ends well, it takes the place of `path` in one step.

    When the block fails, or the process is killed, `path` is what it was.
    """
    import tempfile

    target = os.path.realpath(path)  # a link stays a link: what it points to is replaced
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{os.fspath(path)}: the folder {folder} does not exist")
    if os.path.isdir(target):
        raise IsADirectoryError(f"{os.fspath(path)}: is a folder, expected the name of a file")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    os.close(descriptor)
    try:
        yield temporary
        # mkstemp makes a file that only its owner may read; a new file gets the usual rights, a replaced one keeps its own.
        os.chmod(temporary, os.stat(target).st_mode & 0o7777 if os.path.exists(target) else 0o666 & ~_umask())
        sync_file(temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace `path` by a file of this text (UTF-8), in one step."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def next_free_folder(parent: Path, name: str) -> Path:
    """A new folder in `parent`, which is made where it is missing: `name`, name-2, name-3 …, the first that is free."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()  # fails where it exists, so two runs that start together never share one
            return folder
        except FileExistsError:
            number += 1
