from collections.abc import Sequence

import numpy as np

from bpcore.tensor import Tensor

def run_backward(
    tensors: Sequence[Tensor],
    grads: Sequence[np.ndarray | None],
    retain_graph: bool = False,
    inputs: Sequence[Tensor] | None = None,
    allow_unused: bool = False,
) -> list[np.ndarray | None] | None: ...
