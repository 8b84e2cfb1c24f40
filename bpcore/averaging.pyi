from collections.abc import Sequence
from typing import Any

from bpcore.tensor import Operand

Sizes = int | Sequence[int]

def avg_pool1d(
    input: Operand, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any: ...
def avg_pool2d(
    input: Operand, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any: ...
def avg_pool3d(
    input: Operand, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any: ...
def lp_pool1d(
    input: Operand, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Any: ...
def lp_pool2d(
    input: Operand, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Any: ...
def lp_pool3d(
    input: Operand, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> Any: ...
