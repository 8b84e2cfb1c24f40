from collections.abc import Sequence

from bpcore.tensor import Operand, Tensor

Weights = Sequence[tuple[Operand, Operand, Operand | None, Operand | None, Operand | None]]

def rnn_tanh(
    input: Operand, h0: Operand | None, weights: Weights, batch_sizes: Operand | None = None,
) -> tuple[Tensor, Tensor]: ...
def rnn_relu(
    input: Operand, h0: Operand | None, weights: Weights, batch_sizes: Operand | None = None,
) -> tuple[Tensor, Tensor]: ...
def lstm(
    input: Operand, h0: Operand | None, c0: Operand | None, weights: Weights, batch_sizes: Operand | None = None,
) -> tuple[Tensor, Tensor, Tensor]: ...
def gru(input: Operand, h0: Operand | None, weights: Weights, batch_sizes: Operand | None = None) -> tuple[Tensor, Tensor]: ...
