from typing import Any

import numpy as np
from numpy.typing import NDArray

class Packed:
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    def __init__(self, b: NDArray[Any], trans_b: bool = False) -> None: ...

def matmul(
    a: NDArray[Any],
    b: NDArray[Any] | Packed,
    out: NDArray[Any] | None = None,
    alpha: float = 1,
    beta: float = 0,
    trans_a: bool = False,
    trans_b: bool = False,
    bias: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def set_engine(name: str) -> None: ...
def get_engine() -> str: ...
