"""ViT: an image cut into patches, each a token of a transformer's encoder. Dosovitskiy et al. 2020.

    processor = ViTImageProcessor.from_pretrained(folder)
    model = ViTForImageClassification.from_pretrained(folder)
    best = model(processor(picture).pixel_values).logits.argmax(-1)

Size letters: B images of C channels, P patches, T = P + 1 tokens (the first is the class token) of E features, H heads of D.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import bpnn
from bpnn import nn
from bpnn.nn import functional as F
from bpnn.nn import init
from bpnn.utils.checkpoint import checkpoint

from ._layers import activation_name, add_and_norm, array_of, classification_loss, joint_projection, weigh
from ._outputs import ModelOutput, only_by_name
from ._pretrained import ModelConfig, PreTrainedModel
from .image_processing import ViTImageProcessor

__all__ = ["ViTConfig", "ViTForImageClassification", "ViTImageProcessor", "ViTModel"]

JOINT_ROWS = 512  # from so many tokens on, the weights of query, key and value are put side by side: one product, one gradient


@dataclass(kw_only=True)
class ViTConfig(ModelConfig):
    """Sizes of a vision transformer under Hugging Face's keys; the defaults are those of ViT-B/16 for images of 224 × 224."""

    model_type = "vit"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    image_size: int | list[int] = 224
    patch_size: int | list[int] = 16
    num_channels: int = 3
    qkv_bias: bool = True
    encoder_stride: int = 16
    pooler_output_size: int | None = None
    pooler_act: str = "tanh"


def _pair(value: Any) -> tuple[int, int]:
    """(height, width) of a number for both, or of two."""
    height, width = value if isinstance(value, (list, tuple)) else (value, value)
    return int(height), int(width)


class ViTPatchEmbeddings(nn.Module):
    """Patches to features: a convolution whose windows do not overlap, which is one product of the patches laid out as rows."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.image_size, self.patch_size = _pair(config.image_size), _pair(config.patch_size)
        self.num_patches = math.prod(side // patch for side, patch in zip(self.image_size, self.patch_size))
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, self.patch_size, stride=self.patch_size)

    def forward(self, pixel_values: Any) -> Any:
        """(B, C, height, width) → (B, P, E); what is left over at the lower and right edges is not seen."""
        B, C, height, width = pixel_values.shape
        (high, wide), weight = self.patch_size, self.projection.weight
        if C != weight.shape[1]:
            raise ValueError(f"pixel_values: expected {weight.shape[1]} channels, got shape {pixel_values.shape}")
        rows, columns = height // high, width // wide
        seen = pixel_values[:, :, : rows * high, : columns * wide]
        patches = seen.reshape(B, C, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.reshape(B, rows * columns, C * high * wide), weight.flatten(1), self.projection.bias)


class ViTEmbeddings(nn.Module):
    """The class token and the patches, each plus what stands for its place."""

    def __init__(self, config: ViTConfig, use_mask_token: bool = False):
        super().__init__()
        E = config.hidden_size
        self.cls_token = nn.Parameter(bpnn.zeros(1, 1, E))
        self.register_parameter("mask_token", nn.Parameter(bpnn.zeros(1, 1, E)) if use_mask_token else None)
        self.patch_embeddings = ViTPatchEmbeddings(config)
        self.position_embeddings = nn.Parameter(bpnn.zeros(1, self.patch_embeddings.num_patches + 1, E))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def _interpolated(self, height: int, width: int) -> Any:
        """The embeddings of places for an image of another size, (1, T, E): bicubic over their square."""
        high, wide = self.patch_embeddings.patch_size
        positions, rows, columns = self.position_embeddings, height // high, width // wide
        known = positions.shape[1] - 1
        if rows * columns == known and height == width:
            return positions
        side = math.isqrt(known)
        plane = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        plane = F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False)
        return bpnn.cat([positions[:, :1], plane.permute(0, 2, 3, 1).flatten(1, 2)], 1)

    def forward(self, pixel_values: Any, bool_masked_pos: Any = None, interpolate_pos_encoding: bool = False) -> Any:
        """(B, C, height, width) → (B, T, E); bool_masked_pos (B, P): True puts the mask token in a patch's place."""
        size = pixel_values.shape[2:]
        if not interpolate_pos_encoding and tuple(size) != self.patch_embeddings.image_size:
            expected = " × ".join(map(str, self.patch_embeddings.image_size))
            raise ValueError(f"pixel_values: expected images of {expected}, or interpolate_pos_encoding=True; got shape "
                             f"{pixel_values.shape}")
        x = self.patch_embeddings(pixel_values)
        if bool_masked_pos is not None:
            if self.mask_token is None:
                raise ValueError("bool_masked_pos: expected None for a model without a mask token (use_mask_token=True)")
            hidden = array_of(bool_masked_pos, "bool_masked_pos").astype(bool)
            if hidden.shape != x.shape[:2]:
                raise ValueError(f"bool_masked_pos: expected shape {x.shape[:2]}, got {hidden.shape}")
            x = bpnn.where(bpnn.from_numpy(hidden).unsqueeze(-1), self.mask_token, x)
        x = bpnn.cat([self.cls_token.expand(x.shape[0], 1, x.shape[2]), x], 1)
        places = self._interpolated(*size) if interpolate_pos_encoding else self.position_embeddings
        return self.dropout(x + places)


