from collections.abc import Sequence
from typing import overload

from bpcore.tensor import Operand, Tensor

@overload
def layer_norm(
    input: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    *,
    residual: None = None,
) -> Tensor: ...
@overload
def layer_norm(
    input: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
    *,
    residual: Operand,
) -> tuple[Tensor, Tensor]: ...
@overload
def rms_norm(
    input: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    eps: float | None = None,
    *,
    residual: None = None,
) -> Tensor: ...
@overload
def rms_norm(
    input: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    eps: float | None = None,
    *,
    residual: Operand,
) -> tuple[Tensor, Tensor]: ...
