"""Activations as modules. Each is the function of the same name in `bpnn.nn.functional`, with its options kept."""
from bpnn.nn import functional as F
from bpnn.nn.modules.module import Module


class _InPlace(Module):
    """An activation that can overwrite its input."""

    def __init__(self, inplace=False):
        super().__init__()
        self.inplace = inplace

    def extra_repr(self):
        """Whether it is in place."""
        return "inplace=True" if self.inplace else ""


class ReLU(_InPlace):
    """`max(x, 0)`."""

    fused_activation = "relu"

    def forward(self, input):
        """The activation."""
        return F.relu(input, self.inplace)


class ReLU6(_InPlace):
    """`min(max(x, 0), 6)`."""

    fused_activation = "relu6"

    def forward(self, input):
        """The activation."""
        return F.relu6(input, self.inplace)


class SELU(_InPlace):
    """Scaled ELU. Klambauer et al. 2017."""

    def forward(self, input):
        """The activation."""
        return F.selu(input, self.inplace)


class SiLU(_InPlace):
    """`x sigmoid(x)`. Elfwing et al. 2017."""

    fused_activation = "silu"

    def forward(self, input):
        """The activation."""
        return F.silu(input, self.inplace)


class Mish(_InPlace):
    """`x tanh(softplus(x))`. Misra 2019."""

    def forward(self, input):
        """The activation."""
        return F.mish(input, self.inplace)


class Hardswish(_InPlace):
    """`x relu6(x + 3) / 6`. Howard et al. 2019."""

    def forward(self, input):
        """The activation."""
        return F.hardswish(input, self.inplace)


class Hardsigmoid(_InPlace):
    """`relu6(x + 3) / 6`."""

    def forward(self, input):
        """The activation."""
        return F.hardsigmoid(input, self.inplace)


class LeakyReLU(_InPlace):
    """`x` where positive, else `negative_slope x`."""

    def __init__(self, negative_slope=0.01, inplace=False):
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input):
        """The activation."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self):
        """The slope."""
        return f"negative_slope={self.negative_slope}"


class ELU(_InPlace):
    """`x` where positive, else `alpha (exp(x) - 1)`. Clevert et al. 2016."""

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input):
        """The activation."""
        return F.elu(input, self.alpha, self.inplace)


class CELU(_InPlace):
    """`max(x, 0) + min(alpha (exp(x / alpha) - 1), 0)`. Barron 2017."""

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input):
        """The activation."""
        return F.celu(input, self.alpha, self.inplace)


class Hardtanh(_InPlace):
    """`x` clamped to [min_val, max_val]."""

    def __init__(self, min_val=-1.0, max_val=1.0, inplace=False):
        super().__init__(inplace)
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input):
        """The activation."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class Sigmoid(Module):
    """`1 / (1 + exp(-x))`."""

    fused_activation = "sigmoid"

    def forward(self, input):
        """The activation."""
        return F.sigmoid(input)


class Tanh(Module):
    """`tanh(x)`."""

    fused_activation = "tanh"

    def forward(self, input):
        """The activation."""
        return F.tanh(input)


class GELU(Module):
    """`x Phi(x)`, or its tanh approximation with `approximate="tanh"`. Hendrycks and Gimpel 2016."""

    def __init__(self, approximate="none"):
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    @property
    def fused_activation(self):
        """The name of the activation for a fused product."""
        return "gelu" if self.approximate == "none" else "gelu_tanh"

    def forward(self, input):
        """The activation."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self):
        """The approximation."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """`log(1 + exp(beta x)) / beta`, linear where `beta x > threshold`."""

    def __init__(self, beta=1.0, threshold=20.0):
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input):
        """The activation."""
        return F.softplus(input, self.beta, self.threshold)


class Threshold(_InPlace):
    """`x` where it is above `threshold`, else `value`."""

    def __init__(self, threshold, value, inplace=False):
        super().__init__(inplace)
        self.threshold, self.value = threshold, value

    def forward(self, input):
        """The activation."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self):
        """The threshold and the value."""
        return f"threshold={self.threshold}, value={self.value}"


class Hardshrink(Module):
    """`x` where `|x| > lambd`, else 0."""

    def __init__(self, lambd=0.5):
        super().__init__()
        self.lambd = lambd

    def forward(self, input):
        """The activation."""
        return F.hardshrink(input, self.lambd)

    def extra_repr(self):
        """The threshold."""
        return f"{self.lambd}"


class Softshrink(Hardshrink):
    """`x` moved towards 0 by `lambd`, 0 where `|x| <= lambd`."""

    def forward(self, input):
        """The activation."""
        return F.softshrink(input, self.lambd)


class Softsign(Module):
    """`x / (1 + |x|)`."""

    def forward(self, input):
        """The activation."""
        return F.softsign(input)


class LogSigmoid(Module):
    """`log(sigmoid(x))`."""

    def forward(self, input):
        """The activation."""
        return F.logsigmoid(input)


class Softmax(Module):
    """`exp(x) / sum exp(x)` along `dim`."""

    def __init__(self, dim=None):
        super().__init__()
        self.dim = dim

    def forward(self, input):
        """The probabilities."""
        return F.softmax(input, self.dim)

    def extra_repr(self):
        """The axis."""
        return f"dim={self.dim}"


class Softmin(Softmax):
    """`exp(-x) / sum exp(-x)` along `dim`."""

    def forward(self, input):
        """The probabilities."""
        return F.softmin(input, self.dim)


class LogSoftmax(Softmax):
    """The logarithm of softmax along `dim`."""

    def forward(self, input):
        """The log-probabilities."""
        return F.log_softmax(input, self.dim)
