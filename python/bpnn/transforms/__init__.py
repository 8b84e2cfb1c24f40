"""Changes of images before they reach a network, under torchvision's names: `from bpnn import transforms as T`.

Every transform takes a single image or a whole batch, as an array or a Tensor, and works on the batch at once; each image gets
random numbers of its own. `bpnn.manual_seed` decides them, and the same images follow whether they come one by one or in
batches. `bpnn.transforms.functional` has the same without randomness. docs/transforms.md tells more.

`bpnn.transforms.text` and `bpnn.transforms.audio` change texts and recordings.
"""
from . import audio, functional, text
from .base import Compose, InterpolationMode, RandomApply, Transform
from .color import ColorJitter
from .convert import ConvertImageDtype, Grayscale, Normalize, ToTensor
from .crop import CenterCrop, Pad, RandomCrop, RandomHorizontalFlip, RandomVerticalFlip
from .erasing import RandomErasing
from .geometry import RandomAffine, RandomRotation
from .loader import TransformedLoader
from .resize import RandomResizedCrop, Resize

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "Grayscale", "InterpolationMode", "Normalize", "Pad",
    "RandomAffine", "RandomApply", "RandomCrop", "RandomErasing", "RandomHorizontalFlip", "RandomResizedCrop", "RandomRotation",
    "RandomVerticalFlip", "Resize", "ToTensor", "Transform", "TransformedLoader", "audio", "functional", "text",
]
