"""Files that are either the old one or the new one, whatever happens in between."""
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def sync_file(path: str | os.PathLike) -> None:
    """Wait until the content of `path` is on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: str | os.PathLike) -> None:
    """Wait until the names in the folder `path` are on the disk. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give the name of an empty temporary file beside `path`; when the block ends well, it takes the place of `path` in one step.

    When the block fails, or the process is killed, `path` is what it was.
    """
    target = Path(path)
    folder = target.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{target}: the folder {folder} does not exist")
    if target.is_dir():
        raise IsADirectoryError(f"{target}: is a folder, expected the name of a file")
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=folder)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes a file that only its owner may read; a new file gets the usual rights, a replaced one keeps its own.
        temporary.chmod(target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask())
        sync_file(temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(folder)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replace `path` by a file of this text (UTF-8), in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
