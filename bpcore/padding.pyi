from collections.abc import Sequence
from typing import Any

from bpcore.tensor import Operand

def pad(input: Operand, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any: ...
