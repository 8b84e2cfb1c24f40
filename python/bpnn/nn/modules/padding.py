"""Borders around the last one, two or three axes of (N, C, *size) or (C, *size).

`padding` is one number for all sides, or (left, right, top, bottom, front, back) as far as there are axes. Negative numbers
cut off.
"""
from bpnn.nn import functional as F
from bpnn.nn.modules.module import Module


class _Pad(Module):
    axes = 1
    mode = "constant"

    def __init__(self, padding):
        super().__init__()
        self.padding = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * (2 * self.axes)
        if len(self.padding) != 2 * self.axes:
            raise ValueError(f"padding: expected one number or {2 * self.axes}, got {padding}")

    def forward(self, input):
        """The input with its border."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self):
        """The widths of the border."""
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding, value):
        super().__init__(padding)
        self.value = value

    def forward(self, input):
        """The input with its border."""
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self):
        """The widths of the border and its value."""
        return f"padding={self.padding}, value={self.value}"


class ZeroPad1d(_Pad):
    """A border of zeros, around (N, C, L)."""


class ZeroPad2d(ZeroPad1d):
    """A border of zeros, around (N, C, H, W)."""

    axes = 2


class ZeroPad3d(ZeroPad1d):
    """A border of zeros, around (N, C, D, H, W)."""

    axes = 3


class ConstantPad1d(_ConstantPad):
    """A border of `value`, around (N, C, L)."""


class ConstantPad2d(ConstantPad1d):
    """A border of `value`, around (N, C, H, W)."""

    axes = 2


class ConstantPad3d(ConstantPad1d):
    """A border of `value`, around (N, C, D, H, W)."""

    axes = 3


class ReflectionPad1d(_Pad):
    """A border that mirrors what lies inside, without the edge, around (N, C, L)."""

    mode = "reflect"


class ReflectionPad2d(ReflectionPad1d):
    """A border that mirrors what lies inside, without the edge, around (N, C, H, W)."""

    axes = 2


class ReflectionPad3d(ReflectionPad1d):
    """A border that mirrors what lies inside, without the edge, around (N, C, D, H, W)."""

    axes = 3


class ReplicationPad1d(_Pad):
    """A border that repeats the edge, around (N, C, L)."""

    mode = "replicate"


class ReplicationPad2d(ReplicationPad1d):
    """A border that repeats the edge, around (N, C, H, W)."""

    axes = 2


class ReplicationPad3d(ReplicationPad1d):
    """A border that repeats the edge, around (N, C, D, H, W)."""

    axes = 3


class CircularPad1d(_Pad):
    """A border that goes on at the other side, around (N, C, L)."""

    mode = "circular"


class CircularPad2d(CircularPad1d):
    """A border that goes on at the other side, around (N, C, H, W)."""

    axes = 2


class CircularPad3d(CircularPad1d):
    """A border that goes on at the other side, around (N, C, D, H, W)."""

    axes = 3
