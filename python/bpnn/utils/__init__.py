"""Tools around training: `bpnn.utils.data`."""
from . import data

__all__ = ["data"]
