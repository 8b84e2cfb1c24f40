from collections.abc import Sequence
from typing import Any

from bpcore.tensor import Operand

Sizes = int | Sequence[int]

def max_unpool1d(
    input: Operand, indices: Operand, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Any: ...
def max_unpool2d(
    input: Operand, indices: Operand, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Any: ...
def max_unpool3d(
    input: Operand, indices: Operand, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> Any: ...
