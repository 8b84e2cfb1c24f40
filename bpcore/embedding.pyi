from typing import Any

import numpy as np

from bpcore.tensor import Tensor

Operand = Tensor | np.ndarray

def embedding(
    input: Operand, weight: Operand, padding_idx: int | None = None, max_norm: float | None = None, norm_type: float = 2.0,
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any: ...
def embedding_bag(
    input: Operand, weight: Operand, offsets: Operand | None = None, max_norm: float | None = None, norm_type: float = 2,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: Operand | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Any: ...
