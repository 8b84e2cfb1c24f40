"""Instance normalization."""
import warnings

from bpnn.nn import functional as F
from bpnn.nn.modules.batchnorm import NormBase, check_axes


class _InstanceNorm(NormBase):
    single: int  # the axes of one image

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False, device=None, dtype=None, *, bias=True
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def forward(self, input):
        """The normalized input."""
        check_axes(input, (self.single, self.single + 1))
        channels = input.shape[-self.single]
        if channels != self.num_features:
            if self.affine:
                raise ValueError(f"input: expected {self.num_features} channels, got shape {input.shape}")
            warnings.warn(
                f"num_features is {self.num_features}, the input has {channels} channels; not used, as affine=False", stacklevel=2
            )
        if input.ndim == self.single:
            return self._normalize(input.unsqueeze(0)).squeeze(0)
        return self._normalize(input)

    def _normalize(self, input):
        return F.instance_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum, self.eps,
        )


class InstanceNorm1d(_InstanceNorm):
    """`y = (x - mean) / sqrt(var + eps) * weight + bias`, each channel of each image by itself, of (N, C, L) or (C, L).

    Without weight and bias unless `affine=True`; the same in training and in evaluation unless `track_running_stats=True`.
    Ulyanov et al. 2016.
    """

    single = 2


class InstanceNorm2d(_InstanceNorm):
    """`InstanceNorm1d` for (N, C, H, W) or (C, H, W)."""

    single = 3


class InstanceNorm3d(_InstanceNorm):
    """`InstanceNorm1d` for (N, C, D, H, W) or (C, D, H, W)."""

    single = 4
