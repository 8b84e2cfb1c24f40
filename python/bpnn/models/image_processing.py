"""Pictures to what a vision model reads, as `preprocessor_config.json` says: resized, divided by 255, normalized."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from bpcore.tensor import Tensor, from_array
from bpnn.pretrained.safetensors_file import read_json
from bpnn.transforms import functional as T
from bpnn.utils._files import write_text

from ._outputs import ModelOutput

PREPROCESSOR_NAME = "preprocessor_config.json"
RESAMPLING = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in files
DEFAULTS = {
    "do_resize": True, "size": {"height": 224, "width": 224}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}


class ViTImageProcessor:
    """Pictures to `pixel_values` (B, C, height, width), float32.

    Settings are the keys of `preprocessor_config.json`: do_resize, size ({"height": …, "width": …}, {"shortest_edge": …} or a
    number for both sides), resample (Pillow's number: 0 nearest, 2 bilinear, 3 bicubic), do_center_crop, crop_size, do_rescale,
    rescale_factor, do_normalize, image_mean, image_std; others are kept and written again.
    """

    def __init__(self, **settings: Any):
        self.settings = {**DEFAULTS, **{key: value for key, value in settings.items() if value is not None}}
        self.size = _size("size", self.settings["size"])
        self.crop = _size("crop_size", self.settings["crop_size"]) if self.settings.get("do_center_crop") else None
        if self.settings["resample"] not in RESAMPLING:
            raise ValueError(f"resample: expected one of {', '.join(map(str, RESAMPLING))}, got {self.settings['resample']!r}")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **settings: Any) -> Self:
        """The settings of a model folder's `preprocessor_config.json`; those given here go first.

        Raises `FileNotFoundError` naming the file.
        """
        path = os.path.join(os.fspath(folder), PREPROCESSOR_NAME)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: there is no such file; ViTImageProcessor() has the usual settings")
        return cls(**{**read_json(path), **settings})

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `preprocessor_config.json` as `transformers` reads it."""
        import json

        os.makedirs(folder, exist_ok=True)
        settings = {"image_processor_type": type(self).__name__, **self.settings}
        write_text(os.path.join(os.fspath(folder), PREPROCESSOR_NAME), json.dumps(settings, indent=2, sort_keys=True) + "\n")

    def __call__(self, images: Any) -> ModelOutput:
        """`output.pixel_values` of one picture or a list of them.

        A picture: of Pillow (made RGB), or an array or Tensor (H, W, C), (C, H, W) or (H, W), of bytes or floating-point. An array
        of four axes is a batch.
        """
        several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 3) == 4
        pictures = [self._one(image) for image in (images if several else [images])]
        shapes = {picture.shape for picture in pictures}
        if len(shapes) != 1:
            raise ValueError(f"images: expected pictures of one shape with these settings, got {sorted(shapes)}")
        return ModelOutput(pixel_values=from_array(np.stack(pictures)))

    def _one(self, image: Any) -> np.ndarray:
        settings, pixels = self.settings, _channels_first(image)
        if settings["do_resize"]:
            pixels = T.resize(pixels, self.size, RESAMPLING[settings["resample"]])
        if self.crop is not None:
            pixels = T.center_crop(pixels, self.crop)
        values = pixels.astype(np.float32)
        if settings["do_rescale"]:
            values *= np.float32(settings["rescale_factor"])
        if settings["do_normalize"]:
            values = T.normalize(values, settings["image_mean"], settings["image_std"])
        return values


def _size(key: str, size: Any) -> int | tuple[int, int]:
    """(height, width), or a number for the shorter side."""
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return int(size["height"]), int(size["width"])
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
    elif isinstance(size, int):
        return size, size
    elif isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    raise ValueError(f"{key}: expected height and width, shortest_edge or a number, got {size!r}")


def _channels_first(image: Any) -> np.ndarray:
    """A picture as an array (C, H, W)."""
    if hasattr(image, "getbands"):
        image = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    pixels = image.detach().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels[None])
    if pixels.ndim != 3:
        raise ValueError(f"images: expected a picture of two or three axes, got shape {pixels.shape}")
    if pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3):
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)
