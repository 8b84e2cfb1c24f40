"""One door to the kinds of files a pretrained model comes in."""
import os
from typing import Any, NamedTuple

from .config import read_config
from .hub import resolve
from .safetensors_file import INDEX_SUFFIX, find_weights, open_safetensors, open_sharded
from .weights import Weights


class Source(NamedTuple):
    """A pretrained model's configuration (the keys of `config.json`), its tensors and where they are."""

    config: dict[str, Any]
    weights: Weights
    path: str


def open_weights(folder_or_file: str | os.PathLike[str], name: str = "model") -> Weights:
    """The tensors of a model folder or file by name, read when they are asked for.

    A folder: its `name`.safetensors, or the parts that `name`.safetensors.index.json lists. A file: safetensors, such an index, or
    GGUF and llama2.c's `.bin`, whose tensors get Hugging Face's names. float32 is not copied; float16, bfloat16 and quantized
    tensors become float32 when they are read.

    Raises `FileNotFoundError`; `ValueError` naming file and tensor where it is pickled, truncated or damaged.
    """
    path = os.fspath(folder_or_file)
    if os.path.isdir(path):
        path = find_weights(path, name)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.endswith(INDEX_SUFFIX):
        return open_sharded(path)
    special = _with_config(path)
    return special.weights if special else open_safetensors(path)


def open_pretrained(
    name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None,
) -> Source:
    """Configuration and tensors of a model folder, a model of the Hugging Face hub, a GGUF file or llama2.c's `.bin` file.

    Raises what `resolve`, `read_config` and `open_weights` raise.
    """
    path = resolve(name_or_path, revision=revision, local_files_only=local_files_only)
    special = None if os.path.isdir(path) else _with_config(path)
    if special:
        return special
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    return Source(read_config(folder), open_weights(path), path)


def _with_config(path: str) -> Source | None:
    """The content of a file that has its configuration in itself; None: another kind of file."""
    with open(path, "rb") as file:
        head = file.read(4)
    if head == b"GGUF" or path.lower().endswith(".gguf"):
        from .gguf_file import open_gguf
        from .gguf_models import hugging_face

        config, weights = hugging_face(open_gguf(path))
        return Source(config, weights, path)
    if path.lower().endswith(".bin"):
        from .llama2c import is_llama2c, open_llama2c

        if is_llama2c(path):
            config, weights = open_llama2c(path)
            return Source(config, weights, path)
    return None
