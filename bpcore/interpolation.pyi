from collections.abc import Sequence
from typing import Any

from bpcore.tensor import Operand

def interpolate(
    input: Operand, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any: ...
def upsample(
    input: Operand, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", align_corners: bool | None = None,
) -> Any: ...
def upsample_nearest(
    input: Operand, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Any: ...
def upsample_bilinear(
    input: Operand, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None
) -> Any: ...
