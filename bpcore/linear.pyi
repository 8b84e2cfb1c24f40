from bpcore.stored import StoredMatrix
from bpcore.tensor import Operand, Tensor

def linear(
    input: Operand, weight: Operand | StoredMatrix, bias: Operand | None = None, activation: str | None = None, *,
    transposed: bool = False,
) -> Tensor: ...
def bilinear(input1: Operand, input2: Operand, weight: Operand, bias: Operand | None = None) -> Tensor: ...
