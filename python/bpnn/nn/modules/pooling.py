"""Pooling: windows of planes reduced to one number each. Sizes and errors are those of the functions in `bpnn.nn.functional`.

Inputs are (N, C, *size) or (C, *size). Numbers for the axes of `size` are one for all or a tuple.
"""
from bpnn.nn import functional as F
from bpnn.nn.modules.module import Module


class _MaxPool(Module):
    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.return_indices, self.ceil_mode = padding, dilation, return_indices, ceil_mode

    def _pool(self, function, input):
        return function(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)

    def extra_repr(self):
        """The sizes."""
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
                f"ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    """The maximum of windows over (N, C, L)."""

    def forward(self, input):
        """The maxima, with `return_indices` and where they lie."""
        return self._pool(F.max_pool1d, input)


class MaxPool2d(_MaxPool):
    """The maximum of windows over (N, C, H, W)."""

    def forward(self, input):
        """The maxima, with `return_indices` and where they lie."""
        return self._pool(F.max_pool2d, input)


class MaxPool3d(_MaxPool):
    """The maximum of windows over (N, C, D, H, W)."""

    def forward(self, input):
        """The maxima, with `return_indices` and where they lie."""
        return self._pool(F.max_pool3d, input)


class _AvgPool(Module):
    def __init__(self, kernel_size, stride, padding, ceil_mode, count_include_pad):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def extra_repr(self):
        """The sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The average of windows over (N, C, L)."""

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        sizes = (kernel_size, kernel_size if stride is None else stride, padding)
        super().__init__(*(one if isinstance(one, tuple) else (one,) for one in sizes), ceil_mode, count_include_pad)

    def forward(self, input):
        """The averages."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AvgPool2d(_AvgPool):
    """The average of windows over (N, C, H, W)."""

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def forward(self, input):
        """The averages."""
        return F.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)


class AvgPool3d(AvgPool2d):
    """The average of windows over (N, C, D, H, W)."""

    def forward(self, input):
        """The averages."""
        return F.avg_pool3d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)


class _LPPool(Module):
    def __init__(self, norm_type, kernel_size, stride=None, ceil_mode=False):
        super().__init__()
        self.norm_type, self.kernel_size, self.stride, self.ceil_mode = norm_type, kernel_size, stride, ceil_mode

    def extra_repr(self):
        """The norm and the sizes."""
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
                f"ceil_mode={self.ceil_mode}")


class LPPool1d(_LPPool):
    """`(sum of x^p)^(1/p)` of windows over (N, C, L), p = `norm_type`."""

    def forward(self, input):
        """The norms."""
        return F.lp_pool1d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(_LPPool):
    """`(sum of x^p)^(1/p)` of windows over (N, C, H, W), p = `norm_type`."""

    def forward(self, input):
        """The norms."""
        return F.lp_pool2d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool3d(_LPPool):
    """`(sum of x^p)^(1/p)` of windows over (N, C, D, H, W), p = `norm_type`."""

    def forward(self, input):
        """The norms."""
        return F.lp_pool3d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class _AdaptiveAvgPool(Module):
    def __init__(self, output_size):
        super().__init__()
        self.output_size = output_size

    def extra_repr(self):
        """How many windows."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The averages of `output_size` windows of each row of (N, C, L)."""

    def forward(self, input):
        """The averages."""
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The averages of `output_size` windows of each plane of (N, C, H, W); with 1 the global average."""

    def forward(self, input):
        """The averages."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The averages of `output_size` windows of each volume of (N, C, D, H, W)."""

    def forward(self, input):
        """The averages."""
        return F.adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMaxPool(Module):
    def __init__(self, output_size, return_indices=False):
        super().__init__()
        self.output_size, self.return_indices = output_size, return_indices

    def extra_repr(self):
        """How many windows."""
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of `output_size` windows of each row of (N, C, L)."""

    def forward(self, input):
        """The maxima, with `return_indices` and where they lie."""
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maxima of `output_size` windows of each plane of (N, C, H, W)."""

    def forward(self, input):
        """The maxima, with `return_indices` and where they lie."""
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The maxima of `output_size` windows of each volume of (N, C, D, H, W)."""

    def forward(self, input):
        """The maxima, with `return_indices` and where they lie."""
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)


class _MaxUnpool(Module):
    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding

    def extra_repr(self):
        """The sizes."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The maxima of `MaxPool1d` put back to where they were, zeros elsewhere."""

    def forward(self, input, indices, output_size=None):
        """The rows."""
        return F.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(_MaxUnpool):
    """The maxima of `MaxPool2d` put back to where they were, zeros elsewhere."""

    def forward(self, input, indices, output_size=None):
        """The planes."""
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(_MaxUnpool):
    """The maxima of `MaxPool3d` put back to where they were, zeros elsewhere."""

    def forward(self, input, indices, output_size=None):
        """The volumes."""
        return F.max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)
