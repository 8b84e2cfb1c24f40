"""Tools around training: `bpnn.utils.data`, `bpnn.utils.checkpoint`."""
from . import checkpoint, data

__all__ = ["checkpoint", "data"]
