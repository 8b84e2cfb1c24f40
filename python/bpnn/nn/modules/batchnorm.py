"""Batch normalization."""
from bpnn.creation import empty, ones, zeros
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.nn.modules.module import Module
from bpnn.nn.parameter import Parameter


class NormBase(Module):
    """What batch and instance normalization share: weight and bias, running statistics."""

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, device=None, dtype=None, *, bias=True
    ):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        place = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(empty(num_features, **place)) if affine else None)
        self.register_parameter("bias", Parameter(empty(num_features, **place)) if affine and bias else None)
        self.register_buffer("running_mean", zeros(num_features, **place) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features, **place) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype="int64") if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self):
        """Forget the running statistics."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self):
        """Weight 1, bias 0, no running statistics yet."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def extra_repr(self):
        """The arguments."""
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


def check_axes(input, allowed):
    """Raise `ValueError` unless the input's number of axes is one of the two allowed."""
    if input.ndim not in allowed:
        expected = " or ".join(str(n) for n in sorted(set(allowed)))
        raise ValueError(f"input: expected {expected} axes, got shape {input.shape}")


class _BatchNorm(NormBase):
    axes: tuple[int, ...]

    def forward(self, input, *, residual=None, activation=None):
        """The normalized input; plus `residual` and through `activation` ("relu", "relu6") where given, in the same pass."""
        check_axes(input, self.axes)
        parameters, buffers, training = self._parameters, self._buffers, self.training
        mean, var, momentum = buffers["running_mean"], buffers["running_var"], self.momentum
        if training and self.track_running_stats:
            tracked = buffers["num_batches_tracked"]
            if tracked is not None:
                tracked._array[...] += 1
                tracked._changed()
                if momentum is None:
                    momentum = 1 / tracked.item()
        elif training:
            mean = var = None
        return F.batch_norm(
            input, mean, var, parameters["weight"], parameters["bias"], training or (mean is None and var is None),
            0.0 if momentum is None else momentum, self.eps, residual=residual, activation=activation,
        )


class BatchNorm1d(_BatchNorm):
    """`y = (x - mean) / sqrt(var + eps) * weight + bias`, channel by channel of (N, C) or (N, C, L). Ioffe and Szegedy 2015.

    In training the statistics are those of the batch, and the running ones take `momentum` of them (`momentum=None`: the mean over
    all batches so far), the variance with the divisor M - 1. In evaluation the running statistics are used, unless
    `track_running_stats=False`. `forward` also takes `residual=` and `activation="relu"` or `"relu6"`: act(y + residual) in one
    operation.
    """

    fused_activations = frozenset(("relu", "relu6"))
    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """`BatchNorm1d` for (N, C, H, W)."""

    fused_activations = frozenset(("relu", "relu6"))
    axes = (4,)


class BatchNorm3d(_BatchNorm):
    """`BatchNorm1d` for (N, C, D, H, W)."""

    fused_activations = frozenset(("relu", "relu6"))
    axes = (5,)
