"""Data sets, samplers and the loader, at PyTorch's names.

>>> import numpy as np
>>> import bpnn
>>> from bpnn.utils.data import DataLoader, TensorDataset
>>> x, y = bpnn.from_numpy(np.zeros((10, 3), np.float32)), bpnn.from_numpy(np.arange(10))
>>> [tuple(labels.shape) for _, labels in DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)]
[(4,), (4,), (2,)]
"""
from .collate import default_collate, default_convert
from .dataloader import DataLoader
from .dataset import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WorkerInfo,
    get_worker_info,
    random_split,
)
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler

__all__ = [
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "WorkerInfo",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "random_split",
]
