from bpcore.stored import StoredMatrix
from bpcore.tensor import Operand, Tensor

def lora_linear(
    input: Operand, weight: Operand | StoredMatrix, bias: Operand | None, lora_A: Operand, lora_B: Operand, scaling: float,
    adapted: Operand | None = None, *, transposed: bool = False,
) -> Tensor: ...
