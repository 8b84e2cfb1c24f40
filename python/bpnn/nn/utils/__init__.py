"""Helpers: clipping gradients, parameters as one vector, batch-norm folded for inference; sequences (`rnn`)."""
from bpnn.nn.utils import rnn
from bpnn.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from bpnn.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from bpnn.nn.utils.fusion import fuse_conv_bn, fuse_conv_bn_eval, fuse_conv_bn_weights

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "fuse_conv_bn", "fuse_conv_bn_eval",
    "fuse_conv_bn_weights", "get_total_norm", "parameters_to_vector", "rnn",
    "vector_to_parameters",
]
