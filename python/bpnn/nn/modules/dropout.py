"""Dropout."""
from bpnn.nn import functional as F
from bpnn.nn.modules.module import Module


class _Dropout(Module):
    def __init__(self, p=0.5, inplace=False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability between 0 and 1, got {p}")
        self.p, self.inplace = p, inplace

    def extra_repr(self):
        """The probability."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zeroes each element with probability `p` and scales the rest by 1/(1 - p); in evaluation, the identity.

    Srivastava et al. 2014.
    """

    def forward(self, input):
        """The input with some elements dropped."""
        return F.dropout(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance of SELU networks. Klambauer et al. 2017."""

    def forward(self, input):
        """The input with some elements dropped."""
        return F.alpha_dropout(input, self.p, self.training, self.inplace)
