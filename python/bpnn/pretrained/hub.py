"""Models of the Hugging Face hub by name, through the package huggingface-hub (`pip install "bpnn[hf]"`)."""
import os
import re
from collections.abc import Sequence

INSTALL = 'pip install "bpnn[hf]"'
# What a model folder needs: never the pickled weights, nor those for other programs
PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.jinja", "vocab.bpe", "1_Pooling/*.json", "2_Dense/*")
OTHERS = ("onnx/*", "openvino/*", "original/*", "consolidated*", "coreml/*", "flax*", "tf_*")
_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?", re.ASCII)


def offline() -> bool:
    """Whether the environment (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`) forbids the network."""
    names = "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def resolve(
    name_or_folder: str | os.PathLike[str], revision: str | None = None, local_files_only: bool | None = None,
    patterns: Sequence[str] | None = None, cache_dir: str | os.PathLike[str] | None = None,
) -> str:
    """The path of a folder or file, or of the local copy of a model of the hub, which is fetched where it is missing.

    What exists on the disk goes first, whatever its name. revision: a branch, a tag or, to get the same files for ever, a commit.
    local_files_only: what was fetched before, or an error; the default follows `HF_HUB_OFFLINE`. patterns: the files to fetch, by
    default configuration, safetensors and tokenizer.

    Raises `FileNotFoundError` where nothing has the name, `ImportError` where huggingface-hub is needed and missing,
    `ConnectionError` where the hub could not be asked.
    """
    name = os.fspath(name_or_folder)
    if os.path.exists(name):
        return name
    if name.startswith((".", "/", "~")) or not _NAME.fullmatch(name) or name.endswith((".safetensors", ".gguf", ".bin", ".json")):
        raise FileNotFoundError(f"{name}: there is no such folder or file, and it is no name of a model of the hub ('user/model')")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise ImportError(
            f"{name}: there is no such folder; to fetch a model of that name from the Hugging Face hub: {INSTALL}"
        ) from None
    local = offline() if local_files_only is None else local_files_only
    at = f"{name} at revision {revision!r}" if revision else name
    try:
        return str(huggingface_hub.snapshot_download(
            name, revision=revision, local_files_only=local, allow_patterns=list(patterns or PATTERNS),
            ignore_patterns=list(OTHERS), cache_dir=cache_dir,
        ))
    except errors.GatedRepoError as error:
        raise PermissionError(f"{name}: log in and agree to its terms on huggingface.co ({_first_line(error)})") from None
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(f"{name}: the hub has no revision {revision!r} of it") from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(f"{name}: neither a folder here nor a model of the hub that can be read") from None
    except errors.LocalEntryNotFoundError as error:
        if local:
            why = "local_files_only" if local_files_only else "HF_HUB_OFFLINE"
            raise FileNotFoundError(f"{at}: no such folder, and not fetched before ({why} forbids the network)") from None
        raise ConnectionError(f"{at}: no such folder, and the hub could not be asked ({_first_line(error)})") from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise ConnectionError(f"{at}: could not be fetched from the hub ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
