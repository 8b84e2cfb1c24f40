import numpy as np
from numpy.typing import DTypeLike

KINDS: tuple[str, str]
BLOCK: int

class StoredMatrix:
    kind: str
    shape: tuple[int, int]
    dtype: np.dtype
    requires_grad: bool
    def __init__(self, numbers: np.ndarray, scales: np.ndarray | None = None) -> None: ...
    @property
    def parts(self) -> tuple[np.ndarray, ...]: ...
    @property
    def nbytes(self) -> int: ...
    def take(self, places: np.ndarray, dtype: DTypeLike = "float32") -> np.ndarray: ...
    def dense(self, dtype: DTypeLike = "float32") -> np.ndarray: ...

def store(array: np.ndarray, kind: str) -> StoredMatrix: ...
