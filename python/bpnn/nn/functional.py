"""Operators on Tensors under PyTorch's names; each line says which room of `bpcore` it lives in."""
from bpnn.creation import one_hot
from bpnn.nn.multi_head import multi_head_attention_forward
from bpnn.nn.similarity import (
    cosine_embedding_loss, cosine_similarity, gaussian_nll_loss, glu, hinge_embedding_loss, margin_ranking_loss,
    multilabel_soft_margin_loss, pairwise_distance, poisson_nll_loss, prelu, soft_margin_loss, tanhshrink, triplet_margin_loss,
)

from bpcore.activation import (
    celu, elu, gelu, hardshrink, hardsigmoid, hardswish, hardtanh, leaky_relu, logsigmoid, mish, relu, relu6, selu, sigmoid,
    silu, softplus, softshrink, softsign, tanh, threshold,
)
from bpcore.adaptive import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d, adaptive_max_pool1d, adaptive_max_pool2d,
    adaptive_max_pool3d,
)
from bpcore.attention import qkv_attention, scaled_dot_product_attention, varlen_attention
from bpcore.averaging import avg_pool1d, avg_pool2d, avg_pool3d, lp_pool1d, lp_pool2d, lp_pool3d
from bpcore.batch_norm import batch_norm
from bpcore.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from bpcore.cross_entropy import cross_entropy, nll_loss
from bpcore.dropout import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from bpcore.embedding import embedding, embedding_bag
from bpcore.fold import channel_shuffle, fold, pixel_shuffle, pixel_unshuffle, unfold
from bpcore.gated import geglu, swiglu
from bpcore.group_norm import group_norm, instance_norm
from bpcore.head import linear_cross_entropy
from bpcore.interpolation import interpolate, upsample, upsample_bilinear, upsample_nearest
from bpcore.layer_norm import layer_norm, rms_norm
from bpcore.linear import bilinear, linear
from bpcore.loss import (
    binary_cross_entropy, binary_cross_entropy_with_logits, huber_loss, kl_div, l1_loss, mse_loss, smooth_l1_loss,
)
from bpcore.lora import lora_linear
from bpcore.norm import local_response_norm, normalize
from bpcore.padding import pad
from bpcore.pooling import max_pool1d, max_pool2d, max_pool3d
from bpcore.rotary import rotary_embedding
from bpcore.softmax import log_softmax, softmax, softmin
from bpcore.unpooling import max_unpool1d, max_unpool2d, max_unpool3d

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "alpha_dropout", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "batch_norm", "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu", "channel_shuffle",
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "elu", "embedding", "embedding_bag", "feature_alpha_dropout", "fold", "gaussian_nll_loss", "geglu", "gelu", "glu",
    "group_norm", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "hinge_embedding_loss", "huber_loss",
    "instance_norm", "interpolate", "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear",
    "linear_cross_entropy", "local_response_norm", "log_softmax", "logsigmoid", "lora_linear", "lp_pool1d",
    "lp_pool2d", "lp_pool3d", "margin_ranking_loss", "max_pool1d", "max_pool2d", "max_pool3d", "max_unpool1d", "max_unpool2d",
    "max_unpool3d", "mish", "mse_loss", "multi_head_attention_forward", "multilabel_soft_margin_loss", "nll_loss",
    "normalize", "one_hot", "pad", "pairwise_distance", "pixel_shuffle", "pixel_unshuffle", "poisson_nll_loss",
    "prelu", "qkv_attention", "relu", "relu6", "rms_norm", "rotary_embedding", "scaled_dot_product_attention",
    "selu", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin", "softplus", "softshrink",
    "softsign", "swiglu", "tanh", "tanhshrink", "threshold", "triplet_margin_loss", "unfold", "upsample", "upsample_bilinear",
    "upsample_nearest", "varlen_attention",
]
