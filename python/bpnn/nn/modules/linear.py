"""Affine maps."""
import math

from bpnn.creation import empty
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter

FUSED_ACTIVATIONS = frozenset(("relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu"))     # of linear maps and convolutions


def _uniform_bias(bias, fan_in):
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
    init.uniform_(bias, -bound, bound)


class Identity(Module):
    """Gives back its input; takes and ignores any arguments."""

    def __init__(self, *args, **keywords):
        super().__init__()

    def forward(self, input):
        """`input` itself."""
        return input


class Linear(Module):
    """`y = x W^T + b`.

    x: (*, in_features); y: (*, out_features); weight: (out_features, in_features), both it and the bias uniform in
    ±1/sqrt(in_features) at first.
    """

    fused_activations = FUSED_ACTIVATIONS

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(empty(out_features, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            _uniform_bias(self.bias, self.in_features)

    def forward(self, input, *, activation=None):
        """The affine map of `input`; `activation` ("relu" …) is computed in the same pass."""
        parameters = self._parameters
        return F.linear(input, parameters["weight"], parameters["bias"], activation)

    def extra_repr(self):
        """The sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """`y_k = x1^T A_k x2 + b_k`.

    x1: (*, in1_features), x2: (*, in2_features), y: (*, out_features); weight: (out_features, in1_features, in2_features).
    """

    def __init__(self, in1_features, in2_features, out_features, bias=True, device=None, dtype=None):
        super().__init__()
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(empty(out_features, in1_features, in2_features, dtype=dtype, device=device))
        self.register_parameter("bias", Parameter(empty(out_features, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew."""
        _uniform_bias(self.weight, self.in1_features)
        if self.bias is not None:
            _uniform_bias(self.bias, self.in1_features)

    def forward(self, input1, input2):
        """The bilinear map of the two inputs."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self):
        """The sizes."""
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")
