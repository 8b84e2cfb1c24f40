"""bpnn's convolutional networks as models with labels: `resnet18` … with `loss` and `logits`, a configuration and files.

The weights keep torchvision's names: `bpnn.models.resnet18(weights=folder + "/model.safetensors")` reads them.
"""
from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import bpnn
from bpnn import models, nn
from bpnn.models._layers import array_of, classification_loss
from bpnn.models._outputs import ModelOutput
from bpnn.models._pretrained import ModelConfig, PreTrainedModel
from bpnn.pretrained import open_weights, read_config, save_weights, write_config

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIZES = {"lenet5": 28, "resnet20": 32}  # pixels a side; the others 224
CHANNELS = {"lenet5": 1}
NAMES = ("alexnet", "lenet5", "mobilenet_v2", "resnet18", "resnet20", "resnet34", "resnet50", "vgg11", "vgg16")


@dataclass(kw_only=True)
class ConvolutionalConfig(ModelConfig):
    """architecture: a name in `bpnn.models`. num_channels: of the images."""

    model_type = "bpnn-convolutional"

    architecture: str = "resnet18"
    num_channels: int = 3


class ConvolutionalClassifier(PreTrainedModel):
    """A network of `bpnn.models` by name. `heads`: the names of its last linear map."""

    config_class = ConvolutionalConfig
    config: ConvolutionalConfig

    def __init__(self, config: ConvolutionalConfig):
        super().__init__(config)
        if config.architecture not in NAMES:
            raise ValueError(f"architecture: expected {', '.join(NAMES)}, got {config.architecture!r}")
        made: Any = getattr(models, config.architecture)(num_classes=config.num_labels, in_channels=config.num_channels)
        self.network = made
        self.head = [name for name, module in made.named_modules() if isinstance(module, nn.Linear)][-1]

    @property
    def heads(self) -> tuple[str, ...]:  # type: ignore[override]
        """The pattern of the last linear map's names."""
        return (f"network.{self.head}.*",)

    def forward(self, pixel_values: Any = None, labels: Any = None) -> ModelOutput:
        """`logits` (B, labels) of images (B, C, H, W), and with labels the `loss`; see `ViTForImageClassification`."""
        x = pixel_values if isinstance(pixel_values, bpnn.Tensor) else bpnn.from_numpy(array_of(pixel_values, "pixel_values"))
        logits = self.network(x)
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return ModelOutput(loss=loss, logits=logits)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **changes: Any) -> Self:
        """The network of a folder that `save_pretrained` wrote; of a safetensors file with torchvision's names, whose own name
        begins with the architecture's ("resnet18-f37072fd.safetensors"); or of an architecture's name, with new weights.

        changes: keys of the configuration. A head of another size than the file's gets new weights.
        """
        place = os.fspath(name_or_path)
        if os.path.isdir(place):
            config = ConvolutionalConfig.from_dict(read_config(place), source=place, **changes)
        else:
            content = {"architecture": architecture_of(place), "num_channels": CHANNELS.get(architecture_of(place), 3)}
            config = ConvolutionalConfig.from_dict(content, source=place, **changes)
        model = cls(config)
        if place in NAMES and not os.path.exists(place):
            warnings.warn(
                f"{place}: a name alone has no weights: new numbers were drawn; a file such as {place}-….safetensors has some",
                stacklevel=3,
            )
        else:
            model._read(open_weights(place))
        return model.eval()

    @bpnn.no_grad()
    def _read(self, weights: Mapping[str, Any]) -> None:
        own = self.network.state_dict(keep_vars=True)
        strange = sorted({*weights} - {*own})
        fits = {name: name in weights and tuple(weights[name].shape) == tuple(value.shape) for name, value in own.items()}
        wrong = [name for name, fit in fits.items() if not fit and not name.startswith(f"{self.head}.")]
        if strange or wrong:
            raise RuntimeError(
                f"{getattr(weights, 'path', 'weights')} does not fit {self.config.architecture}: "
                f"missing or of another shape: {_some(wrong)}; unexpected: {_some(strange)}"
            )
        if all(fits.values()):
            self.network.load_state_dict({name: bpnn.from_numpy(_owned(weights[name])) for name in own})
            return
        for name, value in own.items():
            if fits[name]:
                value.copy_(bpnn.from_numpy(_owned(weights[name])))

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, dtype: str | None = None, max_shard_size: int | None = 5_000_000_000,
    ) -> list[str]:
        """Write `config.json` and `model.safetensors`; returns the names of the weights' files."""
        os.makedirs(folder, exist_ok=True)
        files = save_weights(self.network, folder, dtype=dtype, max_shard_size=max_shard_size)
        write_config(folder, {**self.config.to_dict(), "architectures": [type(self).__name__]})
        return files


def _some(names: list[str]) -> str:
    """The first of some names."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"


def _owned(array: Any) -> Any:
    """A copy: what is read from a file is the file's memory, which must not be written to."""
    return array.copy()


def architecture_of(place: str) -> str:
    """The architecture that a file's or model's name begins with, "" for none; the longest of several."""
    name = os.path.basename(place).lower()
    return max((known for known in NAMES if name == known or name.startswith((f"{known}-", f"{known}."))), key=len, default="")


def is_convolutional(place: str) -> bool:
    """Whether a name, a file or a folder is of one of these networks."""
    if os.path.isdir(place):
        path = os.path.join(place, "config.json")
        return os.path.isfile(path) and read_config(place).get("model_type") == ConvolutionalConfig.model_type
    return place in NAMES or (place.endswith(".safetensors") and bool(architecture_of(place)))


def usual_settings(config: ConvolutionalConfig) -> dict[str, Any]:
    """How images are prepared for an architecture: its size, ImageNet's colors for three channels."""
    side = SIZES.get(config.architecture, 224)
    gray = {"image_mean": [0.5] * config.num_channels, "image_std": [0.5] * config.num_channels}
    return {"size": {"height": side, "width": side}, **(IMAGENET if config.num_channels == 3 else gray)}
