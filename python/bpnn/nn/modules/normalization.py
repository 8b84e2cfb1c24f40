"""Layer, group, root-mean-square and local response normalization."""
from bpnn.creation import empty
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter


def _reset(weight, bias=None):
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


def _shape(normalized_shape):
    return (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)


class LayerNorm(Module):
    """`y = (x - mean) / sqrt(var + eps) * weight + bias` over the last axes, `normalized_shape`. Ba, Kiros and Hinton 2016."""

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True, device=None, dtype=None):
        super().__init__()
        self.normalized_shape, self.eps, self.elementwise_affine = _shape(normalized_shape), eps, elementwise_affine
        place = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(empty(*self.normalized_shape, **place)) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(empty(*self.normalized_shape, **place)) if elementwise_affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Weight 1, bias 0."""
        _reset(self.weight, self.bias)

    def forward(self, input, residual=None):
        """The normalized input; with a residual the pair of `input + residual` normalized and that sum itself."""
        parameters = self._parameters
        return F.layer_norm(input, self.normalized_shape, parameters["weight"], parameters["bias"], self.eps, residual=residual)

    def extra_repr(self):
        """The arguments."""
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class RMSNorm(Module):
    """`y = x / sqrt(mean(x^2) + eps) * weight` over the last axes, `normalized_shape`; `eps=None`: the rounding of the type.

    Zhang and Sennrich 2019.
    """

    def __init__(self, normalized_shape, eps=None, elementwise_affine=True, device=None, dtype=None):
        super().__init__()
        self.normalized_shape, self.eps, self.elementwise_affine = _shape(normalized_shape), eps, elementwise_affine
        weight = Parameter(empty(*self.normalized_shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def reset_parameters(self):
        """Weight 1."""
        _reset(self.weight)

    def forward(self, x, residual=None):
        """The normalized input; with a residual the pair of `x + residual` normalized and that sum itself."""
        return F.rms_norm(x, self.normalized_shape, self._parameters["weight"], self.eps, residual=residual)

    def extra_repr(self):
        """The arguments."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """`y = (x - mean) / sqrt(var + eps) * weight + bias` over each image's `num_groups` groups of channels of (N, C, *).

    Wu and He 2018.
    """

    def __init__(self, num_groups, num_channels, eps=1e-5, affine=True, device=None, dtype=None, *, bias=True):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels: expected a multiple of num_groups={num_groups}, got {num_channels}")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        place = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(empty(num_channels, **place)) if affine else None)
        self.register_parameter("bias", Parameter(empty(num_channels, **place)) if affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Weight 1, bias 0."""
        _reset(self.weight, self.bias)

    def forward(self, input):
        """The normalized input."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        """The arguments."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class LocalResponseNorm(Module):
    """`y_c = x_c (k + alpha / size * sum(x_i^2))^-beta`, i the `size` channels around c. Krizhevsky et al. 2012."""

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input):
        """The normalized input."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self):
        """The arguments."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
