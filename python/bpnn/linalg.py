"""Linear algebra under PyTorch's names."""
from bpcore.statistics import vector_norm

__all__ = ["vector_norm"]
