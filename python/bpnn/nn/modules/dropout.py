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


class Dropout1d(_Dropout):
    """Dropout of whole channels of (N, C, L) or (C, L)."""

    def forward(self, input):
        """The input with some channels dropped."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """Dropout of whole channels of (N, C, H, W) or (C, H, W). Tompson et al. 2015."""

    def forward(self, input):
        """The input with some channels dropped."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W)."""

    def forward(self, input):
        """The input with some channels dropped."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_Dropout):
    """Alpha dropout of whole channels."""

    def forward(self, input):
        """The input with some channels dropped."""
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)
