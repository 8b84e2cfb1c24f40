"""The transforms without randomness, as functions."""
from .color import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation
from .convert import normalize, rgb_to_grayscale, to_tensor
from .crop import center_crop, crop, hflip, pad, vflip
from .erasing import erase
from .geometry import affine, rotate
from .resize import resize, resized_crop

__all__ = [
    "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation", "affine", "center_crop", "crop", "erase", "hflip",
    "normalize", "pad", "resize", "resized_crop", "rgb_to_grayscale", "rotate", "to_tensor", "vflip",
]