class ViTSelfAttention(nn.Module):
    """Three maps, attention of all tokens to all."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        E, H = config.hidden_size, config.num_attention_heads
        if E % H:
            raise ValueError(f"num_attention_heads: expected a divisor of hidden_size, {E}, got {H}")
        self.heads, self.dropout_p = H, config.attention_probs_dropout_prob
        self.query = nn.Linear(E, E, bias=config.qkv_bias)
        self.key = nn.Linear(E, E, bias=config.qkv_bias)
        self.value = nn.Linear(E, E, bias=config.qkv_bias)

    def forward(self, x: Any, weights_too: bool = False, first: bool = False) -> tuple[Any, Any]:
        """(B, T, E) → (B, T, E), or with `first` (B, 1, E), and with `weights_too` the weights (B, H, T, T), else None."""
        B, T, E = x.shape
        H, p = self.heads, self.dropout_p if self.training else 0.0
        maps = self.query, self.key, self.value
        if B * T >= JOINT_ROWS and not weights_too and not first:
            y: Any = F.qkv_attention(joint_projection(x, maps, H), dropout_p=p)
            return y.flatten(2), None
        asking = x[:, :1] if first else x
        q, k, v = (map(rows).unflatten(-1, (H, E // H)).transpose(1, 2) for map, rows in zip(maps, (asking, x, x)))
        seen = None
        if weights_too:
            y, seen = weigh(q, k, v, dropout=p)
        else:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p)
        return y.transpose(1, 2).flatten(2), seen


class ViTSelfOutput(nn.Module):
    """The map behind attention, or behind the wide layer; the residual is added where the next norm is computed."""

    def __init__(self, config: ViTConfig, features: int):
        super().__init__()
        self.dense = nn.Linear(features, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Any) -> Any:
        """(B, T, features) → (B, T, E)."""
        return self.dropout(self.dense(x))


class ViTAttention(nn.Module):
    """Attention and the map behind it."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.attention = ViTSelfAttention(config)
        self.output = ViTSelfOutput(config, config.hidden_size)

    def forward(self, x: Any, weights_too: bool = False, first: bool = False) -> tuple[Any, Any]:
        """(B, T, E) → (B, T, E), or with `first` (B, 1, E), and the weights or None."""
        y, seen = self.attention(x, weights_too, first)
        return self.output(y), seen


class ViTIntermediate(nn.Module):
    """To the wide layer, and its activation."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation_name(config.hidden_act)

    def forward(self, x: Any) -> Any:
        """(B, T, E) → (B, T, intermediate_size)."""
        return self.dense(x, activation=self.activation)


class ViTLayer(nn.Module):
    """`x += attention(norm(x)); x += output(intermediate(norm(x)))`."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.attention = ViTAttention(config)
        self.intermediate = ViTIntermediate(config)
        self.output = ViTSelfOutput(config, config.intermediate_size)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Any, late: Any, weights_too: bool = False, first: bool = False) -> tuple[Any, Any, Any]:
        """x (B, T, E), to which `late` is still to be added, → the same two, and the weights of attention or None.

        first: of the class tokens alone, (B, 1, E): nobody looks at what the last layer makes of the others.
        """
        y, x = add_and_norm(self.layernorm_before, x, late)
        y, seen = self.attention(y, weights_too, first)
        y, x = add_and_norm(self.layernorm_after, x[:, :1] if first else x, y)
        return x, self.output(self.intermediate(y)), seen


class ViTEncoder(nn.Module):
    """The layers."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.layer = nn.ModuleList(ViTLayer(config) for _ in range(config.num_hidden_layers))


class ViTPooler(nn.Module):
    """A map of the class token."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.pooler_output_size or config.hidden_size)
        self.activation = activation_name(config.pooler_act, "pooler_act")

    def forward(self, x: Any) -> Any:
        """(B, T, E) → (B, pooler_output_size)."""
        return self.dense(x[:, 0], activation=self.activation)


class ViTPreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = ViTConfig
    base_model_prefix = "vit"
    heads = ("classifier.*", "pooler.*", "vit.pooler.*", "embeddings.mask_token", "vit.embeddings.mask_token")

    def start(self, module: nn.Module) -> None:
        """Truncated normal for weights, class token and places; zeros for biases."""
        deviation = self.config.initializer_range  # type: ignore[attr-defined]
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.trunc_normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ViTEmbeddings):
            init.trunc_normal_(module.cls_token, 0.0, deviation)
            init.trunc_normal_(module.position_embeddings, 0.0, deviation)
            if module.mask_token is not None:
                init.zeros_(module.mask_token)
        else:
            super().start(module)


class ViTModel(ViTPreTrainedModel):
    """The encoder; with `add_pooling_layer` a map of the class token's features (`pooler_output`) too."""

    def __init__(self, config: ViTConfig, add_pooling_layer: bool = True, use_mask_token: bool = False):
        super().__init__(config)
        self.embeddings = ViTEmbeddings(config, use_mask_token)
        self.encoder = ViTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = ViTPooler(config) if add_pooling_layer else None
        self.post_init()

    def forward(
        self, pixel_values: Any, bool_masked_pos: Any = None, *, interpolate_pos_encoding: bool | None = None,
        output_hidden_states: bool | None = None, output_attentions: bool | None = None, return_dict: bool | None = None,
    ) -> ModelOutput:
        """The features of images (B, C, height, width).

        `last_hidden_state` (B, T, E), normalized; `pooler_output`; on request `hidden_states` (L + 1 of them, before the last
        norm) and `attentions` (L times (B, H, T, T)). interpolate_pos_encoding: images of other sizes than the configuration's.
        """
        only_by_name(return_dict)
        y, states, seen = self.run(pixel_values, bool_masked_pos, interpolate_pos_encoding, output_hidden_states, output_attentions)
        pooled = None if self.pooler is None else self.pooler(y)
        return ModelOutput(last_hidden_state=y, pooler_output=pooled, hidden_states=states, attentions=seen)

    def run(
        self, pixel_values: Any, masked: Any, interpolate: bool | None, output_hidden_states: bool | None,
        output_attentions: bool | None, first: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Features (B, T, E), or those of the class tokens (B, 1, E) with `first`; hidden states and attentions, or None."""
        states_too = self.asked("output_hidden_states", output_hidden_states)
        weights_too = self.asked("output_attentions", output_attentions)
        x, late = self.embeddings(_pixels(pixel_values, self.layernorm.weight), masked, bool(interpolate)), None
        states, attentions = [x], []
        again, last = self.training and self.recompute, len(self.encoder.layer) - 1
        for i, layer in enumerate(self.encoder.layer):
            given = x, late, weights_too, first and i == last and not states_too and not weights_too
            x, late, seen = checkpoint(layer, *given) if again else layer(*given)
            if states_too:
                states.append(x + late)
            attentions.append(seen)
        y, _ = add_and_norm(self.layernorm, x, late)
        return y, tuple(states) if states_too else None, tuple(attentions) if weights_too else None


def _pixels(values: Any, like: Any) -> Any:
    """Pixels as a Tensor of the type of the parameters."""
    x = values if isinstance(values, bpnn.Tensor) else bpnn.from_numpy(array_of(values, "pixel_values"))
    if x.ndim != 4:
        raise ValueError(f"pixel_values: expected shape (images, channels, height, width), got {x.shape}")
    return x if x.dtype == like.dtype else x.to(dtype=like.dtype)


class ViTForImageClassification(ViTPreTrainedModel):
    """A linear map of the class token to the classes."""

    def __init__(self, config: ViTConfig):
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        self.start(self.classifier)

    def forward(
        self, pixel_values: Any, labels: Any = None, *, interpolate_pos_encoding: bool | None = None,
        output_hidden_states: bool | None = None, output_attentions: bool | None = None, return_dict: bool | None = None,
    ) -> ModelOutput:
        """`logits` (B, labels) of images (B, C, height, width), and with labels the `loss`; see `ViTModel` for the rest.

        labels: class numbers (B,), or where `problem_type` says "multi_label_classification", or they are floating-point, shares
        (B, labels); with one label alone ("regression") numbers (B,).
        """
        only_by_name(return_dict)
        y, states, seen = self.vit.run(pixel_values, None, interpolate_pos_encoding, output_hidden_states, output_attentions, True)
        logits = self.classifier(y[:, 0])
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return ModelOutput(loss=loss, logits=logits, hidden_states=states, attentions=seen)
