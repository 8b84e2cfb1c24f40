"""Convolutions and transposed convolutions over one, two or three axes; their functions are in `bpcore.conv`."""
import math

from bpnn.creation import empty
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.linear import FUSED_ACTIVATIONS
from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def _per_axis(value, axes, name):
    """One whole number for each axis."""
    items = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(items) != axes:
        raise ValueError(f"{name}: expected a whole number or {axes} of them, got {value!r}")
    return items


class _Convolution(Module):
    """What all of them share: the parameters and their starting values, uniform in ±1/sqrt(fan_in)."""

    axes: int
    transposed = False

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype,
                 output_padding=0):
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups: expected 1 or more, got {groups}")
        if in_channels % groups:
            raise ValueError(f"in_channels: expected a multiple of groups = {groups}, got {in_channels}")
        if out_channels % groups:
            raise ValueError(f"out_channels: expected a multiple of groups = {groups}, got {out_channels}")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode: expected one of {', '.join(PADDING_MODES)}, got {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups, self.padding_mode = in_channels, out_channels, groups, padding_mode
        self.kernel_size = _per_axis(kernel_size, self.axes, "kernel_size")
        self.stride = _per_axis(stride, self.axes, "stride")
        self.dilation = _per_axis(dilation, self.axes, "dilation")
        self.output_padding = _per_axis(output_padding, self.axes, "output_padding")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"padding: expected whole numbers, 'same' or 'valid', got {padding!r}")
            if padding == "same" and any(step != 1 for step in self.stride):
                raise ValueError(f"padding: 'same' needs a stride of 1, got {stride!r}")
            self.padding = padding
        else:
            self.padding = _per_axis(padding, self.axes, "padding")
        sizes = (in_channels, out_channels // groups) if self.transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(empty(*sizes, *self.kernel_size, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_channels, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = self.weight.shape[1] * math.prod(self.kernel_size)
        if self.bias is not None and fan_in:
            init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def _edges(self):
        """Elements before and after each axis, the last axis first, as `F.pad` wants them."""
        edges = []
        for axis in reversed(range(self.axes)):
            if self.padding == "same":
                total = self.dilation[axis] * (self.kernel_size[axis] - 1)
                edges += [total // 2, total - total // 2]
            else:
                edges += [0, 0] if self.padding == "valid" else [self.padding[axis]] * 2
        return edges

    def extra_repr(self):
        """The sizes, and what differs from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.axes:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.axes:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.axes:
            text += f", output_padding={self.output_padding}"
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        return text + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


class _Direct(_Convolution):
    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
                 padding_mode="zeros", device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype)

    def forward(self, input, *, activation=None):
        """The convolution of `input`; `activation` ("relu" …) is computed in the same pass."""
        parameters, padding = self._parameters, self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._edges(), PADDING_MODES[self.padding_mode]), 0
        return self.function(input, parameters["weight"], parameters["bias"], self.stride, padding, self.dilation, self.groups,
                             activation=activation)


class _Transposed(_Convolution):
    transposed = True

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True,
                 dilation=1, padding_mode="zeros", device=None, dtype=None):
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode: expected 'zeros' for a transposed convolution, got {padding_mode!r}")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype,
                         output_padding)

    def forward(self, input, output_size=None):
        """The transposed convolution of `input`; `output_size`, one number for each axis, chooses among the sizes that fit."""
        more = self.output_padding if output_size is None else self._padding_for(input, output_size)
        parameters = self._parameters
        return self.function(input, parameters["weight"], parameters["bias"], self.stride, self.padding, more, self.groups,
                             self.dilation)

    def _padding_for(self, input, output_size):
        sizes = tuple(output_size)
        if len(sizes) == input.ndim:
            sizes = sizes[-self.axes:]
        if len(sizes) != self.axes:
            raise ValueError(f"output_size: expected {self.axes} or {input.ndim} whole numbers, got {output_size!r}")
        more = []
        for axis, size in enumerate(sizes):
            least = ((input.shape[axis - self.axes] - 1) * self.stride[axis] - 2 * self.padding[axis]
                     + self.dilation[axis] * (self.kernel_size[axis] - 1) + 1)
            if not least <= size < least + self.stride[axis]:
                raise ValueError(
                    f"output_size: expected {least} to {least + self.stride[axis] - 1} along axis {axis - self.axes}, "
                    f"got {size}"
                )
            more.append(size - least)
        return tuple(more)


class Conv1d(_Direct):
    """`F.conv1d` with weight (out_channels, in_channels / groups, K) and bias (out_channels,); x: (N, C, L), y: (N, O, L')."""

    axes = 1
    function = staticmethod(F.conv1d)
    fused_activations = FUSED_ACTIVATIONS


class Conv2d(_Direct):
    """`F.conv2d` with weight (out_channels, in_channels / groups, K, L) and bias (out_channels,).

    x: (N, C, H, W) or (C, H, W); y: (N, O, H', W'). `padding`: whole numbers, "same" or "valid"; `padding_mode`: "zeros",
    "reflect", "replicate" or "circular". Weights and biases are uniform in ±1/sqrt(in_channels / groups · K · L) at first.
    `conv(x, activation="relu")` applies the activation in the same pass.

    >>> import bpnn
    >>> bpnn.nn.Conv2d(3, 8, 3, stride=2, padding=1)(bpnn.zeros(1, 3, 32, 32)).shape
    (1, 8, 16, 16)
    """

    axes = 2
    function = staticmethod(F.conv2d)
    fused_activations = FUSED_ACTIVATIONS


class Conv3d(_Direct):
    """`F.conv3d` with weight (out_channels, in_channels / groups, K, L, M); x: (N, C, D, H, W), y: (N, O, D', H', W')."""

    axes = 3
    function = staticmethod(F.conv3d)
    fused_activations = FUSED_ACTIVATIONS


class ConvTranspose1d(_Transposed):
    """`F.conv_transpose1d` with weight (in_channels, out_channels / groups, K); x: (N, C, L), y: (N, O, L')."""

    axes = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_Transposed):
    """`F.conv_transpose2d` with weight (in_channels, out_channels / groups, K, L); x: (N, C, H, W), y: (N, O, H', W').

    `forward(x, output_size=None)`: with a stride several output sizes fit; `output_size` or `output_padding` chooses one.
    """

    axes = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_Transposed):
    """`F.conv_transpose3d` with weight (in_channels, out_channels / groups, K, L, M); x: (N, C, D, H, W)."""

    axes = 3
    function = staticmethod(F.conv_transpose3d)
