"""Pictures to what a vision model reads, as `preprocessor_config.json` says: resized, divided by 255, normalized."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from bpcore.tensor import Tensor, from_array
from bpnn.pretrained import resolve
from bpnn.pretrained.safetensors_file import read_json
from bpnn.transforms import functional as T
from bpnn.utils._files import write_text

from ._outputs import ModelOutput

PREPROCESSOR_NAME = "preprocessor_config.json"
RESAMPLING = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in files
KINDS = ("ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor")
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
        self.channels = np.size(self.settings["image_mean"]) if np.ndim(self.settings["image_mean"]) else 3

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None,
        **settings: Any,
    ) -> Self:
        """The settings in `preprocessor_config.json` of a folder or a name of the Hugging Face hub; those given here go first.

        Raises `FileNotFoundError` naming the file.
        """
        return cls(**{**_read(name_or_path, revision, local_files_only)[1], **settings})

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `preprocessor_config.json` as `transformers` reads it."""
        import json

        os.makedirs(folder, exist_ok=True)
        settings = {"image_processor_type": type(self).__name__, **self.settings}
        write_text(os.path.join(os.fspath(folder), PREPROCESSOR_NAME), json.dumps(settings, indent=2, sort_keys=True) + "\n")

    def __call__(self, images: Any, *, return_tensors: str | None = None) -> ModelOutput:
        """`output.pixel_values` of one picture or a list of them.

        A picture: of Pillow (made RGB, or gray for one channel), or an array or Tensor (H, W, C), (C, H, W) or (H, W), of bytes or
        floating-point. Gray is repeated for each channel of `image_mean`; the fourth channel of RGBA is dropped. An array of four
        axes is a batch.

        return_tensors: "np" for an array, "bp" or None for a Tensor.
        """
        if return_tensors not in (None, "bp", "np"):
            raise ValueError(f"return_tensors: expected 'np', 'bp' or None, got {return_tensors!r}")
        several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 3) == 4
        pictures = [self._one(image) for image in (images if several else [images])]
        shapes = {picture.shape for picture in pictures}
        if len(shapes) != 1:
            raise ValueError(f"images: expected pictures of one shape with these settings, got {sorted(shapes)}")
        values = np.stack(pictures)
        return ModelOutput(pixel_values=values if return_tensors == "np" else from_array(values))

    def _one(self, image: Any) -> np.ndarray:
        settings, pixels = self.settings, _channels_first(image, self.channels)
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


class AutoImageProcessor:
    """The processor that a model's `preprocessor_config.json` names: `ViTImageProcessor`, or the same under another name."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None,
        **settings: Any,
    ) -> ViTImageProcessor:
        """As `ViTImageProcessor.from_pretrained`. Raises `ValueError` naming the file for the processor of another model."""
        path, content = _read(name_or_path, revision, local_files_only)
        kind = content.get("image_processor_type", content.get("feature_extractor_type", KINDS[0]))
        if kind not in KINDS:
            raise ValueError(f"{path}: image_processor_type is {kind!r}; bpnn has {', '.join(KINDS)}")
        return ViTImageProcessor(**{**content, **settings})


def _read(name_or_path: str | os.PathLike[str], revision: str | None, local: bool | None) -> tuple[str, dict[str, Any]]:
    """The path and the content of a model's `preprocessor_config.json`."""
    folder = resolve(name_or_path, revision=revision, local_files_only=local, patterns=["*.json"])
    path = folder if os.path.isfile(folder) else os.path.join(folder, PREPROCESSOR_NAME)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file; ViTImageProcessor() has the usual settings")
    return path, read_json(path)


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


def _channels_first(image: Any, channels: int) -> np.ndarray:
    """A picture as an array (channels, H, W)."""
    if hasattr(image, "getbands"):
        mode = "L" if channels == 1 else "RGB"
        image = np.asarray(image if image.mode == mode else image.convert(mode))
    pixels = image.detach().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3:
        raise ValueError(f"images: expected a picture of two or three axes, got shape {pixels.shape}")
    usual = (1, 3, channels)
    if pixels.shape[0] not in usual and pixels.shape[2] in (*usual, 4):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.shape[0] == 1:
        pixels = np.repeat(pixels, channels, 0)
    elif pixels.shape[0] == 4 and channels == 3:
        pixels = pixels[:3]
    if pixels.shape[0] != channels:
        raise ValueError(f"images: expected {channels} channels (image_mean), or gray, got a picture of shape {pixels.shape}")
    return np.ascontiguousarray(pixels)
