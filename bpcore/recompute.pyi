from collections.abc import Iterable
from typing import Any

from bpcore.tensor import Tensor

def mark() -> Any: ...
def leaves_since(tensors: Iterable[Any], begin: Any) -> tuple[list[Tensor], bool]: ...
