"""Readers of real data sets, as plain NumPy arrays.

    digits = bpnn.data.load_digits()             # MNIST where it is found, else the UCI digits of scikit-learn
    x, y = digits.train_images, digits.train_labels
"""
from .digits import Digits, find_mnist, load_digits, load_mnist, load_uci_digits
from .download import download_mnist
from .idx import DataError, read_idx

__all__ = [
    "DataError",
    "Digits",
    "download_mnist",
    "find_mnist",
    "load_digits",
    "load_mnist",
    "load_uci_digits",
    "read_idx",
]
